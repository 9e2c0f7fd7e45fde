"""What processes of ours share: where they import from, and how they end."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

_LOOK_S = 1.0


def import_path() -> list[str]:
    """Where this process imports modules from, to be told to one that it starts.

    Without what is no text, such as a `Path`: no import looks at it, and it can't be passed on as text.
    """
    return [entry for entry in sys.path if isinstance(entry, str)]


def end_with(process_id: int) -> None:
    """Ends this process, whatever it does then, once the process `process_id` has ended, be it by a kill.

    The other process need not be the parent. On POSIX only; elsewhere nothing happens.
    """
    if os.name == "posix":
        threading.Thread(target=_end_after, args=(process_id,), daemon=True).start()


def signal_name(number: int) -> str:
    """`SIGKILL` and so on; `signal 40` for one without a name, as real-time signals are."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_after(process_id: int) -> None:
    try:
        # tells of the end itself: the number lives on until somebody asks for the exit code
        poll = select.poll()
        poll.register(os.pidfd_open(process_id), select.POLLIN)
        poll.poll()
    except (AttributeError, OSError):  # not Linux, not allowed, or ended already
        while _exists(process_id):
            time.sleep(_LOOK_S)
    os._exit(1)


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
