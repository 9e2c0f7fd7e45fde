"""Bits, and what the headers of H.264 and MPEG-4 say: literals, both readers of bits against each other, refusals."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import av
import numpy as np
import pytest

from ppvcli.video.headers.bits import Bits, BitsEndError
from ppvcli.video.headers.h264_parameters import parse_pps, parse_sps
from ppvcli.video.headers.mjpeg import MjpegScan
from ppvcli.video.headers.mpeg4 import parse_layer
from ppvcli.video.headers.order import UntrustedError, picture_order_counts, reorder_depth
from ppvcli.video.headers.units import MOST_UNITS, messages, split_units
from ppvcli.video.scan import SCANS
from tests.video.headers.rows import header_rows
from tests.video.matrix import ROWS


def _codes(*values: int) -> bytes:
    bits = "".join(f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}" for value in values)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def test_exp_golomb_numbers_are_read_alike_one_by_one_and_by_row() -> None:
    values = [0, 1, 2, 3, 7, 8, 254, 255, 256, 4095, 65534, 5]
    one = Bits(_codes(*values))
    rows = header_rows(_codes(*values), _codes(*reversed(values)))
    read = [rows.ue(rows.all).tolist() for _ in values]
    assert [one.ue() for _ in values] == values
    assert read == [[first, second] for first, second in zip(values, reversed(values), strict=True)]
    assert not rows.bad.any()


def test_signed_numbers_alternate() -> None:
    expected = [0, 1, -1, 2, -2, 3, -3]
    one = Bits(_codes(*range(7)))
    rows = header_rows(_codes(*range(7)))
    assert [one.se() for _ in expected] == expected
    assert [rows.se(rows.all).item() for _ in expected] == expected


def test_rows_move_on_their_own() -> None:
    rows = header_rows(b"\xa5\x0f", b"\xff\x00")
    second = rows.all[1:]
    assert rows.u(second, 8).tolist() == [0xFF]
    assert rows.u(rows.all, np.array([4, 8])).tolist() == [0xA, 0]
    assert rows.flag(rows.all[:1]).tolist() == [False]
    assert rows.bad.tolist() == [False, False]
    rows.u(second, 1)
    assert rows.bad.tolist() == [False, True]


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\x01"])
def test_numbers_that_go_past_the_end_are_refused(data: bytes) -> None:
    with pytest.raises(BitsEndError):
        Bits(data).ue()
    rows = header_rows(data)
    rows.ue(rows.all)
    assert rows.bad.all()


def test_sets_of_x264_say_how_many_frames_are_held_back(tmp_path: Path) -> None:
    with av.open(str(ROWS["h264_pyramid.mp4"].write(tmp_path))) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    length = int.from_bytes(extradata[6:8], "big")
    sps = parse_sps(extradata[9 : 8 + length].replace(b"\0\0\3", b"\0\0"))
    assert (sps.num_reorder_frames, sps.poc_type, sps.has_chroma) == (2, 0, True)
    pps = parse_pps(extradata[8 + length + 4 :])
    assert pps.cabac and pps.weighted and not pps.has_redundant_count
    with pytest.raises(BitsEndError):
        parse_sps(extradata[9:14])


@pytest.mark.parametrize("name", ["h264_12.mp4", "mpeg4.avi", "mjpeg.avi"])
@pytest.mark.parametrize("change", ["lost", "cut", "doubled", "empty"])
def test_stream_with_a_lost_or_odd_packet_is_not_trusted(name: str, change: str, tmp_path: Path) -> None:
    with av.open(str(ROWS[name].write(tmp_path))) as container:
        codec = container.streams.video[0].codec_context
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]

    def scan(packets: list[bytes]) -> int:
        one = SCANS[codec.name](codec)
        for start in range(0, len(packets), 3):
            one.feed(packets[start : start + 3])
        return one.finish().num_frames

    assert scan(packets) == len(packets)
    place = 2 if change == "lost" else 5
    changed = {
        "lost": packets[:place] + packets[place + 1 :],
        "cut": [*packets[:place], packets[place][:5], *packets[place + 1 :]],
        "doubled": [*packets[:place], packets[place] * 2, *packets[place + 1 :]],
        "empty": [*packets[:place], b"\0", *packets[place + 1 :]],
    }[change]
    if name != "h264_12.mp4" and change == "lost":
        assert scan(changed) == len(packets) - 1  # they number nothing: the rest is a whole stream
        return
    with pytest.raises(UntrustedError):
        scan(changed)


@pytest.mark.parametrize("order", [(0, 1, 1), (0, 1, 2, 1), (0, 2, 1)], ids=["last lost", "doubled", "swapped"])
def test_slices_that_do_not_follow_each_other_are_refused(order: tuple[int, ...], tmp_path: Path) -> None:
    """A decoder that counts blocks takes a slice that is there twice for the one that is lost, and conceals nothing."""
    with av.open(str(ROWS["h264_slices.mp4"].write(tmp_path))) as container:
        codec = container.streams.video[0].codec_context
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    units = split_units(packets[5:6], width=4, least=2)
    contents = [units.content(number) for number in range(len(units.starts))]
    assert len(contents) == 3

    def scan(chosen: tuple[int, ...]) -> int:
        picture = b"".join(len(contents[number]).to_bytes(4, "big") + contents[number] for number in chosen)
        one = SCANS["h264"](codec)
        one.feed([*packets[:5], picture, *packets[6:]])
        return one.finish().num_frames

    assert scan((0, 1, 2)) == len(packets)
    with pytest.raises(UntrustedError, match="slices out of order"):
        scan(order)


@pytest.mark.parametrize(
    ("message", "is_trusted"),
    [
        (b"\x06\x05\x09someone.\0\x80", True),
        (b"\x06\xff\x05\x01x\x80", True),  # of kind 260
        (b"\x06\x2f\x04\0\0\0\x01\x80", False),  # turns the picture
        (b"\x06\x05\x01x\x2f\x01x\x80", False),  # the same, behind another
        (b"\x06\x05\x09hi\x80", False),  # past the end
    ],
    ids=["text", "odd kind", "turned", "second turned", "cut"],
)
def test_messages_that_change_no_pixel_leave_a_stream_trusted(message: bytes, is_trusted: bool, tmp_path: Path) -> None:
    with av.open(str(ROWS["h264_12.mp4"].write(tmp_path))) as container:
        codec = container.streams.video[0].codec_context
        packet = bytes(next(container.demux(video=0)))
    with nullcontext() if is_trusted else pytest.raises(UntrustedError):
        SCANS["h264"](codec).feed([len(message).to_bytes(4, "big") + message + packet])


def test_point_to_recover_from_is_found_among_messages() -> None:
    assert [kind for kind, _ in messages(b"\x05\x02hi\x06\x01\x80\x80")] == [5, 6]
    assert list(messages(b"\xff\x05\x02hi\x80")) == [(260, b"hi")]


@pytest.mark.parametrize(
    ("lsb", "idr", "anchors", "counts"),
    [
        ([0, 8, 4, 2, 6, 0, 4], "1000010", "1110011", [0, 8, 4, 2, 6, 0, 4]),
        ([0, 8, 0, 8, 0], "10000", "11111", [0, 8, 16, 24, 32]),  # of 4 bits: 8, 16 is a wrap
        ([5, 13, 3, 7], "0000", "1111", [0, 8, 14, 18]),  # no IDR picture first
        ([0, 6, 15, 12, 4], "10000", "11001", [0, 6, -1, 12, 4]),  # what is no anchor moves nothing
    ],
    ids=["two periods", "wrap", "no idr", "others"],
)
def test_picture_order_counts_follow_the_anchors(lsb: list[int], idr: str, anchors: str, counts: list[int]) -> None:
    flags = [np.array([digit == "1" for digit in digits]) for digits in (idr, anchors)]
    assert picture_order_counts(np.array(lsb), *flags, bits=4).tolist() == counts


def test_more_headers_than_anything_sane_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppvcli.video.headers.units.MOST_LOOKED_AT", 1000)
    found = split_units([b"\0\0\0\x02\x41\x9a" * 12], width=4, least=2)
    found.headers(np.arange(10), skip=1, num_bytes=100)
    with pytest.raises(UntrustedError, match="more slices"):
        found.headers(np.arange(11), skip=1, num_bytes=100)


def test_start_code_inside_of_a_unit_that_has_a_length_is_refused(tmp_path: Path) -> None:
    with av.open(str(ROWS["h264_12.mp4"].write(tmp_path))) as container:
        codec = container.streams.video[0].codec_context
        packet = bytearray(next(container.demux(video=0)))
    SCANS["h264"](codec).feed([bytes(packet)])
    packet[-5:-2] = b"\0\0\1"  # FFmpeg would take what follows for another unit
    with pytest.raises(UntrustedError, match="start code"):
        SCANS["h264"](codec).feed([bytes(packet)])


def test_start_codes_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """At even and odd places, at the edges of units and of what is searched at a time, in units of few values."""
    monkeypatch.setattr("ppvcli.video.headers.units._SEARCHED_PAIRS", 4)
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(600):
        contents = [rng.choice((0, 0, 1, 9), size=rng.integers(2, 9)).astype(np.uint8).tobytes() for _ in range(3)]
        packets = [len(content).to_bytes(2, "big") + content for content in contents]
        is_refused = any(b"\0\0\1" in content for content in contents)
        num_refused += is_refused
        with pytest.raises(UntrustedError, match="start code") if is_refused else nullcontext():
            split_units(packets, width=2, least=2)
    assert 150 < num_refused < 450


def test_units_of_many_packets_are_those_of_each() -> None:
    units = (b"\x09\xf0", b"\x65" * 300, b"\x41\0\0\3\1\0", b"\x06\5")
    packets = [b"".join(len(unit).to_bytes(4, "big") + unit for unit in units[:count]) for count in (1, 4, 2)]
    found = split_units(packets, width=4, least=2)
    assert found.packets.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert [found.content(number) for number in range(7)] == [units[0], *units, *units[:2]]
    headers, sizes = found.headers(np.array([2, 3]), skip=1, num_bytes=8)
    assert [header[:size].tobytes() for header, size in zip(headers, sizes, strict=True)] == [
        b"\x65" * 8,
        b"\0\0\1\0",  # without the 3 that keeps it from being a start code
    ]
    for bad in (packets[1][:-1], b"\0\0\0\1\x09", b"\0\0", packets[0] * (MOST_UNITS + 1)):
        with pytest.raises(UntrustedError, match="lengths"):
            split_units([packets[0], bad], width=4, least=2)


def _segment(kind: int, body: bytes) -> bytes:
    return bytes((0xFF, kind)) + (len(body) + 2).to_bytes(2, "big") + body


COMMENT, FRAME, SCAN = (
    _segment(0xFE, b"maker"),
    _segment(0xC0, b"\x08\0\x30\0\x40\x01\x01\x11\0"),
    _segment(0xDA, b"head"),
)
TABLE, OTHER_TABLE = (_segment(0xDB, b"\0" + bytes([value]) * 64) for value in (7, 9))
CODES = _segment(0xC4, b"\0" + bytes([0, 2]) + bytes(14) + b"ab")
TOO_MANY_CODES = _segment(0xC4, b"\0" + bytes([0, 5]) + bytes(14) + b"abcde")


def _picture(*segments: bytes, coded: bytes = b"12\xff\x0034\xff\xd156", end: bytes = b"\xff\xd9") -> bytes:
    return b"\xff\xd8" + b"".join(segments) + SCAN + coded + end


GOOD_PICTURE = _picture(COMMENT, TABLE, CODES, FRAME)


@pytest.mark.parametrize(
    "packet",
    [
        _picture(COMMENT, OTHER_TABLE, CODES, FRAME),
        _picture(COMMENT, TABLE, CODES, FRAME, coded=b""),
        _picture(COMMENT, TABLE, CODES, FRAME, end=b"\xff\xd9\0\0"),
    ],
    ids=["table of other values", "nothing coded", "padding"],
)
def test_jpeg_picture_that_stands_alone_is_accepted(packet: bytes) -> None:
    scan = MjpegScan(None, height=48)
    for one in (GOOD_PICTURE, packet):
        scan.feed([one])
    order = scan.finish()
    assert order.num_frames == 2
    assert order.is_start.all() and not order.is_reference.any()


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        GOOD_PICTURE[:-1],
        GOOD_PICTURE[:9],
        GOOD_PICTURE[1:],
        GOOD_PICTURE + b"x",
        GOOD_PICTURE * 2,
        _picture(_segment(0xFE, b"other"), TABLE, CODES, FRAME),
        _picture(COMMENT, CODES, FRAME),
        _picture(COMMENT, TABLE, CODES),
        _picture(COMMENT, TABLE, CODES, FRAME, FRAME),
        _picture(COMMENT, TABLE, TOO_MANY_CODES, FRAME),
        _picture(COMMENT, _segment(0xDB, b"\x04" + bytes(64)), CODES, FRAME),
        _picture(COMMENT, TABLE, CODES[:-1], FRAME),
        _picture(COMMENT, TABLE, CODES, FRAME, _segment(0xCC, b"")),
        _picture(COMMENT, TABLE, CODES, FRAME, coded=b"12\xff\xc034"),
        _picture(COMMENT, TABLE, CODES, FRAME, coded=b"12\xff\xff34"),
        _picture(COMMENT, TABLE, CODES, FRAME, end=b""),
    ],
)
def test_jpeg_picture_that_may_be_none_or_not_stand_alone_is_refused(packet: bytes) -> None:
    scan = MjpegScan(None, height=48)
    scan.feed([GOOD_PICTURE])
    with pytest.raises(UntrustedError):
        scan.feed([bytes(packet)])


def test_jpeg_pictures_of_half_the_height_are_refused() -> None:
    with pytest.raises(UntrustedError, match="height"):
        MjpegScan(None, height=96).feed([GOOD_PICTURE])


def test_layer_of_unusual_shape_is_refused() -> None:
    # video_object_layer of FFmpeg's encoder: rectangular, 25 per second, 64x48
    plain = "0" + "00000001" + "0" + "0001" + "1" + "01" + "1" + "0" + "00" + "1" + f"{25:016b}" + "10"
    plain += "1" + f"{64:013b}" + "1" + f"{48:013b}" + "1" + "0" + "1" + "0" + "0" + "0" + "1" + "1" + "0" + "0"

    def as_bytes(bits: str) -> bytes:
        bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    layer = parse_layer(as_bytes(plain))
    assert (layer.time_bits, layer.resolution, layer.interlaced, layer.low_delay) == (5, 25, False, True)
    with pytest.raises(UntrustedError):
        parse_layer(as_bytes(plain[:19] + "01" + plain[21:]))


def test_reorder_depth_counts_frames_decoded_before_and_shown_after() -> None:
    assert reorder_depth(np.arange(5)) == 0
    assert reorder_depth(np.array([0, 2, 1, 4, 3])) == 1
    assert reorder_depth(np.array([0, 4, 2, 1, 3, 8, 6, 5, 7])) == 2
    with pytest.raises(UntrustedError):
        reorder_depth(np.roll(np.arange(80), 1))
