"""Ed25519 keys of key holders, one PEM file each, encrypted when a passphrase is given. Owns nothing after writing.

`cryptography` is imported when a private key is made or opened: golden prompts are recorded on boxes that have none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key

from edged.errors import OwnerError


class KeyProblem(OwnerError):
    """A key file is missing, exists already, or does not open."""


def make_key(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """A new key in a file that only its owner can read. Raises KeyProblem when the file exists already."""
    ed25519, formats = _cryptography()
    private = ed25519.Ed25519PrivateKey.generate()
    lock = formats.BestAvailableEncryption(passphrase.encode()) if passphrase else formats.NoEncryption()
    data = private.private_bytes(formats.Encoding.PEM, formats.PrivateFormat.PKCS8, lock)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise KeyProblem(f"{path} exists already; a key is never written over") from error
    except OSError as error:
        raise KeyProblem(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(descriptor)
    return CryptoSigner(private)


def load_key(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """Raises KeyProblem when the file is missing, no Ed25519 key, or locked with another passphrase."""
    ed25519, formats = _cryptography()
    try:
        private = formats.load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except OSError as error:
        raise KeyProblem(f"{path}: {error.strerror}") from error
    except TypeError as error:
        raise KeyProblem(f"{path}: {'no passphrase is needed' if passphrase else 'a passphrase is needed'}") from error
    except ValueError as error:
        raise KeyProblem(f"{path}: the passphrase is wrong, or this is no key") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise KeyProblem(f"{path}: not an Ed25519 key")
    return CryptoSigner(private)


def save_public(key: Key, path: Path) -> None:
    """The public half, to be given to whoever makes the repository. Raises KeyProblem."""
    try:
        path.write_text(json.dumps({"keyid": key.keyid, **key.to_dict()}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise KeyProblem(f"{path}: {error.strerror}") from error


def load_public(path: Path) -> Key:
    """Raises KeyProblem when the file holds no public key."""
    try:
        found = json.loads(path.read_bytes())
        return Key.from_dict(found.pop("keyid"), found)
    except OSError as error:
        raise KeyProblem(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyProblem(f"{path}: no public key; `edged-fleet key` writes them beside the private ones") from error


def _cryptography() -> tuple[Any, Any]:
    """Its modules for Ed25519 and for key files. Raises KeyProblem where the package is missing."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise KeyProblem("private keys need one more package: pip install 'edged[fleet]'") from error
    return ed25519, serialization
