"""How far a search has come, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass

from registry.plurals import counted


@dataclass(frozen=True)
class Progress:
    """One look at a search. `finished` of `total` trials; `best` is the validation score of the best one so far."""

    stage: str
    finished: int
    total: int | None
    best: float | None
    metric: str
    seconds_left: float
    message: str = ""


def silent(progress: Progress) -> None:
    """Listen to nothing."""


def beginning(running: int) -> str:
    """What a search's workers do before its first trial has ended, by how many trials run.

    >>> beginning(0), beginning(2)
    ('workers are starting', 'training the first 2 networks')
    """
    return "workers are starting" if not running else f"training the first {counted(running, 'network')}"
