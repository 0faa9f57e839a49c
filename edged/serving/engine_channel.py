"""The private socket between the front and one engine process; each process gets a fresh one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from edged.errors import Busy
from edged.protocol import engine as wire
from edged.serving.engine_process import private_directory
from edged.serving.pump import Pump

QUEUE_HWM = 65536  # small private messages; the front's own ceilings are far lower
MOST_FRAMES = 1024  # of a message of our own: more than a client may send


class EngineChannel:
    """Owns the socket, its reader and its directory (0700; beside the public socket when `beside` is its folder).

    `opened` is how many processes had a socket so far.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        beside: Path | None,
        on_message: Callable[[wire.ToFront], None],
    ) -> None:
        self.opened = 0
        self._context, self._beside, self._on_message = context, beside, on_message
        self._directory: Path | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._pump: Pump | None = None

    def open(self) -> str:
        """The endpoint for the next process: nothing meant for one that died reaches it. Raises OSError or ZMQError."""
        if self._directory is None or not self._directory.is_dir():  # a cleaner of /tmp may have taken it
            self._directory = private_directory(self._beside)
        self.opened += 1
        endpoint = f"ipc://{self._directory}/{self.opened}"
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE_HWM)
        self._socket.setsockopt(zmq.RCVHWM, QUEUE_HWM)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        self._pump = Pump(self._socket, self._receive, MOST_FRAMES)
        return endpoint

    def send(self, message: wire.ToEngine) -> None:
        """Raises Busy when the engine does not read."""
        assert self._socket is not None
        assert self._pump is not None
        try:
            self._socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            raise Busy("the engine's queue is full", retry_after_ms=1000) from None
        self._pump.kick()

    def read_rest(self) -> None:
        """Take every message that is there: what a process said before it died still counts."""
        assert self._pump is not None
        self._pump.drain_all()

    def close(self) -> None:
        """Nothing more is heard of this process."""
        if self._pump is not None:
            self._pump.close()
        if self._socket is not None:
            self._socket.close()
        self._pump = self._socket = None

    def remove(self) -> None:
        """Take the directory away."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _receive(self, frames: Sequence[zmq.Frame]) -> None:
        self._on_message(wire.decode([frame.buffer for frame in frames]))  # type: ignore[arg-type]
