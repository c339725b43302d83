"""How far a search has come, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


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
