"""The support archive: complete, for its maker alone, and without keys."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from edged.doctor.bundle import MAX_TEXT_BYTES, scrub, write_bundle
from edged.errors import OwnerError

CURVE_KEY = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"  # ZeroMQ RFC 26's test vector
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_keys_and_passwords_are_taken_out() -> None:
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"
    text = f'a\n{pem}\nserver_secret_key = \'x y\'\n"password": "p"\nclient {CURVE_KEY} of bob\nhttps://u:pw@host/x\n'
    clean = scrub(text)
    for secret in ("abc", "x y", '"p"', CURVE_KEY, "pw@"):
        assert secret not in clean
    assert "of bob" in clean
    assert "@host/x" in clean


def test_what_support_needs_is_left_in() -> None:
    text = f"max_tokens = 1024\nmodel.onnx sha256 {SHA256}\n<6>request done rid=7 op=chat uid=1000 tokens=12\n"
    assert scrub(text) == text


def test_the_archive_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "box7.tar.gz"
    size = write_bundle(path, {"doctor.txt": "ok", "journal.txt": "x" * (MAX_TEXT_BYTES + 10)})
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == size
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["box7/doctor.txt", "box7/journal.txt"]
        assert archive.getmember("box7/journal.txt").size == MAX_TEXT_BYTES


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_text("mine")
    with pytest.raises(OwnerError, match="File exists"):
        write_bundle(path, {})
    assert path.read_text() == "mine"
