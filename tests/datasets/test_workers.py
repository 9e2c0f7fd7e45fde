from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ppvcli.datasets.workers import Crew, WorkerDiedError, map_here
from ppvcli.errors import UsageError, VideoError
from tests.datasets.worker_jobs import Order, obey, process_id

REPO = Path(__file__).resolve().parents[2]

NewCrew = Callable[..., Crew]


@pytest.fixture
def new_crew() -> Iterator[NewCrew]:
    crews = []

    def build(num_workers: int = 2, num_slots: int = 6) -> Crew:
        crews.append(Crew(obey, num_workers=num_workers, num_slots=num_slots, max_bytes=64))
        return crews[-1]

    yield build
    for crew in crews:
        crew.stop()


def wait_until(condition: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def is_alive(pid: int) -> bool:
    """A zombie, which only its parent can bury, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_come_in_the_order_of_the_items_whoever_is_faster(new_crew: NewCrew) -> None:
    crew = new_crew()
    orders = [Order(i, do="sleep" if i == 1 else "answer") for i in range(50)]
    values = [result.array.copy() for result in crew.map(orders)]
    assert [value.tolist() for value in values] == [[[i] * 3] * 2 for i in range(50)]
    again = [int(result.array[0, 0]) for result in crew.map(Order(i) for i in range(7))]
    assert again == list(range(7))
    assert list(crew.map([])) == []


def test_note_comes_with_its_array(new_crew: NewCrew) -> None:
    orders = [Order(i, text=f"no {i} \udcff") for i in range(9)]
    for results in (map_here(obey, orders), new_crew().map(orders)):
        assert [(result.note, int(result.array[1, 2])) for result in results] == [
            (one.text, one.value) for one in orders
        ]


def test_broken_clip_is_a_result_and_the_worker_goes_on(new_crew: NewCrew) -> None:
    orders = [Order(i, do="fail" if i % 3 == 0 else "answer") for i in range(12)]
    for results in (list(map_here(obey, orders)), list(new_crew(1).map(orders))):
        assert [type(result).__name__ for result in results[:3]] == ["UnreadableVideoError", "Output", "Output"]
        assert [result.message for result in results if isinstance(result, VideoError)] == [
            f"can't read {i}" for i in (0, 3, 6, 9)
        ]


@pytest.mark.parametrize("text", ["x" * 15000, "\U0001f3ac" * 3500])
def test_very_long_message_is_cut(text: str, new_crew: NewCrew) -> None:
    (result,) = new_crew(1).map([Order(do="fail", text=text)])
    assert type(result).__name__ == "UnreadableVideoError"
    assert result.message.startswith(f"can't read {text[:9]}")
    with pytest.raises(UsageError, match="no such crop") as caught:
        list(new_crew(1).map([Order(do="misuse", text=text)]))
    assert caught.value.hint == "another one"
    with pytest.raises(RuntimeError, match="a bug"):
        list(new_crew(1).map([Order(do="bug", text=text)]))


def test_other_errors_come_through_and_end_the_work(new_crew: NewCrew) -> None:
    with pytest.raises(UsageError, match="no such crop") as caught:
        list(new_crew().map([Order(), Order(do="misuse"), Order()]))
    assert caught.value.hint == "another one"
    with pytest.raises(RuntimeError, match=r"(?s)a data worker failed.*ZeroDivisionError: a bug"):
        list(new_crew().map([Order(), Order(do="bug"), Order()]))


@pytest.mark.parametrize(("deed", "name"), [("die", "SIGKILL"), ("crash", "SIGSEGV")])
def test_worker_that_dies_is_an_error_that_names_its_item(deed: str, name: str, new_crew: NewCrew) -> None:
    received = []
    with pytest.raises(WorkerDiedError, match=f"was killed by {name} while it read order 4") as caught:
        for result in new_crew(2).map([Order(i, do=deed if i == 4 else "answer") for i in range(20)]):
            received.append(int(result.array[0, 0]))
    assert received == list(range(len(received)))
    assert len(received) <= 4
    assert caught.value.item == Order(4, do=deed)
    assert "memory" in (caught.value.hint or "")


def test_work_is_shared_and_a_crew_stays_for_the_next_map() -> None:
    crew = Crew(process_id, num_workers=2, num_slots=8, max_bytes=64)
    first, second = ({result.note for result in crew.map([Order()] * 30)} for _ in range(2))
    assert len(first) == 2
    assert first == second
    assert os.getpid() not in first
    crew.stop()
    assert wait_until(lambda: not any(is_alive(pid) for pid in first))


def test_map_that_is_not_finished_ends_its_workers(new_crew: NewCrew, tmp_path: Path) -> None:
    results = new_crew(2).map([Order(1), *[Order(do="spin", text=str(tmp_path))] * 5])
    next(results)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    results.close()
    assert not any(is_alive(int(path.name)) for path in tmp_path.iterdir())


def test_entries_of_the_path_that_no_import_looks_at_do_not_matter(
    new_crew: NewCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, REPO, None])
    assert [result.note for result in new_crew(1).map([Order(text="works")])] == ["works"]


def test_forgotten_crew_ends_its_workers_and_closes_its_files() -> None:
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    crew = Crew(process_id, num_workers=2, num_slots=4, max_bytes=64)
    pids = {result.note for result in crew.map([Order()] * 20)}
    del crew
    assert not any(is_alive(pid) for pid in pids)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


PARENT = """
from ppvcli.datasets.workers import Crew
from tests.datasets.worker_jobs import Order, obey

crew = Crew(obey, num_workers=3, num_slots=8, max_bytes=64)
for result in crew.map([Order(1), Order(do="spin", text={folder!r}), Order(do="spin", text={folder!r})]):
    pass
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent(sent: signal.Signals, tmp_path: Path) -> None:
    """Two workers are busy and one is idle when the signal comes; as from a terminal, Ctrl-C reaches them too."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(folder=str(tmp_path))],
        cwd=REPO,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, seconds=60)
        workers = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        assert len(workers) == 3
        if sent == signal.SIGINT:
            os.killpg(parent.pid, sent)
        else:
            parent.send_signal(sent)
        _, errors = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert errors.count("Traceback") == (1 if sent == signal.SIGINT else 0)
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers))


LARGE = """
import numpy as np
from ppvcli.datasets.workers import Crew
from tests.datasets.worker_jobs import Order, obey

crew = Crew(obey, num_workers=2, num_slots=64, max_bytes=1 << 20)
memory = np.frombuffer(crew._memory, np.uint8)
memory[:] = 1  # every page is really there
results = [int(result.array[0, 0]) for result in crew.map(Order(i) for i in range(100))]
assert results == list(range(100)), results
"""


def test_small_dev_shm_does_not_matter() -> None:
    enter = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a /dev/shm of 1 MB in a namespace of its own")
    subprocess.run([*enter, sys.executable, "-c", LARGE], cwd=REPO, check=True, timeout=120)


def test_memory_without_memfd_is_a_nameless_file(monkeypatch: pytest.MonkeyPatch, new_crew: NewCrew) -> None:
    def refused(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refused)
    assert [int(result.array[0, 0]) for result in new_crew().map(Order(i) for i in range(9))] == list(range(9))


def test_results_stay_valid_until_the_next_is_asked_for(new_crew: NewCrew) -> None:
    for i, result in enumerate(new_crew(2, num_slots=3).map(Order(i) for i in range(30))):
        time.sleep(0.005)  # the others go on meanwhile
        assert np.all(result.array == i)
