"""Random search: the baseline of every comparison (Li & Talwalkar 2019)."""

from __future__ import annotations

from typing import ClassVar

from retrain.search.strategies.base import AskTell, Proposal, Seen


class RandomSearch(AskTell):
    """Every candidate anew, from the whole space: the baseline of every comparison."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "Bergstra & Bengio 2012; Li & Talwalkar 2019"

    def tell(self, seen: Seen) -> None:
        """Nothing is learnt."""

    def ask(self) -> Proposal:
        """A candidate at random."""
        return Proposal(self.space.sample(self.rng))
