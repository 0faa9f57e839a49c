"""The keys of this daemon for TCP: its own pair, and the public halves of the clients let in. `edged keys` writes them.

keys/server.toml        public, secret          mode 0600
keys/clients/NAME.toml  public, rights          one file each: to revoke a key is to remove its file
"""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import ConfigError
from edged.protocol.keys import is_key
from edged.serving.access import Right

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class ServerKey:
    """Both halves, Z85."""

    public: str
    secret: str


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client that may come in over TCP."""

    name: str
    public: str
    rights: frozenset[Right]


def server_file(folder: Path) -> Path:
    return folder / "server.toml"


def clients_folder(folder: Path) -> Path:
    return folder / "clients"


def read_server_key(folder: Path) -> ServerKey:
    """Raises ConfigError when there is none."""
    path = server_file(folder)
    read = _read(path)
    if not is_key(read.get("public")) or not is_key(read.get("secret")):
        raise ConfigError(f"{path}: holds no key pair; remove it, and `edged keys new` makes another")
    return ServerKey(read["public"], read["secret"])


def read_clients(folder: Path) -> dict[str, KnownClient]:
    """By name. Raises ConfigError naming the file that is wrong."""
    found: dict[str, KnownClient] = {}
    for path in sorted(clients_folder(folder).glob("*.toml")):
        read = _read(path)
        rights = read.get("rights")
        if not is_key(read.get("public")) or not isinstance(rights, list):
            raise ConfigError(f"{path}: public or rights is missing; remove it and make the key anew")
        try:
            found[path.stem] = KnownClient(path.stem, read["public"], frozenset(Right(right) for right in rights))
        except ValueError as error:
            raise ConfigError(f"{path}: rights: {error}") from error
    return found


class Keyring:
    """The clients of one folder, read again when their folder changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = read_server_key(folder)
        self._seen = self._changed()
        self._clients = read_clients(folder)

    def rights(self, name: str) -> frozenset[Right] | None:
        """None for a name that is not, or no longer, known."""
        known = self._clients.get(name)
        return known.rights if known else None

    def name_of(self, public: str) -> str | None:
        """Who has this public half."""
        return next((known.name for known in self._clients.values() if known.public == public), None)

    def refresh(self) -> set[str]:
        """Read the folder again if names in it came or went; those that are no longer what they were.

        A file that cannot be read lets nobody in by that reading: the clients stay as they were, and the log says why.
        """
        changed = self._changed()
        if changed == self._seen:
            return set()
        try:
            fresh = read_clients(self._folder)
        except ConfigError as error:
            log.error("keys not read again: %s", error)
            return set()
        before, self._clients, self._seen = self._clients, fresh, changed
        gone = {name for name, known in before.items() if fresh.get(name) != known}
        log.info("keys read again clients=%d revoked=%s", len(fresh), ",".join(sorted(gone)) or "none")
        return gone

    def _changed(self) -> int:
        try:
            return clients_folder(self._folder).stat().st_mtime_ns
        except OSError:
            return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there; `edged keys new NAME` makes it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
