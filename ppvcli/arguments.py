"""What callers may write in more than one way."""

from __future__ import annotations

from collections.abc import Sequence


def as_names(names: str | Sequence[str]) -> Sequence[str]:
    """Several names, or a single one as a sequence of one: a text is a sequence of its letters otherwise."""
    return [names] if isinstance(names, str) else names
