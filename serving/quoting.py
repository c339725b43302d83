"""Values as errors quote them: short, and in JSON's words."""

from __future__ import annotations

import json

_SHOWN = 100
_WORDS = {None: "null", True: "true", False: "false"}


def shorten(value: object) -> object:
    """A value fit to be quoted in an error: scalars as they are, text cut, lists and objects as cut JSON."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown(value: object) -> str:
    """A value as an error quotes it: what JSON calls otherwise than Python, in JSON's words.

    >>> shown(None), shown(True), shown("a"), shown({"id": 1})
    ('null', 'true', "'a'", '{"id": 1}')
    """
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    short = shorten(value)
    return str(short) if isinstance(value, (list, dict)) else repr(short)


def _json(value: object) -> str:
    """As JSON; what that has no word for, such as a moment of Arrow's, as text."""
    try:
        found = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, say
        return repr(value)
    return found.encode("utf-8", "backslashreplace").decode()
