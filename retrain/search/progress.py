"""How far a search has come, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One look at a search. `finished` of `total` trials; `best` is the validation score of the best one so far. A
    `lasting` one is its message, to be read when what comes after it is over, too."""

    stage: str
    finished: int
    total: int | None
    best: float | None
    metric: str
    seconds_left: float
    message: str = ""
    lasting: bool = False


def silent(progress: Progress) -> None:
    """Listen to nothing."""


def beginning(running: int) -> str:
    """What a search's workers do before its first trial has ended, by how many trials run.

    >>> beginning(0), beginning(1), beginning(2)
    ('workers are starting', 'training the first network', 'training the first 2 networks')
    """
    if not running:
        return "workers are starting"
    return "training the first network" if running == 1 else f"training the first {running} networks"
