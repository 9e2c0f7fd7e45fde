"""What one file may cost: a hostile or endless one must not hold a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ppvcli.errors import DecodeTimeoutError, FrameTooLargeError, UsageError
from ppvcli.specs import DECODE_TIMEOUT_S, MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits for the reading of one video file.

    Raises: UsageError for a time or a size that is not above zero.
    """

    timeout_s: float | None = DECODE_TIMEOUT_S
    """Wall time from opening to the last frame; None sets no limit."""
    max_pixels: int = MAX_PIXELS
    """Width x height of a frame."""
    threads: int = 1
    """Threads that may decode it at the same time, where frames are large and that is exact."""

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UsageError(
                f"the time for decoding one file must be above 0 seconds, got {self.timeout_s}",
                hint="give seconds, 600 for example",
            )
        if self.max_pixels < 1:
            raise UsageError(
                f"the largest frame must have 1 pixel or more, got {self.max_pixels}",
                hint=f"give width x height, {1920 * 1080} for example",
            )
        if self.threads < 1:
            raise UsageError(
                f"decoding takes 1 thread or more, got {self.threads}", hint="give the number of idle cores"
            )


DEFAULT_LIMITS = DecodeLimits()


class Watch:
    """The clock of one open file; it runs from its making."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.limits = limits
        self._path = path
        self._end = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s

    def check_time(self) -> None:
        """Passes while there is time left. Raises: DecodeTimeoutError."""
        if self._end is not None and time.monotonic() > self._end:
            raise self.timeout()

    def timeout(self) -> DecodeTimeoutError:
        """The error to raise when time is over."""
        return DecodeTimeoutError(
            f"{self._path} took more than {self.limits.timeout_s:g} s to decode and was given up",
            hint="--decode-timeout (data.decode_timeout_s in a config) allows more seconds for each file",
        )

    def check_size(self, width: int, height: int) -> None:
        """Passes for a frame that is not too large. Raises: FrameTooLargeError."""
        if width * height > self.limits.max_pixels:
            raise FrameTooLargeError(
                f"the frames of {self._path} are {width}x{height}, more than {self.limits.max_pixels} pixels",
                hint="--max-pixels (data.max_pixels in a config) allows larger ones",
            )
