"""`ppv bench-decode`: not there yet."""

from __future__ import annotations

from ppvcli.errors import PpvError


def bench_decode() -> None:
    """Compare the speed of video decoders (not there yet)."""
    raise PpvError("'ppv bench-decode' is not there yet: it comes with a later version")
