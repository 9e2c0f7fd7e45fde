"""One file over HTTP, in as many attempts as it takes. The only module that talks to the network."""

from __future__ import annotations

import email.utils
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from ppvcli.errors import DownloadError, NoConnectionError
from ppvcli.weights.partial import PartialFile, Version

WITHOUT_NETWORK = "without network, these work: ppv predict --demo, and --model tsm_efflite0_weizmann"
OTHER_COPY = "try another copy: PPV_WEIGHTS_MIRROR=URL_OR_FOLDER"

_CHUNK_BYTES = 1 << 15  # what a broken connection loses at most
_MAX_REDIRECTS = 10
_PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")
_TEMPORARY = (requests.codes.request_timeout, requests.codes.too_early, requests.codes.too_many_requests)


@dataclass(frozen=True, kw_only=True)
class DownloadProgress:
    """What is happening to one file right now."""

    name: str
    stage: Literal["wait", "transfer", "retry", "convert", "done"]
    """`wait`: another process has the lock; `retry`: the transfer broke and goes on after a pause."""
    received_bytes: int = 0
    total_bytes: int | None = None
    """None where the server does not say."""
    message: str = ""
    """The address of a `transfer`, the reason of a `wait` or `retry`."""


Report = Callable[[DownloadProgress], None]


