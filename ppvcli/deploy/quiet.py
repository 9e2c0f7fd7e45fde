"""Takes what native code prints away from the user's stdout and stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that this process prints during the block is seen, whatever language prints it.

    For the whole process: the caller makes sure that no other thread has something to say.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile() as sink:
        copies = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in copies:
                os.dup2(sink.fileno(), number)
            yield
        finally:
            for number, copy in copies:
                os.dup2(copy, number)
                os.close(copy)
