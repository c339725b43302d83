"""What a search may spend, and what former sessions of a study have spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPENT = "spent"
CLOSING_SECONDS, CLOSING_SHARE = 6.0, 0.2
"""What is kept of a budget for the time after the trials: what four networks of a table take, on a machine that has
nothing else to do; of small budgets at most this share."""
REFIT_SHARE = 0.15
"""Of a first search's budget, kept for its networks to learn the rows that were held out (`refit.py`); what the trials
leave over is theirs too."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend, from `begin`, a reading of `time.monotonic`; the last `closing` of its seconds are kept
    for what comes after the trials, and the `refit` seconds before them for the networks to learn all rows."""

    begin: float
    trials: int
    seconds: float
    seed: int
    enough: int = 0
    closing: float = 0.0
    refit: float = 0.0

    @property
    def told(self) -> str:
        """What a user is told of it beforehand."""
        if not self.closing:
            return ""
        what = "ensemble, refit, graph and card" if self.refit else "ensemble, graph and card"
        return f"; the last {self.closing + self.refit:.0f} s are kept for {what}"

    def refit_until(self, end: float) -> float | None:
        """By when the networks must have learnt all rows, of a budget that ends at this moment; None if they do not."""
        return end - self.closing if self.refit else None


def kept_seconds(seconds: float, *, refit: bool) -> tuple[float, float]:
    """How much of a budget is kept for what comes after the trials, and for the networks to learn all rows.

    Those learn of a first search alone, as a gate judges whatever has a prior; and of a table, as images are watched by
    what the network makes of rows that it has not learnt.

    >>> kept_seconds(300.0, refit=True), kept_seconds(10.0, refit=False)
    ((6.0, 45.0), (2.0, 0.0))
    """
    return min(CLOSING_SECONDS, CLOSING_SHARE * seconds), REFIT_SHARE * seconds if refit else 0.0


def read_spent(folder: Path) -> tuple[float, float]:
    """What former sessions of a study have used: seconds, and CPU-seconds of their own processes without the workers'.
    The latter are 0 where they were not kept."""
    path = folder / SPENT
    if not path.is_file():
        return 0.0, 0.0
    seconds, cpu = [*map(float, path.read_text().split()), 0.0][:2]
    return seconds, cpu


def write_spent(folder: Path, seconds: float, cpu: float) -> None:
    """Keep the seconds and the CPU-seconds used so far."""
    partial = folder / f"{SPENT}.partial"
    partial.write_text(f"{seconds:.2f} {cpu:.2f}")
    partial.replace(folder / SPENT)
