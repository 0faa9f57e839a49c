"""Token id → bytes, read from a model's tokenizer.json, for the two families of BPE tokenizers that edge models use.

Byte-fallback (Llama, Phi-3: `▁` is a space, `<0xE2>` a byte) and byte-level (GPT-2, Phi-4-mini: each byte has a
printable stand-in). With the bytes at hand a stream can hold an unfinished character and lose nothing at its end,
which the native token streams do not do. Control tokens (`added_tokens` marked special) stand for nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import ModelError

_BYTE = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`pieces[id]` are a token's bytes; `control` all texts that the tokenizer turns into one control token."""

    pieces: tuple[bytes, ...]
    control: tuple[str, ...]
    strips_first_space: bool

    def bytes_of(self, token: int) -> bytes:
        """Empty for control tokens and for ids beyond the vocabulary (padding of the output layer)."""
        return self.pieces[token] if 0 <= token < len(self.pieces) else b""


def read_vocabulary(folder: Path) -> Vocabulary:
    """Raises ModelError when tokenizer.json is not a BPE tokenizer of a known family."""
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
        vocab: dict[str, int] = tokenizer["model"]["vocab"]
        added: list[dict[str, Any]] = tokenizer.get("added_tokens") or []
        byte_level = '"ByteLevel"' in json.dumps([tokenizer.get("decoder"), tokenizer.get("pre_tokenizer")])
        size = max([*vocab.values(), *(token["id"] for token in added)], default=-1) + 1
        pieces = [b""] * size
        for text, token in vocab.items():
            pieces[token] = _byte_level(text) if byte_level else _byte_fallback(text)
        for extra in added:
            pieces[extra["id"]] = b"" if extra.get("special") else str(extra["content"]).encode()
        control = tuple(sorted((str(extra["content"]) for extra in added), key=len, reverse=True))
        strips = '"Strip"' in json.dumps(tokenizer.get("decoder")) or '"Metaspace"' in json.dumps(
            tokenizer.get("decoder")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(folder, "tokenizer.json", f"not a BPE tokenizer that edged can read ({error!r})") from error
    return Vocabulary(tuple(pieces), control, strips)


def _byte_fallback(text: str) -> bytes:
    byte = _BYTE.match(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()


def _byte_level(text: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in text)
    except KeyError:
        return text.encode()  # an added token that is written plainly


def _stand_ins() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte (github.com/openai/gpt-2, encoder.py `bytes_to_unicode`), inverted."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + order): byte for order, byte in enumerate(others)}


_BYTE_OF = _stand_ins()
