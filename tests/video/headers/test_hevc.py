"""HEVC: what its headers say, in literal bits and in the streams of x265, and that damage is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import av.error
import numpy as np
import pytest

from ppvcli.errors import VideoError
from ppvcli.video.decoding import open_video
from ppvcli.video.early_ends import EarlyEnds
from ppvcli.video.headers.bits import Bits, BitsEndError
from ppvcli.video.headers.hevc import HevcScan
from ppvcli.video.headers.hevc_order import find_starts
from ppvcli.video.headers.hevc_parameters import PictureParameters, SequenceParameters, parse_pps, parse_sps, parse_vps
from ppvcli.video.headers.hevc_slices import parse_slice_headers
from ppvcli.video.headers.hevc_syntax import read_reference_sets
from ppvcli.video.headers.order import BlockEnds, CodedOrder, UntrustedError
from ppvcli.video.plan import PlannedReader
from ppvcli.video.scan import StreamPlan
from tests.video.headers.rows import header_rows
from tests.video.matrix import ROWS, damage_packets, encode, moving_frames, x265

FUZZED = [name for name in ROWS if name.startswith("hevc") and ROWS[name].planned]
VPS, SPS, PPS = 32, 33, 34


def _parameter_sets(path: Path) -> dict[int, bytes]:
    """The payloads of the sets in the header of an mp4, by kind."""
    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    sets, place = {}, 23
    for _ in range(extradata[22]):
        size = int.from_bytes(extradata[place + 3 : place + 5], "big")
        sets[extradata[place] & 63] = extradata[place + 7 : place + 5 + size].replace(b"\0\0\3", b"\0\0")
        place += 5 + size
    return sets


def _packets(path: Path) -> tuple[bytes | None, list[bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec_context.extradata, [bytes(packet) for packet in container.demux(stream) if packet.size]


def _scan(extradata: bytes | None, packets: list[bytes]) -> CodedOrder:
    scan = HevcScan(extradata)
    for start in range(0, len(packets), 3):
        scan.feed(packets[start : start + 3])
    return scan.finish()


def _as_bytes(bits: str) -> bytes:
    bits = bits.replace(" ", "")
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def _ue(value: int) -> str:
    return f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a video of the matrix, made once a run."""
    folder = tmp_path_factory.mktemp("hevc")
    known: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in known:
            known[name] = ROWS[name].write(folder)
        return known[name]

    return get


def test_sets_of_x265_are_read_to_their_end(video: Callable[[str], Path]) -> None:
    sets = _parameter_sets(video("hevc_slices.mp4"))
    assert parse_vps(sets[VPS]) == (0, 1)
    sps = parse_sps(sets[SPS])
    assert (sps.has_chroma, sps.num_blocks, sps.num_columns, sps.block_size) == (True, 30, 6, 16)
    assert (sps.num_reorder, sps.num_buffered, sps.poc_lsb_bits, sps.reference_sets) == (2, 5, 8, ())
    pps = parse_pps(sets[PPS])
    assert pps.weighted and not pps.weighted_b and not pps.has_tiles
    for parse, kind in ((parse_vps, VPS), (parse_sps, SPS), (parse_pps, PPS)):
        with pytest.raises((BitsEndError, UntrustedError)):
            parse(sets[kind][:-2])
        with pytest.raises(UntrustedError):
            parse(sets[kind] + b"\x80")


