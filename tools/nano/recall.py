"""Rows of drill: nothing but copying, looking up and comparing, with something to predict almost everywhere.

Looking up what stood beside a word earlier in the text ("induction") is learnt after a plateau. Rows that hold twenty
look-ups each shorten it: repeated strings of random tokens, and lists that are asked in both directions. Which of two
numbers is greater is drilled the same way, twenty comparisons to a row.
"""

from __future__ import annotations

from functools import cache
from random import Random

from tokenizers import Tokenizer

from nano.readings import HIGHEST_TENTHS, LOWEST_TENTHS, limit_near, tenths_text
from nano.world import SENSOR_PLACES

Row = tuple[list[int], list[bool]]

_FIRST_WORD_ID = 259  # behind <unk>, <s>, </s> and the 256 bytes


class RecallRows:
    """Draws rows of at most `row_tokens` tokens; owns nothing but tables of token ids."""

    def __init__(self, tokenizer: Tokenizer, row_tokens: int) -> None:
        self._row_tokens = row_tokens
        self._tokens = cache(lambda text: self._ids(tokenizer, text))
        self._words = range(_FIRST_WORD_ID, tokenizer.get_vocab_size() - 5)
        self._digits = [self._ids(tokenizer, str(digit))[0] for digit in range(10)]
        self._places = [self._ids(tokenizer, f" {place}") for place in SENSOR_PLACES]
        self._values = {
            tenths: self._ids(tokenizer, tenths_text(tenths)) for tenths in range(LOWEST_TENTHS, HIGHEST_TENTHS + 1)
        }
        self._line_start, self._colon = self._ids(tokenizer, "\n-"), self._ids(tokenizer, ": ")
        self._question = self._ids(tokenizer, "\nIn the")
        self._space, self._comma, self._stop = (self._ids(tokenizer, text) for text in (" ", ",", "."))
        self._newline = self._ids(tokenizer, "\n")

    @staticmethod
    def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def row(self, rng: Random) -> Row:
        """A fifth of the rows repeat a random string, two fifths compare, the others are lists and questions."""
        draw = rng.random()
        if draw < 0.2:
            return self._repeated(rng)
        return self._compared(rng) if draw < 0.6 else self._asked(rng)

    def _compared(self, rng: Random) -> Row:
        """Numbers held against limits: "21.5 above 20: yes", one to a line; only the last word is to be predicted."""
        ids: list[int] = []
        wanted: list[bool] = []
        while True:
            tenths = rng.randint(LOWEST_TENTHS, HIGHEST_TENTHS)
            said = limit_near(rng, tenths, rng.random() < 0.5).held_against(tenths)
            comparison, verdict = said.rsplit(" ", 1)
            asked, answered = self._tokens(comparison), self._tokens(f" {verdict}")
            if len(ids) + len(asked) + len(answered) + len(self._newline) > self._row_tokens:
                return ids, wanted
            ids += asked + answered + self._newline
            wanted += [False] * len(asked) + [True] * len(answered) + [False] * len(self._newline)

    def _repeated(self, rng: Random) -> Row:
        length = rng.randint(12, 60)
        string = [self._some_token(rng) for _ in range(length)]
        copies = min(4, self._row_tokens // length)
        return string * copies, [False] * length + [True] * (length * (copies - 1))

    def _some_token(self, rng: Random) -> int:
        draw = rng.random()
        if draw < 0.3:
            return rng.choice(self._digits)
        return rng.choice(self._places)[0] if draw < 0.6 else rng.choice(self._words)

    def _asked(self, rng: Random) -> Row:
        count = rng.randint(2, 8)
        low = rng.randint(LOWEST_TENTHS, HIGHEST_TENTHS - 40) if rng.random() < 0.5 else LOWEST_TENTHS
        high = low + 40 if low > LOWEST_TENTHS else HIGHEST_TENTHS
        keys = rng.sample(self._places, count)
        if rng.random() < 0.3:
            keys = [[rng.choice(self._words)] for _ in range(count)]
        pairs = list(zip(keys, rng.sample(range(low, high + 1), count), strict=True))
        ids: list[int] = []
        for key, tenths in pairs:
            ids += self._line_start + key + self._colon + self._values[tenths]
        wanted = [False] * len(ids)
        backwards = rng.random() < 0.5
        while True:
            key, tenths = rng.choice(pairs)
            value = self._values[tenths]
            if backwards:
                asked, answered = self._space + value, key + self._comma
            else:
                asked, answered = self._question + key + self._colon, value + self._stop
            if len(ids) + len(asked) + len(answered) > self._row_tokens:
                return ids, wanted
            ids += asked + answered
            wanted += [False] * len(asked) + [True] * len(answered)
