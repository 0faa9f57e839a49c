"""A working byte-fallback BPE tokenizer with Phi-3's special tokens, filled up to any vocabulary size.

Ids follow Phi-3: `<unk>`, `<s>`, `</s>`, 256 bytes, then pieces; the special tokens begin 64 below the end (32000 of
32064). The pieces are the printable ASCII characters and then, in a fixed order, pairs and triples of letters, so
that English text takes about two characters a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from string import ascii_lowercase, printable
from typing import Any

SPECIALS = 64
_NAMED = {
    0: "<|endoftext|>", 1: "<|assistant|>", 2: "<|placeholder1|>", 3: "<|placeholder2|>", 4: "<|placeholder3|>",
    5: "<|placeholder4|>", 6: "<|system|>", 7: "<|end|>", 8: "<|placeholder5|>", 9: "<|placeholder6|>", 10: "<|user|>",
}  # fmt: skip
SPACE = "▁"
MIN_VOCAB = 3 + 256 + len(printable) + SPECIALS

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def special_ids(vocab: int) -> dict[str, int]:
    """Name → id of the special tokens at the end of the vocabulary; those without a name of their own are reserved."""
    first = vocab - SPECIALS
    return {_NAMED.get(at, f"<|reserved{at}|>"): first + at for at in range(SPECIALS)}


def tokenizer(vocab: int) -> dict[str, Any]:
    """The content of tokenizer.json for a vocabulary of `vocab` ids (≥ MIN_VOCAB), each id with a piece."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [SPACE, *(char for char in printable if not char.isspace())]
    merges: list[str] = []
    for left, right in _merges():
        if len(pieces) == vocab - SPECIALS:
            break
        pieces.append(left + right)
        merges.append(f"{left} {right}")
    if len(pieces) != vocab - SPECIALS:
        raise ValueError(f"a vocabulary of {vocab}: pieces were made for {len(pieces) + SPECIALS}")
    added = {"<unk>": 0, "<s>": 1, "</s>": 2, **special_ids(vocab)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(name, at) for name, at in added.items()],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: at for at, piece in enumerate(pieces)},
            "merges": merges,
        },
    }


def tokenizer_config(context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "add_bos_token": False,
        "add_eos_token": False,
        "legacy": False,
        "model_max_length": context,
    }


def _merges() -> Iterator[tuple[str, str]]:
    """Enough for 128k ids: ▁a, ab, ▁ab, abc, ▁abc, abcd."""
    letters = ascii_lowercase
    yield from ((SPACE, letter) for letter in letters)
    for size in (1, 2):
        stems = ["".join(stem) for stem in product(letters, repeat=size)]
        yield from product(stems, letters)
        yield from ((SPACE + stem, letter) for stem in stems for letter in letters)
    stems = ["".join(stem) for stem in product(letters, repeat=3)]
    yield from product(stems, letters)


def _added(name: str, at: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": at, "content": name, **plain, "special": True}
