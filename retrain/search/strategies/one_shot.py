"""Single path one-shot (Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling";
Bender et al. 2018): shared weights learn from paths at random, then paths are ranked by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from retrain.families.sharing import Path
from retrain.search.strategies.weight_sharing import RANKED, Shared, WeightSharing

GENERATIONS = 3


class OneShot(WeightSharing):
    """Trains shared weights along architectures at random, then evolves those that do best with them."""

    name: ClassVar[str] = "one-shot"
    paper: ClassVar[str] = "Guo et al. 2020"
    held: ClassVar[float] = 0.2

    def search(self, shared: Shared, until: float) -> Sequence[Path]:
        """Uniform paths, then a ranking and a few generations of mutations of its upper half."""
        for batch in shared.batches(shared.training):
            shared.mixture.one(self.random_path())
            shared.learn(batch)
            if time.monotonic() > until:
                break
        paths = [self.random_path() for _ in range(RANKED)]
        for _ in range(GENERATIONS):
            if time.monotonic() > shared.end:
                break
            paths = shared.ranked(paths)[: RANKED // 2]
            paths += [self._mutated(paths[int(self.rng.integers(len(paths)))]) for _ in range(RANKED // 2)]
        return shared.ranked(paths)

    def _mutated(self, path: Path) -> Path:
        place = int(self.rng.integers(len(path)))
        others = [one for one in self.decisions[place].values if one != path[place]]
        return (*path[:place], others[int(self.rng.integers(len(others)))], *path[place + 1 :])
