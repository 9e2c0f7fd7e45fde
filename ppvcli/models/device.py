"""Where networks run, and how Paddle is loaded for them. Names can be checked without Paddle."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import signal
import sys

from ppvcli.errors import DeviceError, UsageError
from ppvcli.machine import resolve_threads, usable_cores
from ppvcli.models.cpu import set_threads, tune_math_library


def load_paddle(threads: int | None = None, *, num_processes: int = 1) -> None:
    """Imports Paddle, if nobody has yet, with the best settings for this processor, without its remarks and handlers.

    It computes with `threads`, at most the cores that this process may use. None is what the user has set in
    OMP_NUM_THREADS, else the share of the cores that one of `num_processes` has. It reads the settings from
    `os.environ` at its import only; where it is imported already, `threads` counts for the processes that are started.

    It would say that there is no ccache and that more than one thread was asked for, as they were. Its handlers answer
    SIGTERM with a traceback of C++ and end the process, whatever it has to clean up.

    Raises: UsageError for an impossible number of threads.
    """
    if threads is None and "paddle" in sys.modules:
        return
    tune_math_library(os.environ)
    number = None if threads is None else resolve_threads(threads)
    set_threads(os.environ, number, default=max(1, usable_cores() // num_processes))
    with contextlib.redirect_stderr(io.StringIO()):
        import paddle
    handler = signal.getsignal(signal.SIGTERM)  # what Python knows of: the one from before
    paddle.disable_signal_handler()
    with contextlib.suppress(ValueError, TypeError):  # in another thread than the main one; none of Python's
        signal.signal(signal.SIGTERM, handler)


def check_device_name(device: str) -> int | None:
    """The number that `gpu:N` names; None for `auto`, `cpu` and `gpu`.

    Raises: UsageError for a name that no device has.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::([0-9]+))?", device)
    if match is None:
        raise UsageError(f"unknown device '{device}'", hint="cpu, gpu, or gpu:N with N counted from 0")
    return None if match[1] is None else int(match[1])


def find_device(device: str) -> str:
    """The full name of a device, `cpu` or `gpu:N`; Paddle is imported only if it is a build that may have GPUs.

    Raises: as `select_device`.
    """
    check_device_name(device)
    if device == "cpu":
        return device
    try:
        importlib.metadata.version("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        if device == "auto":
            return "cpu"
        raise _without_cuda(device) from None
    return select_device(device)


def _without_cuda(device: str) -> DeviceError:
    return DeviceError(
        f"no device '{device}': the installed paddlepaddle is built without CUDA",
        hint="install paddlepaddle-gpu in its place, or use --cpu",
    )


def select_device(device: str) -> str:
    """Makes `device` Paddle's device for this process and returns its full name, `cpu` or `gpu:N`.

    `auto` is the first GPU where there is one, else the CPU. Not yet run on a GPU.

    Raises: UsageError for a name that no device has, DeviceError for a GPU that is not there.
    """
    load_paddle()
    import paddle

    number = check_device_name(device) or 0
    with_cuda = paddle.device.is_compiled_with_cuda()
    num_gpus = paddle.device.cuda.device_count() if with_cuda else 0
    if device == "cpu" or (device == "auto" and num_gpus == 0):
        name = "cpu"
    elif number < num_gpus:
        name = f"gpu:{number}"
    elif with_cuda:
        raise DeviceError(f"no device '{device}': Paddle sees {num_gpus} GPUs", hint="nvidia-smi lists them; or: --cpu")
    else:
        raise _without_cuda(device)
    paddle.set_device(name)
    return name
