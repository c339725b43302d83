"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, which takes an s where it is not one.

    >>> counted(1, "window"), counted(1_200, "row"), counted(2, "match", "matches")
    ('1 window', '1,200 rows', '2 matches')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
