"""Where a mirror keeps a published file: below its base, under the path of the published address or the bare name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ppvcli.errors import DownloadError, UsageError


def is_http(address: str) -> bool:
    """Whether the text is an http or https address."""
    try:
        return urlsplit(address).scheme in ("http", "https")
    except ValueError:  # such as http://[x
        return False


def check_mirror(mirror: str) -> None:
    """Raises: UsageError if the text is neither an http(s) address nor an existing folder."""
    if not is_http(mirror) and not Path(mirror).expanduser().is_dir():
        raise UsageError(
            f"the mirror '{mirror}' is neither an http(s) address nor a folder",
            hint="--mirror URL_OR_FOLDER, or the environment variable PPV_WEIGHTS_MIRROR",
        )


def mirror_urls(url: str, *, base: str) -> list[str]:
    """Addresses to try, in order.

    `https://a/x/y.pdparams` below `https://m/z` is `https://m/z/x/y.pdparams`, else `https://m/z/y.pdparams`.
    """
    path = PurePosixPath(urlsplit(url).path.lstrip("/"))
    return list(dict.fromkeys(f"{base.rstrip('/')}/{part}" for part in (path.as_posix(), path.name)))


def find_in_folder(url: str, *, folder: Path) -> Path:
    """The copy of a published file in a folder.

    Raises: DownloadError, with the places looked at.
    """
    path = PurePosixPath(unquote(urlsplit(url).path).lstrip("/"))
    candidates = list(dict.fromkeys([folder / path, folder / path.name]))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DownloadError(
        f"the mirror has no copy of {url}: looked for {' and '.join(str(c) for c in candidates)}",
        hint=f"put the file there under the name {path.name}, or leave the mirror out",
    )
