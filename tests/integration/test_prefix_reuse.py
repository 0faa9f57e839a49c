"""A kept KV cache answers as a fresh reading does, bit for bit, on real models; and the traps that would break it.

The models are small and random, made here: an answer that depends on every bit shows more than a trained one would.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="tools/make_synthetic.py needs the extra `synthetic`")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from edged.engine.announced import AnnouncedBackend
from edged.engine.backends.genai import CPU_AS_IT_COMES, GenaiBackend
from edged.engine.pace import Pace
from edged.engine.sampler import Sampler, Sampling
from edged.engine.slots import Lease, Slots
from edged.protocol.pulse import PulseWriter, create
from edged.store.manifest import read_manifest

TOOL = Path(__file__).parents[2] / "tools" / "make_synthetic.py"
EDITS = 1000  # for each shape
ANSWER_TOKENS = 4
CONTEXT_TOKENS = 240
UID, OTHER_UID = 1000, 1001

Logits = NDArray[np.float32]


class Model:
    """A loaded model, and slots over it as the engine has them."""

    def __init__(self, folder: Path, context_tokens: int) -> None:
        manifest = read_manifest(folder)
        self.max_tokens, self.vocab = manifest.max_tokens, manifest.vocab_size - 20  # the last ones are control tokens
        self.genai = GenaiBackend(folder, manifest, "made", context_tokens, setting=replace(CPU_AS_IT_COMES, threads=1))
        self._pulse = create()
        self.backend = AnnouncedBackend(self.genai, PulseWriter(self._pulse), Pace(0.35))
        self.slots = Slots(self.backend, max_idle=8)

    def close(self) -> None:
        self.slots.give_back(2**60)
        os.close(self._pulse)

    def lease(self, prompt: list[int], capacity: int, uid: int = UID, session: str | None = None) -> Lease:
        """What admission does: the candidate when it is large enough, else a new slot."""
        kept = self.slots.candidate(uid, session, prompt)
        if kept is not None and kept.slot.capacity_tokens >= len(prompt) + ANSWER_TOKENS:
            capacity = kept.slot.capacity_tokens
        return self.slots.lease("test", uid, session, prompt, capacity, 0)

    def answer(self, lease: Lease, prompt: list[int], slices: list[int]) -> tuple[Logits, list[int]]:
        """Read what is not cached, answer greedily: the logits after the prompt, and the tokens."""
        at = lease.cached_tokens
        for length in slices:
            self.backend.prefill(lease.slot, prompt[at : at + length])
            at += length
        assert at == len(prompt)
        lease.slot.sampler = Sampler(Sampling())
        logits = np.array(lease.slot.generator.get_logits()[0, -1], copy=True)  # type: ignore[attr-defined]
        return logits, [self.backend.step([lease.slot])[0][0].token for _ in range(ANSWER_TOKENS)]

    def fresh(self, prompt: list[int]) -> tuple[Logits, list[int]]:
        """The answer of a generator that knows nothing, which reads the prompt in one go."""
        lease = self.slots.lease("fresh", 0, None, prompt, len(prompt) + ANSWER_TOKENS, 0)
        assert lease.cached_tokens == 0
        result = self.answer(lease, prompt, [len(prompt)])
        self.slots.end(lease, keep=False, now_s=0.0)
        return result


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    models: dict[str, Model] = {}

    def made(shape: str, context_tokens: int = CONTEXT_TOKENS) -> Model:
        if shape not in models:
            folder = tmp_path_factory.mktemp("models") / shape
            command = [sys.executable, str(TOOL), shape, str(folder), "--quiet", "--vocab", "512"]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            models[shape] = Model(folder, context_tokens)
        return models[shape]

    yield made
    for model in models.values():
        model.close()


def cut(length: int, chance: random.Random) -> list[int]:
    """Slices of a prompt, of two tokens and more, as the scheduler cuts them."""
    slices = []
    while length:
        part = min(length, chance.choice((2, 3, 8, 31, 64, 100)))
        part -= 1 if length - part == 1 and part > 2 else 0
        part = length if length - part == 1 else part
        slices.append(part)
        length -= part
    return slices


def edited(history: list[int], model: Model, chance: random.Random) -> list[int]:
    """What clients do to a conversation: go on, take back, change a word, drop old turns, begin anew, ask again."""

    def words(most: int) -> list[int]:
        return [chance.randrange(5, model.vocab) for _ in range(chance.randrange(1, most))]

    at = chance.randrange(len(history)) if history else 0
    match chance.randrange(8):
        case 0 | 1 | 2:
            new = history + words(30)
        case 3:
            new = history[:at] + words(10)
        case 4:
            new = [*history[:at], chance.randrange(5, model.vocab), *history[at + 1 :]]
        case 5:
            new = history[:20] + history[20 + at :] + words(5)
        case 6:
            new = history
        case _:
            new = words(120)
    return new[: CONTEXT_TOKENS - ANSWER_TOKENS] or words(5)


@pytest.mark.parametrize("shape", ["tiny", "tiny-gqa"])
def test_reuse_is_exact_over_a_thousand_edits_of_histories(shape: str, make: Callable[[str], Model]) -> None:
    model, chance = make(shape), random.Random(7)
    histories: dict[str | None, list[int]] = {None: [], "a": [], "b": []}
    reused = 0
    for turn in range(EDITS):
        session = chance.choice((None, "a", "b"))
        prompt = edited(histories[session], model, chance)
        lease = model.lease(prompt, CONTEXT_TOKENS, session=session)
        reused += lease.cached_tokens
        left = len(prompt) - lease.cached_tokens
        logits, answer = model.answer(lease, prompt, cut(left, chance))
        expected_logits, expected = model.fresh(prompt)
        assert answer == expected, f"edit {turn}: {lease.cached_tokens} of {len(prompt)} tokens were reused"
        assert (logits == expected_logits).all(), f"edit {turn}: off by {abs(logits - expected_logits).max()}"
        model.slots.end(lease, keep=chance.random() < 0.95, now_s=float(turn))
        while chance.random() < 0.5 and (kept := model.slots.unread):  # the engine is idle for a while
            model.slots.reread(kept, chance.choice((2, 8)))
        histories[session] = prompt + answer
        assert model.slots.check_books() is None
    assert reused > EDITS * 20, "hardly anything was reused: this test shows nothing"


def test_decoded_tokens_are_not_reused_because_they_differ(make: Callable[[str], Model]) -> None:
    """The fact behind `Slot.read_tokens`. If it no longer holds, answers need not be read again."""
    model, chance = make("tiny-gqa"), random.Random(1)
    differ = 0
    for _ in range(20):
        prompt = [chance.randrange(5, model.vocab) for _ in range(80)]
        lease = model.lease(prompt, CONTEXT_TOKENS, session="a")
        _, said = model.answer(lease, prompt, [len(prompt)])
        longer = [*prompt, *said[:-1], *range(10, 20)]
        model.slots.end(lease, keep=True, now_s=0.0)
        kept = model.slots.idle.session(UID, "a")
        assert kept is not None
        assert kept.slot.tokens == [*prompt, *said[:-1]]
        assert kept.slot.read_tokens == len(prompt)
        model.backend.prefill(kept.slot, longer[len(kept.slot.tokens) :])
        logits = kept.slot.generator.get_logits()[0, -1]  # type: ignore[attr-defined]
        differ += bool((logits != model.fresh(longer)[0]).any())
        model.slots.close(kept)
    assert differ


def test_the_second_turn_reads_the_answer_and_the_question_only(make: Callable[[str], Model]) -> None:
    model = make("tiny")
    prompt = [*range(10, 110)]
    lease = model.lease(prompt, CONTEXT_TOKENS, session="turns")
    _, said = model.answer(lease, prompt, [64, 36])
    model.slots.end(lease, keep=True, now_s=0.0)
    lease = model.lease([*prompt, *said, 20, 21], CONTEXT_TOKENS, session="turns")
    assert lease.cached_tokens == len(prompt)
    model.slots.end(lease, keep=False, now_s=0.0)


def test_an_answer_read_again_while_idle_need_not_be_read_by_the_next_turn(make: Callable[[str], Model]) -> None:
    model = make("tiny")
    prompt = [*range(10, 110)]
    lease = model.lease(prompt, CONTEXT_TOKENS, session="settled")
    _, said = model.answer(lease, prompt, [64, 36])
    model.slots.end(lease, keep=True, now_s=0.0)
    while kept := model.slots.unread:
        model.slots.reread(kept, 2)
    longer = [*prompt, *said, 20, 21]
    lease = model.lease(longer, CONTEXT_TOKENS, session="settled")
    assert lease.cached_tokens == len(prompt) + len(said) - 1  # the last token was picked and never computed
    assert model.answer(lease, longer, [3])[1] == model.fresh(longer)[1]
    model.slots.end(lease, keep=False, now_s=0.0)


def test_the_same_question_again_is_read_to_its_end_before_a_step(make: Callable[[str], Model]) -> None:
    """`rewind_to` and then a step would answer for the token that was dropped: something is always appended first."""
    model = make("tiny")
    prompt = [*range(10, 60)]
    expected = model.fresh(prompt)[1]
    for _ in range(2):
        lease = model.lease(prompt, CONTEXT_TOKENS, session="again")
        assert lease.cached_tokens < len(prompt)
        left = len(prompt) - lease.cached_tokens
        assert model.answer(lease, prompt, [left])[1] == expected
        model.slots.end(lease, keep=True, now_s=0.0)
    assert lease.cached_tokens == len(prompt) - 2


def test_a_step_right_after_a_rewind_is_wrong_in_the_library(make: Callable[[str], Model]) -> None:
    """The fact behind it: the logits after `rewind_to` are still those of the dropped tokens."""
    model = make("tiny")
    slot = model.genai.open_slot(100)
    model.genai.prefill(slot, [*range(10, 60)])
    slot.generator.rewind_to(30)
    slot.generator.generate_next_token()
    replayed = slot.generator.get_next_token()
    assert replayed != model.fresh([*range(10, 40)])[1][0]
    model.genai.close_slot(slot)


def test_cached_tokens_are_never_those_of_another_user(make: Callable[[str], Model]) -> None:
    model = make("tiny")
    prompt = [*range(10, 110)]
    for session in (None, "mine"):
        lease = model.lease(prompt, CONTEXT_TOKENS, uid=UID, session=session)
        model.answer(lease, prompt, [len(prompt) - lease.cached_tokens])
        model.slots.end(lease, keep=True, now_s=0.0)
        assert model.slots.candidate(OTHER_UID, session, prompt) is None
        other = model.lease(prompt, CONTEXT_TOKENS, uid=OTHER_UID, session=session)
        assert other.cached_tokens == 0
        model.slots.end(other, keep=False, now_s=0.0)
        assert model.slots.candidate(UID, session, prompt) is not None
    assert not model.slots.close_session(OTHER_UID, "mine")
    assert model.slots.close_session(UID, "mine")


def test_past_the_longrope_limit_a_lifted_cap_answers_wrongly(make: Callable[..., Model]) -> None:
    """One append over the limit is right; in slices, or rewound from above, the same tokens give other logits."""
    model = make("tiny-longrope", 1024)
    limit = 256
    chance = random.Random(3)
    prompt = [chance.randrange(5, model.vocab) for _ in range(limit + 20)]
    right = model.fresh(prompt)[0]
    sliced = model.lease(prompt, 512)
    wrong, _ = model.answer(sliced, prompt, [limit - 20, 40])
    assert abs(wrong - right).max() > 0.5, "slices over the limit are right by now: the cap may be lifted"
    model.slots.end(sliced, keep=False, now_s=0.0)

    above = model.lease(prompt, 512)
    model.answer(above, prompt, [len(prompt)])
    model.backend.rewind(above.slot, limit - 60)
    short = prompt[: limit - 40]
    model.backend.prefill(above.slot, short[limit - 60 :])
    wrong = above.slot.generator.get_logits()[0, -1]  # type: ignore[attr-defined]
    assert abs(wrong - model.fresh(short)[0]).max() > 0.5, "rewinding over the limit is right by now"
    model.slots.end(above, keep=False, now_s=0.0)


def test_edged_caps_a_longrope_model_at_its_limit(make: Callable[..., Model]) -> None:
    assert make("tiny-longrope", 1024).max_tokens == 256
