"""Work ahead of the caller: order, bounds, faults and the end of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ppvcli.deploy.pipeline import map_ahead


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("num_items", [0, 1, 2, 30])
def test_results_come_in_order_whatever_takes_how_long(workers: int, num_items: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item * item

    assert list(map_ahead(work, range(num_items), workers=workers)) == [item * item for item in range(num_items)]


def test_as_many_items_as_workers_are_worked_on_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert list(map_ahead(lambda item: meeting.wait() >= 0, range(6), workers=3)) == [True] * 6


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 3), (4, 7)])
def test_no_more_items_are_taken_than_the_bound_allows(workers: int, ahead: int) -> None:
    taken: list[int] = []

    class Counted:
        """Items that are there already, as many as anybody wants."""

        def __len__(self) -> int:
            return sys.maxsize

        def __iter__(self) -> Iterator[int]:
            while True:
                taken.append(len(taken))
                yield taken[-1]

    results = map_ahead(lambda item: item, Counted(), workers=workers)
    for number in range(10):
        assert next(results) == number
        assert len(taken) == number + 1 + ahead
    taken.clear()
    results = map_ahead(lambda item: item, iter(Counted()), workers=workers)
    for number in range(10):
        assert next(results) == number
        assert len(taken) <= number + 1 + ahead


@pytest.mark.parametrize("workers", [1, 8])
def test_finished_results_are_given_before_an_iterator_is_asked_for_more(workers: int) -> None:
    finished = [threading.Event() for _ in range(5)]
    known: list[int] = []
    known_when_asked: list[list[int]] = []

    def arriving() -> Iterator[int]:
        for number, event in enumerate(finished):
            yield number
            known_when_asked.append(list(known))
            assert event.wait(10)
            time.sleep(0.05)  # from the end of the work to its result

    for result in map_ahead(lambda item: (finished[item].set(), item)[1], arriving(), workers=workers):
        known.append(result)
    assert known == [0, 1, 2, 3, 4]
    for number, before in enumerate(known_when_asked):
        assert before[:number] == list(range(number))


def test_fault_of_the_work_is_raised_at_its_place() -> None:
    def work(item: int) -> float:
        return 1 / (3 - item)

    results = map_ahead(work, range(6), workers=2)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_fault_of_the_items_is_raised_to_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the list ends in the middle")

    with pytest.raises(OSError, match="in the middle"):
        list(map_ahead(lambda item: item, items(), workers=2))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_fault_of_the_items_comes_after_the_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise RuntimeError("the list ends in the middle")

    results = map_ahead(lambda item: item * item, items(), workers=workers)
    assert [next(results) for _ in range(3)] == [1, 4, 9]
    with pytest.raises(RuntimeError, match="in the middle"):
        next(results)


def test_abandoned_iteration_stops_its_threads() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.02)
        done.append(item)

    before = threading.active_count()
    results = map_ahead(work, range(1000), workers=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(done) <= 1 + 2 * 3
