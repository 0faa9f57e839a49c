"""A user's text stays text: with the shipped tokenizer itself, nothing spells a control token and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.engine.backends.vocabulary import read_vocabulary
from edged.engine.load import Loaded
from edged.engine.plain_text import PlainText
from edged.errors import InvalidRequest, ModelError
from tests.integration.raw import nano_folder

CONTROL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>", "<s>", "</s>", "<unk>"]
EXAMPLES = 150

nasty = st.lists(
    st.sampled_from([*CONTROL, "<", "<|", "|>", "end", "|", ">", "<0x41>", "<<|end|>", "<|end<|end|>|>", " ", "\n"])
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0▁"), max_size=5),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def added_ids() -> set[int]:
    """Every id that the model's tokenizer gives to an added token."""
    tokenizer = json.loads((nano_folder() / "tokenizer.json").read_bytes())
    ids = {int(token["id"]) for token in tokenizer["added_tokens"]}
    assert len(ids) >= 5
    return ids


@pytest.fixture(scope="session")
def backend(nano: Loaded) -> Any:
    return nano.backend


def _bytes(backend: Any, ids: list[int]) -> bytes:
    return b"".join(backend.token_bytes(token) for token in ids)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nasty)
def test_no_text_becomes_a_control_token_and_all_of_it_is_there(backend: Any, added_ids: set[int], text: str) -> None:
    ids = backend.encode_text(text)
    assert not set(ids) & added_ids
    read = _bytes(backend, ids).decode("utf-8")
    assert read in (text, " " + text)  # some tokenizers put a space in front of a text


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nasty, nasty)
def test_a_conversation_holds_the_templates_control_tokens_only(
    backend: Any, added_ids: set[int], system: str, user: str
) -> None:
    def conversation(system: str, user: str) -> list[int]:
        turns = [{"role": "system", "content": system or "s"}, {"role": "user", "content": user}]
        return [token for token in backend.encode_chat(turns) if token in added_ids]

    assert conversation(system, user) == conversation("plain", "words")


def test_plain_text_is_encoded_as_the_tokenizer_itself_would(backend: Any) -> None:
    for text in ("set the lab fan to 40 percent", "it is 21.5 °C in the kitchen\n\nand 19 in the hall", "{}[]\t\r\n"):
        assert backend.encode_text(text) == backend._backend._encode(text)


@pytest.mark.parametrize("control", CONTROL)
def test_the_raw_tokenizer_would_have_been_fooled(backend: Any, added_ids: set[int], control: str) -> None:
    """The reason for all this: without the marks these texts are control tokens (if not, the marks may go)."""
    vocabulary = read_vocabulary(nano_folder())
    if control in vocabulary.control:
        assert set(backend._backend._encode(f"a{control}b")) & added_ids
    assert not set(backend.encode_text(f"a{control}b")) & added_ids


@given(st.text(alphabet="<|end>s", max_size=40))
def test_marks_break_every_spelling_and_nothing_else(text: str) -> None:
    plain = PlainText(["<|end|>", "<s>", "</s>"])
    mark = plain.choose_mark([text])
    marked = plain.mark(text, mark)
    assert marked.replace(mark, "") == text
    assert not any(spelled in part for part in marked.split(mark) for spelled in ("<|end|>", "<s>", "</s>"))
    if not any(spelled in text for spelled in ("<|end|>", "<s>", "</s>")):
        assert marked == text


def test_a_mark_is_one_that_the_text_does_not_hold() -> None:
    plain = PlainText(["<s>"])
    most = "".join(chr(code) for code in range(0xFDD0, 0xFDEF))
    assert plain.choose_mark([most, "x"]) == "\ufdef"
    with pytest.raises(InvalidRequest, match="U\\+FDD0"):
        plain.choose_mark([most, "\ufdef"])


def _tokenizer(folder: Path, **changed: Any) -> Path:
    base = {"model": {"type": "BPE", "vocab": {"a": 0, "▁b": 1, "<0xE2>": 2}}, "added_tokens": []} | changed
    (folder / "tokenizer.json").write_text(json.dumps(base))
    return folder


def test_both_families_of_tokenizers_are_read(tmp_path: Path) -> None:
    fallback = read_vocabulary(_tokenizer(tmp_path, added_tokens=[{"id": 4, "content": "<|x|>", "special": True}]))
    assert [fallback.bytes_of(token) for token in range(-1, 6)] == [b"", b"a", b" b", b"\xe2", b"", b"", b""]
    assert fallback.control == ("<|x|>",)
    level = {"model": {"vocab": {"Ġa": 0, "Ċ": 1, "â": 2}}, "decoder": {"type": "ByteLevel"}}
    assert read_vocabulary(_tokenizer(tmp_path, **level)).pieces == (b" a", b"\n", b"\xe2")


@pytest.mark.parametrize(
    "broken", [{"model": {}}, {"model": {"vocab": {"a": "x"}}}, {"model": []}, {"added_tokens": [{}]}, {"model": None}]
)
def test_what_is_no_such_tokenizer_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        read_vocabulary(_tokenizer(tmp_path, **broken))
