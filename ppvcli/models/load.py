"""Weight files into networks, and back: `load_model` and `save_weights`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from paddle import nn

from ppvcli.errors import UsageError, WeightsError, WeightsMismatchError
from ppvcli.files import replacing
from ppvcli.models.build import build_with_weights, classifier_keys, expected_shapes
from ppvcli.models.facts import has_trained_weights, published_path
from ppvcli.models.tsm_efflite0 import imagenet_state
from ppvcli.models.zoo import ZOO, ModelRow, get_model_row
from ppvcli.specs import NetworkSpec, Preprocess
from ppvcli.weights.formats import WeightsMetadata, read_weights, write_safetensors
from ppvcli.weights.matching import canonical_keys, match_tensors
from ppvcli.weights.pdparams import NAME_TABLE_KEY
from ppvcli.weights.torch_legacy import find_efflite0_file, read_torch_legacy


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Where a network's weights came from and what became of them; `load_model` leaves it at `network.load_report`."""

    path: Path
    form: str
    """Kind of the file, such as `safetensors`, `checkpoint` or `pdparams`."""
    num_loaded: int
    """Tensors of the network that the file filled."""
    reinitialized: tuple[str, ...]
    """Keys of a classifier that is new and untrained, because the file has none for that number of classes."""
    ignored: tuple[str, ...]
    """Keys of the file that were left: a teacher, or the classifier that is replaced."""
    num_classes: int
    labels: tuple[str, ...] | None
    """Class names that the file carries for its classifier, unless that is replaced."""
    preprocess: Preprocess | None
    """Eval preprocessing that the file carries."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is to be loaded, read but not yet compared with any network."""

    path: Path
    form: str
    tensors: Mapping[str, np.ndarray]
    metadata: WeightsMetadata | None
    has_classifier: bool = True


def load_model(name: str | ModelRow, *, weights: str | Path | None = None, num_classes: int | None = None) -> nn.Layer:
    """The network of a model with its weights, in eval mode: float32 [N, T, 3, H, W] -> logits float32 [N, K].

    `weights` is a file of any form `read_weights` knows, or a run folder. Without it the weights come from the package
    (bundled models), from the store, or else are fetched into the store; `tsm_efflite0` starts from the ImageNet
    backbone that pip delivers. K is the file's number of classes unless `num_classes` asks for another one: the
    classifier alone then starts anew, initialised as for training. The files of a DML pair give the pair, whose logits
    are the student's, or the student alone if the file has no teacher. `load_report` of the result, a `LoadReport`,
    says what was loaded.

    Raises: UnknownNameError, UsageError; WeightsNotFoundError, WeightsFormatError, UnsafeWeightsError for what is no
    weight file; WeightsMismatchError for a file of another network, with the nearest model; OfflineError,
    DownloadError, VerificationError where the weights come from the store.
    """
    if not isinstance(name, (str, ModelRow)):
        raise UsageError(f"expected the name of a model, got {name!r}", hint="a file or run is said by weights=")
    row = get_model_row(name) if isinstance(name, str) else name
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"a model needs at least one class, got num_classes {num_classes}")
    if weights is None and not has_trained_weights(row):
        source = _read_imagenet_backbone()
    else:
        source = _read(published_path(row) if weights is None else weights)
    return _load(source, row, num_classes=num_classes)


def _read(path: str | Path) -> _Source:
    file = read_weights(path)
    return _Source(path=file.path, form=file.form, tensors=file.tensors, metadata=file.metadata)


def _read_imagenet_backbone() -> _Source:
    path = find_efflite0_file()
    tensors = imagenet_state(read_torch_legacy(path))
    return _Source(path=path, form="torch", tensors=tensors, metadata=None, has_classifier=False)


