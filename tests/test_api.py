"""The public names of `ppvcli`, and the functions that put a row of the zoo together with the layers below."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppvcli
from ppvcli.errors import ConfigError, OfflineError, UnknownNameError, UsageError, VideoNotFoundError
from ppvcli.models.zoo import ZOO, get_model_row
from ppvcli.video.render import write_video
from tests.small_model import moving_block

REPO = Path(__file__).resolve().parents[1]

SIGNATURES = {
    "list_models": "()",
    "load_model": "(name, *, weights=None, num_classes=None)",
    "load_clip": "(path, name, *, decoder='pyav'",
    "read_frames": "(path, indices, *, decoder='pyav'",
    "predict": "(sources, *, model=None, weights=None, device='auto', runtime='auto', top_k=5",
    "download_weights": "(names, *, mirror=None, offline=False, force=False",
    "prepare_ucf101_66": "(out, *, source=None, split=1, format=None, classes=None",
}
"""As the design fixes them, without types; more keyword-only parameters may follow."""


@pytest.mark.parametrize("name", [name for name in ppvcli.__all__ if name != "__version__"])
def test_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(ppvcli, name)
    assert inspect.getdoc(value)
    assert name in dir(ppvcli)


@pytest.mark.parametrize("name", SIGNATURES)
def test_public_function_has_the_signature_of_the_design(name: str) -> None:
    parameters = inspect.signature(getattr(ppvcli, name)).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(plain)).startswith(SIGNATURES[name])


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        _ = ppvcli.predcit


def test_every_public_name_is_also_visible_to_type_checkers() -> None:
    source = (REPO / "ppvcli" / "__init__.py").read_text(encoding="utf-8")
    for name, home in ppvcli._HOMES.items():
        lines = [line for line in source.splitlines() if line.startswith(f"    from {home} import ")]
        assert any(name in line for line in lines), name
    assert set(ppvcli._HOMES) == set(ppvcli.__all__) - {"__version__"}


def test_models_and_clips_need_no_paddle() -> None:
    code = (
        "import sys, ppvcli; ppvcli.list_models(); ppvcli.load_clip; ppvcli.read_frames; print('paddle' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout == "False\n"


@pytest.mark.parametrize("name", [*ZOO, "tsn", "tsm", "pptsm", "pptsmv2"])
def test_load_clip_has_the_shape_that_the_model_takes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "clip.mp4"
    if not path.exists():
        write_video(path, moving_block(40))
    preprocess = get_model_row(name).preprocess
    clip = ppvcli.load_clip(path, name)
    assert clip.dtype == np.float32
    assert clip.shape == (preprocess.num_views, preprocess.sampling.num_segments, 3, *preprocess.input_hw)


def test_warnings_of_paddle_about_itself_are_not_shown_and_others_are() -> None:
    code = """
import warnings, ppvcli
network = ppvcli.load_model("tsm_efflite0_weizmann")
import paddle
network.train()
network(paddle.zeros([2, 8, 3, 32, 32]))
warnings.warn("When training, we now always track what I say")
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], cwd=REPO, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert [line.split("UserWarning: ")[1] for line in done.stderr.splitlines() if "UserWarning" in line] == [
        "When training, we now always track what I say"
    ]


def test_load_clip_of_a_missing_file_or_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError):
        ppvcli.load_clip(tmp_path / "none.mp4", "tsm")
    with pytest.raises(UnknownNameError):
        ppvcli.load_clip(tmp_path / "none.mp4", "tsmm")


@pytest.mark.parametrize("names", ["tsm", ["tsm"], ["tsm_k400"]])
def test_download_weights_offline_names_model_address_and_place(
    names: str | list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path))
    monkeypatch.delenv("PPV_WEIGHTS_MIRROR", raising=False)
    with pytest.raises(OfflineError) as caught:
        ppvcli.download_weights(names, offline=True)
    told = f"{caught.value.message} {caught.value.hint}"
    for part in ("tsm_k400", str(get_model_row("tsm").url), str(tmp_path), "--demo", "tsm_efflite0_weizmann"):
        assert part in told


@pytest.mark.parametrize("name", [row.name for row in ZOO.values() if row.url is None])
def test_download_weights_of_a_model_without_a_file_says_why(name: str) -> None:
    with pytest.raises(UsageError, match=f"no weights of {name} to download"):
        ppvcli.download_weights([name])


@pytest.mark.parametrize(
    ("name", "set_to", "threads"), [("train", None, "{cores}"), ("export", None, "{cores}"), ("evaluate", "3", "3")]
)
def test_first_use_of_paddle_takes_every_core_unless_the_user_has_said_how_many(
    name: str, set_to: str | None, threads: str
) -> None:
    code = (
        f"import os, sys, ppvcli; ppvcli.{name}; from ppvcli.machine import usable_cores\n"
        "assert 'paddle' in sys.modules; print(os.environ['OMP_NUM_THREADS'], usable_cores())"
    )
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    env |= {} if set_to is None else {"OMP_NUM_THREADS": set_to}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, cwd=REPO)
    assert found.stderr == ""
    number, cores = found.stdout.split()[-2:]
    assert number == threads.format(cores=cores)


def test_compiling_for_predict_leaves_every_core_to_what_comes_after(tmp_path: Path) -> None:
    code = (
        "import os, sys, ppvcli; from ppvcli.machine import usable_cores; from ppvcli.video.render import write_video\n"
        "from tests.small_model import moving_block; write_video('clip.mp4', moving_block(20))\n"
        "list(ppvcli.predict('clip.mp4', model='tsm_efflite0_weizmann', runtime='onnxruntime'))\n"
        "assert 'paddle' in sys.modules; print(os.environ['OMP_NUM_THREADS'] == str(usable_cores()))"
    )
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    env |= {"PPV_HOME": str(tmp_path / "home"), "PYTHONPATH": str(REPO)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert found.stdout == "True\n", found.stderr


@pytest.mark.parametrize("name", ["predict", "read_frames", "list_models"])
def test_names_without_paddle_leave_the_environment_alone(name: str) -> None:
    code = f"import os, ppvcli; before = dict(os.environ); ppvcli.{name}; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"data_format": "frame"}, "unknown data_format 'frame'; nearest: frames"),
    ],
)
def test_evaluate_with_an_impossible_argument_is_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ppvcli.evaluate(**settings)


def test_train_takes_the_path_of_a_config_and_a_single_writer(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("no_such_key: 1\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: no_such_key"):
        ppvcli.train(tmp_path / "config.yaml", tmp_path / "run")
    with pytest.raises(UnknownNameError, match="unknown writer 'tensorbord'"):
        ppvcli.train("tsm_efflite0_folder", tmp_path / "run", writers="tensorbord")


def test_load_model_with_a_path_in_place_of_a_name_says_where_paths_go() -> None:
    with pytest.raises(UsageError, match=r"expected the name of a model, got .*runs/mine") as caught:
        ppvcli.load_model(Path("runs/mine"))  # type: ignore[arg-type]
    assert "weights=" in str(caught.value.hint)


def test_one_name_in_place_of_several_is_taken_whole(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown library 'pvv'"):
        ppvcli.bench_decode("clip.mp4", "pvv")
    with pytest.raises(UnknownNameError, match="unknown format 'onx'"):
        ppvcli.export("tsm_efflite0_weizmann", tmp_path / "out", formats="onx")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp31'"):
        ppvcli.export("tsm_efflite0_weizmann", tmp_path / "out", precisions="fp31")
