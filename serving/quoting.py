"""Values as errors quote them: short, and in JSON's words."""

from __future__ import annotations

_SHOWN = 100
_WORDS = {None: "null", True: "true", False: "false"}


def shorten(value: object) -> object:
    """A value fit to be quoted in an error: scalars as they are, text cut, anything else as cut text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown(value: object) -> str:
    """A value as an error quotes it: what JSON calls otherwise than Python, in JSON's words.

    >>> shown(None), shown(True), shown("a"), shown([1])
    ('null', 'true', "'a'", "'[1]'")
    """
    return _WORDS[value] if value is None or isinstance(value, bool) else repr(shorten(value))
