"""The support archive: named texts, scrubbed of keys, in one tar.gz that only its maker can read. Gathers nothing."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from edged.errors import OwnerError

MAX_TEXT_BYTES = 4 * 2**20  # of each text; a longer one loses its beginning
_Z85 = r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]"
_SECRETS = (
    (
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?-----END [A-Z ]{0,40}PRIVATE KEY-----", re.S),
        "[private key]",
    ),
    (
        re.compile(r"(?i)((?:secret|password|passphrase|private|credential|api_?key)\w{0,40}\"?\s?[:=]\s?)[^\n]+"),
        r"\1[removed]",
    ),
    (re.compile(rf"(?<!{_Z85}){_Z85}{{40}}(?!{_Z85})"), "[40 signs]"),
    (re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,20}://)[^/\s:@]{1,200}:[^/\s@]{1,200}@"), r"\1[removed]@"),
)
"""PEM keys, settings by their names, CURVE keys (40 signs of Z85, ZeroMQ RFC 32), passwords in URLs.
Each takes time in proportion to the text, however long its lines are."""


def scrub(text: str) -> str:
    """The text without what looks like a key or a password; rather too much than too little is taken."""
    for pattern, substitute in _SECRETS:
        text = pattern.sub(substitute, text)
    return text


def write_bundle(path: Path, texts: Mapping[str, str]) -> int:
    """Writes the texts (name → text) to `path`, mode 0600, never over a file that is there; bytes written.

    Raises OwnerError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OwnerError(f"{path}: cannot be written: {error.strerror}; give another place: --bundle FILE") from error
    top = path.name.split(".")[0]
    with open(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in sorted(texts.items()):
            data = scrub(text).encode()[-MAX_TEXT_BYTES:]
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return path.stat().st_size
