"""What the public functions return. Frozen, with `to_dict()` where a command prints it as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """One class of an answer."""

    label: str
    index: int
    score: float
    """Softmax probability in 0..1."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one video, or the reason why there is none."""

    path: str
    model: str
    top: tuple[Score, ...] = ()
    """Best first; min(top_k, number of classes) of them."""
    num_frames: int | None = None
    """Frames that decoding the whole video yields."""
    duration_s: float | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Wall time per stage: `decode`, `transform`, `network`."""
    damage: str | None = None
    """Set where the file is cut off or damaged: what decoding complained of. The answer is for the frames it gave."""
    error: str | None = None
    """Set where the video could not be recognised; the other fields but `path`, `model` and `hint` are then empty."""
    hint: str | None = None
    """What to try about the error."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `path`, `model`, `top`, `num_frames`, `duration_s`, `timings_ms`, or `path` and `error`.

        Of a damaged file also `damage`.
        """
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        result = asdict(self)
        del result["error"], result["hint"]
        if self.damage is None:
            del result["damage"]
        result["top"] = list(result["top"])
        return result


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """How one class was recognised. A ratio of nothing to nothing is None, not a number that looks like a result."""

    label: str
    num_clips: int
    num_correct: int
    num_predicted: int
    """Clips that were taken for this class, rightly or not."""

    @property
    def recall(self) -> float | None:
        """Share of the class's clips that were recognised, its accuracy; None for a class without clips."""
        return self.num_correct / self.num_clips if self.num_clips else None

    @property
    def precision(self) -> float | None:
        """Share of the clips taken for this class that are of it; None where no clip was."""
        return self.num_correct / self.num_predicted if self.num_predicted else None

    @property
    def f1(self) -> float | None:
        """2 * correct / (clips + predicted), the harmonic mean of both; None only where both are None."""
        total = self.num_clips + self.num_predicted
        return 2 * self.num_correct / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the ratios beside the counts."""
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True, kw_only=True)
class EvalSetup:
    """What was measured, on what and how: enough to measure it again."""

    protocol: str
    """`uniform`, `dense`, `ten-crop`, or `own`, that of the weights."""
    views: str
    """What one clip was measured from, such as `8 frames x 10 clips x 3 crops`."""
    preprocess: dict[str, Any]
    """Every field of the preprocessing."""
    weights: str
    weights_sha256: str | None
    """None for weights that are a folder of files."""
    data: str
    """Where the clips come from."""
    skip_broken: bool
    batch_size: int
    device: str
    versions: dict[str, str]
    """Of Python and of the packages that take part."""
    date: str
    """When the evaluation began: ISO 8601, UTC."""
    elapsed_s: float
    num_trained_on: int = 0
    """Clips that the run of these weights was trained on, as far as it wrote them down."""
    num_newer: int = 0
    """Clips left out because they came after the run began."""


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Accuracy on a labelled data set. A clip that can't be decoded is in `failures` and counts as wrong."""

    model: str
    num_clips: int
    """Clips that count."""
    num_correct: int
    """Clips whose best class is the right one."""
    num_correct_top5: int
    loss: float
    """Mean cross entropy of the clips that could be decoded; NaN without any."""
    classes: tuple[ClassResult, ...]
    num_skipped: int = 0
    """Clips that can't be decoded and, by request, don't count."""
    failures: tuple[tuple[str, str], ...] = ()
    """(path, error) of every clip that could not be decoded."""
    damaged: tuple[tuple[str, str], ...] = ()
    """(path, what is wrong and how many frames are left) of damaged clips, which count by what they do show."""
    wrong: tuple[tuple[str, str, str], ...] = ()
    """(path, true label, predicted label) of every decoded clip whose best class is another one."""
    setup: EvalSetup | None = None
    """None for the evaluation after an epoch of training, which the run's config describes."""

    @property
    def top1(self) -> float:
        """Share in 0..1."""
        return self.num_correct / self.num_clips

    @property
    def top5(self) -> float:
        """Share in 0..1; with five classes or fewer it is the share of decoded clips."""
        return self.num_correct_top5 / self.num_clips

    @property
    def mean_class_accuracy(self) -> float:
        """Mean recall of the classes that have clips, whatever their number: in 0..1."""
        recalls = [result.recall for result in self.classes if result.recall is not None]
        return sum(recalls) / len(recalls)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the ratios beside the counts; `loss` is None without decoded clips; no `setup` if None."""
        result = {
            "top1": self.top1,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            **asdict(self),
            "loss": self.loss if math.isfinite(self.loss) else None,
            "classes": [each.to_dict() for each in self.classes],
            "failures": [list(failure) for failure in self.failures],
            "damaged": [list(clip) for clip in self.damaged],
            "wrong": [list(clip) for clip in self.wrong],
        }
        if self.setup is None:
            del result["setup"]
        return result

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> EvalReport:
        """The report of `to_dict`. Raises: KeyError, TypeError for anything else."""
        counts = ("label", "num_clips", "num_correct", "num_predicted")
        return cls(
            model=tree["model"],
            num_clips=tree["num_clips"],
            num_correct=tree["num_correct"],
            num_correct_top5=tree["num_correct_top5"],
            loss=math.nan if tree["loss"] is None else tree["loss"],
            classes=tuple(ClassResult(**{name: each[name] for name in counts}) for each in tree["classes"]),
            num_skipped=tree["num_skipped"],
            failures=tuple((path, error) for path, error in tree["failures"]),
            damaged=tuple((path, damage) for path, damage in tree.get("damaged", ())),  # not in early reports
            wrong=tuple((path, true, predicted) for path, true, predicted in tree["wrong"]),
            setup=EvalSetup(**tree["setup"]) if "setup" in tree else None,
        )


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What a training run began with: every tensor of the weights and of the network is accounted for."""

    weights: str
    """As the config names them."""
    num_loaded: int
    """Tensors of the network that begin with these weights."""
    skipped: tuple[tuple[str, str], ...]
    """(key, why) of every tensor of the weights that the network does not take, such as another classifier."""
    new: tuple[str, ...]
    """Keys of the network's tensors that begin as initialised."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> StartReport:
        """The report of `to_dict`."""
        skipped = tuple((key, why) for key, why in tree["skipped"])
        return cls(weights=tree["weights"], num_loaded=tree["num_loaded"], skipped=skipped, new=tuple(tree["new"]))


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One line of `log.jsonl`: an epoch of training and the evaluation after it."""

    epoch: int
    """1-based."""
    train_loss: float
    train_top1: float
    """Share in 0..1; with Mixup, mixed as the clips are."""
    train_top5: float
    val_loss: float
    val_top1: float
    val_top5: float
    learning_rate: float
    """Of the epoch's last step."""
    train_s: float
    eval_s: float
    images_per_s: float
    """Frames that went through the network in training."""
    data_wait_ratio: float
    """Share of `train_s` in which the network waited for clips."""
    failures: tuple[tuple[str, str], ...] = ()
    """(path, error) of the training clips that were skipped."""


