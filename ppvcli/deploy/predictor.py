"""Video files in, answers out: one network, one file after another, the next one decoded while the network works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from ppvcli.datasets.annotations import read_labels
from ppvcli.deploy import DEFAULT_MODEL
from ppvcli.errors import UnknownNameError, UsageError, VideoError, WeightsError
from ppvcli.models.device import select_device
from ppvcli.models.recognizer import Recognizer, open_recognizer
from ppvcli.models.views import clip_logits
from ppvcli.results import Prediction, Score
from ppvcli.specs import Preprocess
from ppvcli.video.clip import ClipFrames, load_frames
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits

RUNTIMES = ("auto", "paddle")

Source = str | Path


def predict(
    sources: Source | Iterable[Source],
    *,
    model: str = DEFAULT_MODEL,
    weights: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    top_k: int = 5,
    labels: str | Path | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> Iterator[Prediction]:
    """The answer for each video file, in order, each as soon as it is known: `Predictor(...).predict(sources)`.

    Settings are checked and the network is loaded before this returns; videos are read as the iterator is used. The
    default of `model` gives way to the model that the weights say they are of. Raises: as `Predictor` and
    `Predictor.predict`.
    """
    named = None if model == DEFAULT_MODEL else model
    predictor = Predictor(named, weights=weights, device=device, runtime=runtime, labels=labels)
    return predictor.predict(sources, top_k=top_k, limits=limits)


class Predictor:
    """A loaded network with its preprocessing and its labels."""

    def __init__(
        self,
        model: str | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        runtime: str = "auto",
        labels: str | Path | None = None,
    ) -> None:
        """Loads a model; weights that are not in the store are fetched.

        `weights` is a file or a run folder; its preprocessing and labels, where it carries some, come before the
        published ones. `model` None is the model that the file says it is of (every run folder does), else `pptsmv2`.
        `labels` is a file with one class name a line and comes before all other names; classes that nothing names are
        called `class_0`, `class_1`, ...

        Raises: UsageError (unknown model, device or runtime, labels that don't fit), DeviceError, WeightsError,
        DatasetError (unreadable labels).
        """
        if runtime not in RUNTIMES:
            raise UnknownNameError("runtime", runtime, RUNTIMES, hint=f"there are: {', '.join(RUNTIMES)}")
        self.device = select_device(device)
        self.recognizer = open_recognizer(model, default=DEFAULT_MODEL, weights=weights)
        if labels is not None:
            self.recognizer = _rename_classes(self.recognizer, Path(labels))
        if hasattr(self.recognizer.network, "reparameterize"):
            self.recognizer.network.reparameterize()

    def predict(
        self, sources: Source | Iterable[Source], *, top_k: int = 5, limits: DecodeLimits = DEFAULT_LIMITS
    ) -> Iterator[Prediction]:
        """A prediction for each video file, in order; a broken one gives a prediction with `error` set.

        `top_k` larger than the number of classes gives all of them. Files that cost more than `limits` are broken ones.

        Raises: UsageError for `top_k` below 1; WeightsError for weights whose scores are not finite.
        """
        if top_k < 1:
            raise UsageError(f"top_k must be 1 or more, got {top_k}", hint="--top-k 1 gives the best class only")
        sources = [sources] if isinstance(sources, (str, Path)) else sources
        return (self._answer(video, top_k) for video in _load_ahead(sources, self.recognizer.preprocess, limits))

    def _answer(self, video: _Video, top_k: int) -> Prediction:
        if isinstance(video.clip, VideoError):
            return Prediction(
                path=video.path, model=self.recognizer.model, error=video.clip.message, hint=video.clip.hint
            )
        start = time.perf_counter()
        logits_k = clip_logits(self.recognizer.network, video.clip.frames_vthwc, preprocess=self.recognizer.preprocess)
        network_ms = (time.perf_counter() - start) * 1e3
        if not np.isfinite(logits_k).all():
            raise WeightsError(
                f"the weights of {self.recognizer.model} give scores that are no numbers, for {video.path}",
                hint="the training that made them diverged, or the file is damaged: use another one",
            )
        return Prediction(
            path=video.path,
            model=self.recognizer.model,
            top=_best(logits_k, self.recognizer.labels, top_k),
            num_frames=video.clip.num_frames,
            duration_s=video.clip.duration_s,
            timings_ms={**video.clip.timings_ms, "network": network_ms},
        )


@dataclass(frozen=True, kw_only=True)
class _Video:
    """One source after decoding."""

    path: str
    clip: ClipFrames | VideoError


def _load_ahead(sources: Iterable[Source], preprocess: Preprocess, limits: DecodeLimits) -> Iterator[_Video]:
    """Each source decoded, in order; while the caller works on one, a thread decodes the next and no more."""

    def load(source: Source, box: SimpleQueue[_Video | BaseException]) -> None:
        try:
            box.put(_Video(path=str(source), clip=load_frames(source, preprocess, limits=limits)))
        except VideoError as error:
            box.put(_Video(path=str(source), clip=error))
        except BaseException as error:  # a fault of ours: it belongs to the caller's thread
            box.put(error)

    def wait(box: SimpleQueue[_Video | BaseException]) -> _Video:
        result = box.get()
        if isinstance(result, BaseException):
            raise result
        return result

    pending: SimpleQueue[_Video | BaseException] | None = None
    for source in sources:
        ready = None if pending is None else wait(pending)
        pending = SimpleQueue()
        # a daemon, so that Ctrl-C does not wait for the end of a long video
        threading.Thread(target=load, args=(source, pending), daemon=True).start()
        if ready is not None:
            yield ready
    if pending is not None:
        yield wait(pending)


def _rename_classes(recognizer: Recognizer, labels_path: Path) -> Recognizer:
    names = read_labels(labels_path)
    if len(names) != len(recognizer.labels):
        raise UsageError(
            f"{labels_path} has {len(names)} class names, the model has {len(recognizer.labels)} classes",
            hint="one name a line, in the order of the class indices",
        )
    return replace(recognizer, labels=names)


def _best(logits_k: npt.NDArray[np.float32], labels: tuple[str, ...], top_k: int) -> tuple[Score, ...]:
    exponents = np.exp(logits_k.astype(np.float64) - logits_k.max())
    scores = exponents / exponents.sum()
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(Score(label=labels[index], index=int(index), score=float(scores[index])) for index in order)
