"""`edged keys`: who may come in over TCP. Works on the daemon's files; the daemon notices within a second."""

from __future__ import annotations

import json as jsonlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli.options import Json
from edged.errors import OwnerError

if TYPE_CHECKING:
    from edged.serving.keyring import ServerKey

app = typer.Typer(
    help="Keys of clients that come over TCP: make, list, take away.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
Name = Annotated[str, typer.Argument(help="The client's name: small letters, digits, dots, dashes.")]


@app.command()
def new(
    name: Name,
    right: Annotated[
        list[str] | None, typer.Option("--right", help="chat, infer or admin; may be given again. Default: chat.")
    ] = None,
    public: Annotated[
        str | None, typer.Option(help="The public half of a key that the client made itself and keeps.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The client's file. Default: NAME.key, here.")] = None,
) -> None:
    """Make a client's key, and the server's if there is none yet; write the file that the client needs.

    The secret half is in that file alone: carry it to the client as you would a password, and delete it here.
    """
    import zmq

    from edged.protocol.keys import ClientKey, is_key
    from edged.serving.access import Right
    from edged.serving.keyring import clients_folder, read_clients
    from edged.store.durable import write_file

    if NAME.fullmatch(name) is None:
        raise OwnerError(f"{name!r}: a name has small letters, digits, dots and dashes, at most 63")
    if public is not None and not is_key(public):
        raise OwnerError("--public: not the 40 signs (Z85) of a public key")
    if unknown := set(right or ()) - set(Right):
        raise OwnerError(f"--right {min(unknown)}: there are: {', '.join(Right)}")
    folder = _folder()
    out = out or Path(f"{name}.key")
    if out.exists():
        raise OwnerError(f"{out}: is there already; give another place: --out FILE")
    clients = clients_folder(folder)
    if (clients / f"{name}.toml").exists():
        raise OwnerError(f"{name} has a key already; take it away first: edged keys revoke {name}")
    _make_folders(folder, clients)
    if public in {known.public for known in read_clients(folder).values()}:
        raise OwnerError("--public: another client has this key")
    server = _server_key(folder)
    made, secret = (public, "") if public is not None else tuple(half.decode() for half in zmq.curve_keypair())
    known = clients / f"{name}.toml"
    try:
        write_file(out, ClientKey(name, made, secret, server.public).text().encode(), 0o600)
        write_file(known, f'public = "{made}"\nrights = {jsonlib.dumps(right or ["chat"])}\n'.encode(), 0o600)
        _to_owner(folder, known)
    except OSError as error:
        raise OwnerError(f"{error.filename}: cannot be written: {error.strerror}") from error
    hint = "" if secret else "; the client writes its secret half into it"
    typer.echo(f"{out}: the key of {name}, for that client alone{hint}. It may: {', '.join(right or ['chat'])}")


@app.command(name="list")
def list_(json: Json = False) -> None:
    """Show the clients that may come in, with their rights and public keys."""
    from edged.serving.keyring import read_clients, read_server_key, server_file

    folder = _folder()
    server = read_server_key(folder).public if server_file(folder).exists() else None
    known = sorted(read_clients(folder).values(), key=lambda client: client.name)
    if json:
        shown = [{"name": each.name, "rights": sorted(each.rights), "public": each.public} for each in known]
        typer.echo(jsonlib.dumps({"server": server, "clients": shown}))
        return
    if server is None:
        typer.echo("no keys yet: edged keys new NAME")
        return
    typer.echo(f"server: {server}")
    for each in known:
        typer.echo(f"{each.name:20} {','.join(sorted(each.rights)):18} {each.public}")


@app.command()
def revoke(name: Name) -> None:
    """Take a client's key away: it is refused from now on, and cut off if it is connected."""
    from edged.serving.keyring import clients_folder
    from edged.store.durable import sync_folder

    clients = clients_folder(_folder())
    if NAME.fullmatch(name) is None or not (clients / f"{name}.toml").exists():
        raise OwnerError(f"{name}: there is no such key; `edged keys list` shows all")
    try:
        (clients / f"{name}.toml").unlink()
        sync_folder(clients)
    except OSError as error:
        raise OwnerError(f"{error.filename}: cannot be removed: {error.strerror}") from error
    typer.echo(f"{name}: taken away")


def _folder() -> Path:
    """Where the daemon of this box looks for keys. Raises OwnerError where this user may not look."""
    from edged.config import load

    folder = load()[0].keys_path
    try:
        folder.exists()
    except PermissionError as error:
        raise OwnerError(f"{folder}: this needs root: sudo edged keys …") from error
    return folder


def _make_folders(folder: Path, clients: Path) -> None:
    try:
        for place in (folder, clients):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _to_owner(folder, place)
    except OSError as error:
        raise OwnerError(f"{error.filename}: cannot be made: {error.strerror}; sudo edged keys …") from error


def _server_key(folder: Path) -> ServerKey:
    import zmq

    from edged.serving.keyring import read_server_key, server_file
    from edged.store.durable import write_file

    path = server_file(folder)
    if not path.exists():
        public, secret = (half.decode() for half in zmq.curve_keypair())
        try:
            write_file(path, f'public = "{public}"\nsecret = "{secret}"\n'.encode(), 0o600)
            _to_owner(folder, path)
        except OSError as error:
            raise OwnerError(f"{path}: cannot be written: {error.strerror}") from error
    return read_server_key(folder)


def _to_owner(folder: Path, path: Path) -> None:
    """What root makes belongs to the daemon's user, as the state directory does."""
    owner = folder.parent.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
