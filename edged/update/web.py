"""A repository on any static web server, through the standard library's HTTP client.

Chosen over urllib3: no retries, pools, decompression or cookies of its own, so what can happen is on this page.
Authenticity does not rest on TLS but on the signatures; TLS keeps what a fleet runs from being read on the way.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from edged.store.digests import CHUNK_BYTES, is_file_name
from edged.update.errors import Unreachable
from edged.update.transport import NotThere, Stream

MAX_REDIRECTS = 5
SOCKET_WAIT_S = 30.0
USER_AGENT = "edged-update"


@dataclass(frozen=True, slots=True)
class Identity:
    """What TLS is told: `authorities` (PEM) in place of the system's, and this device's certificate and key."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class WebTransport:
    """`base` is the URL of the folder that holds `metadata/` and `targets/`. One connection a file."""

    def __init__(self, base: str, identity: Identity | None = None, wait_s: float = SOCKET_WAIT_S) -> None:
        self._base = base if base.endswith("/") else base + "/"
        self._wait_s = wait_s
        self._identity = identity or Identity()
        self._tls: ssl.SSLContext | None = None

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        if not is_file_name(path):
            raise NotThere(f"{path[:120]!r} is no file of a repository")
        url = urljoin(self._base, quote(path))
        for _ in range(MAX_REDIRECTS + 1):
            connection, response = self._ask(url, offset)
            try:
                if response.status in (301, 302, 303, 307, 308):
                    url = _redirected(url, response.getheader("Location"))
                    continue
                start = _start(response, offset, url)
                yield Stream(start, _chunks(response, url))
                return
            finally:
                connection.close()
        raise Unreachable(f"{url}: more than {MAX_REDIRECTS} redirections")

    def _ask(self, url: str, offset: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        try:
            connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        except (OSError, ValueError) as error:
            raise Unreachable(f"{url}: {error}") from error
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(f"{url}: {str(error) or type(error).__name__}") from error

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._wait_s)
        if self._tls is None:
            authorities = self._identity.authorities
            self._tls = ssl.create_default_context(cafile=str(authorities) if authorities else None)
            if self._identity.certificate:
                self._tls.load_cert_chain(self._identity.certificate, self._identity.key)
        return http.client.HTTPSConnection(host, port, timeout=self._wait_s, context=self._tls)


def _redirected(url: str, location: str | None) -> str:
    """Where a redirection leads. Raises Unreachable when it leads nowhere or out of TLS."""
    target = urljoin(url, location or "")
    scheme = urlsplit(target).scheme
    if not location or scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise Unreachable(f"{url}: redirects to {str(location)[:120]!r}, which is not followed")
    return target


def _start(response: http.client.HTTPResponse, offset: int, url: str) -> int:
    """The offset that the body starts at. Raises NotThere and Unreachable by status."""
    if response.status == 200:
        return 0
    if response.status == 206 and offset and (response.getheader("Content-Range") or "").startswith(f"bytes {offset}-"):
        return offset
    if response.status in (403, 404, 410):
        raise NotThere(f"{url}: the server says {response.status}")
    raise Unreachable(f"{url}: the server says {response.status} {response.reason}"[:300])


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {str(error) or type(error).__name__}") from error
