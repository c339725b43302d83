"""BANANAS (White, Neiswanger & Savani 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
Architecture Search"): an ensemble of small networks predicts scores, independent Thompson samples choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.guided import Guided

Batch = npt.NDArray[np.floating[Any]]

NETWORKS, WIDTH = 5, 24
STEPS, BATCH, RATE, DECAY = 40, 64, 0.02, 1e-3
MOMENTUM, SQUARES, LEAST = 0.9, 0.999, 1e-8


class Bananas(Guided):
    """An ensemble of predictors on encodings of paths and of all other choices, Thompson samples over mutations of the
    best."""

    name: ClassVar[str] = "bananas"
    paper: ClassVar[str] = "White, Neiswanger & Savani 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._networks: Networks | None = None

    def place(self, candidate: Candidate) -> Encoding:
        """Its choices, and the paths of its graph where it has one."""
        return np.concatenate([super().place(candidate), self.space.paths(candidate)])

    def worth(self, places: Encoding) -> Encoding:
        """One draw for each candidate from its own normal distribution (independent Thompson sampling)."""
        answers = self.answers(places)
        return np.asarray(self.rng.normal(answers.mean(axis=0), answers.std(axis=0) + 1e-9))

    def answers(self, places: Encoding) -> Encoding:
        """What each network of the ensemble predicts (networks, m), in spreads of the scores."""
        known, scores = np.stack(self.places).astype(np.float32), np.asarray(self.scores)
        wanted = ((scores - scores.mean()) / max(float(scores.std()), 1e-9)).astype(np.float32)
        if self._networks is None:  # those of the last time go on: each suggestion adds one score to what they know
            self._networks = Networks(known.shape[1], self.rng)
        self._networks.learn(known, wanted, self.rng.integers(len(wanted), size=(STEPS, NETWORKS, BATCH)))
        return self._networks.answers(places.astype(np.float32))


class Networks:
    """An ensemble of networks with two hidden layers, trained side by side; by hand, since with so few weights torch
    takes four fifths of its time for anything but arithmetic."""

    def __init__(self, width: int, rng: np.random.Generator) -> None:
        shapes = ((width, WIDTH), (1, WIDTH), (WIDTH, WIDTH), (1, WIDTH), (WIDTH, 1), (1, 1))
        sizes = [NETWORKS * high * wide for high, wide in shapes]
        self._weights, self._slopes = (np.zeros(sum(sizes), dtype=np.float32) for _ in range(2))
        ends = np.cumsum(sizes)[:-1]
        self._layers, self._gradients = (
            [part.reshape(NETWORKS, *shape) for part, shape in zip(np.split(whole, ends), shapes, strict=True)]
            for whole in (self._weights, self._slopes)
        )
        for layer in self._layers[::2]:
            layer[:] = rng.standard_normal(layer.shape) * layer.shape[1] ** -0.5

    def answers(self, places: Batch) -> Encoding:
        """(m, d) -> (networks, m)."""
        return np.asarray(self._forward(places)[-1], dtype=np.float64)

    def learn(self, known: Batch, wanted: Batch, batches: npt.NDArray[np.int64]) -> None:
        """Steps of AdamW (Loshchilov & Hutter 2019) from a standstill on squared errors of places (n, d); `batches`
        (steps, networks, size) are the places of each step."""
        first, second = (np.zeros_like(self._weights) for _ in range(2))
        for step, drawn in enumerate(batches, start=1):
            self._differentiate(known[drawn], wanted[drawn])
            first += (1 - MOMENTUM) * (self._slopes - first)
            second += (1 - SQUARES) * (self._slopes**2 - second)
            self._weights *= 1 - RATE * DECAY
            root = np.sqrt(second / (1 - SQUARES**step)) + LEAST
            self._weights -= RATE / (1 - MOMENTUM**step) * first / root

    def _forward(self, places: Batch) -> tuple[Layer, Layer, Batch]:
        """Both hidden layers, and the answers (networks, n)."""
        one, two, three = self._layers[::2]
        inner = Layer.of(places @ one + self._layers[1])
        outer = Layer.of(inner.active @ two + self._layers[3])
        return inner, outer, (outer.active @ three + self._layers[5])[..., 0]

    def _differentiate(self, places: Batch, wanted: Batch) -> None:
        """The gradients of the mean squared error at places (networks, n, d), by the chain rule."""
        inner, outer, told = self._forward(places)
        error = (2 / told.size * (told - wanted))[..., None]
        self._through(4, outer.active, error)
        error = error @ self._layers[4].swapaxes(1, 2) * outer.slope
        self._through(2, inner.active, error)
        error = error @ self._layers[2].swapaxes(1, 2) * inner.slope
        self._through(0, places, error)

    def _through(self, place: int, given: Batch, error: Batch) -> None:
        """The gradients of a layer's weights and of its bias."""
        np.matmul(given.swapaxes(1, 2), error, out=self._gradients[place])
        error.sum(axis=1, keepdims=True, out=self._gradients[place + 1])


@dataclass(frozen=True)
class Layer:
    """A hidden layer (networks, n, width): x times its logistic function (Elfwing et al. 2018), and what both are."""

    share: Batch
    active: Batch

    @classmethod
    def of(cls, before: Batch) -> Layer:
        """The layer before its activation."""
        from scipy.special import expit

        share = np.asarray(expit(before))
        return cls(share, before * share)

    @property
    def slope(self) -> Batch:
        """Of the activation."""
        return self.share + self.active * (1 - self.share)
