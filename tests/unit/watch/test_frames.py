"""New frames: the newest is given, older ones are counted as dropped, nothing is given twice or half written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edged.errors import OwnerError
from edged.watch.camera import CameraSource
from edged.watch.frames import FolderSource


def put(folder: Path, name: str, data: bytes, age_s: int = 0) -> None:
    (folder / name).write_bytes(data)
    stamp = time.time_ns() - age_s * 10**9
    os.utime(folder / name, ns=(stamp, stamp))


def test_only_what_is_new_and_settled_is_given_once(tmp_path: Path) -> None:
    put(tmp_path, "old.png", b"old")
    source = FolderSource(tmp_path)
    assert source.newest() is None
    put(tmp_path, "a.png", b"half")
    assert source.newest() is None  # seen for the first time: it may still be written
    put(tmp_path, "a.png", b"the whole of it")
    assert source.newest() is None  # it was
    frame = source.newest()
    assert frame is not None
    assert (frame.name, frame.data, frame.dropped) == ("a.png", b"the whole of it", 0)
    assert source.newest() is None


def test_the_newest_is_taken_and_the_others_are_counted(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    for age_s in (3, 1, 2):
        put(tmp_path, f"{age_s}.jpg", b"x%d" % age_s, age_s)
    put(tmp_path, "notes.txt", b"no image")
    source.newest()
    frame = source.newest()
    assert frame is not None
    assert (frame.name, frame.dropped) == ("1.jpg", 2)
    assert source.newest() is None
    put(tmp_path, "2.jpg", b"changed")  # the same name again is a new frame
    source.newest()
    again = source.newest()
    assert again is not None
    assert again.data == b"changed"


def test_a_folder_that_goes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    source = FolderSource(folder)
    folder.rmdir()
    with pytest.raises(OwnerError, match="gone"):
        source.newest()


def test_a_camera_gives_its_newest_picture(tmp_path: Path) -> None:
    """OpenCV itself, playing a file in place of a device: the same calls, the same thread."""
    cv2 = pytest.importorskip("cv2", reason="the extra `camera` is not installed")
    import numpy as np

    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    source = CameraSource(str(film))
    deadline_s = time.monotonic() + 30
    while source._read < 10 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    frame = source.newest()
    assert frame is not None
    assert (frame.name, frame.dropped) == ("frame 10", 9)
    assert frame.data.startswith(b"\xff\xd8")
    with pytest.raises(OwnerError, match="no more"):
        source.newest()
    source.close()
