"""The table of models: what network each one is, how its published number was measured, and where its weights are.

Adding a checkpoint of a known network is adding one row. Nothing heavy is imported, so the CLI can list models fast.

Source: the reference's model pages and test configs, written down in SPEC sections 4.2 to 4.4 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ppvcli.errors import UnknownNameError
from ppvcli.specs import Crop, NetworkSpec, Preprocess, Resize, Sampling

LABEL_FILES = ("kinetics400", "ucf101", "ucf101-66", "weizmann")
"""Names that `load_labels` takes; each is a file `labels/<name>.txt`, one class a line, in index order."""


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """The facts of one checkpoint."""

    name: str
    network: NetworkSpec
    preprocess: Preprocess
    """Of the protocol that the claimed accuracy was measured with; training decides its own in a config."""
    labels: str
    """One of LABEL_FILES: the classes of the published classifier, in index order."""
    url: str | None
    """Of the published `.pdparams`; None for a model without a file of its own (`note` says why)."""
    claimed_top1: float | None
    """Percent, as published (for a bundled model: as measured by us)."""
    claimed_on: Literal["K400", "UCF101", "Weizmann"]
    bundled: bool = False
    """The weights are part of the package: `models/bundled/<name>.safetensors`."""
    sha256: str | None = None
    """Of the file at `url`. None where the publisher states none: the store then records it at first download."""
    note: str = ""

    @property
    def num_classes(self) -> int:
        """Of the published classifier."""
        return len(load_labels(self.labels))

    @property
    def protocol(self) -> str:
        """What one video is measured from: `Preprocess.protocol`."""
        return self.preprocess.protocol


# --- networks that more than one row has ------------------------------------------------------------------------------

_TSN = NetworkSpec(architecture="tsn")
_TSM = NetworkSpec(architecture="tsm", num_segments=8)
_TSM_NHWC = NetworkSpec(architecture="tsm", num_segments=8, data_format="NHWC")
_PPTSN = NetworkSpec(architecture="pptsn")
_PPTSM_R50 = NetworkSpec(architecture="pptsm", num_segments=8)
_PPTSM_R50_16F = NetworkSpec(architecture="pptsm", num_segments=16)  # teacher of the 16-frame DML file only
_PPTSM_R101 = NetworkSpec(architecture="pptsm", num_segments=8, depth=101)
_PPTSMV2_8F = NetworkSpec(architecture="pptsmv2", num_segments=8)
_PPTSMV2_16F = NetworkSpec(architecture="pptsmv2", num_segments=16)
_PPTSMV2_16F_LTA = NetworkSpec(architecture="pptsmv2", num_segments=16, temporal_attention=True)
_TSM_EFFLITE0 = NetworkSpec(architecture="tsm_efflite0", num_segments=8)

# --- test protocols ---------------------------------------------------------------------------------------------------

_SQUEEZE_4_3 = Resize(short_side=256, aspect="4:3")
_CENTER = Crop(kind="center", rounding="round")

_TSN_TEST = Preprocess(
    sampling=Sampling(mode="select_left", num_segments=25),
    resize=Resize(backend="cv2", short_side=256, rounding="round"),
    crop=Crop(kind="ten"),
)
# The video-file config: the frame-folder config samples and rounds as TSN does.
_PPTSN_TEST = Preprocess(
    sampling=Sampling(mode="linspace", num_segments=25),
    resize=Resize(backend="cv2", short_side=256),
    crop=Crop(kind="ten"),
)
_TSM_TEST = Preprocess(
    sampling=Sampling(mode="select_left", num_segments=8),
    resize=Resize(short_side=256),
    crop=_CENTER,
)
_UNIFORM_8_TEST = Preprocess(sampling=Sampling(mode="uniform", num_segments=8), resize=_SQUEEZE_4_3, crop=_CENTER)
_UNIFORM_16_TEST = Preprocess(sampling=Sampling(mode="uniform", num_segments=16), resize=_SQUEEZE_4_3, crop=_CENTER)
_DENSE_TEST = Preprocess(
    sampling=Sampling(mode="dense", num_segments=8, num_clips=10), resize=_SQUEEZE_4_3, crop=Crop(kind="three")
)
_EFFLITE0_TEST = Preprocess(
    sampling=Sampling(mode="window", num_segments=8, frame_interval=4),
    resize=Resize(size_hw=(160, 192)),
    crop=Crop(kind="none"),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)

# --- the table --------------------------------------------------------------------------------------------------------

_RELEASE_2_1 = "https://videotag.bj.bcebos.com/PaddleVideo-release2.1"
_RELEASE_2_2 = "https://videotag.bj.bcebos.com/PaddleVideo-release2.2"
_RELEASE_2_3 = "https://videotag.bj.bcebos.com/PaddleVideo-release2.3"

_ROWS = (
    ModelRow(
        name="tsn_k400_3seg",
        network=_TSN,
        preprocess=_TSN_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/TSN_k400.pdparams",
        claimed_top1=69.81,
        claimed_on="K400",
        note="trained with 3 frames per clip",
    ),
    ModelRow(
        name="tsn_k400_8seg",
        network=_TSN,
        preprocess=_TSN_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/TSN_k400_8.pdparams",
        claimed_top1=71.70,
        claimed_on="K400",
        note="trained with 8 frames per clip",
    ),
    ModelRow(
        name="tsm_k400",
        network=_TSM,
        preprocess=_TSM_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/TSM/TSM_k400.pdparams",
        claimed_top1=71.06,
        claimed_on="K400",
    ),
    ModelRow(
        name="tsm_k400_nhwc",
        network=_TSM_NHWC,
        preprocess=_TSM_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/TSM/TSM_k400.pdparams",
        claimed_top1=71.06,
        claimed_on="K400",
        note="the file of tsm_k400: the layout inside the network changes neither weights nor logits",
    ),
    ModelRow(
        name="tsm_ucf101",
        network=_TSM,
        preprocess=_TSM_TEST,
        labels="ucf101",
        url=f"{_RELEASE_2_1}/TSM/TSM_ucf101_nchw.pdparams",
        claimed_top1=94.42,
        claimed_on="UCF101",
    ),
    ModelRow(
        name="tsm_ucf101_amp",
        network=_TSM,
        preprocess=_TSM_TEST,
        labels="ucf101",
        url=f"{_RELEASE_2_1}/TSM/TSM_ucf101_amp_nchw.pdparams",
        claimed_top1=94.40,
        claimed_on="UCF101",
        note="trained in mixed precision",
    ),
    ModelRow(
        name="tsm_ucf101_amp_nhwc",
        network=_TSM_NHWC,
        preprocess=_TSM_TEST,
        labels="ucf101",
        url=f"{_RELEASE_2_1}/TSM/TSM_ucf101_amp_nhwc.pdparams",
        claimed_top1=94.55,
        claimed_on="UCF101",
        note="trained in mixed precision, layout NHWC",
    ),
    ModelRow(
        name="pptsn_k400_3seg",
        network=_PPTSN,
        preprocess=_PPTSN_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/ppTSN_k400.pdparams",
        claimed_top1=73.68,
        claimed_on="K400",
        note="trained with 3 frames per clip",
    ),
    ModelRow(
        name="pptsn_k400_8seg_distill",
        network=_PPTSN,
        preprocess=_PPTSN_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/ppTSN_k400_8.pdparams",
        claimed_top1=75.06,
        claimed_on="K400",
        note="trained with 8 frames per clip, distilled",
    ),
    ModelRow(
        name="pptsm_r50_k400_uniform",
        network=_PPTSM_R50,
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/PPTSM/ppTSM_k400_uniform.pdparams",
        claimed_top1=74.54,
        claimed_on="K400",
    ),
    ModelRow(
        name="pptsm_r50_k400_dense",
        network=_PPTSM_R50,
        preprocess=_DENSE_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/PPTSM/ppTSM_k400_dense.pdparams",
        claimed_top1=75.69,
        claimed_on="K400",
    ),
    ModelRow(
        name="pptsm_r50_k400_uniform_distill",
        network=_PPTSM_R50,
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/PPTSM/ppTSM_k400_uniform_distill.pdparams",
        claimed_top1=75.11,
        claimed_on="K400",
        note="distilled",
    ),
    ModelRow(
        name="pptsm_r50_k400_dense_distill",
        network=_PPTSM_R50,
        preprocess=_DENSE_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_1}/PPTSM/ppTSM_k400_dense_distill.pdparams",
        claimed_top1=76.16,
        claimed_on="K400",
        note="distilled",
    ),
    ModelRow(
        name="pptsm_r101_k400_dense",
        network=_PPTSM_R101,
        preprocess=_DENSE_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/ppTSM_k400_dense_r101.pdparams",
        claimed_top1=77.15,
        claimed_on="K400",
    ),
    ModelRow(
        name="pptsm_r101_k400_uniform_distill",
        network=_PPTSM_R101,
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_2}/ppTSM_k400_uniform_distill_r101.pdparams",
        claimed_top1=76.35,
        claimed_on="K400",
        note="distilled; the published number is of one uniform clip",
    ),
    ModelRow(
        name="pptsmv2_k400_8f",
        network=_PPTSMV2_8F,
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_8f.pdparams",
        claimed_top1=71.81,
        claimed_on="K400",
    ),
    ModelRow(
        name="pptsmv2_k400_16f",
        network=_PPTSMV2_16F,
        preprocess=_UNIFORM_16_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_16f.pdparams",
        claimed_top1=73.1,
        claimed_on="K400",
    ),
    ModelRow(
        name="pptsmv2_k400_16f_lta",
        network=_PPTSMV2_16F_LTA,
        preprocess=_UNIFORM_16_TEST,
        labels="kinetics400",
        url=None,
        claimed_top1=None,
        claimed_on="K400",
        note="no file of its own: the network of pptsmv2_k400_16f_dml_student, for weights trained without a teacher",
    ),
    ModelRow(
        name="pptsmv2_k400_8f_dml",
        network=NetworkSpec(architecture="pptsmv2", num_segments=8, teacher=_PPTSM_R50),
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_8f_dml.pdparams",
        claimed_top1=72.45,
        claimed_on="K400",
        note="student and teacher in one file; the number is the student's",
    ),
    ModelRow(
        name="pptsmv2_k400_8f_dml_student",
        network=_PPTSMV2_8F,
        preprocess=_UNIFORM_8_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_8f_dml_student.pdparams",
        claimed_top1=72.45,
        claimed_on="K400",
        note="distilled",
    ),
    ModelRow(
        name="pptsmv2_k400_16f_dml",
        network=NetworkSpec(architecture="pptsmv2", num_segments=16, temporal_attention=True, teacher=_PPTSM_R50_16F),
        preprocess=_UNIFORM_16_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_16f_dml.pdparams",
        claimed_top1=75.16,
        claimed_on="K400",
        note="student and teacher in one file; the number is the student's",
    ),
    ModelRow(
        name="pptsmv2_k400_16f_dml_student",
        network=_PPTSMV2_16F_LTA,
        preprocess=_UNIFORM_16_TEST,
        labels="kinetics400",
        url=f"{_RELEASE_2_3}/PPTSMv2_k400_16f_dml_student.pdparams",
        claimed_top1=75.16,
        claimed_on="K400",
        note="distilled, with temporal attention (LTA)",
    ),
    ModelRow(
        name="tsm_efflite0",
        network=_TSM_EFFLITE0,
        preprocess=_EFFLITE0_TEST,
        labels="weizmann",
        url=None,
        claimed_top1=None,
        claimed_on="Weizmann",
        note="a start for training: ImageNet backbone from pip (ppvcli[efflite0]), the classifier begins untrained",
    ),
    ModelRow(
        name="tsm_efflite0_weizmann",
        network=_TSM_EFFLITE0,
        preprocess=_EFFLITE0_TEST,
        labels="weizmann",
        url=None,
        claimed_top1=93.3,
        claimed_on="Weizmann",
        bundled=True,
        note="ten whole-body actions; comes with the package, needs no download",
    ),
)

ZOO: dict[str, ModelRow] = {row.name: row for row in _ROWS}

ALIASES = {
    "tsn": "tsn_k400_8seg",
    "tsm": "tsm_k400",
    "pptsn": "pptsn_k400_8seg_distill",
    "pptsm": "pptsm_r101_k400_dense",
    "pptsmv2": "pptsmv2_k400_16f_dml_student",
}
"""Short names for the best published weights of each family."""


def get_model_row(name: str) -> ModelRow:
    """The row of a model name or alias.

    Raises: UnknownNameError, with the nearest names.
    """
    row = ZOO.get(ALIASES.get(name, name))
    if row is None:
        raise UnknownNameError("model", name, [*ZOO, *ALIASES], hint="ppv download-weights --list shows every model")
    return row


def list_models() -> list[str]:
    """The names of all models, family by family; aliases are not among them."""
    return list(ZOO)


@cache
def load_labels(name: str) -> tuple[str, ...]:
    """The class names of one of LABEL_FILES, in index order: `load_labels("kinetics400")[5] == "archery"`.

    Raises: UnknownNameError.
    """
    if name not in LABEL_FILES:
        raise UnknownNameError("label file", name, LABEL_FILES, hint=f"known: {', '.join(LABEL_FILES)}")
    path = Path(__file__).parent / "labels" / f"{name}.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())
