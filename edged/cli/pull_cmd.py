"""`edged pull`: fetch a public model that suits this box, check it, install it. The network is silent otherwise."""

from __future__ import annotations

import json as jsonlib
import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli.options import Json
from edged.cli.printable import human_bytes, printable
from edged.errors import ConfigError, OwnerError

if TYPE_CHECKING:
    from edged.config import Settings
    from edged.pull.pick import Fit, Pick
    from edged.store.catalog import CatalogModel

_RATE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)(?:[bB](?:/s)?)?")


def pull(
    model: Annotated[str, typer.Argument(help="A name from --list, or a repository of the hub: OWNER/NAME.")] = "",
    show_list: Annotated[bool, typer.Option("--list", help="List the models known by name; fetch nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched and why; fetch nothing.")
    ] = False,
    variant: Annotated[str, typer.Option(help="Take this variant, whatever suits the box.")] = "",
    provider: Annotated[str, typer.Option(help="Take the variant for this provider; default: what works here.")] = "",
    name: Annotated[str, typer.Option("--name", help="Install it under another name.")] = "",
    folder: Annotated[str, typer.Option(help="OWNER/NAME only: the folder inside the repository.")] = "",
    revision: Annotated[str, typer.Option(help="A commit, tag or branch in place of the catalog's.")] = "",
    limit_rate: Annotated[
        str, typer.Option(help="Bytes per second at most, such as 2M. Default: pull_bytes_per_s.")
    ] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Touch no network: succeed if it is installed.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if this box has too little memory for it.")] = False,
    json: Json = False,
) -> None:
    """Fetch a public int4 model: the variant that suits this box, checked byte for byte, installed in one step.

    Cut off, it goes on where it was when it is run again. HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy, HF_TOKEN is
    for repositories that want one. Needs the extra: pip install 'edged[pull]'.
    """
    from edged.cli.pull_page import explain, facts, show_catalog
    from edged.config import load
    from edged.store.catalog import read_catalog

    settings, _ = load()
    catalog = read_catalog()
    if show_list or not model:
        if not model and not show_list:
            raise ConfigError("name a model: `edged pull --list` shows which are known")
        show_catalog(catalog, json=json)
        return
    rate = parse_rate(limit_rate) if limit_rate else settings.pull_bytes_per_s
    wanted = provider or settings.provider
    chosen = _repository(model, folder, name, wanted) if "/" in model else catalog.find(model)
    target = name or chosen.name
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        _offline(settings, target, json=json)
        return
    picked = _choose(chosen, settings, wanted, variant)
    if not json:
        explain(chosen, picked, catalog.written)
    _refuse_too_large(chosen, picked.fit, anyway=anyway)
    if dry_run:
        if json:
            typer.echo(jsonlib.dumps(facts(chosen, picked)))
        return
    from edged.cli.pull_work import bring

    done = bring(settings, chosen, picked, target, revision=revision, rate=rate, anyway=anyway, quiet=json)
    if json:
        typer.echo(jsonlib.dumps(facts(chosen, picked) | done))
        return
    for line in done["left_out"]:
        typer.echo(f"left out: {printable(line)} (no part of a model)")
    again = "was installed already" if done["already"] else "installed"
    typer.echo(f"{again}: {target}, version {done['version']}, in {done['folder']}")
    typer.echo(f"next: `edged tune {target}` measures it here, `edged serve --model {target}` serves it")


def parse_rate(text: str) -> int:
    """ "2M" → 2000000, "500k" → 500000. Raises ConfigError."""
    match = _RATE.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"--limit-rate {text!r}: a number of bytes per second, such as 500k or 2M")
    return max(1, int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2].lower()]))


def _repository(repo: str, folder: str, name: str, provider: str) -> CatalogModel:
    """A repository that the catalog does not know, as if it did: for `provider`, else the CPU. Raises ConfigError."""
    from pydantic import ValidationError

    from edged.pull.pick import AUTO
    from edged.store.catalog import CatalogModel, Variant

    called = name or folder.strip("/").rpartition("/")[2] or repo.rpartition("/")[2]
    slug = re.sub(r"[^a-z0-9.-]+", "-", called.lower())[:40].strip("-.")
    try:
        # The commit is asked for at the hub; the row's own form knows full hashes and main only.
        only = Variant(
            name="asked-for", repo=repo, revision="main", folder=folder.strip("/"), precision="as published",
            providers=["cpu" if provider == AUTO else provider], about_mb=0, kv_bytes_per_token=1,
        )  # fmt: skip
        return CatalogModel(
            name=slug or "model", title=repo, licence="see its card", kind="text", context_tokens=4096, variant=[only]
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{repo} --folder {folder!r}: {first['loc'][-1]}: {first['msg']}") from None


def _offline(settings: Settings, target: str, *, json: bool) -> None:
    from edged.store.models import find_model

    try:
        found = find_model(target, settings.state_path)
    except OwnerError as error:
        raise OwnerError(
            f"{target} is not installed and this is offline. Where there is a network: `edged pull {target}`; then copy"
            " the folder it names here and `edged import` it"
        ) from error
    known = {
        "model": found.name,
        "version": found.version,
        "folder": str(found.folder),
        "already": True,
        "offline": True,
    }
    typer.echo(
        jsonlib.dumps(known) if json else f"{found.name} is installed in {found.folder}; not compared with the hub"
    )


def _choose(model: CatalogModel, settings: Settings, wanted: str, variant: str) -> Pick:
    from edged.hardware.budget import Reserve
    from edged.hardware.memory import read_memory
    from edged.pull.pick import AUTO, pick

    return pick(
        model,
        {} if wanted != AUTO or variant or not model.variant else _providers(settings),
        read_memory(),
        Reserve(settings.memory_reserve_bytes, settings.memory_reserve_fraction),
        provider=wanted,
        variant=variant,
    )


def _providers(settings: Settings) -> dict[str, str]:
    """Provider → "" when it works on this box, else why not."""
    from edged.cli.this_box import findings

    found = findings(settings.state_path, fresh=False)
    return {report.candidate.key: report.refusal.reason if report.refusal else "" for report in found.providers}


def _refuse_too_large(model: CatalogModel, fit: Fit, *, anyway: bool) -> None:
    """Raises OwnerError for a model that this box can never hold."""
    if not fit.fits and not anyway:
        raise OwnerError(
            f"{model.name} needs about {human_bytes(fit.need_bytes)} of memory for {fit.tokens} tokens of context, and "
            f"this box has {human_bytes(fit.usable_bytes)}: `edged pull --list` shows smaller ones; --anyway fetches it"
        )
