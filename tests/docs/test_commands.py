"""Every command that README and the guides show is run, in order, as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppvcli.errors import WeightsError
from ppvcli.models.build import build_network
from ppvcli.models.facts import BUNDLED_DIR
from ppvcli.models.load import save_weights
from ppvcli.models.zoo import ZOO, get_model_row
from ppvcli.video.render import render_action, write_video
from ppvcli.weights.torch_legacy import find_efflite0_file
from tests.datasets.fake_ucf101 import listed_paths, write_clips, write_lists

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs" / "guides").glob("*.md"))]
SHELL_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)

Ppv = Callable[..., Any]


def shown_commands(page: Path) -> list[str]:
    """The `ppv` commands of a page, without what they are piped into or follow."""
    lines = "\n".join(SHELL_BLOCK.findall(page.read_text(encoding="utf-8"))).splitlines()
    commands = [part.strip() for line in lines for part in line.split("&&")]
    return [command.split(" | ")[0] for command in commands if command.startswith("ppv ")]


def arguments(command: str) -> list[str]:
    """What the shell would hand to `ppv`, file patterns replaced; a training is cut down to one epoch."""
    args = []
    for word in shlex.split(command)[1:]:
        args += sorted(str(path) for path in Path().glob(word)) if "*" in word else [word]
    if args[0] == "train" and not {"--resume", "--list-configs", "--print-config"} & set(args):
        args += ["--epochs", "1", "--set", "data.num_workers=0"]
    return args


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_succeed(page: Path, workspace: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PPV_HOME", str(workspace / "home"))
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(workspace / "mirror"))
    commands = shown_commands(page)
    assert commands
    shutil.rmtree("runs", ignore_errors=True)
    if not any(command.startswith("ppv train --model") for command in commands):
        Path("runs/mine/best").mkdir(parents=True)  # what an earlier page has made
        shutil.copy(BUNDLED_DIR / "tsm_efflite0_weizmann.safetensors", "runs/mine/best/weights.safetensors")
    for command in commands:
        answer = ppv(*arguments(command))
        assert answer.exit_code == 0, f"{command}\n{answer.stderr}"


@pytest.mark.parametrize("page", [*PAGES, *sorted((REPO / "docs").glob("*/*.md"))], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_reference_has_a_row_for_every_model() -> None:
    text = (REPO / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ZOO)
