"""Keeps a user's text plain: where it spells a control token, it is cut inside that token, so that none is met.

`mark` puts a cut mark into each control token a text spells; after the chat template has been applied, `cut` splits the
whole prompt at the marks. Each part is then encoded on its own and the ids are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edged.errors import InvalidRequest

# Unicode noncharacters: never in meaningful text, and one of them that a conversation does not hold is always found
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class PlainText:
    """Knows a tokenizer's control tokens."""

    def __init__(self, control: Sequence[str]) -> None:
        texts = sorted((text for text in control if len(text) > 1), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, texts))) if texts else None

    def choose_mark(self, texts: Iterable[str]) -> str:
        """A mark that none of the texts holds. Raises InvalidRequest when there is none left."""
        return self.choose_marks(texts, 1)[0]

    def choose_marks(self, texts: Iterable[str], count: int) -> list[str]:
        """`count` marks that none of the texts holds. Raises InvalidRequest when too few are left."""
        left = list(_MARKS)
        for text in texts:
            if not text.isascii():
                left = [mark for mark in left if mark not in text]
        if len(left) < count:
            raise InvalidRequest("the text holds every Unicode noncharacter from U+FDD0 to U+FDEF; remove some")
        return left[:count]

    def mark(self, text: str, mark: str) -> str:
        """`text` with a mark after the first character of each control token that it spells.

        Tokens that come to be spelled by overlapping are met too: the search goes on right after each cut.
        """
        if self._spelled is None:
            return text
        parts, at = [], 0
        while found := self._spelled.search(text, at):
            parts += [text[at : found.start() + 1], mark]
            at = found.start() + 1
        return "".join([*parts, text[at:]])
