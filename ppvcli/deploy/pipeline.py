"""Work on many things at once with results in order: what keeps every core busy while files are answered."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_FAREWELL_S = 2.0
"""How long an abandoned iteration waits for work under way; native code does not like the end of the process."""


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """`work(item)` of each item, in order, done by `workers` threads ahead of the caller.

    Never more than 2 * workers - 1 results wait or are made beyond the one that the caller looks at (one more where
    there is a single worker); items are taken no earlier than that needs. An iterator may keep us waiting for its next
    item, so all finished results are given first; one that is finished later waits until that item has been taken. An
    exception of `work` or of `items` is raised at its place, after the results of the items before it, and ends the
    iteration.
    """
    ahead = max(1, 2 * workers - 1)
    tasks: SimpleQueue[_Task[Item, Result] | None] = SimpleQueue()
    stopped = threading.Event()
    threads: list[threading.Thread] = []
    pending: deque[_Task[Item, Result]] = deque()

    def serve() -> None:
        while (task := tasks.get()) is not None:
            if not stopped.is_set():
                task.run(work)

    def submit(item: Item) -> None:
        task: _Task[Item, Result] = _Task(item)
        pending.append(task)
        if len(threads) < workers:
            # daemons, so that Ctrl-C does not wait for the end of a long video
            threads.append(threading.Thread(target=serve, daemon=True))
            threads[-1].start()
        tasks.put(task)

    may_wait = not isinstance(items, Sized)
    source = iter(items)
    fault: Exception | None = None
    try:
        while True:
            while may_wait and pending and pending[0].done:
                yield pending.popleft().result()
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                fault = error
                break
            submit(item)
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if fault is not None:
            raise fault
    finally:
        stopped.set()
        for _ in threads:
            tasks.put(None)
        deadline = time.monotonic() + _FAREWELL_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Task(Generic[Item, Result]):
    """An item and, when a worker has done it, its result."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._box: SimpleQueue[tuple[Result | None, BaseException | None]] = SimpleQueue()

    def run(self, work: Callable[[Item], Result]) -> None:
        try:
            self._box.put((work(self._item), None))
        except BaseException as error:  # a fault of ours: it belongs to the caller's thread
            self._box.put((None, error))

    @property
    def done(self) -> bool:
        """Whether `result` will not wait."""
        return not self._box.empty()

    def result(self) -> Result:
        result, error = self._box.get()
        if error is not None:
            raise error
        return cast(Result, result)