SEQUENCE = SequenceParameters(
    sps_id=0,
    vps_id=0,
    num_sub_layers=1,
    has_chroma=True,
    num_blocks=30,
    num_columns=6,
    block_size=16,
    lowest_qp=0,
    poc_lsb_bits=8,
    num_buffered=5,
    num_reorder=2,
    has_sao=False,
    reference_sets=(((-1, True), (-3, False)), ((-2, True), (1, True), (4, False))),
    has_long_term=False,
    has_long_term_list=False,
    has_temporal_mvp=False,
    has_field_info=False,
)
PICTURE = PictureParameters(
    pps_id=0,
    sps_id=0,
    has_dependent_slices=True,
    has_output_flag=False,
    num_extra_bits=0,
    has_cabac_init=False,
    num_refs=(1, 1),
    initial_qp=26,
    has_chroma_qp=False,
    weighted=False,
    weighted_b=False,
    has_tiles=False,
    has_wavefronts=True,
    filters_across_slices=False,
    has_deblocking_override=False,
    has_deblocking=True,
    has_list_changes=False,
    has_header_extension=False,
    has_chroma_qp_lists=False,
)
BEGIN = "1" + _ue(0)
"""The first slice of a picture, with parameter set 0."""
P_END = "0" + _ue(0) + _ue(0) + _ue(0) + "1"
"""No other number of references, most candidates to merge, the usual quantizer, no rows, the last bit."""


@pytest.mark.parametrize(
    ("sets", "distances", "used"),
    [
        ("1 0", [-1, -3], [True, False]),
        ("1 1", [-2, 1, 4], [True, True, False]),
        ("0 0" + _ue(1) + _ue(1) + _ue(0) + "1" + _ue(4) + "0", [-1, 5], [True, False]),
        # the second listed set, shifted by -1, without the picture at 4 - 1: -3, 0 is left out, -1
        ("0 1" + _ue(0) + "1" + _ue(0) + "1 00 00 1", [-3, -1], [True, True]),
        # the first listed set, shifted by +2: 1, -1 unused, 2
        ("0 1" + _ue(1) + "0" + _ue(1) + "1 01 1", [1, -1, 2], [True, False, True]),
    ],
    ids=["listed", "listed second", "explicit", "predicted", "predicted from the first"],
)
def test_reference_sets_are_read_in_all_their_forms(sets: str, distances: list[int], used: list[bool]) -> None:
    data = _as_bytes(BEGIN + _ue(1) + f"{77:08b}" + sets + P_END)
    rows = header_rows(data, data)
    headers = parse_slice_headers(rows, kinds=np.array([1, 0]), sps=SEQUENCE, sets={0: PICTURE})
    assert not rows.bad.any()
    assert headers.poc_lsb.tolist() == [77, 77]
    for row in (0, 1):
        kept = headers.distances[row] != 0
        assert headers.distances[row, kept].tolist() == distances
        assert headers.used[row, kept].tolist() == used


def test_listed_reference_sets_are_read_with_those_that_are_another_one_shifted() -> None:
    explicit = _ue(1) + _ue(0) + _ue(0) + "1"  # one before, at -1, used
    shifted = "1 1" + _ue(0) + "1 1"  # both the picture at -1 - 1 and the one at -1
    partly = "1 0" + _ue(2) + "00 01 1"  # by 3: not the nearest, the next unused, and 3
    both = "0" + _ue(1) + _ue(1) + _ue(1) + "0" + _ue(0) + "1"
    bits = Bits(_as_bytes(_ue(4) + explicit + shifted + partly + both))
    assert read_reference_sets(bits) == (
        ((-1, True),),
        ((-1, True), (-2, True)),
        ((1, False), (3, True)),
        ((-2, False), (1, True)),
    )
    for bad in (_ue(65), _ue(1) + _ue(16) + _ue(0), _ue(2) + explicit + "1 0" + _ue(0) + "1 1"):
        with pytest.raises((UntrustedError, BitsEndError)):
            read_reference_sets(Bits(_as_bytes(bad + "1" * 200)))


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (1, BEGIN + _ue(3) + f"{77:08b} 1 0" + P_END),  # a slice of no type
        (1, BEGIN + _ue(1) + f"{77:08b} 1 0" + P_END[:-1] + "0"),  # the last bit
        (1, BEGIN + _ue(1) + f"{77:08b} 1 0" + "1" + _ue(20) + P_END[1:]),  # 21 references
        (1, BEGIN + _ue(1) + f"{77:08b} 0 0" + _ue(1) + _ue(0) + _ue(0) + "0" + P_END),  # none is used
        (1, BEGIN + _ue(1) + f"{77:08b} 0 0" + _ue(17) + _ue(0)),  # too many to keep
        (1, BEGIN + _ue(1) + f"{77:08b} 0 1" + _ue(5) + "1"),  # predicted from a set that is not there
        (1, BEGIN + _ue(1) + f"{77:08b} 0 1" + _ue(0) + "0" + _ue(1) + "1 1 1 1" + P_END),  # keeps itself
        (1, "1" + _ue(4) + _ue(1) + f"{77:08b} 1 0" + P_END),  # parameters that are not there
        (1, "0" + _ue(0) + "1" + f"{31:05b}" + "1 1"),  # a block outside
        (21, "1 1" + _ue(0) + _ue(2) + f"{77:08b} 1 0" + _ue(0) + _ue(0) + "1"),  # drops frames
        (21, "1 0" + _ue(0) + _ue(1) + f"{77:08b} 1 0" + P_END),  # a key picture that refers to others
    ],
)
def test_slice_header_that_a_decoder_refuses_is_bad(kind: int, header: str) -> None:
    rows = header_rows(_as_bytes(header))
    parse_slice_headers(rows, kinds=np.array([kind]), sps=SEQUENCE, sets={0: PICTURE})
    assert rows.bad.tolist() == [True]