def rank_epoch(val_top1: float, val_loss: float | None) -> tuple[float, float]:
    """By what epochs are compared, the best one lowest: the top-1 on held-out clips, then the loss there.

    A loss that is no number, or None as in `log.jsonl`, is the highest.
    """
    return -val_top1, val_loss if val_loss is not None and math.isfinite(val_loss) else math.inf


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run."""

    run_dir: str
    model: str
    epochs: tuple[EpochResult, ...]
    best_epoch: int
    """1-based; the one with the highest top-1, of several the one with the lowest loss. Its weights are in `best/`."""
    val: EvalReport
    """After the last epoch, whose weights are in `last/`."""


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What is wrong with a data set; every clip of it was decoded from beginning to end."""

    num_train: int
    num_val: int
    broken: tuple[tuple[str, str], ...]
    """(path, error) of clips that training skips and that count as wrong in evaluation."""
    doubtful: tuple[tuple[str, str], ...]
    """(path, remark) of clips that can be used, though something is odd about them."""
    repeated: tuple[tuple[str, str], ...]
    """(path, other path) of clips on one side of the split that are the same file, or have the same content."""
    in_two_classes: tuple[tuple[str, str, str], ...]
    """(path, other path, class of the other) of such clips where the classes differ: one of them is wrong."""
    on_both_sides: tuple[tuple[str, str, str], ...]
    """(training path, held-out path, remark) of such clips; the remark names both classes where they differ."""
    classes_without_train: tuple[str, ...]
    classes_without_val: tuple[str, ...]

    @property
    def problems(self) -> tuple[tuple[str, str, str], ...]:
        """(kind, path or class, detail) of everything found, as `write_check` writes it."""
        return (
            *(("broken", path, error) for path, error in self.broken),
            *(("doubtful", path, remark) for path, remark in self.doubtful),
            *(("repeated", path, f"same side: {other}") for path, other in self.repeated),
            *(
                ("two classes", path, f"also stands under '{name}': {other}")
                for path, other, name in self.in_two_classes
            ),
            *(("on both sides", path, f"held out: {val} {more}".rstrip()) for path, val, more in self.on_both_sides),
            *(("class", name, "has no clip to train on") for name in self.classes_without_train),
            *(("class", name, "has no clip held out") for name in self.classes_without_val),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ExportedProgram:
    """One program of an export, as its check found it."""

    file: str
    """Name in the folder; Paddle and OpenVINO have the weights in a second file beside it."""
    format: str
    precision: str
    size_bytes: int
    """Of all its files."""
    max_diff: float
    """Largest absolute difference of logits from the network's."""
    num_clips: int
    """Checked, rendered ones included."""
    num_agree: int
    """Clips whose best class is the network's."""
    num_labelled: int
    """Clips whose class is known, because a list or the name of their folder said it."""
    num_correct: int | None
    """Of these, the clips whose best class is the right one."""
    time_ms: float
    """Shortest wall time of one clip, one view of it."""
    threads: int
    """That `time_ms` was measured with."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """A finished export."""

    out_dir: str
    model: str
    programs: tuple[ExportedProgram, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result = asdict(self)
        result["programs"] = list(result["programs"])
        return result


@dataclass(frozen=True, kw_only=True)
class DecodeSpeed:
    """What decoding the sample of one video costs; of all videos together in a `DecodeContestant`."""

    median_ms: float
    """Wall time of opening, counting and decoding, over all counted runs."""
    p95_ms: float
    cpu_ms: float
    """Median CPU time of all threads."""
    frames_per_s: float
    """Frames of the sample, each once, by wall time."""
    ratio: float | None
    """How many times as fast as the base, by wall time: median of the runs in pairs, geometric mean of the videos."""
    cpu_ratio: float | None
    """The same by CPU time."""


@dataclass(frozen=True, kw_only=True)
class DecodedFile:
    """One library on one video."""

    path: str
    lib: str
    speed: DecodeSpeed | None = None
    """None where it failed."""
    peak_bytes: int | None = None
    """Largest resident memory of its process while it decoded this video; None where the system can't say."""
    num_frames: int | None = None
    """What it takes for the length of the video."""
    num_wrong: int | None = None
    """Frames of the sample that aren't equal, bit for bit, to those of sequential decoding."""
    mean_diff: float = 0.0
    """How far these are off on average, in grey levels of 0..255."""
    fallback: str | None = None
    """Why `ppv` decoded it sequentially; None where it did so by its plan, and of other libraries."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class DecodeContestant:
    """One library on all videos together."""

    lib: str
    how: str
    version: str | None = None
    num_threads: int
    """Threads that decode at the same time, at most."""
    speed: DecodeSpeed | None = None
    """Over the videos that no library failed on, so that all are compared on the same ones; None without any."""
    num_files: int = 0
    """Videos it decoded."""
    num_failed: int = 0
    num_compared: int = 0
    """Frames compared with those of sequential decoding."""
    num_wrong: int = 0
    peak_bytes: int | None = None
    error: str | None = None
    """Why it did not take part: not installed, or not to be loaded."""
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class DecodeReport:
    """What `bench_decode` measured."""

    num_segments: int
    """Frames of one sample."""
    num_runs: int
    """Counted runs of each library on each video."""
    base: str
    contestants: tuple[DecodeContestant, ...]
    """In the order asked for."""
    files: tuple[DecodedFile, ...]
    """Video by video, in each the libraries that took part."""
    num_common: int
    """Videos that every `DecodeContestant.speed` is about."""
    failures: tuple[tuple[str, str], ...] = ()
    """(path, error) of the videos without exact frames to compare with; no library was measured on them."""
    hints: tuple[str, ...] = ()
    """What to try about `failures`, each once."""
    damaged: tuple[tuple[str, str], ...] = ()
    """(path, what sequential decoding complained of) of videos that are cut off or damaged."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
