"""Single path one-shot (Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling";
Bender et al. 2018): shared weights learn from cells at random, then the cells are ranked by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from retrain.families.cell import OPERATIONS
from retrain.search.strategies.weight_sharing import RANKED, Cell, Shared, WeightSharing

GENERATIONS = 3


class OneShot(WeightSharing):
    """Trains shared weights along cells at random, then evolves cells that do best with them."""

    name: ClassVar[str] = "one-shot"
    paper: ClassVar[str] = "Guo et al. 2020"
    held: ClassVar[float] = 0.2

    def search(self, shared: Shared, until: float) -> Sequence[Cell]:
        """Uniform paths, then a ranking and a few generations of mutations of its upper half."""
        for batch in shared.batches(shared.training):
            shared.mixture.one(self.random_cell())
            shared.learn(batch)
            if time.monotonic() > until:
                break
        cells = [self.random_cell() for _ in range(RANKED)]
        for _ in range(GENERATIONS):
            if time.monotonic() > shared.end:
                break
            cells = shared.ranked(cells)[: RANKED // 2]
            cells += [self._mutated(cells[int(self.rng.integers(len(cells)))]) for _ in range(RANKED // 2)]
        return shared.ranked(cells)

    def _mutated(self, cell: Cell) -> Cell:
        place = int(self.rng.integers(len(cell)))
        others = [one for one in OPERATIONS if one != cell[place]]
        return (*cell[:place], others[int(self.rng.integers(len(others)))], *cell[place + 1 :])
