"""Which run the weights belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.engine.eval_clips import find_run_dir


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and a project with a config.yaml of its own above weights."""
    for path in (
        "run/config.yaml",
        "run/best/weights.safetensors",
        "run/last/checkpoint.safetensors",
        "proj/config.yaml",
        "proj/models/w.safetensors",
        "proj/models/weights.safetensors",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("title: my site\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize(
    "weights",
    ["run", "run/best", "run/last", "run/best/weights.safetensors", "run/last/checkpoint.safetensors"],
)
def test_run_is_found_by_its_folder_and_by_what_lies_at_its_places_there(weights: str, home: Path) -> None:
    assert find_run_dir(home / weights) == home / "run"
    assert find_run_dir(f"~/{weights}") == home / "run"
    found = find_run_dir(Path(weights).relative_to("run"))
    assert found is not None
    assert found.resolve() == home / "run"


@pytest.mark.parametrize("weights", ["w.safetensors", "weights.safetensors", ""])
def test_config_of_something_else_near_weights_is_no_run(weights: str, home: Path) -> None:
    assert find_run_dir(home / "proj" / "models" / weights) is None
    assert find_run_dir(None) is None
