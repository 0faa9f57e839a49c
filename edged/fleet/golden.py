"""Golden prompts: recorded on a reference box that runs the model, kept in a JSON file, put into a bundle."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edged.client import Client
from edged.fleet.repository import FleetError
from edged.update.bundle import Golden

_FILE = TypeAdapter(tuple[Golden, ...])


def record_golden(
    prompts: Path, out: Path, *, max_tokens: int, same_share: float, chat: bool, endpoint: str | None
) -> int:
    """Asks the daemon each line of `prompts`; returns how many.

    Raises FleetError, also for an answer without a word (it would prove nothing), and the client's own errors.
    """
    try:
        lines = [line for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{prompts}: {error}") from error
    found = []
    with Client(endpoint) as client:
        for line in lines:
            ask = client.chat if chat else client.generate
            said = ask(line, max_tokens=max_tokens, temperature=0.0)
            if not said.text.strip():
                raise FleetError(f"{line[:60]!r} is answered without a word; take another prompt")
            found.append(Golden(prompt=line, max_tokens=max_tokens, answer=said.text, same_share=same_share, chat=chat))
    out.write_bytes(_FILE.dump_json(tuple(found), indent=1))
    return len(found)


def read_golden(path: Path) -> tuple[Golden, ...]:
    """Raises FleetError for a file that holds none."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise FleetError(f"{path}: no golden prompts: {error.errors()[0]['msg']}") from None
