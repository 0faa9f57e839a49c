"""A client's key for TCP (CURVE, ZeroMQ RFC 25 and 26): the file an admin hands out, as the client reads it.

Four lines of TOML: the key's name, its public and secret half, and the server's public half, each 40 signs of Z85.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from edged.errors import ConfigError

_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # no quote and no backslash: fit for TOML as it is


@dataclass(frozen=True, slots=True, repr=False)
class ClientKey:
    """`secret` is "" in a file whose secret half stayed with the client; it must be filled in there."""

    name: str
    public: str
    secret: str
    server: str

    def text(self) -> str:
        """The file's content."""
        lines = [f'{name} = "{value}"' for name, value in asdict(self).items()]
        return "\n".join(
            ["# A key to an edged daemon. Whoever has this file is this client: keep it secret.", *lines, ""]
        )


def is_key(text: object) -> bool:
    """Whether it is one half of a key in Z85."""
    return isinstance(text, str) and _Z85.fullmatch(text) is not None


def read_client_key(path: Path) -> ClientKey:
    """Raises ConfigError naming the file and what is wrong with it."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"key file {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"key file {path}: not the file that `edged keys new` writes") from error
    names = [field.name for field in fields(ClientKey)]
    for name in names:
        if not isinstance(read.get(name), str) or (name != "name" and not is_key(read[name])):
            raise ConfigError(f"key file {path}: {name} is missing or no key; ask the box's admin for a new file")
    return ClientKey(*(read[name] for name in names))
