"""A real web server over a folder, with ranges, and with ways to misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.unit.localserver import LocalHandler, LocalServer, running


class Server(LocalServer):
    """`tricks`: end of a path → what is done in place of an honest answer. `asked` lists (path, range header)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Handler)
        self.folder = folder
        self.tricks: dict[str, Callable[[Handler, bytes], None]] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return super().url + "/fleet/"


class Handler(LocalHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.removeprefix("/fleet/")
        self.server.asked.append((path, self.headers.get("Range")))
        file = self.server.folder / path
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        trick = next((trick for end, trick in self.server.tricks.items() if path.endswith(end)), honest)
        trick(self, data)


def honest(handler: Handler, data: bytes) -> None:
    asked = handler.headers.get("Range")
    if asked is None:
        handler.answer(200, data)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    handler.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")


def without_ranges(handler: Handler, data: bytes) -> None:
    handler.answer(200, data)


def hangs_up_half_way(handler: Handler, data: bytes) -> None:
    """Each answer brings a third of what is left, and then the line goes dead."""
    start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    rest = data[start:]
    piece = rest[: max(1, len(rest) // 3)] if len(rest) > 1000 else rest
    status = 206 if start else 200
    handler.answer(status, piece, len(rest), Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.close_connection = True


def drips(handler: Handler, data: bytes) -> None:
    handler.answer(200, b"", len(data))
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.02)


def never_ends(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    block = data[:65536].ljust(65536, b"x")
    while True:
        handler.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
        handler.server.sent_bytes += len(block)


def status(code: int, **headers: str) -> Callable[[Handler, bytes], None]:
    return lambda handler, _: handler.answer(code, b"no", **headers)


def serving(folder: Path) -> AbstractContextManager[Server]:
    return running(Server(folder))
