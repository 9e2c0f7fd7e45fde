"""Options that more than one command has, and the completion of names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.errors import UsageError

if TYPE_CHECKING:
    from ppvcli.video.limits import DecodeLimits


def complete_model(incomplete: str) -> list[str]:
    """Model names and aliases that begin with what was typed."""
    from ppvcli.models.zoo import ALIASES, ZOO

    return [name for name in (*ALIASES, *ZOO) if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Names of models, aliases and ImageNet backbones that begin with what was typed."""
    from ppvcli.models.backbones import list_weights

    return [name for name in list_weights() if name.startswith(incomplete)]


def complete_config(incomplete: str) -> list[str]:
    """Names of shipped configs that begin with what was typed."""
    names = (path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


def complete_runtime(incomplete: str) -> list[str]:
    """Runtimes that begin with what was typed."""
    from ppvcli.deploy.runtimes import RUNTIMES

    return [name for name in ("auto", *RUNTIMES) if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """Precisions that begin with what was typed."""
    from ppvcli.deploy.runtimes import PRECISIONS

    return [name for name in PRECISIONS if name.startswith(incomplete)]


CpuOption = Annotated[bool, typer.Option("--cpu", help="Run on the CPU.", show_default=False)]
GpuOption = Annotated[bool, typer.Option("--gpu", help="Run on the first GPU.", show_default=False)]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="cpu, gpu or gpu:N.  [default: a GPU if there is one]"),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        metavar="N",
        help="CPU cores to use, at most those that this process may use.  [default: all of them]",
    ),
]
RuntimeOption = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="onnxruntime, openvino or paddle; auto is the fastest that gives the network's answers here, of an export "
        "the first of these that is installed.",
        autocompletion=complete_runtime,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="fp32; bf16 with openvino; int8 with an export of ppv export.  [default: fp32, or what an export has]",
        autocompletion=complete_precision,
    ),
]
TensorrtOption = Annotated[
    bool, typer.Option("--tensorrt", help="Run on the GPU through TensorRT.", show_default=False)
]
DecodeTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--decode-timeout", metavar="SECONDS", help="Give up a file that takes longer to decode.  [default: 600]"
    ),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels", metavar="N", help="Refuse a file whose frames have more pixels.  [default: 8192 x 8192]"
    ),
]


def choose_device(*, cpu: bool, gpu: bool, device: str | None) -> str:
    """The one device that `--cpu`, `--gpu` and `--device` ask for; `auto` where none is given.

    Raises: UsageError where more than one of them is given, or a name that no device has.
    """
    given = [name for name, value in (("--cpu", cpu), ("--gpu", gpu), ("--device", device is not None)) if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", hint=f"keep one of them, such as {given[0]}")
    if cpu:
        return "cpu"
    if gpu:
        return "gpu"
    from ppvcli.models.device import check_device_name

    check_device_name(device or "auto")
    return device or "auto"


def choose_limits(*, decode_timeout: float | None, max_pixels: int | None) -> DecodeLimits:
    """What one file may cost, with the usual limits where none is given. Raises: as `DecodeLimits`."""
    from dataclasses import replace

    from ppvcli.video.limits import DEFAULT_LIMITS

    limits = DEFAULT_LIMITS
    if decode_timeout is not None:
        limits = replace(limits, timeout_s=decode_timeout)
    return limits if max_pixels is None else replace(limits, max_pixels=max_pixels)
