"""Every error a user can meet; library code raises these, `cli/output.py` prints them as `error:` and `hint:` lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PpvError(Exception):
    """What was being done, on what, expected and got, in one line; `hint` is the next command or edit to try."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only `hint` would be lost when a worker process sends the error to its parent
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[PpvError], message: str, hint: str | None) -> PpvError:
    error = cls.__new__(cls)
    PpvError.__init__(error, message, hint=hint)
    return error


class UsageError(PpvError):
    """A request that can't be carried out as written: a bad argument or a pair of arguments that exclude each other."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name (model, config, decoder, ...) that is in none of our tables; lists the nearest that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None) -> None:
        super().__init__(f"unknown {kind} '{name}'{nearest(name, known)}", hint=hint)


def counted(number: int, thing: str) -> str:
    """For a message: `1 frame`, `2 frames`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to a message about an unknown name: `; nearest: ...`, or nothing where none is near."""
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.4)
    return f"; nearest: {', '.join(folded[each] for each in near)}" if near else ""


class ConfigError(UsageError):
    """One or more faults in a config; the message holds them all, one a line."""


class DeviceError(PpvError):
    """A device that was asked for and is not there."""


class MissingPackageError(PpvError):
    """An optional package that is needed for what was asked and is not installed; the hint is the line for pip."""


class RuntimeFailedError(PpvError):
    """A runtime that does not take a program, fails while running it, or gives another answer than the network."""


class CacheError(PpvError):
    """A compiled program that can't be written to the cache."""


class ExportError(PpvError):
    """An export that can't be made, or a folder or tar that is none or is damaged."""


class InterruptedRunError(PpvError):
    """Ctrl-C during work that can be taken up again; the hint says how."""

    exit_code = 130


class DatasetError(PpvError):
    """A data set that can't be read: missing folder, malformed list, no clips, labels out of range."""


class DivergedError(PpvError):
    """A training run whose loss is no number any more."""


class ReportError(PpvError):
    """A report of an evaluation that can't be written."""


class LogError(PpvError):
    """A log or a picture of a training run that can't be written; the checkpoint of its last epoch is not affected."""


class RankError(PpvError):
    """One process of a run on several processes that failed; the message has its last lines."""


# --- video ------------------------------------------------------------------------------------------------------------


class VideoError(PpvError):
    """A video that can't give the frames asked for."""


class VideoNotFoundError(VideoError):
    """Nothing exists at the path."""


class NotAVideoFileError(VideoError):
    """The path is a directory or another thing that is no regular file."""


class EmptyFileError(VideoError):
    """The file has zero bytes."""


class UnreadableVideoError(VideoError):
    """The container can't be opened: no known format, or its header is damaged or cut off."""


class NoVideoStreamError(VideoError):
    """The container opens but holds no video stream (sound only, subtitles only)."""


class NoFramesError(VideoError):
    """The video stream yields not one decodable frame."""


class TruncatedVideoError(UnreadableVideoError):
    """The end is missing or damaged, so that the file can't be opened or not decoded up to a frame asked for."""


class FrameIndexError(VideoError):
    """A frame index below zero or past the last frame."""


class DecodeTimeoutError(VideoError):
    """Reading the file took longer than one file may take."""


class FrameTooLargeError(VideoError):
    """Frames with more pixels than allowed."""


class FrameFileError(VideoError):
    """A frame of a folder of frames that is missing or can't be decoded."""


# --- weights ----------------------------------------------------------------------------------------------------------


class WeightsError(PpvError):
    """A weight file that can't be used."""


class WeightsNotFoundError(WeightsError):
    """No weight file at the path, or a run folder without a checkpoint."""


class WeightsFormatError(WeightsError):
    """Not a weight file of any known form, or one that is truncated or damaged."""


class UnsafeWeightsError(WeightsError):
    """A pickle that names something other than dicts, lists, numbers, strings and arrays; nothing of it was run."""


class WeightsMismatchError(WeightsError):
    """Missing, extra or misshapen tensors; the message lists them all and the nearest model the file would fit."""


class DownloadError(WeightsError):
    """A transfer that failed for good, or brought something that is not the file asked for."""


class NoConnectionError(DownloadError):
    """A transfer that failed because nothing answers at its address."""


class OfflineError(DownloadError):
    """Weights that are not in the store and may not be fetched."""


class VerificationError(WeightsError):
    """A file in the store whose sha256 is not the recorded one."""
