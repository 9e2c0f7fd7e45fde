"""Rendered videos, each written once a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.video.numbered import FORMATS, numbered_frames


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of a numbered video of 40 frames, 96x64, in one of `FORMATS`."""
    folder = tmp_path_factory.mktemp("numbered")

    def video(name: str) -> Path:
        path = folder / name
        return path if path.exists() else FORMATS[name].write(path, numbered_frames())

    return video


@pytest.fixture(autouse=True)
def _small_files_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppvcli.video.plan.PLANNED_BYTES", 0)
    monkeypatch.setattr("ppvcli.video.plan.PLANNED_PIXELS", 0)


@pytest.fixture(autouse=True)
def _decord_only_where_it_is_installed(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("decoder") == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
