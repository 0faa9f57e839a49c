"""What `edged pull` says: the catalog, and the choice with its reasons, for people and for programs."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Any

import typer

from edged.cli.columns import columns
from edged.cli.printable import human_bytes, printable
from edged.pull.pick import Pick
from edged.store.catalog import Catalog, CatalogModel


def show_catalog(catalog: Catalog, *, json: bool) -> None:
    """What is known by name."""
    if json:
        typer.echo(jsonlib.dumps(catalog.model_dump(by_alias=True)))
        return
    rows = []
    for model in catalog.model:
        variants = ", ".join(
            f"{one.name} ({one.about_mb / 1000:.1f} GB)" if one.about_mb else one.name for one in model.variant
        )
        rows.append([model.name, variants or "none", model.licence, model.title])
    for line in columns(["name", "variants (to download)", "licence", "what it is"], rows, right=()):
        typer.echo(line)
    typer.echo(
        f"Looked up on {catalog.written}; sizes are rounded. Any other repository: edged pull OWNER/NAME --folder F"
    )


def explain(model: CatalogModel, picked: Pick, written: str) -> None:
    """Which variant, why, from where, and how much memory it will take."""
    variant, fit = picked.variant, picked.fit
    typer.echo(f"{model.title} ({model.licence})")
    typer.echo(f"variant {variant.name}: {picked.why}; {variant.precision}")
    for name, why in picked.passed_over:
        typer.echo(f"  passed over {name}: {printable(why)}")
    about = f"about {variant.about_mb / 1000:.2f} GB (as of {written})" if variant.about_mb else "of unknown size"
    typer.echo(f"from {variant.repo}, {variant.folder or 'its root'}: {about}")
    if not fit.checked:
        typer.echo("memory: it will lie in the accelerator's own, which was not compared")
    elif variant.about_mb:
        word = (
            "fits" if fit.fits_now else "fits this box, but not beside what it holds now" if fit.fits else "too large"
        )
        typer.echo(
            f"memory: about {human_bytes(fit.need_bytes)} (weights {human_bytes(fit.weights_bytes)}, KV for "
            f"{fit.tokens} tokens {human_bytes(fit.kv_bytes)}, reserve {human_bytes(fit.reserve_bytes)}); "
            f"{human_bytes(fit.free_bytes)} free of {human_bytes(fit.usable_bytes)}: {word}"
        )


def facts(model: CatalogModel, picked: Pick) -> dict[str, Any]:
    """The pick for programs."""
    return {
        "model": model.name,
        "variant": picked.variant.model_dump(),
        "provider": picked.provider,
        "why": picked.why,
        "passed_over": [{"variant": name, "reason": why} for name, why in picked.passed_over],
        "memory": asdict(picked.fit) | {"need_bytes": picked.fit.need_bytes, "fits": picked.fit.fits},
    }
