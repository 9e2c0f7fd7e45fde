"""Rows and reports of a network whose answer is known: the mean brightness of a clip's first view decides."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.datasets.annotations import Sample
from ppvcli.engine.evaluator import ClipRow, build_report, evaluate_logits
from ppvcli.models.views import batch_logits, clip_logits
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.clip import load_clip
from ppvcli.video.protocols import apply_protocol
from ppvcli.video.render import write_video

PREPROCESS = Preprocess(
    sampling=Sampling(mode="window", num_segments=4, frame_interval=1),
    resize=Resize(size_hw=(32, 48)),
    crop=Crop(kind="none"),
)
LABELS = ("dark", "middle", "bright")
ROW = np.array([0.0, 1.0, 2.0], np.float32)


class Brightness(paddle.nn.Layer):
    """Three logits from the mean of a view's pixels; not linear, so that views and frames can't be swapped."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        mean = x.mean(axis=[1, 2, 3, 4])
        return paddle.stack([-2.0 * mean, 1.0 - mean * mean, 2.0 * mean], axis=1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """Six clips, each brighter from left to right and from its first frame to its last."""
    folder = tmp_path_factory.mktemp("brightness")
    clips = []
    for i, level in enumerate((10, 30, 90, 100, 200, 220)):
        ramp = np.arange(80)[np.newaxis, np.newaxis, :] // 4 + np.arange(24)[:, np.newaxis, np.newaxis]
        frames = np.repeat((level + np.broadcast_to(ramp, (24, 64, 80)))[..., np.newaxis], 3, axis=3)
        write_video(folder / f"{i}.mp4", np.clip(frames, 0, 255).astype(np.uint8))
        clips.append(Sample(folder / f"{i}.mp4", i // 2))
    return tuple(clips)


@pytest.fixture
def with_broken(samples: tuple[Sample, ...], tmp_path: Path) -> tuple[Sample, ...]:
    """The clips with a broken one at second place and at the end."""
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = Sample(tmp_path / "broken.mp4", 2)
    return (samples[0], broken, *samples[1:], broken)


def logits_of(rows: tuple[ClipRow, ...]) -> np.ndarray:
    return np.stack([row.logits_k for row in rows if row.logits_k is not None])


@pytest.mark.parametrize("protocol", ["uniform", "dense", "ten-crop"])
def test_logits_are_the_mean_over_all_views_of_a_clip(samples: tuple[Sample, ...], protocol: str) -> None:
    preprocess = apply_protocol(PREPROCESS, protocol)
    network = Brightness()
    rows = evaluate_logits(network, samples[:2], preprocess, num_workers=0)
    for row, sample in zip(rows, samples, strict=False):
        views = load_clip(sample.path, preprocess)
        assert len(views) == preprocess.num_views
        one_by_one = [network(paddle.to_tensor(view[np.newaxis])).numpy()[0] for view in views]
        # float32 sums in another order
        np.testing.assert_allclose(row.logits_k, np.mean(one_by_one, axis=0), rtol=0, atol=1e-6)
        if protocol != "uniform":
            assert np.ptp(one_by_one, axis=0).max() > 1e-3, "views that are alike would prove nothing"


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (4, 1), (16, 0)])
def test_batches_do_not_change_rows_nor_where_failures_stand(
    with_broken: tuple[Sample, ...], batch_size: int, num_workers: int
) -> None:
    preprocess = apply_protocol(PREPROCESS, "ten-crop")
    expected = evaluate_logits(Brightness(), with_broken, preprocess, num_workers=0)
    calls: list[None] = []
    rows = evaluate_logits(
        Brightness(),
        with_broken,
        preprocess,
        batch_size=batch_size,
        num_workers=num_workers,
        on_clip=lambda: calls.append(None),
    )
    assert [row.index for row in rows] == list(range(8))
    assert [row.logits_k is None for row in rows] == [i in (1, 7) for i in range(8)]
    assert [row.error for row in rows] == [row.error for row in expected]
    np.testing.assert_allclose(logits_of(rows), logits_of(expected), rtol=0, atol=1e-6)
    assert len(calls) == 8


def test_batch_logits_are_the_logits_of_each_clip() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 8, 8, 3), np.uint8)
    together = batch_logits(Brightness(), frames, preprocess=PREPROCESS)
    alone = [clip_logits(Brightness(), clip, preprocess=PREPROCESS) for clip in frames]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_shares_of_three_processes_make_the_report_of_one(with_broken: tuple[Sample, ...]) -> None:
    alone = evaluate_logits(Brightness(), with_broken, PREPROCESS, num_workers=0)
    shares = [(0, 3, 6), (1, 4, 7), (2, 5)]
    rows = [
        row
        for share in shares
        for row in evaluate_logits(Brightness(), with_broken, PREPROCESS, indices=share, num_workers=0)
    ]
    report = build_report(with_broken, rows, labels=LABELS, model="m")
    assert report == build_report(with_broken, alone, labels=LABELS, model="m")
    assert report.num_clips == 8
    for wrong in (rows[1:], [*rows, rows[0]]):
        with pytest.raises(AssertionError, match="one row"):
            build_report(with_broken, wrong, labels=LABELS, model="m")


