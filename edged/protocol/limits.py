"""Ceilings of the wire, told to clients by `hello`. Configured by the owner; the defaults are the contract's."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one client may send and have in flight.

    Bytes and counts; `max_header_bytes` bounds frame 0 (the request map), `max_frame_bytes` each attachment,
    `max_message_bytes` all frames of one request together, `max_pending_bytes` those of all live requests;
    `max_unread_bytes` the attachments of replies that it leaves unread, for all clients together `max_pending_bytes`.
    """

    max_header_bytes: int = 256 * 1024
    max_frames: int = 16
    max_frame_bytes: int = 32 * 1024 * 1024
    max_message_bytes: int = 64 * 1024 * 1024
    max_pending_bytes: int = 256 * 1024 * 1024
    max_unread_bytes: int = 128 * 1024 * 1024
    max_clients: int = 2048
    max_requests: int = 1024
    max_requests_per_client: int = 64
    max_requests_per_uid: int = 0  # 0: no limit
    outbox_bytes: int = 256 * 1024
    slow_consumer_s: float = 10.0

    def to_map(self) -> dict[str, int | float]:
        return asdict(self)
