"""Public functions that put a model's row of the zoo together with what the layers below offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvcli.arguments import as_names
from ppvcli.models.zoo import get_model_row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ppvcli.datasets.progress import PrepareProgress
    from ppvcli.datasets.ucf101 import PreparedDataset
    from ppvcli.weights.download import DownloadProgress
    from ppvcli.weights.store import StoreRecord


def load_clip(path: str | Path, name: str, *, decoder: str = "pyav") -> npt.NDArray[np.float32]:
    """A video as the model `name` looks at it in evaluation: float32 [V, T, 3, H, W].

    V = crops x clips, all clips of the first crop first; [1, 16, 3, 224, 224] for `pptsmv2`, [30, 8, 3, 224, 224] for
    `pptsm`, [10, 25, 3, 224, 224] for `tsn`. `decoder` is `pyav`, `sequential`, `opencv` or `decord`.

    Raises: UnknownNameError (model or decoder), VideoError (the file can't give the frames).
    """
    from ppvcli.video import clip

    return clip.load_clip(path, get_model_row(name).preprocess, decoder=decoder)


def download_weights(
    names: str | Sequence[str],
    *,
    mirror: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Callable[[DownloadProgress], None] | None = None,
) -> list[StoreRecord]:
    """The store records of models, in order, after fetching the published weights that are not in the store.

    `names` is a model or several, aliases and ImageNet backbones too. `force` fetches what is stored once more.
    `mirror` is a folder or an http(s) address to ask instead of the published one (default: `PPV_WEIGHTS_MIRROR`),
    `offline` forbids every connection. `progress` is called with a `DownloadProgress` whenever something happens.

    Raises: UnknownNameError; UsageError for a model without a published file; OfflineError, DownloadError;
    VerificationError for a stored file that is no longer what was downloaded.
    """
    from ppvcli.models.backbones import weight_source
    from ppvcli.weights import fetch

    sources = [weight_source(name) for name in as_names(names)]
    return fetch.download_weights(sources, mirror=mirror, offline=offline, force=force, progress=progress)


def prepare_ucf101_66(
    out: str | Path,
    *,
    source: str | Path | None = None,
    split: int = 1,
    format: str | None = None,
    classes: str | Path | None = None,
    num_workers: int | None = None,
    allow_missing: bool = False,
    force: bool = False,
    progress: Callable[[PrepareProgress], None] | None = None,
) -> PreparedDataset:
    """The sport classes of UCF101 in the folder `out`, with lists that a training config can name.

    `source` is a folder with the clips or an archive of them (.rar, .tar, .tar.gz, .zip), the split lists in it or
    beside it; None takes the source of the last run, else downloads 6.9 GB from the publisher. `split` is 1, 2 or 3,
    `format` is `videos` or `frames` (JPEG files, extracted by `num_workers` processes; None: one for each CPU core).
    `classes` is a file with one class name a line, in the order of the labels. Where `format` or `classes` is None the
    folder keeps its own; an empty one gets videos of the 65 classes of UCF101-66. Listed clips that are absent or can't
    be decoded are an error, or left out with `allow_missing`; `missing.txt` names them. A call that was interrupted
    goes on when it is repeated; once all is done it compares hashes and changes nothing. `force` prepares anew what is
    there, and the old set stays whole until the new one takes its place. `progress` is called with a `PrepareProgress`
    whenever something happens.

    Frames start worker processes: a script that calls this needs `if __name__ == "__main__":`.

    Raises: UsageError, also for a folder that holds other things; UnknownNameError (format or class); DatasetError for
    a source, list or archive that can't be used, missing clips, and files that changed since they were prepared;
    DownloadError.
    """
    from ppvcli.datasets import ucf101
    from ppvcli.datasets.annotations import read_labels
    from ppvcli.datasets.ucf101_lists import check_classes
    from ppvcli.machine import usable_cores
    from ppvcli.models.zoo import load_labels

    class_names = None if classes is None else read_labels(Path(classes))
    check_classes(class_names or (), load_labels("ucf101"))
    request = ucf101.Request(
        class_names=class_names,
        sports=load_labels("ucf101-66"),
        source=None if source is None else Path(source),
        split=split,
        format=format,
        num_workers=num_workers if num_workers is not None else usable_cores(),
        allow_missing=allow_missing,
        force=force,
    )
    return ucf101.prepare(Path(out), request, report=progress or (lambda _: None))
