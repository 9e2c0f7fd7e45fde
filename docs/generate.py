"""Writes `docs/reference/` from the code; with `--check` it only says whether the pages are current (exit 1 if not)."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import re
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppvcli
from ppvcli.cli.app import COMMANDS, build_app
from ppvcli.configs.schema import TrainConfig
from ppvcli.models.zoo import ALIASES, ZOO

TYPES = {
    "ppvcli.results": (),
    "ppvcli.video.limits": ("DecodeLimits",),
    "ppvcli.weights.store": ("StoreRecord",),
    "ppvcli.weights.download": ("DownloadProgress",),
    "ppvcli.datasets.progress": ("PrepareProgress",),
    "ppvcli.datasets.ucf101": ("PreparedDataset",),
    "ppvcli.models.load": ("LoadReport",),
    "ppvcli.engine.launch": ("Cluster",),
    "ppvcli.configs.load": ("Source", "Change"),
}
"""Modules with the dataclasses that public functions give and take; those named, or all."""
REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py; edit the code instead. -->\n\n"


def cli_page() -> str:
    """Every command with the help it prints."""
    group = typer.main.get_command(build_app())
    parts = ["# Commands\n"]
    for name in COMMANDS:
        command = group.commands[name]  # type: ignore[attr-defined]
        context = command.make_context(f"ppv {name}", ["--help"], resilient_parsing=True)
        text = "\n".join(line.rstrip() for line in context.get_help().splitlines())
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def models_page() -> str:
    """One line for each row of the zoo."""
    short = {target: alias for alias, target in ALIASES.items()}
    lines = [
        "# Models\n",
        "Top-1 accuracy in percent as published, with the protocol that it was published for;",
        "`tsm_efflite0_weizmann` is ours and measured ([README](../../README.md)).",
        "`ppv download-weights --list` says which are in your store.\n",
        "| name | short | network | classes | one video is | top-1 | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ZOO.values():
        depth = f" R{row.network.depth}" if row.network.architecture in {"tsn", "tsm", "pptsn", "pptsm"} else ""
        top1 = "" if row.claimed_top1 is None else f"{row.claimed_top1:g} {row.claimed_on}"
        weights = f"[file]({row.url})" if row.url else "in the package" if row.bundled else row.note
        lines.append(
            f"| `{row.name}` | {short.get(row.name, '')} | {row.network.architecture}{depth} "
            f"| {row.labels} | {row.protocol} | {top1} | {weights} |"
        )
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """Every key of a training config."""
    lines = ["# Training configs\n", f"{inspect.getdoc(TrainConfig)}\n"]
    _section(TrainConfig, "", lines)
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], prefix: str, lines: list[str]) -> None:
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    nested = []
    for name, field in model.model_fields.items():
        section = _section_type(field.annotation)
        if section is not None:
            nested.append((f"{prefix}{name}", section))
        if section is not None and field.default is not None:
            continue
        default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
        kind = _type_name(field.annotation)
        meaning = " ".join((field.description or "").split())
        if section is not None:
            kind = f"[section](#{prefix}{name}) or null".replace(".", "")
            meaning = meaning or str(inspect.getdoc(section)).splitlines()[0]
        lines.append(f"| `{prefix}{name}` | {kind} | {default} | {meaning} |")
    for name, inner in nested:
        lines.append(f"\n## {name}\n\n{inspect.getdoc(inner)}\n")
        _section(inner, f"{name}.", lines)


def _section_type(annotation: object) -> type[BaseModel] | None:
    """The section that a key holds, always or where it is not null."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _type_name(annotation: object) -> str:
    args = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type_name(args[0])
    if annotation in (str, int, float, bool):
        return annotation.__name__
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if get_origin(annotation) is tuple:
        return f"list of {'' if Ellipsis in args else f'{len(args)} '}{_type_name(args[0])}"
    return " or ".join(_type_name(arg) for arg in args)


def _yaml(value: object) -> str:
    words = {"None": "null", "True": "true", "False": "false", "": "''"}
    if isinstance(value, tuple):
        return str(list(value))
    return words.get(str(value), str(value))


def api_page() -> str:
    """Signature and docstring of every public name."""
    parts = ["# Python API\n", f"```text\n{inspect.getdoc(ppvcli)}\n```\n"]
    for name in ppvcli.__all__:
        if name in ("__version__", "Prediction"):  # the latter is among the types
            continue
        value = getattr(ppvcli, name)
        parts.append(_api_section(name, value))
        if isinstance(value, type) and not issubclass(value, Exception):
            methods = [(each, method) for each, method in vars(value).items() if inspect.isfunction(method)]
            parts += [_api_section(f"{name}.{each}", method) for each, method in methods if not each.startswith("_")]
    parts.append("# Types\n\nWhat these functions give and take, with the module that each is imported from.\n")
    parts += [_type_section(kind) for kind in _types()]
    return "\n".join(parts)


def _api_section(name: str, value: Any) -> str:
    """Signature and docstring; of a class both of its `__init__` too."""
    # annotations are strings here, and nobody writes them with quotes
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))
    signature = signature.replace("(self, ", "(")
    text = inspect.getdoc(value)
    if isinstance(value, type) and (more := vars(value)["__init__"].__doc__):
        text = f"{text}\n\n{inspect.cleandoc(more)}"
    return f"## {name}\n\n```python\n{name}{signature}\n```\n\n```text\n{text}\n```\n"


def _types() -> list[type]:
    """The dataclasses of the modules in TYPES, in the order of their source."""
    found: list[type] = []
    for home, names in TYPES.items():
        for name, value in vars(importlib.import_module(home)).items():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == home:
                found += [value] if not names or name in names else []
    return found


def _type_section(kind: type) -> str:
    """Import, docstring, fields and properties of a dataclass, each with the text below it in the source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    rows = []
    assert isinstance(tree, ast.ClassDef)
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            name, kind_of, text = ast.unparse(node.target), ast.unparse(node.annotation), below
        elif isinstance(node, ast.FunctionDef) and "property" in map(ast.unparse, node.decorator_list):
            assert node.returns is not None
            name, kind_of, text = node.name, ast.unparse(node.returns), node.body[0]
        else:
            continue
        meaning = str(ast.literal_eval(text.value)) if _is_text(text) else ""  # type: ignore[union-attr]
        rows.append(f"| `{name}` | `{_cell(kind_of)}` | {_cell(meaning)} |")
    home = "ppvcli" if kind.__name__ in ppvcli.__all__ else kind.__module__
    heading = f"## {kind.__name__}\n\n```python\nfrom {home} import {kind.__name__}\n```\n"
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])
    return f"{heading}\n```text\n{inspect.getdoc(kind)}\n```\n\n{table}\n"


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"cli.md": cli_page, "models.md": models_page, "config.md": config_page, "api.md": api_page}


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    os.environ["COLUMNS"] = "100"  # of the help texts
    warnings.filterwarnings("ignore", message="No ccache found")
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, NOTE + make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"docs/reference is not current: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
        return 1
    print(f"docs/reference: {len(PAGES)} pages are current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
