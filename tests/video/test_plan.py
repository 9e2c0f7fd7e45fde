"""The decoding plan against sequential decoding: the same frames, bit for bit, for every file of the matrix."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppvcli.errors import DecodeTimeoutError, FrameIndexError, FrameTooLargeError, UsageError, VideoError
from ppvcli.specs import Preprocess, Sampling
from ppvcli.video import plan, scan, sequential
from ppvcli.video.clip import load_frames, load_train_frames
from ppvcli.video.container import OpenStream, open_stream
from ppvcli.video.decoding import READERS, open_video, read_frames
from ppvcli.video.headers.order import CodedOrder
from ppvcli.video.limits import DecodeLimits
from ppvcli.video.plan import PlannedReader
from ppvcli.video.scan import StreamPlan
from ppvcli.video.sequential import SequentialReader
from ppvcli.video.transforms import Augment
from tests.video.matrix import NUM_FRAMES, ROWS, damage_packets, encode, moving_frames
from tests.video.protocols import VIDEO_JOBS

PLANNED = [name for name, row in ROWS.items() if row.planned]
UNSURE_TIMES = {"h264_swapped.mkv", "h264_repeated.mkv", "hevc_repeated.mkv"}
EVERY_RUN = settings(
    max_examples=60,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A video and what sequential decoding makes of it; its frames may differ in size."""

    path: Path
    frames: list[npt.NDArray[np.uint8]]
    duration_s: float


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Truth]:
    """Gives a video of the matrix, made once a run, with its frames."""
    folder = tmp_path_factory.mktemp("matrix")
    known: dict[str, Truth] = {}

    def get(name: str) -> Truth:
        if name not in known:
            known[name] = _decode_sequentially(ROWS[name].write(folder))
        return known[name]

    return get


def _decode_sequentially(path: Path) -> Truth:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        turns = []
        frames = []
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                decoded = [] if packet is None else packet.decode()
            except IndexError:  # a stream that appears within the file
                packets = container.demux(stream)
                continue
            except av.error.FFmpegError:
                continue
            if packet is None:
                break
            turns += [round(frame.rotation / 90) for frame in decoded]
            frames += [frame.to_ndarray(format="rgb24") for frame in decoded]
    with open_video(path, decoder="sequential") as video:
        duration_s = video.duration_s
    frames = [np.rot90(frame, turn) for frame, turn in zip(frames, turns, strict=True)]
    return Truth(path=path, frames=frames, duration_s=duration_s)


def _assert_equal(frames: npt.NDArray[np.uint8], truth: Truth, indices: list[int]) -> None:
    assert len(frames) == len(indices)
    for frame, index in zip(frames, indices, strict=True):
        assert np.array_equal(frame, truth.frames[index]), f"frame {index}"


