"""What every generator yields: a conversation whose assistant turns are all right answers."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

SYSTEM_PROMPT = "You are the nano model of edged."


@dataclass(frozen=True)
class Exchange:
    """One user message, the one right answer to it, and the name of the skill it asks for."""

    user: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Conversation:
    """Exchanges in order. `skill` names the family (commands, readings, follow_ups, about); it is that of the last."""

    skill: str
    exchanges: tuple[Exchange, ...]
    system: str | None = None

    def prompt(self) -> list[dict[str, str]]:
        """The messages up to and including the last question, as a chat template takes them."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for exchange in self.exchanges[:-1]:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.answer})
        messages.append({"role": "user", "content": self.exchanges[-1].user})
        return messages


def maybe_system(rng: Random, share: float = 0.4) -> str | None:
    """The default system message for a share of the conversations, none for the others."""
    return SYSTEM_PROMPT if rng.random() < share else None


def sentence_case(rng: Random, text: str, share: float = 0.5) -> str:
    """`text` with a capital first letter in a share of the cases."""
    return text[:1].upper() + text[1:] if rng.random() < share else text