def _load(source: _Source, row: ModelRow, *, num_classes: int | None) -> nn.Layer:
    metadata = source.metadata or WeightsMetadata()
    spec = row.network if metadata.network is None or metadata.model != row.name else metadata.network
    if spec.teacher is not None and not any(key.startswith("Teacher.") for key in source.tensors):
        spec = replace(spec, teacher=None)
    count = num_classes or _num_classes(source.tensors, spec) or row.num_classes
    match = match_tensors(
        source.tensors,
        expected_shapes(spec, count),
        classifier=classifier_keys(spec),
        replace_classifier=num_classes is not None or not source.has_classifier,
        candidates=lambda: _zoo_shapes(source.tensors),
        source=f"{source.path} as {row.name}",
    )
    if num_classes is None:
        _check_arithmetic(source, row)
    labels = None if match.reinitialized else metadata.labels
    if labels is not None and len(labels) != count:
        raise WeightsMismatchError(f"{source.path} names {len(labels)} classes, but its classifier has {count}")
    network = build_with_weights(spec, count, state=match.state)
    network.load_report = LoadReport(
        path=source.path,
        form=source.form,
        num_loaded=len(match.state),
        reinitialized=match.reinitialized,
        ignored=match.ignored,
        num_classes=count,
        labels=labels,
        preprocess=metadata.preprocess,
    )
    return network


def _check_arithmetic(source: _Source, row: ModelRow) -> None:
    """Refuses weights of a network with the same tensors but another use of them: TSN as TSM, 8 frames as 16.

    Raises: WeightsMismatchError.
    """
    name = source.metadata.model if source.metadata is not None else None
    if name not in ZOO:
        return
    if name == row.name:
        return
    specs = ((source.metadata and source.metadata.network) or ZOO[name].network, row.network)
    trained, wanted = (replace(spec, teacher=None, data_format="NCHW") for spec in specs)
    if trained != wanted:
        raise WeightsMismatchError(
            f"{source.path} holds weights of {name}, and {row.name} is another network "
            f"({_describe(wanted)} instead of {_describe(trained)})",
            hint=f"--model {name}",
        )


def _describe(spec: NetworkSpec) -> str:
    return spec.architecture if spec.num_segments is None else f"{spec.architecture} with {spec.num_segments} frames"


def _num_classes(tensors: Mapping[str, np.ndarray], spec: NetworkSpec) -> int | None:
    """Classes of the classifier in a file, where it has one at the place that `spec` has it."""
    classifier = set(canonical_keys(classifier_keys(spec)).values())
    for key, canonical in canonical_keys(tensors).items():
        if canonical in classifier and canonical.endswith(".fc.weight") and tensors[key].ndim == 2:
            return tensors[key].shape[1] or None
    return None


def _zoo_shapes(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Model name -> state-dict key -> shape, with the file's number of classes where it shows one.

    Of several checkpoints of one network the first in the zoo stands for all.
    """
    result, seen = {}, set()
    for row in ZOO.values():
        network = (row.network, _num_classes(tensors, row.network) or row.num_classes)
        if network not in seen:
            seen.add(network)
            result[row.name] = expected_shapes(*network)
    return result


def save_weights(model: nn.Layer, path: str | Path, *, metadata: WeightsMetadata | None = None) -> None:
    """Writes a network's state dict under its own keys: `.safetensors`, or `.pdparams` for the reference to read.

    The file is complete or not there. `metadata` (model, labels, preprocessing) needs `.safetensors`.

    Raises: UsageError for another ending, or metadata that the form can't hold; WeightsError where writing fails.
    """
    path = Path(path)
    tensors = model.state_dict()
    if path.suffix == ".safetensors":
        write_safetensors(path, {key: tensor.numpy() for key, tensor in tensors.items()}, metadata=metadata)
    elif path.suffix == ".pdparams":
        if metadata is not None:
            raise UsageError(f"{path}: a .pdparams file has no place for metadata", hint="write a .safetensors file")
        tree: dict[str, object] = {key: tensor.numpy() for key, tensor in tensors.items()}
        tree[NAME_TABLE_KEY] = {key: tensor.name for key, tensor in tensors.items()}
        _write_pickle(path, tree)
    else:
        raise UsageError(f"can't write weights to {path}", hint="the name must end in .safetensors or .pdparams")


def _write_pickle(path: Path, tree: Mapping[str, object]) -> None:
    # Protocol 3 is the last that names a class in plain text. NumPy 2 writes a module name that NumPy 1, which the
    # reference needs, does not know; the name stands in the pickle once, before the first array.
    content = pickle.dumps(tree, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise WeightsError(
            f"can't write the weights to {path}: {error.strerror or error}", hint="free some space, or write elsewhere"
        ) from error
