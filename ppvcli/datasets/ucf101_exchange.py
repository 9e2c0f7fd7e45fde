"""A prepared set that takes the place of another one: all of it, or nothing, also where the process is killed.

The new set grows in `.ppv-prepare/new`. Once it is complete, entries are renamed: the old ones into `going` beside it,
which then becomes `old`, and the new ones to their places. From the moment `old` is renamed once more the new set
counts; until then `restore` brings the old one back.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace

from ppvcli.datasets.ucf101_folder import Folder


@contextlib.contextmanager
def replacing_set(folder: Folder) -> Iterator[Folder]:
    """A folder for the new set, which takes the place of the one in `folder` when the block ends well.

    An exception of any kind, Ctrl-C too, leaves the set as it was. `folder.begin()` comes before it.
    """
    new = replace(folder, root=folder.work / "new")
    new.root.mkdir()
    try:
        new.begin()
        yield new
        _exchange(folder, new)
    except BaseException:
        restore(folder)
        shutil.rmtree(new.root, ignore_errors=True)
        raise
    shutil.rmtree(folder.work, ignore_errors=True)


def restore(folder: Folder) -> None:
    """Brings the set back that an exchange was about to replace when it was ended, if one was."""
    going, old = folder.work / "going", folder.work / "old"
    if old.is_dir():  # what stands in the folder is of the new set
        for path in folder.entries():
            path.replace(folder.work / "new" / path.name)
        old.replace(going)
    if going.is_dir():
        for path in list(going.iterdir()):
            path.replace(folder.root / path.name)
        going.rmdir()


def _exchange(folder: Folder, new: Folder) -> None:
    going, old = folder.work / "going", folder.work / "old"
    going.mkdir()
    for path in folder.entries():
        path.replace(going / path.name)
    going.replace(old)
    for path in new.entries():
        path.replace(folder.root / path.name)
    old.replace(folder.work / "replaced")
