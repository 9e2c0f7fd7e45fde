"""What is known of a model before its network is built: its row, where its weights are, its classes. No paddle here."""

from __future__ import annotations

from pathlib import Path

from ppvcli.errors import UsageError, WeightsNotFoundError, nearest
from ppvcli.models.zoo import ZOO, ModelRow, get_model_row
from ppvcli.weights import store
from ppvcli.weights.formats import read_metadata

BUNDLED_DIR = Path(__file__).parent / "bundled"
DEMO_CLIP = BUNDLED_DIR / "demo.mp4"


def choose_row(model: str | None, weights: Path | None, *, default: str | None) -> ModelRow:
    """The row of `model`, else of the model that the weight file says it is of (every run folder does), else `default`.

    Raises: UnknownNameError; UsageError where model and file are of different architectures, or no model is named.
    """
    metadata = None if weights is None else read_metadata(weights)
    carried = None if metadata is None else metadata.model
    if model is None and carried is not None and carried not in ZOO:
        raise UsageError(
            f"{weights} says that it is of an unknown model '{carried}'{nearest(carried, ZOO)}",
            hint="name it: --model NAME",
        )
    name = next((one for one in (model, carried, default) if one is not None), None)
    if name is None:
        raise UsageError("no model is named", hint="--model NAME, or --weights RUN_DIR")
    row = get_model_row(name)
    # load_model would tell the same tensor by tensor
    if carried in ZOO and ZOO[carried].network.architecture != row.network.architecture:
        raise UsageError(f"{weights} holds weights of {carried}, not of {row.name}", hint="leave --model out")
    return row


def published_path(row: ModelRow) -> Path:
    """The file of a row's own weights, fetched if it is not in the store yet.

    Raises: WeightsNotFoundError for a model without one; OfflineError, DownloadError, VerificationError.
    """
    if row.bundled:
        return BUNDLED_DIR / f"{row.name}.safetensors"
    if row.url is None:
        raise WeightsNotFoundError(
            f"{row.name} has no published weights: {row.note}",
            hint=f"weights=FILE, or --model {row.name} --weights FILE",
        )
    path = store.find(row.name)
    if path is None:
        from ppvcli.weights import fetch

        fetch.download_weights([store.WeightSource(name=row.name, url=row.url, sha256=row.sha256)])
        path = store.weights_path(row.name)
    return path


def has_trained_weights(row: ModelRow) -> bool:
    """Whether a row without a weight file of the user's can answer; `tsm_efflite0` is only a start for training."""
    return row.network.architecture != "tsm_efflite0" or row.bundled


def untrained_error(row: ModelRow) -> WeightsNotFoundError:
    """What to say where a network whose classifier nothing has taught is asked for an opinion."""
    return WeightsNotFoundError(
        f"{row.name} is a start for training: nothing has taught its classifier yet",
        hint=f"ppv train --model {row.name} --data FOLDER, then ppv predict FILE --weights RUN_DIR",
    )


def known_labels(carried: tuple[str, ...] | None, published: tuple[str, ...], *, num_classes: int) -> tuple[str, ...]:
    """The class names of the weights, else the published ones, where their number fits; else `class_0`, ..."""
    for names in (carried, published):
        if names is not None and len(names) == num_classes:
            return names
    return tuple(f"class_{index}" for index in range(num_classes))
