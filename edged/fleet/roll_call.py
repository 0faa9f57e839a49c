"""What a fleet says of itself: counts over the status lines that devices posted somewhere. Reads only."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from pathlib import Path

from edged.fleet.repository import FleetError


def summarize(files: Iterable[Path]) -> dict[str, dict[str, int]]:
    """Counts by version, by state of the last run, and of refusals. The last line of a device counts, if it has a name.

    Lines that are not a status are counted as unreadable.
    """
    newest: dict[str, dict[str, object]] = {}
    unreadable = 0
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise FleetError(f"{path}: {error.strerror}") from error
        for number, line in enumerate(lines):
            try:
                found = json.loads(line)
                newest[str(found.get("device") or f"{path}:{number}")] = {**found, "last": dict(found["last"])}
            except (ValueError, KeyError, TypeError, AttributeError):
                unreadable += bool(line.strip())
    versions, runs, refusals = collections.Counter[str](), collections.Counter[str](), collections.Counter[str]()
    for found in newest.values():
        versions[f"{found.get('model')} {found.get('active') or 'as shipped'}"] += 1
        last = found["last"]
        assert isinstance(last, dict)
        runs[" ".join(filter(None, (str(last.get("phase", "?")), str(last.get("code", "")))))] += 1
        refused = found.get("refused")
        for version, why in refused.items() if isinstance(refused, dict) else ():
            refusals[f"{version}: {why}"] += 1
    return {
        "versions": dict(versions.most_common()),
        "last runs": dict(runs.most_common()),
        "refused": dict(refusals.most_common()),
        "lines": {"devices": len(newest), "unreadable": unreadable},
    }
