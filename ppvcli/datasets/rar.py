"""RAR archives, through whichever program on this machine reads them: bsdtar, unar, 7z or unrar.

The program is asked for the names first, which are checked, then unpacks into an empty folder while we watch its size,
and what it left there is checked again. A program that can't (Debian's 7zz knows no RAR) gives way to the next.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.archive import Limits, OnFile, check_counts, check_name, check_tree, measure_tree
from ppvcli.errors import DatasetError

INSTALL_HINT = (
    "install one: apt-get install libarchive-tools (Debian, Ubuntu), dnf install bsdtar (Fedora), brew install unar "
    "(macOS), conda install -c conda-forge libarchive; or unpack it yourself and give the folder: --source FOLDER"
)

_POLL_S = 0.2
_MEASURE_RATIO = 10  # looking at the folder may take a tenth of the time
_SAFE_UNRAR = (6, 12)  # before it, CVE-2022-30333: a link in the archive leads out of the folder


@dataclass(frozen=True, kw_only=True)
class _Tool:
    """How a program is asked; it works in the current folder, and the archive is the last word."""

    programs: tuple[str, ...]
    version: tuple[str, ...]
    show: tuple[str, ...]
    names: Callable[[str], list[str]]
    """The names in what `show` prints."""
    extract: tuple[str, ...]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def _lines_below_heading(text: str) -> list[str]:
    return _lines(text)[1:]


def _path_lines(text: str) -> list[str]:
    return [line.removeprefix("Path = ") for line in _lines(text) if line.startswith("Path = ")]


_TOOLS = (
    _Tool(
        programs=("bsdtar",),
        version=("bsdtar", "--version"),
        show=("bsdtar", "-tf"),
        names=_lines,
        extract=("bsdtar", "-x", "--no-same-owner", "--no-same-permissions", "-f"),
    ),
    _Tool(
        programs=("unar", "lsar"),
        version=("unar", "-version"),
        show=("lsar",),
        names=_lines_below_heading,
        extract=("unar", "-quiet", "-no-recursion", "-force-overwrite", "-no-directory"),
    ),
    *(
        _Tool(
            programs=(program,),
            version=(program,),
            show=(program, "l", "-slt", "-ba", "-p-", "--"),
            names=_path_lines,
            extract=(program, "x", "-y", "-bd", "-p-", "--"),
        )
        for program in ("7z", "7zz")
    ),
    _Tool(
        programs=("unrar",),
        version=("unrar",),
        show=("unrar", "lb", "-p-", "--"),
        names=_lines,
        extract=("unrar", "x", "-y", "-idq", "-p-", "--"),
    ),
)


class _ToolError(Exception):
    """The program can't read this archive; another one may."""


def unpack_rar(archive: Path, target: Path, *, limits: Limits, on_file: OnFile) -> str:
    """Unpacks into the empty folder `target`; returns the program's version line.

    Raises: DatasetError if no program is there, none can read it, or it holds what `archive.py` refuses.
    """
    faults = []
    for tool in _TOOLS:
        if not all(map(shutil.which, tool.programs)):
            continue
        version = _version(tool)
        try:
            _check_version(tool, version)
            names = tool.names(_run(tool.show, archive, cwd=target))
            check_counts(len(names), 0, archive=archive, limits=limits)
            for name in names:
                check_name(name, archive=archive)
            _extract(tool, archive, target, num_files=len(names), limits=limits, on_file=on_file)
        except _ToolError as fault:
            faults.append(f"{tool.programs[0]}: {fault}")
            _empty(target)
            continue
        check_tree(target, archive=archive)
        return version
    if not faults:
        programs = ", ".join(tool.programs[0] for tool in _TOOLS)
        raise DatasetError(f"can't unpack {archive}: none of the programs {programs} is there", hint=INSTALL_HINT)
    raise DatasetError(
        f"can't unpack {archive} ({'; '.join(faults)})",
        hint=f"is it complete? Another program may read it: {INSTALL_HINT}",
    )


def _version(tool: _Tool) -> str:
    result = subprocess.run(
        tool.version, capture_output=True, stdin=subprocess.DEVNULL, env=_environment(), errors="replace", check=False
    )
    lines = _lines(f"{result.stdout}\n{result.stderr}".strip())
    first = lines[0].strip() if lines else ""
    return first if first.lower().startswith(tool.programs[0][:2]) else f"{tool.programs[0]} {first}".strip()


def _check_version(tool: _Tool, version: str) -> None:
    if tool.programs[0] != "unrar":
        return
    match = re.search(r"UNRAR (\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < _SAFE_UNRAR:
        raise _ToolError(f"'{version}' is not the unrar {'.'.join(map(str, _SAFE_UNRAR))} or newer that is safe to use")


def _run(command: tuple[str, ...], archive: Path, *, cwd: Path) -> str:
    result = subprocess.run(
        [*command, str(archive.resolve())],
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    if result.returncode != 0:
        raise _ToolError(_last_line(f"{result.stdout}\n{result.stderr}") or f"exit code {result.returncode}")
    return result.stdout


def _extract(tool: _Tool, archive: Path, target: Path, *, num_files: int, limits: Limits, on_file: OnFile) -> None:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*tool.extract, str(archive.resolve())],
            cwd=target,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C comes to us, and we end it
        )
        try:
            while process.poll() is None:
                start = time.monotonic()
                done, num_bytes = measure_tree(target)
                check_counts(done, num_bytes, archive=archive, limits=limits)
                on_file(min(done, num_files), num_files)
                _wait(process, max(_POLL_S, _MEASURE_RATIO * (time.monotonic() - start)))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            log.seek(0)
            message = _last_line(log.read().decode("utf-8", "replace"))
            raise _ToolError(message or f"exit code {process.returncode}")
    done, num_bytes = measure_tree(target)
    check_counts(done, num_bytes, archive=archive, limits=limits)
    on_file(done, done)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}  # else bsdtar shows names outside ASCII in escapes


def _last_line(text: str) -> str:
    lines = _lines(text.strip())
    return lines[-1].strip() if lines else ""


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