def test_broken_clip_counts_as_wrong_unless_left_out(with_broken: tuple[Sample, ...]) -> None:
    rows = evaluate_logits(Brightness(), with_broken, PREPROCESS, num_workers=0)
    strict = build_report(with_broken, rows, labels=LABELS, model="m")
    lenient = build_report(with_broken, rows, labels=LABELS, model="m", skip_broken=True)
    assert (strict.num_clips, strict.num_skipped, lenient.num_clips, lenient.num_skipped) == (8, 0, 6, 2)
    assert strict.num_correct == lenient.num_correct == 6
    assert (strict.top5, lenient.top5) == (6 / 8, 1.0)
    assert [Path(path).name for path, _ in strict.failures] == ["broken.mp4", "broken.mp4"]
    assert strict.failures == lenient.failures
    assert [result.num_clips for result in strict.classes] == [2, 2, 4]
    assert [result.num_clips for result in lenient.classes] == [2, 2, 2]
    assert strict.mean_class_accuracy == pytest.approx((1 + 1 + 0.5) / 3)
    assert strict.loss == lenient.loss


def test_all_clips_broken_is_a_report_of_failures(tmp_path: Path) -> None:
    samples = [Sample(tmp_path / "missing.mp4", 0)]
    rows = evaluate_logits(Brightness(), samples, PREPROCESS, num_workers=0)
    report = build_report(samples, rows, labels=LABELS, model="m")
    assert (report.top1, report.top5, report.mean_class_accuracy) == (0.0, 0.0, 0.0)
    assert math.isnan(report.loss)
    assert report.to_dict()["loss"] is None


def test_answer_that_is_not_a_number_is_a_failure_and_never_a_class(samples: tuple[Sample, ...]) -> None:
    class Diverged(paddle.nn.Layer):
        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.full([x.shape[0], 3], float("nan"))

    rows = evaluate_logits(Diverged(), samples, PREPROCESS, num_workers=0)
    report = build_report(samples, rows, labels=LABELS, model="m")
    assert report.num_correct == report.num_correct_top5 == 0
    assert len(report.failures) == 6
    assert "not a number" in report.failures[0][1]


def test_top5_with_fewer_classes_is_the_share_of_decoded_clips_and_with_more_a_real_one() -> None:
    samples = [Sample(Path("a"), 0), Sample(Path("b"), 1)]
    few = build_report(samples, [ClipRow(index=i, logits_k=ROW) for i in (0, 1)], labels=LABELS, model="m")
    assert (few.top1, few.top5) == (0.0, 1.0)
    many = np.arange(7, dtype=np.float32)
    report = build_report(
        [Sample(Path("a"), 1), Sample(Path("b"), 2)],
        [ClipRow(index=i, logits_k=many) for i in (0, 1)],
        labels=list("abcdefg"),
        model="m",
    )
    assert report.top5 == 0.5


def test_one_class_is_always_right() -> None:
    row = ClipRow(index=0, logits_k=np.array([-3.0], np.float32))
    report = build_report([Sample(Path("a"), 0)], [row], labels=["only"], model="m")
    assert (report.top1, report.top5, report.mean_class_accuracy, report.loss) == (1.0, 1.0, 1.0, 0.0)


def test_report_of_random_logits_is_what_brute_force_says() -> None:
    rng = np.random.default_rng(5)
    logits, true = rng.normal(size=(60, 9)).astype(np.float32), rng.integers(0, 8, 60)  # class 8 has no clips
    samples = [Sample(Path(str(i)), int(label)) for i, label in enumerate(true)]
    rows = [ClipRow(index=i, logits_k=row) for i, row in enumerate(logits)]
    report = build_report(samples, reversed(rows), labels=list("abcdefghi"), model="m")
    best = logits.argmax(axis=1)
    above = (logits > logits[np.arange(60), true][:, np.newaxis]).sum(axis=1)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert report.top1 == pytest.approx(np.mean(best == true))
    assert report.top5 == pytest.approx(np.mean(above < 5))
    assert report.loss == pytest.approx(-np.log(scores[np.arange(60), true]).mean(), rel=1e-5)
    assert report.mean_class_accuracy == pytest.approx(np.mean([np.mean(best[true == c] == c) for c in range(8)]))
    assert len(report.wrong) == np.sum(best != true)
