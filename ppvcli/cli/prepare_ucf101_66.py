"""`ppv prepare-ucf101-66`: not there yet."""

from __future__ import annotations

from ppvcli.errors import PpvError


def prepare_ucf101_66() -> None:
    """Prepare the UCF101-66 data set (not there yet)."""
    raise PpvError("'ppv prepare-ucf101-66' is not there yet: it comes with a later version")
