"""Architectures as zeros and ones, for models that learn which of them are good."""

from __future__ import annotations

from functools import cache
from itertools import product

from retrain.families.wiring import Path, Wiring

MOST_PATHS = 1_000
"""How long a path encoding may be. Longer paths are left out: a network has the fewer of them, and White et al. 2019
find that nothing is lost."""


@cache
def possible_paths(alphabet: tuple[str, ...], longest: int) -> tuple[Path, ...]:
    """All sequences of operations up to a length, short ones first, as long as they are at most `MOST_PATHS`.

    >>> possible_paths(("x", "y"), 2)
    (('x',), ('y',), ('x', 'x'), ('x', 'y'), ('y', 'x'), ('y', 'y'))
    """
    found: list[Path] = []
    for length in range(1, longest + 1):
        if len(found) + len(alphabet) ** length > MOST_PATHS:
            break
        found += product(alphabet, repeat=length)
    return tuple(found)


def paths_of(wiring: Wiring, alphabet: tuple[str, ...], longest: int) -> tuple[int, ...]:
    """Which of the possible paths there are, source by source."""
    known = possible_paths(alphabet, longest)
    taken = [set(wiring.paths(source)) for source in wiring.sources]
    return tuple(int(path in there) for there in taken for path in known)
