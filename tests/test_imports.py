"""Who may import whom. Every import statement of the package counts, also those inside functions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ppvcli"

LAYERS = (
    ("cli",),
    ("api",),
    ("engine", "deploy"),
    ("datasets", "models"),
    ("video", "weights", "configs", "machine"),
    ("specs", "results", "errors", "files", "processes", "arguments"),
)
"""From top to bottom. A part may import what stands below it, and itself; not its neighbours on the same line."""

FACADE = {"__init__", "__main__"}
"""Top-level files that are no part: the public names, loaded on first use, and `python -m ppvcli`."""

HOMES = {
    "paddle": ("engine/", "deploy/", "models/"),
    "requests": ("weights/download.py",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "click": (),  # Typer carries its own
    "decord": ("video/",),
}
"""Third-party modules that are at home in some places only."""

WITHOUT_PADDLE = ("models/zoo.py", "models/__init__.py", "deploy/__init__.py", "engine/__init__.py")
"""Files in paddle's homes that must stay importable without it."""

LIGHT = ("ppvcli", "ppvcli.errors")
"""What a file of `cli/` may import at its top besides the standard library, typer and the rest of `cli/`."""


class Import(NamedTuple):
    file: str
    """Relative to the package, such as `video/clip.py`."""
    line: int
    module: str
    at_top: bool
    """Runs when the file is imported."""


def _imports_of(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = path.relative_to(PACKAGE).as_posix()
    found: list[Import] = []

    def visit(node: ast.AST, *, at_top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(file, child.lineno, alias.name, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: relative import"
                module = child.module or ""
                names = [f"{module}.{alias.name}" for alias in child.names] if module == "ppvcli" else [module]
                found.extend(Import(file, child.lineno, name, at_top) for name in names)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                type_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                visit(child, at_top=at_top and not function and not type_only)

    visit(tree, at_top=True)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [one for path in FILES for one in _imports_of(path)]


def _part_of_file(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def _rank(part: str) -> int:
    return next(rank for rank, parts in enumerate(LAYERS) if part in parts)


def _show(imports: list[Import]) -> str:
    return "\n".join(f"{one.file}:{one.line} imports {one.module}" for one in imports)


def test_every_part_of_the_package_is_in_the_table_of_layers() -> None:
    parts = {_part_of_file(path.relative_to(PACKAGE).as_posix()) for path in FILES} - FACADE
    assert parts == {part for layer in LAYERS for part in layer}


def test_imports_point_down() -> None:
    wrong = []
    for one in IMPORTS:
        source = _part_of_file(one.file)
        if not one.module.startswith("ppvcli.") or source in FACADE:
            continue
        target = one.module.split(".")[1]
        if target.startswith("__") or target == source:
            continue
        if _rank(target) <= _rank(source):
            wrong.append(one)
    assert not wrong, _show(wrong)


@pytest.mark.parametrize("module", HOMES)
def test_third_party_module_is_imported_only_at_home(module: str) -> None:
    wrong = [one for one in IMPORTS if one.module.split(".")[0] == module and not one.file.startswith(HOMES[module])]
    assert not wrong, _show(wrong)


@pytest.mark.parametrize("file", WITHOUT_PADDLE)
def test_file_without_paddle_does_not_import_it(file: str) -> None:
    assert (PACKAGE / file).is_file()
    wrong = [one for one in IMPORTS if one.file == file and one.module.split(".")[0] == "paddle"]
    assert not wrong, _show(wrong)


def test_cli_files_import_only_light_modules_at_their_top() -> None:
    wrong = []
    for one in IMPORTS:
        if not one.file.startswith("cli/") or not one.at_top:
            continue
        top = one.module.split(".")[0]
        light = top in sys.stdlib_module_names or top == "typer" or one.module.startswith(("ppvcli.cli", "ppvcli.__"))
        if not light and one.module not in LIGHT:
            wrong.append(one)
    assert not wrong, _show(wrong)


def test_package_itself_imports_nothing_at_its_top_that_costs_time() -> None:
    at_top = {one.module for one in IMPORTS if one.file == "__init__.py" and one.at_top}
    assert at_top <= {"__future__", "typing"}
