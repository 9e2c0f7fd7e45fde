"""Functions that worker processes run in tests; a worker imports them from here."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppvcli.datasets.workers import Output
from ppvcli.errors import UnreadableVideoError, UsageError


@dataclass(frozen=True)
class Order:
    """What a worker is to do, and what it is to say."""

    value: int = 0
    do: str = "answer"
    text: str = ""

    def __str__(self) -> str:
        return f"order {self.value}"


def obey(order: Order) -> Output:
    """The order's text, and an array [2, 3] full of its value, or trouble."""
    if order.do == "sleep":
        time.sleep(order.value)
    if order.do == "fail":
        raise UnreadableVideoError(f"can't read {order.text or order.value}", hint="none")
    if order.do == "misuse":
        raise UsageError(f"no such crop {order.text}", hint="another one")
    if order.do == "bug":
        raise ZeroDivisionError(f"{order.text} a bug".strip())
    if order.do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order.do == "crash":
        ctypes.string_at(0)
    if order.do == "spin":
        (Path(order.text) / f"{os.getpid()}").touch()
        while True:
            time.sleep(0.01)
    return Output(order.text, np.full((2, 3), order.value, np.uint8))


def process_id(order: Order) -> Output:
    """Which process this is."""
    time.sleep(0.02)
    return Output(os.getpid())
