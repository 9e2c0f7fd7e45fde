"""Which packets of a file are given to headers, and in what batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppvcli.errors import DecodeTimeoutError
from ppvcli.video import scan
from ppvcli.video.headers.order import UntrustedError
from ppvcli.video.limits import DecodeLimits, Watch
from ppvcli.video.scan import DEMUXED_TOGETHER, checked_packets

WATCH = Watch(Path("a.mp4"), DecodeLimits(timeout_s=None))


def packet(size: int = 5, **marks: bool) -> SimpleNamespace:
    marks = {"is_corrupt": False, "is_discard": False, **marks}
    return SimpleNamespace(size=size, iter_sidedata=lambda: iter(()), **marks)


def batches(packets: list[SimpleNamespace]) -> list[int]:
    """How many packets each batch has."""
    container: Any = SimpleNamespace(demux=lambda stream: iter(packets))
    stream: Any = None
    return [len(batch) for batch in checked_packets(container, stream, watch=WATCH)]


@pytest.mark.parametrize("count", [0, 1, DEMUXED_TOGETHER - 1, DEMUXED_TOGETHER, 3 * DEMUXED_TOGETHER + 1])
def test_an_empty_packet_at_the_end_is_no_packet(count: int) -> None:
    assert sum(batches([packet() for _ in range(count)])) == count
    assert sum(batches([*(packet() for _ in range(count)), packet(0)])) == count


@pytest.mark.parametrize("place", [0, 1, DEMUXED_TOGETHER - 1, DEMUXED_TOGETHER, 2 * DEMUXED_TOGETHER])
@pytest.mark.parametrize(
    "odd", [packet(0), packet(is_corrupt=True), packet(is_discard=True)], ids=["0", "bad", "hidden"]
)
def test_packets_that_sequential_decoding_treats_specially_are_refused(odd: SimpleNamespace, place: int) -> None:
    packets = [packet() for _ in range(2 * DEMUXED_TOGETHER + 1)]
    packets.insert(place, odd)
    with pytest.raises(UntrustedError):
        batches(packets)


def test_clock_is_looked_at_while_the_rest_is_counted() -> None:
    packets = [packet(is_discard=True), *(packet() for _ in range(2000))]
    watch = Watch(Path("a.mp4"), DecodeLimits(timeout_s=0.05))

    def slowly() -> Iterator[SimpleNamespace]:
        for one in packets:
            time.sleep(0.001)
            yield one

    container: Any = SimpleNamespace(demux=lambda stream: slowly())
    with pytest.raises(DecodeTimeoutError):
        list(checked_packets(container, container, watch=watch))


def test_batches_are_full_with_so_many_packets_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BATCH_PACKETS", 2 * DEMUXED_TOGETHER)
    monkeypatch.setattr(scan, "BATCH_BYTES", 1000)
    assert batches([packet() for _ in range(5 * DEMUXED_TOGETHER)]) == [32, 32, 16]
    assert batches([packet(100) for _ in range(2 * DEMUXED_TOGETHER + 1)]) == [16, 16, 1]
