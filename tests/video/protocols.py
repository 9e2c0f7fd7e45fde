"""The eval preprocessing of the reference's jobs, after SPEC.md 4.3; `models/zoo.py` says the same per checkpoint."""

from __future__ import annotations

from ppvcli.specs import Crop, Preprocess, Resize, Sampling

_KEEP_CV2 = Resize(backend="cv2", short_side=256, rounding="round")
_KEEP_CV2_FLOOR = Resize(backend="cv2", short_side=256, rounding="floor")
_KEEP_PILLOW = Resize(backend="pillow", short_side=256)
_SQUEEZE = Resize(backend="pillow", short_side=256, aspect="4:3")
_SQUEEZE_CV2 = Resize(backend="cv2", short_side=256, aspect="4:3")
_CENTER = Crop(kind="center", rounding="round")


def _select_left(num_segments: int) -> Sampling:
    return Sampling(mode="select_left", num_segments=num_segments)


def _uniform(num_segments: int) -> Sampling:
    return Sampling(mode="uniform", num_segments=num_segments)


_DENSE = Sampling(mode="dense", num_segments=8, num_clips=10)
_LINSPACE = Sampling(mode="linspace", num_segments=25)

VIDEO_JOBS = {
    "tsn_k400_valid3": Preprocess(sampling=_select_left(3), resize=_KEEP_CV2, crop=Crop(kind="center")),
    "tsn_k400_test25_tencrop": Preprocess(sampling=_select_left(25), resize=_KEEP_CV2, crop=Crop(kind="ten")),
    "tsm_k400_test8": Preprocess(sampling=_select_left(8), resize=_KEEP_PILLOW, crop=_CENTER),
    "pptsn_k400_test25_linspace_tencrop": Preprocess(sampling=_LINSPACE, resize=_KEEP_CV2_FLOOR, crop=Crop(kind="ten")),
    "pptsm_k400_uniform_test8": Preprocess(sampling=_uniform(8), resize=_SQUEEZE, crop=_CENTER),
    "pptsm_k400_dense_test_10clip_3crop": Preprocess(sampling=_DENSE, resize=_SQUEEZE, crop=Crop(kind="three")),
    "pptsmv2_16f_test": Preprocess(sampling=_uniform(16), resize=_SQUEEZE, crop=_CENTER),
}
"""Job of `data_golden.json` -> preprocessing."""

IMAGE_JOBS = {
    "tsn_valid": VIDEO_JOBS["tsn_k400_valid3"],
    "tsn_test_tencrop": VIDEO_JOBS["tsn_k400_test25_tencrop"],
    "tsm_test": VIDEO_JOBS["tsm_k400_test8"],
    "pptsn_test_tencrop": VIDEO_JOBS["pptsn_k400_test25_linspace_tencrop"],
    "pptsm_test": VIDEO_JOBS["pptsm_k400_uniform_test8"],
    "pptsm_dense_test_3crop": VIDEO_JOBS["pptsm_k400_dense_test_10clip_3crop"],
    "infer_ppTSN": Preprocess(sampling=_select_left(25), resize=_SQUEEZE_CV2, crop=Crop(kind="ten")),
}
"""Job of `image_golden.json` -> preprocessing (its sampling plays no part there)."""

WHOLE_FRAME = Preprocess(
    sampling=Sampling(mode="window", num_segments=8, frame_interval=4),
    resize=Resize(size_hw=(160, 192)),
    crop=Crop(kind="none"),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)
"""What `tsm_efflite0_weizmann` looks at."""