def test_dependent_slice_says_where_it_begins_and_no_more() -> None:
    rows = header_rows(_as_bytes("0" + _ue(0) + "1" + f"{13:05b}" + _ue(2) + _ue(8) + "0" * 18 + "1"))
    headers = parse_slice_headers(rows, kinds=np.array([1]), sps=SEQUENCE, sets={0: PICTURE})
    assert not rows.bad.any()
    assert headers.is_dependent.tolist() == [True]
    assert headers.addresses.tolist() == [13]


def test_open_gop_starts_at_its_key_pictures_without_the_pictures_shown_before_them(
    video: Callable[[str], Path],
) -> None:
    order = _scan(*_packets(video("hevc_open_gop.mp4")))
    starts = np.flatnonzero(order.is_start)
    assert len(starts) > 2
    start = int(starts[1])
    assert order.ranks[start + 1] < order.ranks[start]  # an open GOP
    stream = StreamPlan(order=order, packets=None, duration_s=0.0)
    last = stream.needed(order.ranks[starts[2:3] - 1])
    assert last[0] == 0 and last[1] == start
    assert (order.ranks[last[1:]] >= order.ranks[start]).all()
    assert stream.restarts(last).tolist() == [False, True] + [False] * (len(last) - 2)
    before = stream.needed(order.ranks[start + 1 : start + 2])
    assert {0, start, start + 1} < set(before.tolist())
    assert not stream.restarts(before).any()


def test_key_picture_over_which_a_reference_reaches_is_no_start() -> None:
    # decoded I0 P2 B1 | I5 B3 B4 P6 | I8 P9; what each keeps
    ranks = np.array([0, 2, 1, 5, 3, 4, 6, 7, 8])
    is_key = np.array([True, False, False, True, False, False, False, True, False])
    own = [(1, 0), (2, 0), (2, 1), (4, 1), (4, 3), (5, 1), (5, 3), (6, 3), (8, 7)]

    def starts(pairs: list[tuple[int, int]]) -> list[int]:
        return np.flatnonzero(find_starts(ranks, is_key, np.array(pairs))).tolist()

    assert starts(own) == [0, 3, 7]
    assert starts([*own, (6, 1)]) == [0, 7]  # decoded before the key picture
    assert starts([*own, (6, 4)]) == [0, 7]  # shown before it
    assert starts([*own, (8, 6)]) == [0, 3]


