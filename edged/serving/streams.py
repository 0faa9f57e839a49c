"""The live requests. Owns the rule that each one ends exactly once, and the maximum a client may have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from edged.errors import Busy, InvalidRequest
from edged.protocol.limits import WireLimits
from edged.serving.door import Client
from edged.serving.outbox import Envelope

BUSY_RETRY_MS = 500


@dataclass(slots=True, eq=False)
class Stream:
    """One request from its acceptance at the front to its last reply. `rid` is ours, `id` the client's."""

    rid: int
    client: Client
    envelope: Envelope
    id: int | str
    op: str
    digest: bytes
    received_s: float
    deadline_s: float | None
    accepted: bool = False
    attached_bytes: int = 0
    silent: bool = field(default=False)  # a REQ client: only the last reply is sent

    def label(self) -> str:
        """How the log names it."""
        return f"rid={self.rid} op={self.op} {self.client.peer.label()}"


class Streams:
    """All live requests, by our id and by the client's; `limits` may be replaced while they live."""

    def __init__(self, limits: WireLimits) -> None:
        self.limits = limits
        self._by_rid: dict[int, Stream] = {}
        self._attached_bytes = 0
        self._by_client: dict[Client, dict[int | str, Stream]] = {}
        self._rids = itertools.count(1)

    def __len__(self) -> int:
        return len(self._by_rid)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._by_rid.values()))

    def open(
        self,
        client: Client,
        envelope: Envelope,
        request_id: int | str,
        op: str,
        digest: bytes,
        received_s: float,
        deadline_s: float | None,
        attached_bytes: int = 0,
    ) -> Stream:
        """Admit a request to the front. Raises InvalidRequest for an id that is live, Busy above a ceiling."""
        mine = self._by_client.get(client, {})
        if request_id in mine:
            raise InvalidRequest("id: another live request of this client has it; use a fresh one")
        self._check_room(client, len(mine), attached_bytes)
        stream = Stream(
            next(self._rids),
            client,
            envelope,
            request_id,
            op,
            digest,
            received_s,
            deadline_s,
            silent=client.single_reply,
            attached_bytes=attached_bytes,
        )
        self._attached_bytes += attached_bytes
        self._by_rid[stream.rid] = stream
        self._by_client.setdefault(client, {})[request_id] = stream
        return stream

    def _check_room(self, client: Client, mine: int, attached_bytes: int) -> None:
        limits = self.limits
        if attached_bytes and self._attached_bytes + attached_bytes > limits.max_pending_bytes:
            raise Busy(
                f"attachments of {self._attached_bytes} bytes are being worked on, {limits.max_pending_bytes} at most",
                retry_after_ms=BUSY_RETRY_MS,
            )
        if mine >= limits.max_requests_per_client:
            raise Busy(f"this client has {mine} live requests, the most it may have", retry_after_ms=BUSY_RETRY_MS)
        if len(self._by_rid) >= limits.max_requests:
            raise Busy(f"{len(self._by_rid)} requests are live, the most there may be", retry_after_ms=BUSY_RETRY_MS)
        if limits.max_requests_per_uid:
            ours = sum(stream.client.uid == client.uid for stream in self._by_rid.values())
            if ours >= limits.max_requests_per_uid:
                raise Busy(f"this user has {ours} live requests, the most it may have", retry_after_ms=BUSY_RETRY_MS)

    @property
    def attached_bytes(self) -> int:
        """Attachments of all live requests."""
        return self._attached_bytes

    def get(self, rid: int) -> Stream | None:
        return self._by_rid.get(rid)

    def find(self, client: Client, request_id: int | str) -> Stream | None:
        """A client's own live request; another client's is never found."""
        return self._by_client.get(client, {}).get(request_id)

    def of(self, client: Client) -> list[Stream]:
        return list(self._by_client.get(client, {}).values())

    def end(self, rid: int) -> Stream | None:
        """Take a request out; None if it ended before. Whoever gets the stream sends its last reply."""
        stream = self._by_rid.pop(rid, None)
        if stream is not None:
            self._attached_bytes -= stream.attached_bytes
            mine = self._by_client[stream.client]
            del mine[stream.id]
            if not mine:
                del self._by_client[stream.client]
        return stream
