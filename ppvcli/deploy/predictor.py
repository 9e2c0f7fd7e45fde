"""Video files in, answers out: one compiled network, as many files at once as there are cores."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppvcli.datasets.annotations import read_labels
from ppvcli.deploy.pipeline import map_ahead
from ppvcli.deploy.program import Program, open_program
from ppvcli.deploy.runtimes import Engine, feed
from ppvcli.errors import ExportError, UsageError, VideoError, WeightsError
from ppvcli.models.views import mean_over_views
from ppvcli.results import Prediction, Score
from ppvcli.video.clip import ClipFrames, load_frames
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.weights.formats import EXPORT_DESCRIPTION

Source = str | Path

MAX_STREAMS = 8
"""Files that are worked on at once: each has its own frames and activations, some 200 MB."""


def predict(
    sources: str | Path | Iterable[str | Path],
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    top_k: int = 5,
    labels: str | Path | None = None,
    threads: int | None = None,
    precision: str | None = None,
    tensorrt: bool = False,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> Iterator[Prediction]:
    """The answer for each video file, in order, each as soon as it is known: `Predictor(...).predict(sources)`.

    Settings are checked and the network is loaded before this returns; videos are read as the iterator is used. Where
    `sources` is an iterator, an answer may wait until the next file has been taken from it. `model` None is the model
    that the weights say they are of, else `pptsmv2`; `threads` None, or more than this process may use, is every core
    that it may use. `ppvcli.Predictor` says what the other settings mean.

    Raises: UsageError (unknown model, device or runtime, settings that exclude each other or are no such numbers,
    labels that don't fit), TypeError for what is no path, MissingPackageError, RuntimeFailedError, CacheError,
    DeviceError, DatasetError (unreadable labels), WeightsError, also from the iterator for scores that are not finite;
    ExportError.
    """
    sources = _check_sources(sources)
    _check_top_k(top_k)
    predictor = Predictor(
        model,
        weights=weights,
        device=device,
        runtime=runtime,
        labels=labels,
        threads=threads,
        precision=precision,
        tensorrt=tensorrt,
    )
    return predictor.predict(sources, top_k=top_k, limits=limits)


class Predictor:
    """A compiled network with its preprocessing and its labels."""

    program: Program

    def __init__(
        self,
        model: str | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        runtime: str = "auto",
        labels: str | Path | None = None,
        threads: int | None = None,
        precision: str | None = None,
        tensorrt: bool = False,
        on_compile: Callable[[str], None] | None = None,
    ) -> None:
        """Finds a model's compiled program, or compiles it on first use; weights not in the store are fetched.

        `weights` is a file, a run folder, or a folder or tar with an exported program; its preprocessing and labels,
        where it carries some, come before the published ones. `model` None is the model that the file says it is of
        (every run folder does), else `pptsmv2`. `labels` is a file with one class name a line and comes before all
        other names; classes that nothing names are called `class_0`, `class_1`, ...

        `runtime` is `onnxruntime`, `openvino`, `paddle`, or `auto`: the fastest that gives the network's answers on
        this machine; of an export, which was checked when it was made, the first of these that is installed. `threads`
        None, or more than this process may use, is every core that it may use. `precision` is `fp32`, or `bf16` with
        OpenVINO, or `int8` with an export of that precision; None is fp32, or what an export has. `tensorrt` is for
        GPUs. `on_compile` is called with the model's name before it is compiled.

        Raises: UsageError (unknown model, device or runtime, settings that exclude each other, labels that don't fit),
        MissingPackageError, RuntimeFailedError, CacheError, DeviceError, WeightsError, ExportError, DatasetError
        (unreadable labels).
        """
        names = () if labels is None else read_labels(Path(labels))  # before a download
        self.program = open_program(
            model,
            weights=weights,
            device=device,
            runtime=runtime,
            threads=threads,
            precision=precision,
            tensorrt=tensorrt,
            on_compile=on_compile,
        )
        if names:
            self.program = _rename_classes(self.program, names, source=str(labels))
        self._engines: dict[int, Engine] = {}

    def predict(
        self, sources: str | Path | Iterable[str | Path], *, top_k: int = 5, limits: DecodeLimits = DEFAULT_LIMITS
    ) -> Iterator[Prediction]:
        """A prediction for each video file, in order; a broken one gives a prediction with `error` set.

        One file gets all threads; of several (or of an iterator) as many are worked on at once as there are threads,
        at most MAX_STREAMS; of an iterator an answer may wait until the next file has been taken. `top_k` larger than
        the number of classes gives all of them. Files that cost more time or size than `limits` are broken ones.

        Raises: UsageError for a `top_k` that is no whole number of 1 or more; TypeError for what is no path, of an
        iterator at its place; WeightsError for weights whose scores are not finite; ExportError for an export that
        names another number of classes than its program has.
        """
        sources = _check_sources(sources)
        _check_top_k(top_k)
        settings = self.program.settings
        files = len(sources) if isinstance(sources, Sized) else MAX_STREAMS
        streams = max(1, min(settings.threads, MAX_STREAMS, files)) if settings.device == "cpu" else 1
        engine = self._engine(streams)
        # where the engine takes one clip at a time, the next file is decoded meanwhile
        workers = streams if settings.device == "cpu" else max(2, min(settings.threads, MAX_STREAMS))
        turns = threading.Semaphore(streams)
        limits = replace(limits, threads=max(1, settings.threads // workers))

        def answer(source: Source) -> Prediction:
            _check_source(source)
            return self._answer(source, top_k=top_k, limits=limits, engine=engine, turn=turns)

        return map_ahead(answer, sources, workers=workers)

    def _engine(self, streams: int) -> Engine:
        if streams not in self._engines:
            self._engines[streams] = self.program.load(streams=streams)
        return self._engines[streams]

    def _answer(
        self,
        source: Source,
        *,
        top_k: int,
        limits: DecodeLimits,
        engine: Engine,
        turn: contextlib.AbstractContextManager[object],
    ) -> Prediction:
        model = self.program.model
        try:
            clip = load_frames(source, self.program.preprocess, limits=limits)
        except VideoError as error:
            return Prediction(path=str(source), model=model, error=error.message, hint=error.hint)
        with turn:
            start = time.perf_counter()
            logits_k = self._logits(clip, engine)
            network_ms = (time.perf_counter() - start) * 1e3
        if not np.isfinite(logits_k).all():
            raise WeightsError(
                f"the weights of {model} give scores that are no numbers, for {source}",
                hint="the training that made them diverged, or the file is damaged: use another one",
            )
        labels = self.program.labels
        if len(labels) != len(logits_k):
            raise ExportError(
                f"{self.program.path.parent}: {EXPORT_DESCRIPTION} names {len(labels)} classes, the program has "
                f"{len(logits_k)}",
                hint="put its label_list right, one name for each class, or export the model once more",
            )
        return Prediction(
            path=str(source),
            model=model,
            top=_best(logits_k, labels, top_k),
            num_frames=clip.num_frames,
            duration_s=clip.duration_s,
            damage=clip.damage,
            timings_ms={**clip.timings_ms, "network": network_ms},
        )

    def _logits(self, clip: ClipFrames, engine: Engine) -> npt.NDArray[np.float32]:
        """The mean of the logits over the views of one video: float32 [K]."""
        preprocess = self.program.preprocess
        return mean_over_views(lambda views: engine.run(feed(engine, views, preprocess=preprocess)), clip.frames_vthwc)


def _check_sources(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """`sources` as something to iterate over; what can be looked at without using it up is. Raises: TypeError."""
    if isinstance(sources, (str, Path)):
        return [sources]
    if isinstance(sources, bytes) or not isinstance(sources, Iterable):
        _check_source(sources)
    if isinstance(sources, Sequence):
        for source in sources:
            _check_source(source)
    return sources


def _check_source(source: object) -> None:
    if not isinstance(source, (str, Path)):
        raise TypeError(f"expected the path of a video, a str or Path, got {source!r}")


def _check_top_k(top_k: int) -> None:
    if not isinstance(top_k, Integral) or top_k < 1:
        raise UsageError(f"top_k must be 1 or more, got {top_k!r}", hint="--top-k 1 gives the best class only")


def _rename_classes(program: Program, names: tuple[str, ...], *, source: str) -> Program:
    if len(names) != len(program.labels):
        raise UsageError(
            f"{source} has {len(names)} class names, the model has {len(program.labels)} classes",
            hint="one name a line, in the order of the class indices",
        )
    return replace(program, labels=names)


def _best(logits_k: npt.NDArray[np.float32], labels: tuple[str, ...], top_k: int) -> tuple[Score, ...]:
    exponents = np.exp(logits_k.astype(np.float64) - logits_k.max())
    scores = exponents / exponents.sum()
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(Score(label=labels[index], index=int(index), score=float(scores[index])) for index in order)
