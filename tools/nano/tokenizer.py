"""The byte-fallback BPE tokenizer of the nano model, in the form of Phi-3's: no pre-tokenizer, "▁" for a space.

Words and spaces merge, digits and punctuation never do: each digit is a token of its own, so that numbers can be
copied and compared digit by digit. No space is put before a text, so that pieces encoded apart join up exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nano.chat import SYSTEM_PROMPT, Conversation
from nano.mixture import Stage, training_stream

CONTROL_TOKENS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_FIRST_TOKENS = ("<unk>", "<s>", "</s>")
_WORDS = Regex("▁?[A-Za-z]+|.|\n")
_VOCABULARY_STAGE = Stage(0, {"readings": 0.25, "commands": 0.4, "about": 0.35}, (2, 6), (1, 2))


def _texts(seed: int, count: int) -> Iterator[str]:
    yield SYSTEM_PROMPT
    stream = training_stream(f"{seed}:tokenizer", _VOCABULARY_STAGE)
    for _ in range(count):
        for exchange in next(stream).exchanges:
            yield exchange.user
            yield exchange.answer


def _train_merges(texts: Iterable[str], pieces: int) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORDS, "isolated")
    printable = [chr(code) for code in range(33, 127)] + ["▁"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=printable, show_progress=False)
    )
    trained: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return trained


def build_tokenizer(seed: int, vocab_size: int, conversations: int = 20000) -> Tokenizer:
    """Train the tokenizer of the text model; see `tokenizer_of`."""
    return tokenizer_of(_texts(seed, conversations), vocab_size)


def tokenizer_of(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on `texts`; the vocabulary is a little smaller than `vocab_size` when they have fewer words."""
    room = vocab_size - 256 - len(_FIRST_TOKENS) - len(CONTROL_TOKENS)
    trained = _train_merges(texts, room)
    names = [*_FIRST_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    names += sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    model = models.BPE(
        vocab={name: number for number, name in enumerate(names)},
        merges=[tuple(merge) for merge in trained["merges"]],
        byte_fallback=True,
        fuse_unk=True,
        unk_token="<unk>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (*_FIRST_TOKENS, *CONTROL_TOKENS)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


class ChatEncoder:
    """Turns conversations into token ids as the chat template does, and says which of them are answers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self._heads = {role: [self._id(f"<|{role}|>"), *self._text("\n")] for role in ("system", "user", "assistant")}
        self._end = [self._id("<|end|>")]
        self._newline = self._text("\n")

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(number)

    def _text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids of a prompt, ready for the answer."""
        ids: list[int] = []
        for message in messages:
            ids += self._heads[message["role"]] + self._text(message["content"]) + self._end + self._newline
        return ids + self._heads["assistant"]

    def training_ids(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """All ids of a conversation, and for each whether it is to be predicted (answers and their <|end|>)."""
        ids: list[int] = []
        if conversation.system is not None:
            ids += self._heads["system"] + self._text(conversation.system) + self._end + self._newline
        wanted = [False] * len(ids)
        for exchange in conversation.exchanges:
            asked = self._heads["user"] + self._text(exchange.user) + self._end + self._newline
            asked += self._heads["assistant"]
            answered = self._text(exchange.answer) + self._end
            ids += asked + answered + self._newline
            wanted += [False] * len(asked) + [True] * len(answered) + [False] * len(self._newline)
        return ids, wanted
