"""What was done for a model so far and what that took, by the ledger: challengers, steps of a champion that follows,
and looks whether following pays. Each is a training; of a challenger a gate has judged, of a step none does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flows.following import CONTINUED
from flows.following import KIND as STEP
from registry.ledger import Cost
from registry.plurals import counted

LOOK = "proof"
"""The kind of the entry of a look whether following pays (`proving`)."""

CHALLENGE = ("remedy", "gate", "second_look")
KINDS = frozenset((*CHALLENGE, STEP, LOOK))
"""The kinds of entries that tell it."""


@dataclass(frozen=True)
class Spending:
    """How many there were, and their CPU-seconds; a challenger's with those of its gates."""

    challengers: int = 0
    steps: int = 0
    looks: int = 0
    challenging: float = 0.0
    stepping: float = 0.0
    looking: float = 0.0

    @property
    def cpu(self) -> float:
        """CPU-seconds of all together; watching, which every policy pays, is none of them."""
        return self.challenging + self.stepping + self.looking

    def __str__(self) -> str:
        if self == Spending():
            return "no remedy has made a challenger"
        told = [f"{counted(self.challengers, 'challenger')} ({self.challenging:,.0f} CPU-s with their gates)"]
        if self.looks:
            tries = counted(self.looks, "try", "tries")
            told.append(f"{tries} of following, to see whether it pays ({self.looking:,.0f} CPU-s)")
        if self.steps:
            told.append(f"{counted(self.steps, 'step')} of a champion that followed ({self.stepping:,.0f} CPU-s)")
        return ", ".join(told)


def spending(costs: Iterable[Cost]) -> Spending:
    """By what a task's entries of these `KINDS` cost, others among them or not."""
    found = list(costs)
    looks, steps = ([one for one in found if one.kind == kind] for kind in (LOOK, STEP))
    proven = {one.version for one in looks}
    made = [one for one in found if one.kind == "remedy" and one.outcome == "registered" and one.version not in proven]
    return Spending(
        challengers=len(made),
        steps=sum(one.outcome == CONTINUED for one in steps),
        looks=len(looks),
        challenging=_cpu(one for one in found if one.kind in CHALLENGE),
        stepping=_cpu(steps),
        looking=_cpu(looks),
    )


def _cpu(costs: Iterable[Cost]) -> float:
    return sum(one.cpu for one in costs)
