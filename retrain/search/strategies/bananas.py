"""BANANAS (White, Neiswanger & Savani 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
Architecture Search"): an ensemble of small networks predicts scores, independent Thompson samples choose."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.guided import Guided

NETWORKS, WIDTH = 5, 24
STEPS, BATCH, RATE, DECAY = 40, 64, 0.02, 1e-3


class Bananas(Guided):
    """An ensemble of predictors on encodings of paths and of all other choices, Thompson samples over mutations of the
    best."""

    name: ClassVar[str] = "bananas"
    paper: ClassVar[str] = "White, Neiswanger & Savani 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._networks: list[Tensor] | None = None

    def place(self, candidate: Candidate) -> Encoding:
        """Its choices, and the paths of its graph where it has one."""
        return np.concatenate([super().place(candidate), self.space.paths(candidate)])

    def worth(self, places: Encoding) -> Encoding:
        """One draw for each candidate from its own normal distribution (independent Thompson sampling)."""
        answers = self.answers(places)
        return np.asarray(self.rng.normal(answers.mean(axis=0), answers.std(axis=0) + 1e-9))

    def answers(self, places: Encoding) -> Encoding:
        """What each network of the ensemble predicts (networks, m), in spreads of the scores."""
        known = torch.tensor(np.stack(self.places), dtype=torch.float32)
        scores = torch.tensor(self.scores, dtype=torch.float32)
        wanted = (scores - scores.mean()) / scores.std().clamp(min=1e-9)
        layers = self._start(known.shape[1])
        generator = torch.Generator().manual_seed(int(self.rng.integers(2**31)))
        batches = torch.randint(len(wanted), (STEPS, NETWORKS, BATCH), generator=generator)
        optimizer = torch.optim.AdamW(layers, lr=RATE, weight_decay=DECAY)
        for drawn in batches:
            optimizer.zero_grad(set_to_none=True)
            (_forward(layers, known[drawn]) - wanted[drawn]).square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            told = _forward(layers, torch.tensor(places, dtype=torch.float32).expand(NETWORKS, -1, -1))
        return np.asarray(told.numpy(), dtype=np.float64)

    def _start(self, width: int) -> list[Tensor]:
        """The networks of the last time go on: each suggestion adds one score to what they know."""
        if self._networks is None:
            generator = torch.Generator().manual_seed(int(self.rng.integers(2**31)))
            shapes = ((width, WIDTH), (1, WIDTH), (WIDTH, WIDTH), (1, WIDTH), (WIDTH, 1), (1, 1))
            self._networks = [
                torch.randn(NETWORKS, *shape, generator=generator) * (shape[0] ** -0.5 if shape[0] > 1 else 0.0)
                for shape in shapes
            ]
        for one in self._networks:
            one.requires_grad_()
        return self._networks


def _forward(layers: list[Tensor], places: Tensor) -> Tensor:
    """(networks, n, d) -> (networks, n)."""
    hidden = places
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        hidden = torch.baddbmm(bias, hidden, weight)
        hidden = torch.nn.functional.silu(hidden) if weight.shape[-1] > 1 else hidden
    return hidden.squeeze(-1)
