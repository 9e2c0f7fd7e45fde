"""What the benchmarks of `ppv predict` share: models of recipe weights, exports of them, the reference's path."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REPO = Path(__file__).resolve().parents[2]
CLIPS = REPO.parent / "shared" / "data"
EXAMPLE = CLIPS / "clips" / "example.avi"
PADDLEX_NAME = "PP-TSMv2-LCNetV2_16frames_uniform"


def work_dir() -> Path:
    """Where weights, exports and compiled programs of the benchmarks are kept: `PPV_BENCH_DIR`, else a cache folder."""
    path = Path(os.environ.get("PPV_BENCH_DIR", "~/.cache/ppvcli-bench")).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def environment(threads: int) -> dict[str, str]:
    """Of every child: one cache of compiled programs, as many threads as asked, no progress bars."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "PPV_HOME": str(work_dir() / "home"),
        "OMP_NUM_THREADS": str(threads),
        "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True",
        "PADDLE_PDX_CACHE_HOME": str(work_dir() / "paddlex"),
    }


def recipe_weights(model: str) -> Path:
    """Weights of the published shape, drawn by tests/recipe.py: the arithmetic of the real ones, no accuracy."""
    path = work_dir() / f"{model}.safetensors"
    if not path.exists():
        code = f"""
from ppvcli.models.build import build_with_weights, expected_shapes
from ppvcli.models.load import save_weights
from ppvcli.models.zoo import get_model_row
from ppvcli.weights.formats import WeightsMetadata
from tests.recipe import fill_state
row = get_model_row({model!r})
network = build_with_weights(row.network, 400, state=fill_state(expected_shapes(row.network, 400)))
save_weights(network, {str(path)!r}, metadata=WeightsMetadata(model=row.name))
"""
        run_python([sys.executable, "-c", code], threads=2)
    return path


def clip_720p() -> Path:
    """Five seconds of real footage scaled up to 1280x720, as H.264 in MP4: no clip of that size is at hand."""
    path = work_dir() / "clip_720p.mp4"
    if not path.exists():
        code = f"""
import numpy as np
from PIL import Image
from ppvcli.video.decoding import read_frames
from ppvcli.video.render import write_video
frames = read_frames({str(CLIPS / "clips" / "mmaction2_demo.mp4")!r}, list(range(150)))
write_video({str(path)!r}, np.stack([np.asarray(Image.fromarray(frame).resize((1280, 720))) for frame in frames]))
"""
        run_python([sys.executable, "-c", code], threads=2)
    return path


def exported(model: str, *, formats: str = "paddle", precision: str = "fp32") -> Path:
    """A folder of `ppv export` with recipe weights."""
    out = work_dir() / f"{model}-{formats}-{precision}"
    if not out.exists():
        args = ["export", "--weights", str(recipe_weights(model)), "--out", str(out), "--format", formats]
        args += ["--precision", precision]
        if "int8" in precision:
            args += ["--calibration", str(CLIPS / "weizmann")]
        run_python([sys.executable, "-m", "ppvcli", *args], threads=2)
    return out


def run_python(command: list[str], *, threads: int) -> str:
    """Runs a child to its end and returns its stdout; its stderr is shown if it fails."""
    result = subprocess.run(command, cwd=REPO, env=environment(threads), capture_output=True, text=True)
    if result.returncode:
        sys.stderr.write(result.stderr[-3000:])
        raise SystemExit(f"failed: {command[:4]}")
    return result.stdout


class Cost(NamedTuple):
    """Of one run."""

    wall_s: float
    cpu_s: float
    """Of all threads; other work on the machine changes it less."""


def show_ratios(name: str, ours: list[Cost], others: list[Cost]) -> None:
    """Prints medians and the ratio of each pair, by wall and by CPU time, and how busy the machine is."""
    for kind, own_s, other_s in (
        ("wall", [cost.wall_s for cost in ours], [cost.wall_s for cost in others]),
        ("CPU", [cost.cpu_s for cost in ours], [cost.cpu_s for cost in others]),
    ):
        ratios = [other / own for own, other in zip(own_s, other_s, strict=True)]
        print(
            f"{name}, {kind}: {statistics.median(ratios):.2f}x (min {min(ratios):.2f}, max {max(ratios):.2f}); "
            f"ours {statistics.median(own_s):.3f} s (min {min(own_s):.3f}), "
            f"theirs {statistics.median(other_s):.3f} s (min {min(other_s):.3f}), {len(ours)} pairs"
        )
    print(f"load average {os.getloadavg()[0]:.1f}")


def reference_path(folder: Path, preprocess: Any, *, threads: int) -> Callable[[str], Any]:
    """The reference's way from a file to logits: decord, Pillow, float passes, paddle.inference with oneDNN.

    Written from its description, one step after the other as it does it: all frames as pictures, each picture resized
    whole and cropped, a float array, three passes over it.
    """
    import decord
    import numpy as np
    from paddle import inference
    from PIL import Image

    from ppvcli.video.sampling import eval_indices

    config = inference.Config(str(folder / "inference.json"), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads)
    if b"leaky_relu" in (folder / "inference.json").read_bytes():
        config.delete_pass("conv_activation_onednn_fuse_pass")  # it crashes otherwise
    predictor = inference.create_predictor(config)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    short, size = preprocess.resize.short_side, preprocess.crop.size

    def run(path: str) -> Any:
        video = decord.VideoReader(path, num_threads=threads)
        (indices,) = eval_indices(preprocess.sampling, len(video))
        pictures = [Image.fromarray(frame) for frame in video.get_batch(indices.tolist()).asnumpy()]
        scaled = [picture.resize((int(short * 4 / 3), short), Image.Resampling.BILINEAR) for picture in pictures]
        left, top = round((scaled[0].width - size) / 2), round((short - size) / 2)
        crops = [picture.crop((left, top, left + size, top + size)) for picture in scaled]
        clip = np.stack([np.array(crop) for crop in crops]).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
        clip = (clip - mean) / std
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.reshape([1, *clip.shape])
        handle.copy_from_cpu(np.ascontiguousarray(clip[None], dtype=np.float32))
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()[0]

    return run
