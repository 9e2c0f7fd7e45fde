"""What an export is to consist of, and which requests can't be met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.deploy.clips import Clips, find_clips
from ppvcli.deploy.exported import IMPOSSIBLE, Format
from ppvcli.deploy.programs import require_package
from ppvcli.deploy.quantize import require_quantizer
from ppvcli.deploy.runtimes import PRECISIONS, Precision, package_version, require_runtime
from ppvcli.errors import UnknownNameError, UsageError
from ppvcli.machine import resolve_threads

FORMATS: dict[Format, str] = {"paddle": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}
"""Each with the runtime that it is checked with."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written, and with which of the user's clips."""

    pairs: tuple[tuple[Format, Precision], ...]
    calibration: Clips | None
    check: Clips | None
    pdmodel: bool
    threads: int


def default_formats(precisions: Sequence[str]) -> tuple[Format, ...]:
    """Paddle's program and ONNX; without ONNX where the package that writes it is missing and nothing else needs it."""
    if package_version("paddle2onnx") is None and set(precisions) == {"fp32"}:
        return ("paddle",)
    return ("paddle", "onnx")


def make_plan(
    formats: Sequence[str],
    precisions: Sequence[str],
    *,
    calibration: str | Path | None,
    check: str | Path | None,
    program: str,
    threads: int | None,
) -> Plan:
    """What is to be done, after everything was refused that can be before a network is loaded.

    Raises: UsageError, MissingPackageError, DatasetError.
    """
    pairs = tuple(_pairs(formats, precisions))
    if program not in ("json", "pdmodel"):
        raise UnknownNameError("program", program, ("json", "pdmodel"), hint="there are: json, pdmodel")
    if program == "pdmodel" and "paddle" not in formats:
        raise UsageError("--program pdmodel is about the format paddle, which is not asked for", hint="--format paddle")
    int8 = any(precision == "int8" for _, precision in pairs)
    if int8 and calibration is None:
        raise UsageError("int8 needs clips of yours to measure the ranges of values on", hint="--calibration FOLDER")
    if calibration is not None and not int8:
        raise UsageError("calibration clips can't take effect without int8", hint="--precision fp32,int8")
    for format, _ in pairs:
        require_runtime(FORMATS[format])
        if format != "paddle":
            require_package("paddle2onnx")
    if int8:
        require_quantizer()
    return Plan(
        pairs=pairs,
        calibration=None if calibration is None else find_clips(calibration, purpose="calibration"),
        check=None if check is None else find_clips(check, purpose="check"),
        pdmodel=program == "pdmodel",
        threads=resolve_threads(threads),
    )


def _pairs(formats: Sequence[str], precisions: Sequence[str]) -> Iterator[tuple[Format, Precision]]:
    for kind, names, known in (("format", formats, tuple(FORMATS)), ("precision", precisions, PRECISIONS)):
        if not names:
            raise UsageError(f"no {kind} is named", hint=f"there are: {', '.join(known)}")
        for name in names:
            if name not in known:
                raise UnknownNameError(kind, name, known, hint=f"there are: {', '.join(known)}")
    chosen = [f for f in FORMATS if f in formats], [p for p in PRECISIONS if p in precisions]
    for format in chosen[0]:
        if all((format, precision) in IMPOSSIBLE for precision in chosen[1]):
            reason = IMPOSSIBLE[format, chosen[1][0]]
            raise UsageError(f"{format} can't be exported as {', '.join(chosen[1])}: {reason}", hint=_partners())
    for precision in chosen[1]:
        if all((format, precision) in IMPOSSIBLE for format in chosen[0]):
            reason = IMPOSSIBLE[chosen[0][0], precision]
            raise UsageError(f"{precision} can't be had in {', '.join(chosen[0])}: {reason}", hint=_partners())
    for format in chosen[0]:
        yield from ((format, precision) for precision in chosen[1] if (format, precision) not in IMPOSSIBLE)


def _partners() -> str:
    can = {f: [p for p in PRECISIONS if (f, p) not in IMPOSSIBLE] for f in FORMATS}
    return "; ".join(f"{format}: {', '.join(precisions)}" for format, precisions in can.items())
