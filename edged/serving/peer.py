"""Who is at the other end of a connection, in the kernel's words or the key's. Reads one frame; owns nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import zmq

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Peer:
    """uid, gid and pid as the kernel gives them for an ipc connection; over TCP the name of the CURVE key.

    A key has a uid of its own below -1, so that quotas, sessions and shared beginnings are never mixed between keys.
    """

    uid: int = UNKNOWN
    gid: int = UNKNOWN
    pid: int = 0
    key: str = ""

    def label(self) -> str:
        """How logs name it."""
        return f"key={self.key}" if self.key else f"uid={self.uid} gid={self.gid} pid={self.pid}"


def peer_of(frame: zmq.Frame) -> Peer:
    """The sender of a frame; ipc shows it as localhost:uid:gid:pid in `Peer-Address`, a key's name is the `User-Id`."""
    if key := _property(frame, "User-Id"):
        return Peer(uid=key_uid(key), key=key)
    try:
        host, uid, gid, pid = _property(frame, "Peer-Address").split(":")
        return Peer(int(uid), int(gid), int(pid)) if host == "localhost" else Peer()
    except ValueError:
        return Peer()


def key_uid(name: str) -> int:
    """The number that stands for a key where a uid is asked for: below -1, the same after every start."""
    return -2 - int.from_bytes(hashlib.blake2b(name.encode(), digest_size=5).digest(), "big")


def socket_type(frame: zmq.Frame) -> str:
    """`REQ`, `DEALER` … as the peer's library said in its handshake; "" when it did not."""
    return _property(frame, "Socket-Type")


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except (zmq.ZMQError, UnicodeDecodeError):
        return ""
