"""From the tensors of a file to the state dict a network expects: every key used exactly once, or one error.

The reference loads what happens to fit and says nothing about the rest, so a wrong file gives a random network. Here a
prefix form is recognised, translated, and anything left over is a fault, with the exceptions that `MatchResult` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ppvcli.errors import WeightsMismatchError

_STUDENT = {"Student.0.": "backbone.", "Student.1.": "head."}
_SEQUENTIAL = {"0.": "backbone.", "1.": "head."}
_TEACHER = "Teacher."
_IMAGENET_CLASSIFIERS = frozenset(f"backbone.{name}.{part}" for name in ("fc", "out") for part in ("weight", "bias"))
"""Of a bare backbone file, where the backbone of ours has no classifier of its own."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class MatchResult:
    """Tensors in the keys of the network, and what was deliberately not taken from the file."""

    state: dict[str, np.ndarray]
    """Every expected key but those in `reinitialized`."""
    reinitialized: tuple[str, ...]
    """Expected keys of a classifier that the file lacks or has for another number of classes."""
    ignored: tuple[str, ...]
    """Keys of the file that were left: a teacher, or the classifier that is replaced."""


@dataclass(frozen=True)
class _Comparison:
    """Which tensors of a file go where, by canonical key, and which do not."""

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def num_faults(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.misshapen)

    @property
    def counts(self) -> str:
        return f"{len(self.missing)} missing, {len(self.extra)} extra, {len(self.misshapen)} misshapen"


def canonical_keys(keys: Iterable[str]) -> dict[str, str]:
    """Key of any prefix form -> `backbone.*` / `head.*` / `Teacher.*`.

    Forms: those names themselves; `Student.0.` and `Student.1.` (distillation); `0.` and `1.` (student export); no
    prefix (bare backbone). A key that is not of the file's form stays as it is; no two keys become the same.

    Source: SPEC section 6.
    """
    keys = list(keys)
    if any(key.startswith(("backbone.", "head.")) for key in keys):
        return {key: key for key in keys}
    if any(key.startswith(("Student.", _TEACHER)) for key in keys):
        return {key: _replace_prefix(key, _STUDENT) for key in keys}
    if any(key.startswith(tuple(_SEQUENTIAL)) for key in keys):
        return {key: _replace_prefix(key, _SEQUENTIAL) for key in keys}
    return {key: f"backbone.{key}" for key in keys}


def _replace_prefix(key: str, prefixes: Mapping[str, str]) -> str:
    for prefix, replacement in prefixes.items():
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key


def match_tensors(
    tensors: Mapping[str, np.ndarray],
    expected: Shapes,
    *,
    classifier: tuple[str, ...],
    replace_classifier: bool,
    candidates: Callable[[], Mapping[str, Shapes]],
    source: str,
) -> MatchResult:
    """`tensors` of a file in any prefix form, under the keys of `expected` (key -> shape).

    Args:
        classifier: keys of the classifier's weight and bias in `expected`.
        replace_classifier: a classifier that the file lacks, or has for another number of classes, is left out of the
            result for the network to keep its fresh one. A classifier that fits is taken.
        candidates: model name -> its expected shapes; called only to say in an error what the file would fit.
        source: the file, and what it was loaded for; the error message begins with it.

    Raises:
        WeightsMismatchError: lists every missing, extra and misshapen tensor.
    """
    file_keys = {canonical: key for key, canonical in canonical_keys(tensors).items()}
    # what holds no floats fits nowhere (bfloat16 comes from Paddle as uint16)
    shapes = {c: tensors[key].shape if tensors[key].dtype.kind == "f" else None for c, key in file_keys.items()}
    network_keys = {canonical: key for key, canonical in canonical_keys(expected).items()}
    wanted = {canonical: tuple(expected[key]) for canonical, key in network_keys.items()}
    classifier_keys = {canonical for canonical, key in network_keys.items() if key in classifier}
    comparison = _compare(shapes, wanted)
    replaced: set[str] = set()
    if replace_classifier:
        comparison, replaced = _without_classifier(comparison, classifier_keys)
    if comparison.num_faults:
        listing = [
            *(f"missing    {network_keys[key]} {list(wanted[key])}" for key in comparison.missing),
            *(
                f"extra      {_printable(file_keys[key])} {_describe(tensors[file_keys[key]])}"
                for key in comparison.extra
            ),
            *(
                f"misshapen  {network_keys[key]} {list(wanted[key])}, got {_describe(tensors[file_keys[key]])}"
                for key in comparison.misshapen
            ),
        ]
        nearest, hint = _nearest(shapes, candidates())
        raise WeightsMismatchError(
            "\n  ".join([f"{source}: the tensors do not fit: {comparison.counts}; nearest model: {nearest}", *listing]),
            hint=hint or _classifier_hint(comparison, classifier_keys, shapes=shapes),
        )
    return MatchResult(
        state={network_keys[key]: tensors[file_keys[key]] for key in comparison.fitting},
        reinitialized=tuple(network_keys[key] for key in wanted if key in replaced),
        ignored=tuple(file_keys[key] for key in comparison.ignored),
    )


