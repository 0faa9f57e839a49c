"""`edged status` and `edged top` for people: one page from what the daemon says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edged.cli.model_view import facts_table, model_view, sub_map
from edged.cli.printable import human_bytes, human_seconds
from edged.client import Status


def status_view(status: Status, endpoint: str) -> RenderableType:
    """Everything on one page."""
    front = sub_map(status.raw, "front")
    head = Text(f"edged {status.version} at {endpoint}, up {human_seconds(status.uptime_s)}", "bold")
    if status.draining:
        head.append(" (draining)", "yellow")
    facts: dict[str, str | Text] = {
        "front": f"{human_bytes(front.get('rss_bytes') or 0)} resident, {front.get('connections', 0)} connections, "
        f"{front.get('live_requests', 0)} requests live",
        "requests": _counts(sub_map(front, "counts")),
    }
    if front.get("blocked_clients"):
        facts["not reading"] = f"{front['blocked_clients']} clients"
    if front.get("quarantined_inputs"):
        facts["quarantine"] = Text(f"{front['quarantined_inputs']} inputs that ended the engine", "red")
    return Group(head, facts_table(facts), *(model_view(model) for model in status.models))


def _counts(counts: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in sorted(counts.items()))
    return shown or "none yet"
