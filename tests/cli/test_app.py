"""The frame around the commands: help, version, start-up imports, usage errors, completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppvcli
from ppvcli.cli.app import COMMANDS

HEAVY = (
    "paddle",
    "numpy",
    "cv2",
    "av",
    "PIL",
    "decord",
    "rich",
    "requests",
    "yaml",
    "safetensors",
    "ppvcli.models.zoo",
)
SEVEN = ("download-weights", "prepare-ucf101-66", "train", "eval", "export", "predict", "bench-decode")

REPO = Path(__file__).resolve().parents[2]

Ppv = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("args", [["--help"], ["--version"], [], *([name, "--help"] for name in SEVEN)])
def test_start_up_imports_nothing_heavy(args: list[str], python_process: Start) -> None:
    # Typer itself takes pydantic as soon as it looks at a command's parameters
    heavy = HEAVY if args[:1] and args[0] in SEVEN else (*HEAVY, "pydantic")
    code = f"""
import sys
from ppvcli.cli.app import main
exit_code = main({args!r})
print(sorted(set({heavy!r}) & set(sys.modules)), exit_code, file=sys.stderr)
"""
    stdout, stderr = python_process("-c", code).communicate(timeout=60)
    assert stderr == "[] 0\n"
    assert stdout


def test_import_of_the_package_imports_nothing_heavy(python_process: Start) -> None:
    code = f"import sys, ppvcli; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert python_process("-c", code).communicate(timeout=60) == ("[]\n", "")


def test_commands_are_the_seven_of_the_design() -> None:
    assert sorted(COMMANDS) == sorted(SEVEN)


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_help_names_every_command(args: list[str], ppv: Ppv) -> None:
    answer = ppv(*args)
    assert (answer.exit_code, answer.stderr) == (0, "")
    for name in SEVEN:
        assert f"\n  {name} " in answer.stdout
    assert "..." not in answer.stdout.split("Commands:")[1], "a summary is cut off"


@pytest.mark.parametrize("name", SEVEN)
def test_command_help_goes_to_stdout(name: str, ppv: Ppv) -> None:
    answer = ppv(name, "--help")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"Usage: ppv {name}")


def test_version_is_the_one_of_the_package(ppv: Ppv) -> None:
    assert ppv("--version") == (0, f"ppv {ppvcli.__version__}\n", "")


def test_python_m_is_the_same_command(python_process: Start) -> None:
    process = python_process("-m", "ppvcli", "--version")
    assert process.communicate(timeout=60) == (f"ppv {ppvcli.__version__}\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["predcit"], "no such command 'predcit'. Did you mean 'predict'?", "ppv --help"),
        (["--hepl"], "no such option: --hepl (Possible options: --help)", "ppv --help"),
        (["predict", "--jsn", "x"], "no such option: --jsn (Possible options: --json)", "ppv predict --help"),
        (["predict", "--top-k"], "option '--top-k' requires an argument", "ppv predict --help"),
        (["bench-decode", "--frames"], "option '--frames' requires an argument", "ppv bench-decode --help"),
        (["predict", "--model", ""], "--model is empty", "a variable in the command may be empty"),
        (["predict", "x.mp4", "-m", ""], "-m is empty", "a variable in the command may be empty"),
        (["eval", "--weights="], "--weights is empty", "a variable in the command may be empty"),
        (["export", "--out", "", "--model", "tsm"], "--out is empty", "a variable in the command may be empty"),
        (["predict", ""], "an argument is empty", "a variable in the command may be empty"),
        ([""], "an argument is empty", "a variable in the command may be empty"),
    ],
)
def test_usage_error_is_told_on_stderr_with_exit_code_2(args: list[str], error: str, hint: str, ppv: Ppv) -> None:
    assert ppv(*args) == (2, "", f"error: {error}\nhint: {hint}\n")


@pytest.mark.parametrize("command", ["predict", "bench-decode"])
def test_file_whose_name_looks_like_an_option_comes_with_the_way_to_name_it(
    command: str, ppv: Ppv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ppv(command, "-x.mp4").stderr == f"error: no such option: -x\nhint: ppv {command} --help\n"
    Path("-x.mp4").touch()
    assert ppv(command, "-x.mp4").stderr == "error: no such option: -x\nhint: ./-x.mp4 names the file\n"


def test_several_files_are_told_by_three_dots(ppv: Ppv) -> None:
    assert "[OPTIONS] [FILE]...\n" in ppv("predict", "--help").stdout


def _complete(words: str, *, env: dict[str, str]) -> list[str]:
    """What bash would offer for the last word."""
    request = {"_PPV_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    result = subprocess.run(
        [sys.executable, "-m", "ppvcli"], cwd=REPO, env={**env, **request}, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_install_completion_writes_a_script_that_bash_reads(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path)}
    # the exit keeps bash alive as the parent process, which is how the shell is found
    command = f"{sys.executable} -m ppvcli --install-completion; exit $?"
    subprocess.run(["bash", "-c", command], cwd=REPO, env=env, check=True, capture_output=True, timeout=60)
    script = tmp_path / ".bash_completions" / "ppv.sh"
    assert str(script) in (tmp_path / ".bashrc").read_text()
    shown = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p ppv"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "_ppv_completion" in shown.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ppv pre", ["predict", "prepare-ucf101-66"]),
        ("ppv predict --model pptsm_r101", ["pptsm_r101_k400_dense", "pptsm_r101_k400_uniform_distill"]),
        ("ppv train --config tsm_efflite0_w", ["tsm_efflite0_weizmann_videos"]),
        ("ppv predict --top", ["--top-k"]),
    ],
)
def test_completion_offers_commands_options_models_and_configs(words: str, offered: list[str]) -> None:
    assert _complete(words, env=dict(os.environ)) == offered
