"""Frames of a camera, through OpenCV (v4l2): the one importer of cv2. A thread reads all the time and keeps the newest,
since a camera that is not read gives old frames later.
"""

from __future__ import annotations

import threading
from typing import Any

from edged.errors import OwnerError
from edged.watch.frames import Frame

JPEG_QUALITY = 95
STALL_S = 10.0


class CameraSource:
    """Owns the device and its thread. `device` is a path such as /dev/video0, or a file that OpenCV plays."""

    def __init__(self, device: str, cv2: Any | None = None) -> None:
        """Raises OwnerError when OpenCV is missing or the device does not open."""
        self._cv2 = cv2 or _opencv()
        self._capture = self._cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise OwnerError(f"{device}: this camera does not open; is it there, and is this user in the group video?")
        self._device = device
        self._lock = threading.Lock()
        self._latest: Any = None
        self._read = self._given = 0
        self._ended = False
        self._thread = threading.Thread(target=self._read_on, name="camera", daemon=True)
        self._thread.start()

    def newest(self) -> Frame | None:
        with self._lock:
            picture, number, given = self._latest, self._read, self._given
            self._latest, self._given = None, number
        if picture is None:
            if self._ended:
                raise OwnerError(f"{self._device}: the camera gives no more pictures")
            return None
        done, encoded = self._cv2.imencode(".jpg", picture, [int(self._cv2.IMWRITE_JPEG_QUALITY), JPEG_QUALITY])
        if not done:
            return None
        return Frame(f"frame {number}", encoded.tobytes(), number - given - 1)

    def close(self) -> None:
        self._ended = True
        self._thread.join(STALL_S)
        self._capture.release()

    def _read_on(self) -> None:
        while not self._ended:
            done, picture = self._capture.read()
            if not done:
                self._ended = True
                return
            with self._lock:
                self._latest, self._read = picture, self._read + 1


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise OwnerError("a camera needs OpenCV: pip install 'edged[camera]'") from error
    return cv2
