"""A function of clips, computed by worker processes: results in order, arrays through shared memory.

A worker is a fresh Python process: it inherits nothing of a training process, neither locks nor GPU contexts nor
gigabytes of memory. Parent and workers share one nameless piece of memory, divided into slots, and two kinds of pipe:

* the parent writes an item into a free slot and the slot's number into the ticket pipe, which all workers read: whoever
  is idle takes the next one;
* the worker puts the result into the same slot and the number into its own result pipe, whose end of file says that it
  died.

The memory is a memfd, which is neither in /dev/shm (containers often allow 64 MB there) nor leaves a file behind. A
worker ends when its parent does, in whatever way, also while it is busy.
"""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ppvcli.errors import DatasetError, PpvError, VideoError
from ppvcli.processes import end_with, import_path, signal_name


class Output(NamedTuple):
    """What a function makes of an item."""

    note: Any = None
    """Something small, which is pickled."""
    array: npt.NDArray[np.uint8] = np.empty(0, np.uint8)


Result = Output | VideoError
Function = Callable[[Any], Output]
"""To be pickled, as are its items. A VideoError that it raises is a result; any other error ends the work."""

HAVE_WORKERS = os.name == "posix"
"""Elsewhere the function runs in the process itself."""

_NOTE_BYTES = 16384
"""At the start of a slot: the worker's process id, then the item, later what became of it."""
_MOST_CHARACTERS = 1500
"""Of a text that must fit into a note whatever its characters are."""
_NOTE = struct.Struct("<II")
_TICKET = struct.Struct("<I")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
_START = "import sys; sys.path[:] = {path!r}; from ppvcli.datasets.workers import serve; serve({fds})"


def map_here(function: Function, items: Iterable[Any]) -> Iterator[Result]:
    """What `Crew.map` yields, computed in this process."""
    for item in items:
        try:
            yield function(item)
        except VideoError as error:
            yield error


class WorkerDiedError(DatasetError):
    """A worker that was killed, or crashed."""

    def __init__(self, how: str, item: object) -> None:
        doing = "" if item is None else f" while it read {item}"
        super().__init__(
            f"a process that prepares clips {how}{doing}",
            hint="was memory short (see dmesg)? try a smaller batch or data.num_workers=1; ppv train --check-data "
            "finds clips that crash the decoder",
        )
        self.how = how
        self.item = item
        """What it worked on, if anything."""


