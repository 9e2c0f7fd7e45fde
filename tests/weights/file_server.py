"""A real HTTP server on 127.0.0.1 that serves one file and misbehaves as told, one answer after another."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Answer = Callable[["Handler"], None]


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


class FileServer(ThreadingHTTPServer):
    """Serves `content` with `etag` at every path. `answers` are used up first, one a request."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.etag: str | None = '"v1"'
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
        answer = server.answers.pop(0) if server.answers else serve()
        answer(self)

    def send_head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(
    *,
    ranges: bool = True,
    check_if_range: bool = True,
    num_bytes: int | None = None,
    stall: bool = False,
    with_length: bool = True,
    before_body: Callable[[], object] = lambda: None,
) -> Answer:
    """The file, or the rest that was asked for; of the body only the first `num_bytes`, then silence or the end."""

    def answer(handler: Handler) -> None:
        server = handler.server
        content, headers = server.content, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if server.etag is not None:
            headers["ETag"] = server.etag
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        current = not check_if_range or handler.headers["If-Range"] in (None, server.etag)
        code, body = 200, content
        if asked and ranges and current:
            start = int(asked[1])
            if start >= len(content):
                handler.send_head(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            code, body = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if with_length:
            headers["Content-Length"] = str(len(body))
        handler.send_head(code, headers)
        before_body()
        handler.wfile.write(body if num_bytes is None else body[:num_bytes])
        if stall:
            server.stopping.wait(10)

    return answer


def say(code: int, body: bytes = b"", **headers: str) -> Answer:
    """A fixed answer; underscores in header names stand for hyphens."""

    def answer(handler: Handler) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send_head(code, {"Content-Length": str(len(body)), **fields})
        handler.wfile.write(body)

    return answer


def then(change: Callable[[], object], answer: Answer) -> Answer:
    """The answer, after a change."""

    def changed(handler: Handler) -> None:
        change()
        answer(handler)

    return changed
