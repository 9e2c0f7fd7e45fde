"""What README and the guides show is run, in order, as it stands there: the `ppv` commands and the Python examples."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppvcli
from ppvcli.configs.load import load_config
from ppvcli.errors import WeightsError
from ppvcli.models.build import build_network
from ppvcli.models.load import save_weights
from ppvcli.models.zoo import ZOO, get_model_row
from ppvcli.video.render import render_action, write_video
from ppvcli.weights.torch_legacy import find_efflite0_file
from tests.datasets.fake_ucf101 import listed_paths, write_clips, write_lists

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

NOT_RUN = {
    "on the real clips of ../shared/data, with the figures that came of it": (
        "ppv eval --model tsm_efflite0_weizmann --data ../shared/data/weizmann --list weizmann_test.list      28 of 30",
        "ppv eval --model tsm_efflite0_weizmann --data ../shared/data/weizmann --list weizmann_test.list --threads 1 "
        "[--protocol NAME]",
        "ppv eval --model pptsm_r101_k400_dense --weights w.safetensors --data one.list --workers 0 --threads 1    "
        "1.19 GB, 77 s CPU",
        "ppv export --model tsm_efflite0_weizmann --out wz --format paddle,onnx,openvino --precision fp32,bf16,int8 "
        "--calibration weizmann/weizmann_train.list --check weizmann/weizmann_test.list --threads 1",
        "ppv prepare-ucf101-66 --source ../shared/data/ucf101 --out u --allow-missing --format frames --num-workers 1",
    ),
    "downloads a large backbone": ("ppv download-weights resnet101_vd_ssld",),
    "downloads UCF101, 6.9 GB": ("ppv prepare-ucf101-66 --format frames --out data/ucf101-66",),
    "meant for GPUs": (
        "ppv train --config pptsm_ucf101-66_frames_dense_r101",
        "ppv train --model pptsmv2 --data my_clips",
        "ppv train --model tsm --data my_clips",
        "ppv train --model pptsm --data my_clips",
        "ppv train --config pptsm_k400_videos_uniform --gpus 0,1,2,3,4,5,6,7",
        "ppv train --config pptsm_k400_videos_uniform --gpus 0,1,2,3 --nnodes 2 --master 192.168.0.10:49178 "
        "--out /shared/runs/k400",
    ),
}
"""The commands in blocks that are no `sh`, by why they are none."""
PADDLEX = "from paddlex import create_model\n"
"""Opens the one Python example that is not run: PaddleX is not installed here."""

Ppv = Callable[..., Any]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """The `ppv` commands of a block, without what they are piped into or follow."""
    lines = re.sub(r"\\\n *", "", text).splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part.split(" | ")[0] for part in parts if part.startswith("ppv ")]


def arguments(command: str) -> tuple[list[str], str | None]:
    """What the shell would hand to `ppv`, file patterns replaced, and the file that it would write the output to.

    A training is cut down to one epoch.
    """
    command, _, target = command.partition(" > ")
    args = []
    for word in shlex.split(command)[1:]:
        args += sorted(str(path) for path in Path().glob(word)) if "*" in word else [word]
    if args[0] == "train" and not {"--resume", "--list-configs", "--print-config"} & set(args):
        args += ["--epochs", "1", "--set", "data.num_workers=0"]
    return args, target or None


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages talk about, and a mirror with (untrained) weights to download."""
    try:
        find_efflite0_file()
    except WeightsError as error:
        pytest.skip(f"needs the backbone from pip: {error.message}")
    folder = tmp_path_factory.mktemp("docs")
    for name, action in (("clip.mp4", "wave2"), ("clips/a.mp4", "jack"), ("clips/b.mp4", "walk")):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, render_action(action, num_frames=30))
    for action in ("bend", "jack"):
        (folder / "my_clips" / action).mkdir(parents=True)
        for i in range(2):
            write_video(folder / "my_clips" / action / f"lyova_g{i}.mp4", render_action(action, num_frames=30, seed=i))
    (folder / "my_clips.csv").write_text("path,label\nmy_clips/bend/lyova_g0.mp4,bend\n", encoding="utf-8")
    write_lists(folder / "ucf101" / "ucfTrainTestlist")
    write_clips(folder / "ucf101" / "videos", listed_paths())
    (folder / "my_classes.txt").write_text("HandstandPushups\nSurfing\n", encoding="utf-8")
    (folder / "mirror").mkdir()
    for name in ("pptsmv2", "tsm"):
        row = get_model_row(name)
        network = build_network(row.network, row.num_classes)
        assert row.url is not None
        save_weights(network, folder / "mirror" / row.url.rsplit("/", 1)[-1])
    return folder


@pytest.fixture(scope="module")
def trained_run(workspace: Path) -> Path:
    """What `runs/mine` is on the pages that do not train it themselves."""
    settings = [f"data.root={workspace / 'my_clips'}", "data.num_workers=0", "epochs=1"]
    ppvcli.train(load_config("tsm_efflite0_folder", settings), workspace / "trained")
    return workspace / "trained"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_and_examples_succeed(
    page: Path, workspace: Path, trained_run: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PPV_HOME", str(workspace / "home"))
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(workspace / "mirror"))
    shutil.rmtree("runs", ignore_errors=True)
    if "ppv train --model tsm_efflite0 --data my_clips --out runs/mine" not in page.read_text(encoding="utf-8"):
        shutil.copytree(trained_run, "runs/mine")
    shown = [(language, text) for language, text in blocks(page) if language in ("sh", "python")]
    assert shown
    for language, text in shown:
        if language == "python" and not text.startswith(PADDLEX):
            exec(compile(text, str(page), "exec"), {})
        for command in commands(text) if language == "sh" else ():
            args, target = arguments(command)
            answer = ppv(*args)
            assert answer.exit_code == 0, f"{command}\n{answer.stderr}"
            if target is not None:
                Path(target).write_text(answer.stdout, encoding="utf-8")


def test_shown_commands_that_are_not_run_are_known() -> None:
    shown = [
        command for page in PAGES for language, text in blocks(page) if language != "sh" for command in commands(text)
    ]
    assert sorted(shown) == sorted(command for listed in NOT_RUN.values() for command in listed)


@pytest.mark.parametrize("page", [*PAGES, *sorted((REPO / "docs").glob("*/*.md"))], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_reference_has_a_row_for_every_model() -> None:
    text = (REPO / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ZOO)
