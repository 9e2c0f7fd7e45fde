"""The reference of the Python API: what its signatures name can be looked up on the page."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

GENERATE = Path(__file__).resolve().parents[2] / "docs" / "generate.py"
KNOWN = {"Path", "Sequence", "Iterable", "Iterator", "Callable", "NDArray", "None"}
"""Of Python and NumPy."""
ELSEWHERE = {"TrainConfig", "ModelRow", "TrainObserver", "Layer", "Indices", "Frames", "Format", "OnRun", "Report"}
"""What has a page of its own, or is said by the docstring."""


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _section(page: str, name: str) -> str:
    return page[page.index(f"## {name}\n") :].split("\n## ")[0]


def test_api_page_has_every_type_that_a_signature_names(generate: ModuleType) -> None:
    page = generate.api_page()
    signatures = re.findall(r"```python\n([a-z_]+\(.*)\n```", page)
    assert len(signatures) >= 10
    named = {name for line in signatures for name in re.findall(r"\b[A-Z][A-Za-z]+\b", re.sub(r" = [^,)]+", "", line))}
    listed = set(re.findall(r"^## ([A-Z]\w+)$", page, re.MULTILINE))
    assert named - listed - KNOWN - ELSEWHERE == set()


def test_class_on_the_api_page_has_its_arguments_and_methods(generate: ModuleType) -> None:
    page = generate.api_page()
    section = _section(page, "Predictor")
    assert "Predictor(model: str | None = None, *, weights:" in section
    assert "`model` None is the model that the file says it is of" in section
    assert "\nPredictor.predict(sources: str | Path | Iterable[str | Path], *, top_k:" in page


def test_type_on_the_api_page_has_its_import_fields_and_properties(generate: ModuleType) -> None:
    section = _section(generate.api_page(), "EvalReport")
    assert "from ppvcli.results import EvalReport" in section
    assert "| `num_correct` | `int` | Clips whose best class is the right one. |" in section
    assert "| `top1` | `float` | Share in 0..1. |" in section
