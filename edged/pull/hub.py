"""The Hugging Face hub, or a mirror that speaks its endpoints: what a folder holds, and the bytes of its files.

The only importer of huggingface_hub (the extra `pull`), which owns addresses, headers, redirects and proxies. Its own
download starts from nothing after a break (2.4), so the bytes go through edged's downloader, which goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edged.errors import OwnerError, TryLater
from edged.store.digests import is_file_name
from edged.store.vetting import MAX_FILES
from edged.update.errors import Unreachable
from edged.update.transport import NotThere, Stream

WAIT_S = 30.0
MISSING = (
    "the extra `pull` is missing: pip install 'edged[pull]' (into edged's own environment, such as "
    "/opt/edged/bin/pip); or bring the model's folder here and `edged import` it"
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """`name` is relative to the folder that was asked for; `sha256` is None for a small file kept in git itself."""

    name: str
    path: str
    size_bytes: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder of a repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """`endpoint` "" is huggingface.co, or HF_ENDPOINT. A token is sent only when HF_TOKEN is set. Keeps no state."""

    def __init__(self, endpoint: str = "", wait_s: float = WAIT_S) -> None:
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the library is imported
        os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
        try:
            import httpx2
            import huggingface_hub
            from huggingface_hub import constants
            from huggingface_hub.utils import build_hf_headers
        except ImportError as error:
            raise OwnerError(MISSING) from error
        self._hub, self._http = huggingface_hub, httpx2
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        if not self.endpoint.startswith(("http://", "https://")):
            raise OwnerError(f"HF_ENDPOINT {self.endpoint[:120]!r}: not an address such as https://hub.example")
        self._token: str | bool = os.environ.get("HF_TOKEN") or False
        self._headers = build_hf_headers(token=self._token, library_name="edged")
        self._wait_s = wait_s

    def listing(self, repo: str, revision: str, folder: str) -> Listing:
        """What `folder` ("" for the whole repository) holds at `revision`. Raises OwnerError and TryLater."""
        api = self._hub.HfApi(endpoint=self.endpoint, token=self._token, library_name="edged")
        try:
            commit = api.model_info(repo, revision=revision, timeout=self._wait_s).sha
            found = [
                entry
                for entry in api.list_repo_tree(repo, folder or None, revision=commit, recursive=True)
                if hasattr(entry, "blob_id")
            ]
        except Exception as error:
            raise self._explained(error, repo, revision, folder) from error
        if len(found) > MAX_FILES * 10:
            raise OwnerError(f"{repo}/{folder}: holds {len(found)} files; name the model's own folder with --folder")
        files = [_remote_file(entry, folder) for entry in found]
        if not commit or not files:
            raise OwnerError(f"{repo} at {revision} has no files in {folder or 'its root'}; is --folder right?")
        return Listing(repo, commit, tuple(file for file in files if is_file_name(file.name)))

    def source(self, listing: Listing) -> HubSource:
        """The bytes of what a listing names."""
        return HubSource(self, listing)

    @contextmanager
    def stream(self, repo: str, commit: str, path: str, offset: int) -> Iterator[Stream]:
        """One file from `offset` on, if the hub can; raises NotThere and Unreachable, also while it is read."""
        url = self._hub.hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint)
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            with self._hub.get_session().stream("GET", url, headers=headers, timeout=self._wait_s) as response:
                start = _start(response.status_code, response.headers.get("Content-Range", ""), offset, path)
                yield Stream(start, self._chunks(response, path))
        except self._http.HTTPError as error:
            raise Unreachable(f"{path}: {str(error) or type(error).__name__}") from error

    def _chunks(self, response: Any, path: str) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()  # as they come: a larger piece would be lost when the line breaks
        except self._http.HTTPError as error:
            raise Unreachable(f"{path}: {str(error) or type(error).__name__}") from error

    def _explained(self, error: Exception, repo: str, revision: str, folder: str) -> OwnerError:
        """The library's errors in the owner's words."""
        errors = self._hub.errors
        where = f"{repo} at {self.endpoint}"
        if isinstance(error, errors.GatedRepoError):
            return OwnerError(
                f"{where}: its makers want you to agree to something first: do so there, then set HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return OwnerError(f"{where}: no such repository, or a private one (then set HF_TOKEN)")
        if isinstance(error, errors.RevisionNotFoundError):
            return OwnerError(f"{where}: has no revision {revision}; --revision main takes the newest")
        if isinstance(error, errors.EntryNotFoundError):
            return OwnerError(f"{where}: has no folder {folder!r} at {revision}")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return OwnerError("HF_HUB_OFFLINE is set: nothing is fetched; unset it, or `edged import` a folder")
        if isinstance(error, self._http.HTTPError | OSError):
            said = (str(error) or type(error).__name__).splitlines()[0][:200]
            return TryLater(
                f"{where}: {said}. Is there a network? "
                "Behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT; without any network `edged import` a folder"
            )
        return OwnerError(f"{where}: answers with what this version does not understand: {str(error)[:200]}")


class HubSource:
    """A transport for the downloader: paths are names of a listing's files."""

    def __init__(self, hub: Hub, listing: Listing) -> None:
        self._hub, self._listing = hub, listing
        self._paths = {file.name: file.path for file in listing.files}

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        with self._hub.stream(self._listing.repo, self._listing.commit, self._paths[path], offset) as stream:
            yield stream


def _remote_file(entry: Any, folder: str) -> RemoteFile:
    name = entry.path.removeprefix(f"{folder}/") if folder else entry.path
    lfs = entry.lfs
    return RemoteFile(
        name, entry.path, int(lfs.size if lfs else entry.size), lfs.sha256 if lfs else None, entry.blob_id
    )


def _start(status: int, content_range: str, offset: int, path: str) -> int:
    """The offset that the body starts at. Raises NotThere and Unreachable by status."""
    if status == 200:
        return 0
    if status == 206 and offset and content_range.startswith(f"bytes {offset}-"):
        return offset
    if status in (401, 403, 404, 410):
        raise NotThere(f"{path}: the hub says {status}")
    raise Unreachable(f"{path}: the hub says {status}")
