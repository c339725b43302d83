"""What differs between two settings of the same kind, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NOTHING = object()
_SECRET = "source"  # an address may hold a password
_SHORT = 40


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The keys whose values differ, with dots between them, and both values; of what is of another kind, its key alone.

    >>> list(differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}}))
    [('b.c', (2, 4))]
    """
    for key in dict.fromkeys([*old, *new]):
        former, now = old.get(key, _NOTHING), new.get(key, _NOTHING)
        if former == now:
            continue
        if isinstance(former, Mapping) and isinstance(now, Mapping) and former.get("kind") == now.get("kind"):
            yield from ((f"{key}.{below}", values) for below, values in differing(former, now))
        else:
            yield key, (former, now)


def told(key: str, former: Any, now: Any) -> str:
    """A key with the value it had and the one it has, where they are short and no secret.

    >>> told("gate.alpha", 0.1, 0.2), told("columns", {"a": 1}, {"a": 2}), told("source.url", "a", "b")
    ('gate.alpha (0.1 -> 0.2)', 'columns', 'source.url')
    """
    words = [_word(value) for value in (former, now)]
    return f"{key} ({words[0]} -> {words[1]})" if all(words) and _SECRET not in key.split(".") else key


def _word(value: Any) -> str:
    """A value as its file has it; empty where it is of parts or long.

    >>> [_word(value) for value in ("7d", None, True, 0.02, {"kind": "never"}, [1, 2], _NOTHING)]
    ['7d', 'none', 'true', '0.02', 'never', '', 'none']
    """
    if isinstance(value, Mapping):
        return str(value.get("kind", ""))
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value is _NOTHING:
        return "none"
    text = str(value) if isinstance(value, str | int | float) else ""
    return text if len(text) <= _SHORT else ""
