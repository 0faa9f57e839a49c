"""A local server that speaks the hub's endpoints over real sockets, with ways to misbehave.

The form of the answers is that of huggingface.co's API: `/api/models/REPO/revision/REV`,
`/api/models/REPO/tree/REV/PATH` and `/REPO/resolve/REV/PATH`, where files in LFS are redirected, as to a CDN.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.unit.localserver import LocalHandler, LocalServer, running

COMMIT = "17edb15f4132f4b7e85b1cfe2570ee00b0cc4de7"


class HubServer(LocalServer):
    """`folder` is a repository's root. `asked` lists (method, path, Range header).

    `cut_after`: name → bytes after which the line goes dead, once for each entry of `cuts_left`.
    `spoiled`: names whose bytes are not those that are listed. `status`: path prefix → status in place of an answer.
    """

    def __init__(self, folder: Path, repo: str, commit: str) -> None:
        super().__init__(Handler)
        self.folder, self.repo, self.commit = folder, repo, commit
        self.asked: list[tuple[str, str, str | None]] = []
        self.cut_after: dict[str, int] = {}
        self.cuts_left = 0
        self.spoiled: set[str] = set()
        self.status: dict[str, int] = {}


class Handler(LocalHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        path = unquote(urlsplit(self.path).path)  # a proxy is asked with the whole address
        hub.asked.append((self.command, path, self.headers.get("Range")))
        status = next((code for start, code in hub.status.items() if path.startswith(start)), 0)
        api, resolve = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/"
        if status:
            self.answer(status, b"{}")
        elif path.startswith(f"{api}/revision/"):
            self._revision(path.removeprefix(f"{api}/revision/"))
        elif path.startswith(f"{api}/tree/{hub.commit}"):
            self._tree(path.removeprefix(f"{api}/tree/{hub.commit}").strip("/"))
        elif path.startswith(resolve):
            self._file(path.removeprefix(resolve).partition("/")[2])
        elif path.startswith("/cdn/"):
            self._bytes(path.removeprefix("/cdn/"))
        else:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")

    def _revision(self, revision: str) -> None:
        if revision not in ("main", self.server.commit):
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            return
        self.answer(200, json.dumps({"id": self.server.repo, "sha": self.server.commit}).encode())

    def _tree(self, folder: str) -> None:
        base = self.server.folder / folder
        if not base.is_dir():
            self.answer(404, b"{}", X_Error_Code="EntryNotFound")
            return
        entries = []
        for path in sorted(base.rglob("*")):
            name = path.relative_to(self.server.folder).as_posix()
            if path.is_dir():
                entries.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
                continue
            data = path.read_bytes()
            entry = {"type": "file", "path": name, "oid": git_sha1(data), "size": len(data)}
            if in_lfs(path):
                oid = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
            entries.append(entry)
        self.answer(200, json.dumps(entries).encode())

    def _file(self, name: str) -> None:
        path = self.server.folder / name
        if not path.is_file():
            self.answer(404, b"{}", X_Error_Code="EntryNotFound")
        elif in_lfs(path):
            self.answer(302, b"", Location=f"/cdn/{name}", X_Repo_Commit=self.server.commit)
        else:
            self._bytes(name)

    def _bytes(self, name: str) -> None:
        hub, data = self.server, (self.server.folder / name).read_bytes()
        if name in hub.spoiled:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        body, cut = data[start:], hub.cut_after.get(name)
        if cut is not None and hub.cuts_left > 0 and len(body) > cut:
            hub.cuts_left -= 1
            self.answer(206 if asked else 200, body[:cut], len(body), **headers)
            self.close_connection = True
            return
        self.answer(206 if asked else 200, body, **headers)


def in_lfs(path: Path) -> bool:
    return path.suffix == ".onnx" or path.name.endswith(".data") or path.stat().st_size >= 1_000_000


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def serving(folder: Path, repo: str, commit: str = COMMIT) -> AbstractContextManager[HubServer]:
    return running(HubServer(folder, repo, commit))
