"""Headers written out in a test, for `HeaderRows`."""

from __future__ import annotations

import numpy as np

from ppvcli.video.headers.bits import HeaderRows


def header_rows(*headers: bytes) -> HeaderRows:
    """One row a header, with ones behind its end."""
    width = max(map(len, headers)) + 1
    content = b"".join(header.ljust(width, b"\xff") for header in headers)
    sizes = np.array([len(header) for header in headers])
    return HeaderRows(np.frombuffer(content, dtype=np.uint8).reshape(len(headers), width), sizes)