class Crew:
    """Worker processes for one function. They live until `stop`, or until nobody holds the crew any more."""

    def __init__(self, function: Function, *, num_workers: int, num_slots: int, max_bytes: int) -> None:
        """`num_slots` items are under way at most; `max_bytes` is the size of the largest array."""
        self._num_slots = num_slots
        # whole pages, so that no two workers write to the same one
        self._slot_bytes = -(-(_NOTE_BYTES + max_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory_fd = _open_memory(num_slots * self._slot_bytes)
        tickets_out, self._tickets = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._workers: list[subprocess.Popen[bytes]] = []
        self.stop = weakref.finalize(self, _stop, self._workers, self._selector, self._tickets)
        try:
            self._memory = memoryview(mmap.mmap(memory_fd, num_slots * self._slot_bytes))
            for _ in range(num_workers):
                self._hire(function, tickets_out, memory_fd)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(memory_fd)
            os.close(tickets_out)

    def map(self, items: Iterable[Any]) -> Iterator[Result]:
        """The function's results, in the order of `items`; an array is to be used before the next one is asked for.

        A crew whose results are not all fetched stops.

        Raises: what the function raised that is no VideoError; WorkerDiedError.
        """
        remaining, free = iter(items), deque(range(self._num_slots))
        waiting: deque[int] = deque()
        done: set[int] = set()
        complete = False
        try:
            while True:
                self._hand_out(remaining, free, waiting)
                if not waiting:
                    break
                slot = waiting.popleft()
                while slot not in done:
                    done.update(self._wait([slot, *waiting]))
                done.remove(slot)
                yield self._result(slot)
                free.append(slot)
            complete = True
        finally:
            if not complete:
                self.stop()

    def _hire(self, function: Function, tickets_out: int, memory_fd: int) -> None:
        results_out, results_in = os.pipe()
        # Ctrl-C in a terminal is the parent's business. The worker inherits that it is blocked; a session of its own
        # would have the same effect, but the scheduler then leaves `nice` without one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            worker = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=import_path(), fds=(tickets_out, results_in, memory_fd))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(tickets_out, results_in, memory_fd),
                env={**os.environ, **_ONE_THREAD},
            )
        except BaseException:
            os.close(results_out)
            raise
        finally:
            os.close(results_in)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._workers.append(worker)
        self._selector.register(results_out, selectors.EVENT_READ, worker)
        assert worker.stdin is not None
        with suppress(BrokenPipeError), worker.stdin as pipe:  # one that died already is noticed when results are due
            pickle.dump((os.getpid(), self._slot_bytes, function), pipe)

    def _hand_out(self, remaining: Iterator[Any], free: deque[int], waiting: deque[int]) -> None:
        while free:
            try:
                item = next(remaining)
            except StopIteration:
                return
            slot = free.popleft()
            _write_note(self._memory, slot * self._slot_bytes, item, pid=0)
            with suppress(BrokenPipeError):  # all workers dead: `_wait` says so
                os.write(self._tickets, _TICKET.pack(slot))
            waiting.append(slot)

    def _wait(self, under_way: list[int]) -> list[int]:
        """Slots that are done."""
        done: list[int] = []
        for key, _ in self._selector.select():
            content = os.read(key.fd, 4096)
            if not content:
                raise self._death(key.data, [slot for slot in under_way if slot not in done])
            done += (ticket for (ticket,) in _TICKET.iter_unpack(content))
        return done

    def _death(self, worker: subprocess.Popen[bytes], under_way: list[int]) -> WorkerDiedError:
        code = worker.wait()
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        notes = (_read_note(self._memory, slot * self._slot_bytes) for slot in under_way)
        return WorkerDiedError(how, next((note for pid, note in notes if pid == worker.pid), None))

    def _result(self, slot: int) -> Result:
        start = slot * self._slot_bytes
        _, outcome = _read_note(self._memory, start)
        if isinstance(outcome, VideoError):
            return outcome
        if isinstance(outcome, BaseException):
            raise outcome
        note, shape = outcome
        size = int(np.prod(shape))
        array = np.frombuffer(self._memory, np.uint8, count=size, offset=start + _NOTE_BYTES).reshape(shape)
        return Output(note, array)


def serve(fds: tuple[int, int, int]) -> None:
    """The life of a worker. Called by nothing but `Crew`."""
    tickets, results, memory_fd = fds
    parent, slot_bytes, function = pickle.load(sys.stdin.buffer)  # noqa: S301  # of our own parent
    end_with(parent)
    memory = memoryview(mmap.mmap(memory_fd, 0))
    while ticket := os.read(tickets, _TICKET.size):
        (slot,) = _TICKET.unpack(ticket)
        start = slot * slot_bytes
        _, item = _read_note(memory, start)
        _write_note(memory, start, item, pid=os.getpid())
        outcome = _outcome(function, item, memory[start : start + slot_bytes])
        _write_note(memory, start, outcome, pid=0)
        os.write(results, ticket)


def _outcome(function: Function, item: Any, slot: memoryview) -> tuple[Any, tuple[int, ...]] | Exception:
    """The note and the shape of the array, which then lies in the slot, or the error."""
    try:
        note, array = function(item)
        np.copyto(np.frombuffer(slot, np.uint8, count=array.size, offset=_NOTE_BYTES), array.reshape(-1))
        return note, array.shape
    except (PpvError, OSError) as error:  # the system's errors say enough by themselves
        return error
    except Exception:
        return RuntimeError(f"a data worker failed:\n{traceback.format_exc()}")


def _write_note(memory: memoryview, start: int, value: object, *, pid: int) -> None:
    """`pid` is that of a worker that has begun with the item."""
    content = pickle.dumps(value)
    if len(content) > _NOTE_BYTES - _NOTE.size:
        if not isinstance(value, Exception):
            raise ValueError(f"{len(content)} bytes are too much for a worker's note")
        content = pickle.dumps(_shortened(value))
    _NOTE.pack_into(memory, start, pid, len(content))
    memory[start + _NOTE.size : start + _NOTE.size + len(content)] = content


def _shortened(error: Exception) -> Exception:
    """An error of ours with the beginning of its message; of any other the end, where a traceback has its point."""
    if not isinstance(error, PpvError):
        return RuntimeError(str(error)[-_MOST_CHARACTERS:])
    shorter = copy.copy(error)
    shorter.message = error.message[:_MOST_CHARACTERS]
    shorter.hint = None if error.hint is None else error.hint[:_MOST_CHARACTERS]
    return shorter


def _read_note(memory: memoryview, start: int) -> tuple[int, Any]:
    pid, size = _NOTE.unpack_from(memory, start)
    return pid, pickle.loads(memory[start + _NOTE.size : start + _NOTE.size + size])  # noqa: S301  # of our own


def _open_memory(num_bytes: int) -> int:
    """A file without a name that processes map together."""
    try:
        memory_fd = os.memfd_create("ppv-clips")
    except (AttributeError, OSError):  # not Linux, or not allowed
        with tempfile.TemporaryFile() as file:
            memory_fd = os.dup(file.fileno())
    os.ftruncate(memory_fd, num_bytes)
    return memory_fd


def _stop(workers: list[subprocess.Popen[bytes]], selector: selectors.BaseSelector, tickets: int) -> None:
    for worker in workers:
        worker.kill()  # it holds nothing that needs care
    for worker in workers:
        worker.wait()
    fds = [key.fd for key in list(selector.get_map().values())]
    selector.close()
    for fd in (*fds, tickets):
        os.close(fd)
