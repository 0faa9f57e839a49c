"""The main job, on whatever processor runs it: a daemon, questions to the nano model, a clean stop. Writes what came.

    python tools/aarch64/job.py OUT.json

Every answer is greedy and told token by token with its log-probability, so that two machines can be compared.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.integration.raw import PATIENCE_S, Daemon, Peer, nano_folder  # noqa: E402

PER_SKILL = 2
MAX_TOKENS = 48
PLAIN = 2
LONG = (
    "Readings:\n" + "".join(f"- room {number}: {15 + number % 9}.5\n" for number in range(40)) + "Which is the warmest?"
)


def questions() -> list[list[dict[str, str]]]:
    """A few of each skill among the golden prompts, one with a system prompt too, and one long prompt."""
    golden = json.loads((nano_folder() / "golden.json").read_text())
    by_skill: dict[str, list[list[dict[str, str]]]] = {}
    for entry in golden:
        by_skill.setdefault(entry["skill"], []).append(entry["messages"])
    chosen = [messages for listed in by_skill.values() for messages in listed[:PER_SKILL]]
    return [*chosen, [{"role": "user", "content": LONG}]]


def _ask(peer: Peer, **fields: Any) -> dict[str, Any]:
    last = peer.last(peer.send("chat", **fields), PATIENCE_S)
    assert last["ev"] == "done", last
    return last


def main(out: Path) -> None:
    started_s = time.monotonic()
    answers: list[dict[str, Any]] = []
    with Daemon(hang_floor_s=3600) as daemon:  # a busy machine is no hang; what limits this job is its caller
        daemon.ready()
        loaded_s = time.monotonic() - started_s
        with Peer(daemon.endpoint) as peer:
            for messages in questions():
                fields = {"messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
                done = _ask(peer, **fields, logprobs=1)
                tokens = [[step["token"], round(step["logprob"], 4)] for step in done["logprobs"]]
                usage = {name: done["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
                answers.append({"asked": messages[-1]["content"][:60], "text": done["text"], "tokens": tokens} | usage)
                if len(answers) <= PLAIN:  # without logprobs the generator itself picks the likeliest
                    assert _ask(peer, **fields)["text"] == done["text"], messages
            model = daemon.model()
        assert daemon.terminate() == 0
    took_s = time.monotonic() - started_s
    found = {
        "machine": platform.machine(),
        "provider": model["provider"],
        "loaded_s": round(loaded_s, 1),
        "took_s": round(took_s, 1),
        "decode_tps": model["engine"].get("decode_tps"),
        "answers": answers,
    }
    out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