@pytest.mark.parametrize("name", ROWS)
def test_every_video_of_the_matrix_gives_the_frames_of_sequential_decoding(
    name: str, truth: Callable[[str], Truth]
) -> None:
    known = truth(name)
    num_frames = len(known.frames)
    with open_video(known.path) as video:
        assert isinstance(video, PlannedReader)
        if ROWS[name].planned is not None:
            assert (video.fallback is None) == ROWS[name].planned, video.fallback
        assert video.num_frames == num_frames
        # where times are swapped or repeated, FFmpeg 7 and 8 disagree about how long the last frame is shown
        assert video.duration_s == pytest.approx(known.duration_s, abs=0.021 if name in UNSURE_TIMES else 1e-6)
        half = [index for index in range(num_frames) if known.frames[index].shape == known.frames[0].shape]
        for indices in (half, half[::5], half[-1:], half[len(half) // 3 :][:9]):
            _assert_equal(video.read(indices), known, indices)
        with pytest.raises(VideoError, match=f"it has {num_frames} frames"):
            video.read([num_frames])


@given(
    name=st.sampled_from([name for name in ROWS if "two_sizes" not in name]),
    places=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    run=st.integers(0, 8),
    last=st.booleans(),
)
@EVERY_RUN
def test_any_indices_give_the_frames_of_sequential_decoding(
    name: str, places: list[float], run: int, last: bool, truth: Callable[[str], Truth]
) -> None:
    known = truth(name)
    end = len(known.frames) - 1
    indices = [round(place * end) for place in places]
    indices += [min(indices[0] + step, end) for step in range(run)]
    indices += [end] if last else []
    _assert_equal(read_frames(known.path, indices), known, indices)


@given(name=st.sampled_from(PLANNED), seed=st.integers(0, 10_000), num_bytes=st.integers(1, 3))
@EVERY_RUN
def test_flipped_bytes_never_give_other_frames_in_silence(
    name: str, seed: int, num_bytes: int, truth: Callable[[str], Truth], tmp_path: Path
) -> None:
    path = damage_packets(truth(name).path, tmp_path / name, seed=seed, num_bytes=num_bytes)

    def choose(count: int) -> list[int]:
        return sorted(np.random.default_rng(seed).integers(0, count, size=3).tolist())

    try:
        with open_video(path, decoder="sequential") as video:
            wanted = choose(video.num_frames)
            expected = video.num_frames, video.read(wanted)
    except VideoError:
        with pytest.raises(VideoError), open_video(path) as video:
            video.read(choose(video.num_frames))
        return
    with open_video(path) as video:
        frames = video.read(wanted)
        was_planned = video.fallback is None  # type: ignore[attr-defined]
        assert video.num_frames == expected[0]
    # what FFmpeg makes up for a lost part may depend on what its memory held before: then sequential decoding differs
    # from itself; a plan is never trusted there
    assert frames.shape == expected[1].shape
    if was_planned:
        assert np.array_equal(frames, expected[1])


def test_b_frames_between_far_references_are_counted_as_decoding_yields_them(tmp_path: Path) -> None:
    """FFmpeg keeps the time between two references in 16 bits, and drops B-frames where it is more."""
    path = tmp_path / "slow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1, options={"bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30000)
        for index, image in enumerate(moving_frames(24, size=(64, 48))):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index * 30000, Fraction(1, 30000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(path) as video, open_video(path, decoder="sequential") as sequential:
        assert video.num_frames == sequential.num_frames < 24
        assert np.array_equal(video.read([0, 3, 5]), sequential.read([0, 3, 5]))


def test_header_that_lies_about_the_size_is_no_reason_to_refuse(truth: Callable[[str], Truth], tmp_path: Path) -> None:
    content = bytearray(truth("h264_12.mp4").path.read_bytes())
    place = content.index(b"avc1", content.index(b"stsd")) + 28
    content[place : place + 4] = (10000).to_bytes(2, "big") * 2
    path = tmp_path / "lies.mp4"
    path.write_bytes(content)
    _assert_equal(read_frames(path, [0, 20]), truth("h264_12.mp4"), [0, 20])


@pytest.mark.parametrize("limit", ["BYTES", "PIXELS"])
@pytest.mark.parametrize("name", ["h264_12.mp4", "h264.avi"])
def test_small_video_is_decoded_sequentially(
    truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    known = truth(name)
    size = known.path.stat().st_size if limit == "BYTES" else sum(frame.size // 3 for frame in known.frames)
    monkeypatch.setattr(f"ppvcli.video.plan.PLANNED_{limit}", size + 1)
    with open_video(known.path) as video:
        assert isinstance(video, PlannedReader) and "small" in str(video.fallback)
        video.expect(lambda num_frames: np.arange(num_frames))
        assert video.num_frames == len(known.frames)
        _assert_equal(video.read([30, 2]), known, [30, 2])


def test_header_that_counts_the_first_fragment_alone_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_frames(120, size=(160, 120))
    path = tmp_path / "fragments.mp4"
    options = {"g": "12", "crf": "0"}
    encode(path, frames, codec="libx264", options=options, container_options={"movflags": "frag_keyframe"})
    with av.open(str(path)) as container:
        claimed = container.streams.video[0].frames * 160 * 120
    monkeypatch.setattr(plan, "PLANNED_PIXELS", claimed + 1)
    assert 0 < claimed < path.stat().st_size
    with open_video(path) as video:
        assert video.fallback is None and video.num_frames == 120  # type: ignore[attr-defined]


def test_container_without_a_plan_is_opened_once(
    truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = truth("mpeg2.ts")
    num_opened = 0

    def count(*args: Any, **kwargs: Any) -> OpenStream:
        nonlocal num_opened
        num_opened += 1
        return open_stream(*args, **kwargs)

    for module in (plan, sequential):
        monkeypatch.setattr(module, "open_stream", count)
    with open_video(known.path) as video:
        video.expect(np.arange)
        assert video.num_frames == len(known.frames)
        _assert_equal(video.read([5, 3]), known, [5, 3])
        assert num_opened == 1


def test_file_that_turns_out_too_large_is_an_error_of_its_own(tmp_path: Path) -> None:
    """By its header it is small; only sequential decoding, after the plan has failed, is told the true size."""
    path = tmp_path / "lies.mp4"
    encode(path, moving_frames(60, size=(640, 480)), codec="libx264", options=dict(ROWS["h264_12.mp4"].options))
    content = bytearray(path.read_bytes())
    place = content.index(b"avc1", content.index(b"stsd")) + 28
    content[place : place + 4] = (64).to_bytes(2, "big") * 2
    path.write_bytes(content)
    preprocess = VIDEO_JOBS["pptsmv2_16f_test"]
    with pytest.raises(FrameTooLargeError, match="640x480"):
        load_frames(path, preprocess, limits=DecodeLimits(max_pixels=100_000))


def test_damage_that_swallows_a_packed_picture_makes_a_clip_choose_its_frames_again(
    truth: Callable[[str], Truth], tmp_path: Path
) -> None:
    known = truth("mpeg4_packed.avi")
    # as many segments as the file claims frames: the last one is among the wanted, and may turn out not to be there
    sampling = Sampling(mode="uniform", num_segments=len(known.frames))
    preprocess = replace(VIDEO_JOBS["pptsmv2_16f_test"], sampling=sampling)
    num_changed = 0
    for seed in range(60):
        path = damage_packets(known.path, tmp_path / f"{seed}.avi", seed=seed, num_bytes=1)
        with open_video(path) as video:
            claimed, was_planned = video.num_frames, video.fallback is None  # type: ignore[attr-defined]
        clip = load_frames(path, preprocess)
        with open_video(path, decoder="sequential") as video:
            assert clip.num_frames == video.num_frames
        num_changed += was_planned and claimed != clip.num_frames
        assert clip.indices.max() < clip.num_frames
    assert num_changed


@pytest.mark.parametrize("name", ["h264_pyramid.mp4", "h264.ts", "mpeg4_b.avi"])
def test_planned_video_decodes_only_what_the_frames_depend_on(name: str, truth: Callable[[str], Truth]) -> None:
    with open_video(truth(name).path) as video:
        assert isinstance(video, PlannedReader) and video._plan is not None
        needed = video._plan.needed(np.array([NUM_FRAMES - 1]))
        assert len(needed) < NUM_FRAMES - 4
        assert 0 in needed


def test_open_gop_frames_shown_before_their_key_frame_depend_on_the_one_before() -> None:
    # decoded I0 P4 B1 B2 | I8 B5 B6 P9; B5 and B6 are shown before I8
    order = CodedOrder(
        ranks=np.array([0, 3, 1, 2, 6, 4, 5, 7]),
        is_start=np.array([True, False, False, False, True, False, False, False]),
        is_reference=np.array([True, True, False, False, True, False, False, True]),
        packets=np.arange(8),
        spans={},
    )
    stream = StreamPlan(order=order, packets=None, duration_s=0.0)
    assert stream.needed(np.array([4])).tolist() == [0, 1, 4, 5]
    assert stream.needed(np.array([6])).tolist() == [0, 4]
    assert stream.needed(np.array([7])).tolist() == [0, 4, 7]
    assert stream.needed(np.array([2])).tolist() == [0, 1, 3]


def test_packets_that_are_too_many_to_keep_are_read_again(
    truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "KEPT_PACKET_BYTES", 1000)
    monkeypatch.setattr(scan, "BATCH_PACKETS", 5)
    for name in ("h264.mkv", "hevc.mp4", "mpeg4_packed.avi"):
        known = truth(name)
        with open_video(known.path) as video:
            assert isinstance(video, PlannedReader) and video._plan is not None
            assert video._plan.packets is None
            for indices in ([20, 3], [NUM_FRAMES - 1]):
                _assert_equal(video.read(indices), known, indices)
            assert video.fallback is None


@pytest.mark.parametrize("name", PLANNED)
def test_threads_give_the_same_frames(
    name: str, truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "THREADED_PIXELS", 1)
    known = truth(name)
    with open_video(known.path, limits=DecodeLimits(threads=3)) as video:
        for indices in ([*range(NUM_FRAMES)], [*range(NUM_FRAMES - 1, 0, -3)], [30, 2, 30, 17, 3], [7]):
            _assert_equal(video.read(indices), known, indices)
        assert video.fallback is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(("pixels", "num_decoders"), [(1, 3), (64 * 48 * 15, 2), (64 * 48 * 100, 1)])
def test_threads_are_as_many_as_the_work_is_worth(
    pixels: int, num_decoders: int, truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "THREADED_PIXELS", pixels)
    decoders = []

    def count_decoders(decoder: object, *args: Any, **settings: Any) -> Iterator[av.VideoFrame]:
        decoders.append(decoder)
        return decode(decoder, *args, **settings)

    decode: Any = plan._decode
    monkeypatch.setattr(plan, "_decode", count_decoders)
    read_frames(truth("h264_12.mp4").path, range(0, NUM_FRAMES, 2), limits=DecodeLimits(threads=3))
    assert len(set(map(id, decoders))) == num_decoders


def test_shares_are_as_many_as_repeat_little() -> None:
    # two groups of five pictures, each depending on all before it in the group
    order = CodedOrder(
        ranks=np.arange(10),
        is_start=np.arange(10) % 5 == 0,
        is_reference=np.ones(10, dtype=bool),
        packets=np.arange(10),
        spans={},
    )
    stream = StreamPlan(order=order, packets=None, duration_s=0.0)
    assert [share.tolist() for share in stream.shares(np.array([1, 4, 6, 9]), most=4)] == [[1, 4], [6, 9]]
    assert [share.tolist() for share in stream.shares(np.array([2, 3, 4]), most=4)] == [[2, 3, 4]]
    assert [share.tolist() for share in stream.shares(np.array([0, 5]), most=1)] == [[0, 5]]


@pytest.mark.parametrize("name", ["h264_12.mp4", "h264_no_b.mp4"])
def test_damage_that_a_thread_meets_means_sequential_decoding(
    name: str, truth: Callable[[str], Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "THREADED_PIXELS", 1)
    num_fallen_back = 0
    for seed in range(20):
        path = damage_packets(truth(name).path, tmp_path / f"{seed}_{name}", seed=seed, num_bytes=2)
        with open_video(path, decoder="sequential") as video:
            expected = video.read(np.arange(video.num_frames))
        with open_video(path, limits=DecodeLimits(threads=3)) as video:
            was_planned = video.fallback is None  # type: ignore[attr-defined]
            frames = video.read(np.arange(video.num_frames))
            is_planned = video.fallback is None  # type: ignore[attr-defined]
        assert np.array_equal(frames, expected)
        num_fallen_back += was_planned and not is_planned
    assert num_fallen_back


def test_file_that_changes_between_two_reads_is_not_planned_any_more(
    truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scan, "KEPT_PACKET_BYTES", 1000)
    path = tmp_path / "changing.mkv"
    path.write_bytes(truth("h264.mkv").path.read_bytes())
    with open_video(path) as video:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(VideoError, match="frames, 0 to"):
            video.read([NUM_FRAMES - 1])


@pytest.mark.parametrize("name", ["h264_12.mp4", "hevc.mp4"])
def test_training_clip_is_that_of_sequential_decoding(name: str, truth: Callable[[str], Truth]) -> None:
    preprocess: Preprocess = VIDEO_JOBS["pptsm_k400_dense_test_10clip_3crop"]
    augment = Augment(flip_ratio=0.5, min_area_ratio=0.5)
    clips = [
        load_train_frames(
            truth(name).path, preprocess, augment, rng=np.random.default_rng(3), decoder=decoder
        ).frames_vthwc
        for decoder in ("pyav", "sequential")
    ]
    assert np.array_equal(*clips)


@pytest.mark.parametrize("decoder", [name for name in READERS if name != "decord"])
def test_video_that_takes_too_long_raises(
    decoder: str, truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "monotonic", lambda: now + next(ticks))
    with pytest.raises(DecodeTimeoutError, match="more than 7 s") as caught:
        read_frames(truth("h264_12.mp4").path, [NUM_FRAMES - 1], decoder=decoder, limits=DecodeLimits(timeout_s=7))
    assert caught.value.hint is not None and "--decode-timeout" in caught.value.hint


@pytest.mark.parametrize("decoder", READERS)
def test_frames_that_are_too_large_raise(decoder: str, truth: Callable[[str], Truth]) -> None:
    path = truth("h264_12.mp4").path
    assert len(read_frames(path, [1], decoder=decoder, limits=DecodeLimits(max_pixels=64 * 48))) == 1
    with pytest.raises(FrameTooLargeError, match="64x48, more than 3071 pixels") as caught:
        read_frames(path, [1], decoder=decoder, limits=DecodeLimits(max_pixels=64 * 48 - 1))
    assert caught.value.hint is not None and "--max-pixels" in caught.value.hint


@pytest.mark.parametrize("name", ["h264_two_sizes.h264", "mpeg4_two_sizes.ts"])
def test_frames_that_grow_too_large_within_the_video_raise(name: str, truth: Callable[[str], Truth]) -> None:
    limits = DecodeLimits(max_pixels=64 * 48)
    for decoder in ("pyav", "sequential"):
        with pytest.raises(FrameTooLargeError), open_video(truth(name).path, decoder=decoder, limits=limits) as video:
            video.read([video.num_frames - 1])


@pytest.mark.parametrize("limits", [{"timeout_s": 0.0}, {"timeout_s": -1.0}, {"max_pixels": 0}, {"threads": 0}])
def test_limits_of_nothing_raise(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DecodeLimits(**limits)  # type: ignore[arg-type]


def test_index_past_the_end_of_a_planned_video_raises(truth: Callable[[str], Truth]) -> None:
    with pytest.raises(FrameIndexError, match=f"it has {NUM_FRAMES} frames"):
        read_frames(truth("h264_12.mp4").path, [0, NUM_FRAMES])


def test_one_frame_video_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "one.mp4"
    encode(path, moving_frames(1, size=(64, 48)), codec="libx264", options={})
    known = _decode_sequentially(path)
    with open_video(path) as video:
        assert video.num_frames == 1
        _assert_equal(video.read([0, 0]), known, [0, 0])
        assert video.fallback is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["h264_12.mp4", "h264_cut.mkv", "vp9.webm", "mpeg4.avi", "animation.gif"])
@pytest.mark.parametrize("threads", [1, 2])
def test_transform_gets_each_frame_once_and_its_results_come_in_order(
    name: str, threads: int, truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = truth(name)
    monkeypatch.setattr("ppvcli.video.plan.THREADED_PIXELS", 1)
    seen: list[npt.NDArray[np.uint8]] = []

    def smaller(frame_hwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        seen.append(frame_hwc[0, 0].copy())
        return np.stack([frame_hwc[:8, :6], frame_hwc[-8:, -6:]])

    indices = [9, 2, 21, 2, 17]
    with open_video(known.path, limits=DecodeLimits(threads=threads)) as video:
        result = video.read(indices, transform=smaller)
    assert result.shape == (5, 2, 8, 6, 3)
    expected = np.stack([known.frames[index] for index in indices])
    assert np.array_equal(result[:, 0], expected[:, :8, :6])
    assert np.array_equal(result[:, 1], expected[:, -8:, -6:])
    assert len(seen) == 4


@pytest.mark.parametrize("pattern", ["clips/*.mp4", "clips/*.avi", "ucf101/**/v_A*.avi"])
def test_real_clips_give_the_frames_of_sequential_decoding(pattern: str, shared_dir: Path) -> None:
    paths = sorted((shared_dir / "data").glob(pattern))[:4]
    assert paths
    for path in paths:
        with open_video(path, decoder="sequential") as video, open_video(path) as planned:
            assert planned.num_frames == video.num_frames
            indices = np.linspace(0, video.num_frames - 1, 7).astype(np.int64)
            assert np.array_equal(planned.read(indices), video.read(indices))


@pytest.mark.parametrize("name", ["vp8.webm", "vp9.webm", "h264_trimmed.mp4", "mpeg4_cut.avi", "animation.gif"])
def test_expected_frames_are_kept_while_counting_and_right_even_if_the_header_lies(
    name: str, truth: Callable[[str], Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = truth(name)
    num_passes = 0
    decode = SequentialReader._decode

    def count_passes(self: SequentialReader) -> Iterator[av.VideoFrame]:
        nonlocal num_passes
        num_passes += 1
        return decode(self)

    monkeypatch.setattr(SequentialReader, "_decode", count_passes)
    with open_video(known.path) as video:
        video.expect(lambda num_frames: np.linspace(0, num_frames - 1, 8).astype(np.int64)[np.newaxis])
        assert video.num_frames == len(known.frames)
        indices = np.linspace(0, video.num_frames - 1, 8).astype(np.int64).tolist()
        _assert_equal(video.read(indices), known, indices)
        assert num_passes == 1
        _assert_equal(video.read([3, 1]), known, [3, 1])
