"""Packages that are installed and can't be loaded, as with a library of the system missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def break_package(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test `import module` raises ImportError, here and in processes that are started."""
    (folder / "broken" / module).mkdir(parents=True)
    text = "raise ImportError('DLL load failed while importing it: a module was not found')\n"
    (folder / "broken" / module / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(folder / "broken")
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'broken'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
