"""Hands the small signed files to python-tuf from any transport, with the same pace as the large ones."""

from __future__ import annotations

from collections.abc import Iterator

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edged.update.pace import Pace, Rates
from edged.update.transport import NotThere, Transport


class MetadataFetcher(FetcherInterface):
    """python-tuf's interface to the network; paths stand in for URLs. The caller there caps the length."""

    def __init__(self, transport: Transport, rates: Rates) -> None:
        self._transport, self._rates = transport, rates

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Raises DownloadHTTPError for a file that is not there; python-tuf wraps all else in DownloadError."""
        opened = self._transport.open(url)
        try:
            stream = opened.__enter__()
        except NotThere as error:
            raise DownloadHTTPError(str(error), 404) from error
        return self._paced(opened, stream.chunks)

    def _paced(self, opened: object, chunks: Iterator[bytes]) -> Iterator[bytes]:
        pace = Pace(self._rates)
        try:
            for chunk in chunks:
                pace.arrived(len(chunk))
                yield chunk
        finally:
            opened.__exit__(None, None, None)  # type: ignore[attr-defined]
