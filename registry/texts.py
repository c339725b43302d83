"""What a model reads of a text: how long it is, and which of the words learnt in training it has.

A text enters a graph as numbers, (n, 2 + words): characters, words, then 1 for each learnt word that occurs and 0 for
each other one; all NaN where the text is missing. ONNX has no portable operation that finds words, and so the graph's
callers do it (`registry/pyfunc_model.py` says the same in its own words).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

MAX_TEXT_LENGTH = 10_000
"""Characters that are read; what follows them counts for nothing."""

MAX_WORDS = 128
LEAST_SHARE, MOST_SHARE = 0.002, 0.5
"""Of the training rows, in which a word is that is learnt: what nearly all texts say tells nothing of one."""

LENGTHS = 2
"""Numbers before those of the words."""

Array: TypeAlias = npt.NDArray[np.float64]

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case.

    >>> words_of("Refund, please: order 17!")
    ['refund', 'please', 'order', '17']
    """
    return _WORD.findall(text[:MAX_TEXT_LENGTH].lower())


def frequent_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words in most of the texts, ties by name; neither rare ones nor those of every other text."""
    counts, rows = Counter[str](), 0
    for text in texts:
        counts.update(set(words_of(text)))
        rows += 1
    known = [
        (word, count) for word, count in counts.items() if max(2, LEAST_SHARE * rows) <= count <= MOST_SHARE * rows
    ]
    return tuple(word for word, _ in sorted(known, key=lambda pair: (-pair[1], pair[0]))[:MAX_WORDS])


class TextNumbers:
    """Texts as numbers, by the words that were learnt.

    >>> TextNumbers(["late", "lost"]).of("Late, so late").tolist()
    [13.0, 3.0, 1.0, 0.0]
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._places = {word: LENGTHS + place for place, word in enumerate(words)}
        self.width = LENGTHS + len(words)

    def of(self, text: str | None) -> Array:
        """(width,) numbers of one text."""
        return self.table([text]).reshape(-1)

    def table(self, texts: Sequence[str | None]) -> Array:
        """(n, width) numbers; None and NaN are missing."""
        out = np.zeros((len(texts), self.width))
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                out[row] = np.nan
                continue
            found = words_of(text)
            out[row, :LENGTHS] = min(len(text), MAX_TEXT_LENGTH), len(found)
            places = [place for word in found if (place := self._places.get(word)) is not None]
            out[row, places] = 1.0
        return out
