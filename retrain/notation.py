"""Values written in a way that has them read as something else: decimal commas, units, dates, classes spelt twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from registry.conforming import as_strings
from registry.dating import dated
from registry.inference import MAX_CLASSES, nested, printed
from registry.plurals import counted

MOST = 0.95
"""So much of a column's different values must be written in that way."""
MIXED_SHARE = 0.5
NAMED = 5
"""Spellings of one class that a message names."""

_NUMBER = re.compile(
    r"\s*(?P<before>[$€£¥]?)\s*(?P<number>[-+]?(?:\d{1,3}(?:[.,' \u00a0\u202f]\d{3})+|\d+)(?:[.,]\d+)?)"
    r"(?P<after>\s*[%$€£¥]|\s+[A-Za-z]{1,4}[23²³]?)?\s*"
)
_DECIMAL_COMMA = re.compile(r"[-+]?(?:0,\d+|[\d.' \u00a0\u202f]+,(?:\d{1,2}|\d{4,}))")
"""A comma that no thousands can stand behind."""
_DAY = re.compile(r"\s*\d{1,2}[/.-]\d{1,2}[/.-](?:\d{4}|\d{2})(?![\d./-])")


class Misread(NamedTuple):
    """What is written otherwise than it is read, what would have it read, and in how many rows."""

    message: str
    remedy: str
    rows: int


def misread(values: pd.Series[Any], name: str, now: str) -> Iterator[Misread]:
    """What of a column's texts, which are read as categories or left out, is likely to be meant otherwise; `now` says
    what they are read as.

    >>> next(misread(pd.Series(["0,5", "1,25", "7"]), "price", "it is read as categories"))
    ... # doctest: +ELLIPSIS +NORMALIZE_WHITESPACE
    Misread(message="2 of 3 values are numbers with a decimal comma, such as '0,5'", remedy="it is read as categories;
    write 1234.5 for a number; with pandas: pd.read_csv(..., decimal=',')", rows=2)
    """
    if values.dtype.kind in "iufbM" or nested(values):
        return
    counts = {str(value): int(rows) for value, rows in values.astype(object).value_counts().items()}
    numbers = {
        text
        for text, plain in zip(counts, pd.to_numeric(pd.Series([*counts]), errors="coerce"), strict=True)
        if plain == plain
    }
    others = [text for text in counts if text not in numbers]
    if not others:
        return
    if sum(bool(_DAY.match(text)) for text in counts) >= MOST * len(counts):
        remedy = f"{now}; {dated(values, name)}"
        yield Misread(f"dates that are no ISO 8601, such as {printed(others[0])}", remedy, sum(counts.values()))
        return
    written = {text: match for text in others if (match := _NUMBER.fullmatch(text))}
    texts, plain = sum(counts[text] for text in others), sum(counts[text] for text in numbers)
    if written and len(written) + len(numbers) >= MOST * len(counts):
        rows = sum(counts[text] for text in written)
        yield from _numbers(written, f"{rows:,} of {texts + plain:,} values are", rows, now)
    elif plain > MIXED_SHARE * (texts + plain):
        message = f"mixed types: {counted(plain, 'number')} and {counted(texts, 'text')} such as {printed(others[0])}"
        yield Misread(message, f"{now}; clear the texts for a number", texts)


def _numbers(written: dict[str, re.Match[str]], so_many: str, rows: int, now: str) -> Iterator[Misread]:
    """Of texts that are numbers, with what stands around them."""
    commas = [text for text, match in written.items() if _DECIMAL_COMMA.fullmatch(match["number"])]
    beside = {match["before"] + (match["after"] or "").strip() for match in written.values()}
    if len(beside) > 1 or (not commas and len(written) <= MAX_CLASSES):
        return  # '12 A' and '7 B' are codes, and a few sizes ('5 kg', '10 kg') good categories
    what = "numbers with a decimal comma" if commas else "numbers with thousands or units"
    grouped = ", thousands='.'" if any("." in text for text in commas) else ""
    pandas = f"; with pandas: pd.read_csv(..., decimal=','{grouped})" if commas and beside == {""} else ""
    message = f"{so_many} {what}, such as {printed((commas or [*written])[0])}"
    yield Misread(message, f"{now}; write 1234.5 for a number{pandas}", rows)


def spellings(values: pd.Series[Any]) -> Iterator[Misread]:
    """Classes that differ in case or blanks alone.

    >>> next(spellings(pd.Series(["yes", "Yes ", "no"]))).message
    "classes that differ in case or blanks alone: 'yes', 'Yes '"
    """
    counts = as_strings(values).value_counts()
    same: dict[str, list[str]] = {}
    for label in counts.index:
        same.setdefault(" ".join(label.casefold().split()), []).append(label)
    for labels in (labels for labels in same.values() if len(labels) > 1):
        message = f"classes that differ in case or blanks alone: {', '.join(map(repr, labels[:NAMED]))}"
        yield Misread(message, "write them alike where they mean the same", int(counts[labels[1:]].sum()))