@dataclass(frozen=True, kw_only=True)
class TransferPolicy:
    """How patient a transfer is. Waits double from `first_wait_s` up to `max_wait_s`."""

    num_attempts: int = 5
    """Failures in a row; one that came `progress_bytes` further than any before starts the count anew."""
    progress_bytes: int = 1 << 20
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    """Also of what a server asks for in `Retry-After`."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    """Without a single byte, not of the whole transfer."""
    max_bytes: int = 1 << 30
    """A larger file is none of ours."""


class FileNotThereError(DownloadError):
    """The server has no such file."""


class _BrokenError(Exception):
    """An attempt failed for a reason that may pass."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0, unreached: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.unreached = unreached
        """Nothing answers at the address at all."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One address into one partial file. OSErrors of the disk pass through."""

    name: str
    url: str
    part: PartialFile
    target_path: Path
    """Where the complete file will be, for messages."""
    report: Report
    policy: TransferPolicy
    kind: str = "weight file"
    """What the file should be, for messages."""
    other_way: str = OTHER_COPY
    """What to try where this address fails."""
    without_network: str = WITHOUT_NETWORK

    def run(self) -> Version:
        """The version of the file that `part` holds in full afterwards.

        Raises: FileNotThereError, DownloadError. The bytes of a transfer that broke off stay for the next one.
        """
        num_failures, furthest = 0, self.part.size_bytes
        while True:
            try:
                return self._attempt()
            except _BrokenError as broken:
                reached = self.part.size_bytes
                num_failures = 1 if reached >= furthest + self.policy.progress_bytes else num_failures + 1
                furthest = max(furthest, reached)
                if num_failures >= self.policy.num_attempts:
                    kind = NoConnectionError if broken.unreached else DownloadError
                    raise kind(
                        f"cannot fetch {self.name} from {self.url} into {self.target_path}: {broken} "
                        f"({num_failures} attempts)",
                        hint=f"again later (received bytes are kept), or {self.other_way}; {self.without_network}",
                    ) from broken
                wait_s = max(self.policy.first_wait_s * 2 ** (num_failures - 1), broken.retry_after_s)
                wait_s = min(wait_s, self.policy.max_wait_s)
                message = f"{broken}; next attempt in {wait_s:.2g} s"
                self.report(DownloadProgress(name=self.name, stage="retry", received_bytes=reached, message=message))
                time.sleep(wait_s)

    def _attempt(self) -> Version:
        known = self.part.version(self.url)
        offset = self.part.size_bytes if known else 0
        if known and offset == known.size_bytes:
            return known  # complete, but a former run ended before it was taken in
        headers = {"Accept-Encoding": "identity"}  # a compressed transfer has other lengths and ranges than the file
        if known:
            headers |= {"Range": f"bytes={offset}-", "If-Range": str(known.validator)}
        try:
            with requests.Session() as session, self._open(session, headers=headers) as response:
                self._check_status(response)
                version = _read_version(response, url=self.url)
                if response.status_code != requests.codes.partial_content:
                    self.part.begin(version)  # a first attempt, or the file changed, or the server ignores ranges
                elif known is None or not known.continues_in(version) or _range_start(response) != offset:
                    raise self._start_over("the server went on with another file")
                self._receive(response, version=version)
                return version
        except requests.exceptions.SSLError as error:
            if not _is_distrusted(error):
                raise _BrokenError(self._describe(error)) from error
            raise DownloadError(
                f"no safe connection to {self.url}: {error}",
                hint=f"a proxy in between may need its certificate in REQUESTS_CA_BUNDLE; else {self.other_way}",
            ) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _BrokenError(self._describe(error), unreached=_is_unreached(error)) from error
        except requests.RequestException as error:
            raise DownloadError(f"cannot fetch {self.url}: {error}", hint=self.other_way) from error

    def _open(self, session: requests.Session, *, headers: dict[str, str]) -> requests.Response:
        url = self.url
        for _ in range(_MAX_REDIRECTS):
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,  # each step is checked here
                timeout=(self.policy.connect_timeout_s, self.policy.read_timeout_s),
            )
            if not response.is_redirect:
                return response
            response.close()
            url = redirect_target(url, location=response.headers["Location"])
        raise DownloadError(f"{self.url} redirects more than {_MAX_REDIRECTS} times", hint=self.other_way)

    def _check_status(self, response: requests.Response) -> None:
        code, answer = response.status_code, f"the server answers {response.status_code} {response.reason}"
        if code in (requests.codes.not_found, requests.codes.gone):
            raise FileNotThereError(f"{self.url} is not there: {answer}", hint=self.other_way)
        if code == requests.codes.requested_range_not_satisfiable:
            raise self._start_over("the file on the server is shorter than what is already here")
        if code in _TEMPORARY or code >= requests.codes.server_error:
            raise _BrokenError(answer, retry_after_s=_retry_after_s(response))
        if code not in (requests.codes.ok, requests.codes.partial_content):
            raise DownloadError(f"cannot fetch {self.url}: {answer}", hint=self.other_way)
        if "html" in response.headers.get("Content-Type", "").lower():
            raise self._refuse("it is a web page")

    def _receive(self, response: requests.Response, *, version: Version) -> None:
        total, received = version.size_bytes, self.part.size_bytes
        progress = DownloadProgress(name=self.name, stage="transfer", total_bytes=total, message=self.url)
        self.report(replace(progress, received_bytes=received))
        with self.part.path.open("ab") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                if received == 0 and chunk.lstrip().lower().startswith(_PAGE_STARTS):
                    raise self._refuse("it is a web page")
                received += len(chunk)
                if max(received, total or 0) > self.policy.max_bytes:
                    raise self._refuse(f"it is larger than {self.policy.max_bytes} bytes")
                file.write(chunk)
                self.report(replace(progress, received_bytes=received))
        if received == 0 or received != (total or received):
            raise _BrokenError(f"the transfer ended after {received} of {total or 'unknown'} bytes")

    def _start_over(self, reason: str) -> _BrokenError:
        self.part.discard()
        return _BrokenError(f"{reason}, so it starts over")

    def _refuse(self, reason: str) -> DownloadError:
        self.part.discard()
        return DownloadError(
            f"what {self.url} sends is no {self.kind}: {reason}",
            hint=f"does a proxy or a login page answer instead of the server? Else {self.other_way}",
        )

    def _describe(self, error: requests.RequestException) -> str:
        cause = _cause(error)
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {self.policy.connect_timeout_s:g} s"
        if isinstance(error, requests.Timeout) or isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return f"the server sent nothing for {self.policy.read_timeout_s:g} s"
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return f"the connection broke off after {self.part.size_bytes} bytes"
        return f"no connection to {urlsplit(self.url).netloc}: {str(cause).split(': ', 1)[-1]}"


def redirect_target(url: str, *, location: str) -> str:
    """The address that a redirect leads to.

    Raises: DownloadError if it leaves https, or HTTP altogether.
    """
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
        raise DownloadError(f"{url} redirects to {target}, which is not safe to follow", hint=OTHER_COPY)
    return target


def _cause(error: requests.RequestException) -> object:
    """What urllib3 says of it, below the error that tells of its attempts."""
    cause = error.args[0] if error.args else error
    return getattr(cause, "reason", cause)


def _is_unreached(error: requests.RequestException) -> bool:
    unreached = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(_cause(error), unreached)


def _is_distrusted(error: requests.exceptions.SSLError) -> bool:
    """Whether the certificate is at fault, which no other attempt mends; else the handshake broke off."""
    cause = _cause(error)
    return isinstance(cause, urllib3.exceptions.SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError)


def _read_version(response: requests.Response, *, url: str) -> Version:
    if response.status_code == requests.codes.partial_content:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    return Version(
        url=url,
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size_bytes=int(size) if size.isdecimal() else None,
    )


def _range_start(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after_s(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return (email.utils.parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return 0.0
