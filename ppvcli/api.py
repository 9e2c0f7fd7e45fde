"""Public functions that put a model's row of the zoo together with what the layers below offer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvcli.errors import UsageError
from ppvcli.models.zoo import ModelRow, get_model_row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ppvcli.weights.download import Report
    from ppvcli.weights.store import StoreRecord, WeightSource


def load_clip(path: str | Path, name: str, *, decoder: str = "pyav") -> npt.NDArray[np.float32]:
    """A video as the model `name` looks at it in evaluation: float32 [V, T, 3, H, W].

    V = crops x clips, all clips of the first crop first; [1, 16, 3, 224, 224] for `pptsmv2`, [30, 8, 3, 224, 224] for
    `pptsm`, [10, 25, 3, 224, 224] for `tsn`.

    Raises: UnknownNameError (model or decoder), VideoError (the file can't give the frames).
    """
    from ppvcli.video import clip

    return clip.load_clip(path, get_model_row(name).preprocess, decoder=decoder)


def download_weights(
    names: str | Sequence[str],
    *,
    mirror: str | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Report | None = None,
) -> list[StoreRecord]:
    """The store records of models, in order, after fetching the published weights that are not in the store.

    `names` is a model or several, aliases too. `force` fetches what is stored once more. `mirror` is a folder or an
    http(s) address to ask instead of the published one (default: `PPV_WEIGHTS_MIRROR`), `offline` forbids every
    connection. `progress` is called with a `DownloadProgress` whenever something happens.

    Raises: UnknownNameError; UsageError for a model without a published file; OfflineError, DownloadError;
    VerificationError for a stored file that is no longer what was downloaded.
    """
    from ppvcli.weights import fetch

    names = [names] if isinstance(names, str) else names
    sources = [_source(get_model_row(name)) for name in names]
    return fetch.download_weights(sources, mirror=mirror, offline=offline, force=force, progress=progress)


def _source(row: ModelRow) -> WeightSource:
    from ppvcli.weights.store import WeightSource

    if row.url is None:
        raise UsageError(
            f"there are no weights of {row.name} to download: {row.note}",
            hint="ppv download-weights --list shows which models have some",
        )
    return WeightSource(name=row.name, url=row.url, sha256=row.sha256)
