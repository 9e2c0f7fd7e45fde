"""`ppv export`: not there yet."""

from __future__ import annotations

from ppvcli.errors import PpvError


def export() -> None:
    """Export a model for deployment (not there yet)."""
    raise PpvError("'ppv export' is not there yet: it comes with a later version")
