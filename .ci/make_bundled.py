"""Makes the files of `ppvcli/models/bundled/`: `python .ci/make_bundled.py RUN_DIR`.

RUN_DIR is a run of `ppv train --config tsm_efflite0_weizmann_videos`; its last epoch becomes the bundled weights, in
half precision. The demo clip is rendered.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

from ppvcli.video.render import render_action, write_video
from ppvcli.weights.formats import read_weights, write_safetensors

BUNDLED = Path(__file__).parents[1] / "ppvcli" / "models" / "bundled"
NAME = "tsm_efflite0_weizmann"


def main() -> None:
    run_dir = Path(sys.argv[1])
    file = read_weights(run_dir / "last")
    assert file.metadata is not None
    metadata = dataclasses.replace(file.metadata, model=NAME, extra={})
    tensors = {key: tensor.astype(np.float16) for key, tensor in file.tensors.items()}
    worst = max(np.abs(tensors[key] - tensor).max() for key, tensor in file.tensors.items())
    largest = max(np.abs(tensor).max() for tensor in file.tensors.values())
    path = BUNDLED / f"{NAME}.safetensors"
    write_safetensors(path, tensors, metadata=metadata)
    print(f"{path}: {path.stat().st_size} bytes, largest value {largest:.4g}, largest rounding {worst:.2g}")
    clip = BUNDLED / "demo.mp4"
    write_video(clip, render_action("wave2", num_frames=48))
    print(f"{clip}: {clip.stat().st_size} bytes")


if __name__ == "__main__":
    main()