def _printable(key: str) -> str:
    """A key of a foreign file must not steer the terminal."""
    return key if key.isprintable() else ascii(key)


def _describe(tensor: np.ndarray) -> str:
    return f"{list(tensor.shape)}" + ("" if tensor.dtype.kind == "f" else f" of {tensor.dtype}")


def _compare(shapes: Mapping[str, tuple[int, ...] | None], wanted: Shapes) -> _Comparison:
    """A teacher in the file counts as a fault only where the network has one too."""
    has_teacher = any(key.startswith(_TEACHER) for key in wanted)
    left = [key for key in shapes if key not in wanted]
    ignored = () if has_teacher else tuple(key for key in left if key.startswith(_TEACHER))
    return _Comparison(
        fitting=tuple(key for key, shape in wanted.items() if key in shapes and shapes[key] == shape),
        missing=tuple(key for key in wanted if key not in shapes),
        extra=tuple(key for key in left if key not in ignored),
        misshapen=tuple(key for key, shape in wanted.items() if key in shapes and shapes[key] != shape),
        ignored=ignored,
    )


def _without_classifier(comparison: _Comparison, classifier: set[str]) -> tuple[_Comparison, set[str]]:
    """The comparison with the classifier left out, if it does not fit as a whole; and the keys that were left out."""
    imagenet = tuple(key for key in comparison.extra if key in _IMAGENET_CLASSIFIERS)
    faulty = classifier & {*comparison.missing, *comparison.misshapen}
    replaced = classifier if faulty else set[str]()
    dropped = tuple(key for key in (*comparison.fitting, *comparison.misshapen) if key in replaced)
    result = _Comparison(
        fitting=tuple(key for key in comparison.fitting if key not in replaced),
        missing=tuple(key for key in comparison.missing if key not in replaced),
        extra=tuple(key for key in comparison.extra if key not in imagenet),
        misshapen=tuple(key for key in comparison.misshapen if key not in replaced),
        ignored=comparison.ignored + dropped + imagenet,
    )
    return result, replaced


def _nearest(shapes: Mapping[str, tuple[int, ...] | None], candidates: Mapping[str, Shapes]) -> tuple[str, str | None]:
    """The models that the file fits best, in words; and the option that selects one, where it fits exactly."""
    ranked: list[tuple[int, int, str, int]] = []
    for name, expected in candidates.items():
        comparison = _compare(shapes, {canonical: expected[key] for key, canonical in canonical_keys(expected).items()})
        ranked.append((comparison.num_faults, len(comparison.ignored), name, len(comparison.fitting)))
    if not ranked:
        return "none", None
    num_faults, num_ignored, name, num_fitting = min(ranked, key=lambda row: row[:2])
    if num_faults:
        return f"{name} ({num_fitting} of {len(shapes)} tensors fit)", None
    others = [row[2] for row in ranked if row[:2] == (0, num_ignored) and row[2] != name]
    if others:  # TSN and TSM, for one, have the same tensors and use them differently
        hint = "--model NAME with the one of these that the file was trained as; its tensors alone do not tell"
        return f"{name} (fits exactly; so do {', '.join(others)})", hint
    return f"{name} (fits exactly)", f"--model {name}"


def _classifier_hint(
    comparison: _Comparison, classifier: set[str], *, shapes: Mapping[str, tuple[int, ...] | None]
) -> str:
    """What to do where no model fits exactly."""
    if {*comparison.missing, *comparison.extra, *comparison.misshapen} - classifier - _IMAGENET_CLASSIFIERS:
        return "`ppv download-weights --list` names the models; --model selects one"
    if comparison.missing:
        return "the file is a backbone without a classifier: fine-tune from it with `ppv train`"
    num_classes = {shape[-1] for key in classifier if (shape := shapes.get(key))}
    return f"the classifier of the file has {', '.join(map(str, num_classes))} classes: give that number of labels"
