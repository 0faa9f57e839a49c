"""`edged-fleet`: the publisher's commands. Runs on a machine of fleet ops, never on a device."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edged.errors import EdgedError, OwnerError
from edged.fleet import releases
from edged.fleet.golden import read_golden, record_golden
from edged.fleet.keys import load_key, load_public, make_key, save_public
from edged.fleet.repository import OFFLINE, ONLINE, FleetError, Repository
from edged.fleet.roll_call import summarize
from edged.update.bundle import Needs, Rollout, bundle_target

app = typer.Typer(
    help="Publish signed models to a fleet of edged devices: keys, releases, rollout, revocation.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PASSPHRASE = "EDGED_KEY_PASSPHRASE"
Repo = Annotated[Path, typer.Argument(help="The repository's folder: metadata/ and targets/ in it are to be served.")]
Keys = Annotated[list[Path], typer.Option("--key", help="Private key to sign with; may be given several times.")]
Publics = list[Path]


@app.command()
def key(path: Annotated[Path, typer.Argument(help="FILE.pem; the public half goes to FILE.pub.json.")]) -> None:
    """Make an Ed25519 key. With EDGED_KEY_PASSPHRASE set it is encrypted."""
    signer = make_key(path, os.environ.get(PASSPHRASE))
    public = path.with_suffix(".pub.json")
    save_public(signer.public_key, public)
    typer.echo(f"{path} (keep it offline) and {public}: key {signer.public_key.keyid[:12]}")


@app.command()
def create(
    repo: Repo,
    root: Annotated[Publics, typer.Option("--root", help="Public key of a root holder; several.")],
    targets: Annotated[Publics, typer.Option("--targets", help="Public key of one who signs releases; several.")],
    online: Annotated[Path, typer.Option("--online", help="Public key that signs the list of what is newest.")],
    keys: Keys,
    root_threshold: Annotated[int, typer.Option(help="Signatures a change of keys needs.")] = 2,
    targets_threshold: Annotated[int, typer.Option(help="Signatures a release needs.")] = 2,
) -> None:
    """Begin a repository. Sign the drafts with the other keys, then publish."""
    publics = {
        "root": [load_public(path) for path in root],
        "targets": [load_public(path) for path in targets],
        "snapshot": [load_public(online)],
        "timestamp": [load_public(online)],
    }
    repository = Repository(repo)
    repository.create(publics, {"root": root_threshold, "targets": targets_threshold}, _signers(keys))
    _tell_missing(repository)


@app.command()
def add(
    repo: Repo,
    model_folder: Annotated[Path, typer.Argument(help="The model, as edged loads it.")],
    model: Annotated[str, typer.Option(help="Its name on the devices.")],
    version: Annotated[str, typer.Option(help="A name for this content; never used twice.")],
    keys: Keys,
    release: Annotated[int, typer.Option(help="Release counter. 0: one more than the last.")] = 0,
    golden: Annotated[Path | None, typer.Option(help="Golden prompts and answers (see `golden`).")] = None,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Share of the devices that get it.")] = 100.0,
    group: Annotated[list[str] | None, typer.Option(help="Only devices of this group; several.")] = None,
    not_before: Annotated[int, typer.Option(help="Unix time.")] = 0,
    edged: Annotated[str, typer.Option(help="Lowest version of edged.")] = "0",
    architecture: Annotated[list[str] | None, typer.Option(help="x86_64 or aarch64; none: any.")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Execution provider, one of which must work.")] = None,
    memory_bytes: Annotated[int, typer.Option(help="What it takes in all. 0: from the model's files.")] = 0,
) -> None:
    """Draft a release of a model folder."""
    repository = Repository(repo)
    number = release or max(releases.releases(repository, model), default=0) + 1
    bundle = releases.make_bundle(
        model_folder,
        model,
        version,
        number,
        needs=Needs(
            edged=edged,
            architectures=tuple(architecture or ()),
            providers=tuple(provider or ()),
            memory_bytes=memory_bytes,
        ),
        golden=read_golden(golden) if golden else (),
        rollout=Rollout(percent=percent, groups=tuple(group or ()), not_before_s=not_before),
    )
    releases.add(repository, model_folder, bundle, _signers(keys))
    typer.echo(f"{model} {version} is release {number}: {len(bundle.files)} files, {bundle.size_bytes / 2**20:.1f} MiB")
    _tell_missing(repository)


@app.command()
def golden(
    prompts: Annotated[Path, typer.Argument(help="Text file, one prompt a line.")],
    out: Annotated[Path, typer.Argument(help="Where prompts and answers go (JSON).")],
    max_tokens: Annotated[int, typer.Option(min=1, max=1024)] = 32,
    same_share: Annotated[float, typer.Option(min=0, max=1, help="Share of each answer that must come again.")] = 1.0,
    raw: Annotated[bool, typer.Option("--raw", help="Without the chat template.")] = False,
    endpoint: Annotated[str | None, typer.Option(help="The reference box's daemon, which runs the model.")] = None,
) -> None:
    """Record golden answers from a running daemon, at temperature 0."""
    count = record_golden(prompts, out, max_tokens=max_tokens, same_share=same_share, chat=not raw, endpoint=endpoint)
    typer.echo(f"{out}: {count} prompts with their answers")


@app.command()
def rollout(
    repo: Repo,
    model: str,
    release: int,
    keys: Keys,
    percent: Annotated[float, typer.Option(min=0, max=100)] = 100.0,
    group: Annotated[list[str] | None, typer.Option(help="Only devices of this group; several.")] = None,
    not_before: Annotated[int, typer.Option(help="Unix time.")] = 0,
) -> None:
    """Draft another share, other groups or another time for a release."""
    repository = Repository(repo)
    wanted = Rollout(percent=percent, groups=tuple(group or ()), not_before_s=not_before)
    releases.change_rollout(repository, model, release, wanted, _signers(keys))
    _tell_missing(repository)


@app.command()
def revoke(repo: Repo, model: str, release: int, keys: Keys) -> None:
    """Draft that no further device gets a release. To move devices off it, add a newer release."""
    repository = Repository(repo)
    releases.revoke(repository, model, release, _signers(keys))
    _tell_missing(repository)


@app.command()
def rotate(
    repo: Repo,
    role: Annotated[str, typer.Argument(help="root, targets, or online.")],
    keys: Keys,
    drop: Annotated[Publics | None, typer.Option(help="Public key that is lost, stolen or retired; several.")] = None,
    new: Annotated[Publics | None, typer.Option(help="Public key that takes its place; several.")] = None,
    threshold: Annotated[int | None, typer.Option(help="Another number of signatures.")] = None,
) -> None:
    """Draft other keys for a role. A new root needs signatures of old and new root keys."""
    roles = ONLINE if role == "online" else (role,)
    if role != "online" and role not in OFFLINE:
        raise FleetError(f"{role!r} is no role; root, targets or online")
    repository = Repository(repo)
    gone, added = [load_public(path).keyid for path in drop or []], [load_public(path) for path in new or []]
    for one in roles:
        repository.rotate(one, gone, added, threshold, _signers(keys))
    _tell_missing(repository)


@app.command()
def sign(repo: Repo, keys: Keys) -> None:
    """Add signatures to the drafts. The folder `pending/` may travel to another key holder in between."""
    repository = Repository(repo)
    drafted = [role for role in OFFLINE if repository.draft_of(role) is not None]
    if not drafted:
        raise FleetError(f"{repo} has no drafts to sign")
    for role in drafted:
        repository.sign(role, [one for one in _signers(keys) if repository.may_sign(role, one)])
    _tell_missing(repository)


@app.command()
def publish(repo: Repo, online: Annotated[Path, typer.Option("--online", help="The private online key.")]) -> None:
    """Make the signed drafts what devices see. Without drafts: renew the list before it expires (in seven days)."""
    versions = Repository(repo).publish(_signers([online]))
    typer.echo("published: " + ", ".join(f"{role} {version}" for role, version in versions.items()))


@app.command()
def show(repo: Repo, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show versions, expiry, keys, releases and what lacks signatures."""
    repository = Repository(repo)
    found: dict[str, Any] = {"roles": {}, "releases": [], "missing": {}}
    for role in (*OFFLINE, *ONLINE):
        signed, named = repository.load(role).signed, repository.root.roles[role]
        expires = signed.expires.isoformat()
        found["roles"][role] = {
            "version": signed.version,
            "expires": expires,
            "threshold": named.threshold,
            "keys": [keyid[:12] for keyid in named.keyids],
        }
    for path in sorted(repository.listed):
        if (target := bundle_target(path)) is not None:
            bundle = releases.read_release(repository, *target)
            found["releases"].append(
                {
                    "model": bundle.model,
                    "release": bundle.release,
                    "version": bundle.version,
                    **bundle.rollout.model_dump(mode="json"),
                }
            )
    found["missing"] = {role: short for role in OFFLINE if (short := repository.missing(role))}
    if json:
        typer.echo(jsonlib.dumps(found))
        return
    for role, facts in found["roles"].items():
        keys = f"{facts['threshold']} of {len(facts['keys'])} keys ({', '.join(facts['keys'])})"
        typer.echo(f"{role:<10} version {facts['version']}, until {facts['expires']}, {keys}")
    for one in found["releases"]:
        to = f"{one['percent']:g} %" + (f" of {', '.join(one['groups'])}" if one["groups"] else "")
        typer.echo(f"{one['model']} release {one['release']} ({one['version']}): {to}")
    for role, short in found["missing"].items():
        typer.echo(f"the draft of {role} lacks {short} signature(s)")


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="JSON lines: outputs of `edged update status --json`.")],
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Summarize what devices posted: how many run which version, and what failed."""
    summary = summarize(files)
    if json:
        typer.echo(jsonlib.dumps(summary))
        return
    for title, counts in summary.items():
        typer.echo(f"{title}:")
        for name, count in counts.items():
            typer.echo(f"  {count:6} {name}")


def _signers(paths: list[Path]) -> list[Any]:
    return [load_key(path, os.environ.get(PASSPHRASE)) for path in paths]


def _tell_missing(repository: Repository) -> None:
    for role in OFFLINE:
        if repository.draft_of(role) is not None:
            short = repository.missing(role)
            state = f"lacks {short} signature(s)" if short else "is signed; publish it"
            typer.echo(f"the draft of {role} {state}")


def main() -> None:
    """Console entry: an error of ours is one line, never a stack trace."""
    try:
        app()
    except (EdgedError, OwnerError) as error:
        typer.echo(f"edged-fleet: {error}", err=True)
        sys.exit(1)