@pytest.mark.parametrize("change", ["lost", "cut", "doubled", "empty", "swapped", "start code", "end of sequence"])
def test_stream_with_a_lost_or_odd_packet_is_not_trusted(change: str, video: Callable[[str], Path]) -> None:
    extradata, packets = _packets(video("hevc_open_gop.mp4"))
    place = 2
    changed = {
        "lost": packets[:place] + packets[place + 1 :],
        "cut": [*packets[:5], packets[5][:8], *packets[6:]],
        "doubled": [*packets[:5], packets[5] * 2, *packets[6:]],
        "empty": [*packets[:5], b"\0\0\0\1\0", *packets[6:]],
        "swapped": [*packets[:1], packets[3], packets[2], packets[1], *packets[4:]],
        "start code": [packets[0][:-3] + b"\0\0\1", *packets[1:]],
        "end of sequence": [packets[0] + b"\0\0\0\3\x48\1\0", *packets[1:]],
    }[change]
    assert len(_scan(extradata, packets).ranks) == len(packets)
    with pytest.raises(UntrustedError):
        _scan(extradata, changed)


@pytest.mark.parametrize(
    ("unit", "is_trusted"),
    [
        (b"\x4e\x01\x05\x02hi\x80", True),  # a user's data
        (b"\x4e\x01\x04\x04\xb5\0\x3c\0\x80", True),  # brightness
        (b"\x4e\x01\x04\x04\xb5\x58\x90\0\x80", False),  # grain of AV1
        (b"\x4e\x01\x13\x01\0\x80", False),  # grain
        (b"\x4e\x01\x2f\x01\0\x80", False),  # how to turn the picture
        (b"\x4e\x01\x06\x01\x35\x80", True),  # a point to recover from, three pictures later
        (b"\x4e\x01\x05\x09hi\x80", False),  # longer than its unit
        (b"\x46\x01\x50", True),  # a delimiter
        (b"\x7c\x01\x19hello", True),  # Dolby Vision
        (b"\x4e\x09\x05\x02hi\x80", False),  # another layer
        (b"\x52\x01\x00", False),  # reserved
    ],
)
def test_units_that_change_no_pixel_are_accepted_and_give_the_same_frames(
    unit: bytes, is_trusted: bool, video: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "extra.mkv"
    with av.open(str(video("hevc.mkv"))) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                extra = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
                extra.pts, extra.dts, extra.time_base = packet.pts, packet.dts, packet.time_base
                extra.is_keyframe, extra.stream = packet.is_keyframe, copy
                new.mux(extra)
    with open_video(path) as reader, open_video(path, decoder="sequential") as sequential:
        assert isinstance(reader, PlannedReader)
        assert (reader.fallback is None) == is_trusted, reader.fallback
        assert reader.num_frames == sequential.num_frames
        for indices in ([30], [11, 3], [22, 23, 24]):
            assert np.array_equal(reader.read(indices), sequential.read(indices))


def test_stream_that_begins_with_an_open_gop_is_planned_without_the_pictures_that_lack_references(
    video: Callable[[str], Path],
) -> None:
    path = video("hevc_begun.mkv")
    with open_video(path) as reader, open_video(path, decoder="sequential") as sequential:
        assert isinstance(reader, PlannedReader) and reader.fallback is None
        assert reader.num_frames == sequential.num_frames < len(_packets(path)[1])
        indices = np.arange(reader.num_frames)
        assert np.array_equal(reader.read(indices), sequential.read(indices))
        assert reader.fallback is None


def test_long_open_gop_video_decodes_few_pictures(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    encode(path, moving_frames(150, size=(64, 48)), codec="libx265", options=x265(keyint=15, min_keyint=15, scenecut=0))
    with open_video(path) as reader, open_video(path, decoder="sequential") as sequential:
        assert isinstance(reader, PlannedReader) and reader._plan is not None
        for number in (149, 100, 76):
            assert len(reader._plan.needed(np.array([number]))) <= 20
            assert np.array_equal(reader.read([number]), sequential.read([number]))
        assert reader.fallback is None


def _compare(path: Path, rng: np.random.Generator) -> str:
    """What became of one damaged file: not planned, given up, or trusted to the end, which is then asserted equal."""
    try:
        with open_video(path, decoder="sequential") as video:
            frames = video.read(np.arange(video.num_frames))
    except VideoError:
        with pytest.raises(VideoError), open_video(path) as video:
            video.read([video.num_frames - 1])
        return "error"
    outcome = "trusted"
    for _ in range(3):
        indices = rng.integers(0, len(frames), size=int(rng.integers(1, 6)))
        with open_video(path) as reader:
            assert isinstance(reader, PlannedReader)
            if reader.fallback is not None:
                return "not planned"
            assert reader.num_frames == len(frames)
            planned = reader.read(indices)
            if reader.fallback is not None:
                outcome = "given up"
            else:
                assert np.array_equal(planned, frames[indices]), indices
    return outcome


@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_flipped_bytes_never_give_other_frames_in_silence(
    seed: int, video: Callable[[str], Path], tmp_path: Path
) -> None:
    outcomes = {_flip_and_compare(number, video, tmp_path) for number in range(seed, seed + 20)}
    assert {"trusted", "not planned"} <= outcomes


@pytest.mark.slow
def test_flipped_bytes_of_thousands_of_copies_never_give_other_frames_in_silence(
    video: Callable[[str], Path], tmp_path: Path
) -> None:
    outcomes = [_flip_and_compare(seed, video, tmp_path) for seed in range(1000, 4000)]
    assert {"trusted", "not planned", "given up"} <= set(outcomes)


def _flip_and_compare(seed: int, video: Callable[[str], Path], folder: Path) -> str:
    rng = np.random.default_rng(seed)
    source = video(FUZZED[int(rng.integers(len(FUZZED)))])
    path = damage_packets(source, folder / source.name, seed=seed, num_bytes=int(rng.integers(1, 5)))
    return _compare(path, rng)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gray"])
def test_blocks_that_were_not_decoded_are_told_from_others(pixel_format: str) -> None:
    order = CodedOrder(
        ranks=np.arange(1),
        is_start=np.ones(1, dtype=bool),
        is_reference=np.ones(1, dtype=bool),
        packets=np.arange(1),
        spans={},
        ends=BlockEnds(block_size=16, last_blocks=[((32, 16), (48, 32))], last_use=np.arange(1)),
    )
    depth = 10 if "10" in pixel_format else 8
    frame = av.VideoFrame(64, 40, pixel_format)
    frame.pts = 0

    def fill(value: int) -> None:
        for plane in frame.planes:
            memory = np.frombuffer(memoryview(plane), np.uint16 if depth > 8 else np.uint8)
            memory[:] = value

    for missing in (0, 1 << depth - 1):
        fill(missing)
        with pytest.raises(UntrustedError, match="ends early"):
            EarlyEnds(order).check(frame)
    fill(77)
    ends = EarlyEnds(order)
    ends.check(frame)
    ends.release(None)
    with pytest.raises(UntrustedError, match="ends early"):
        EarlyEnds(order).check(frame)


def test_picture_that_ends_early_is_noticed(video: Callable[[str], Path], tmp_path: Path) -> None:
    num_noticed = 0
    for seed in range(300):
        path = _damage_payload(video("hevc_slices.mp4"), tmp_path / "early.mp4", seed=seed)
        with open_video(path, decoder="sequential") as sequential, open_video(path) as reader:
            assert isinstance(reader, PlannedReader)
            if reader.fallback is not None:
                continue
            wanted = np.array([8, 12, 20, 30])
            frames = reader.read(wanted)
            num_noticed += reader.fallback == "a picture that ends early"
            assert np.array_equal(frames, sequential.read(wanted))
        if num_noticed == 3:
            return
    raise AssertionError(f"{num_noticed} of 300 were noticed")


def _damage_payload(path: Path, target: Path, *, seed: int) -> Path:
    """A copy with two bytes in the middle of one packet changed."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size > 60]
    start, size = spans[int(rng.integers(len(spans)))]
    assert start is not None
    for place in rng.integers(start + size // 3, start + size, size=2).tolist():
        content[place] ^= int(rng.integers(1, 256))
    target.write_bytes(content)
    return target
