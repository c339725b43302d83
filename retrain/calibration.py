"""What is learnt on the calibration part, and the formulas by which members' outputs become a served answer.

The formulas are those of the exported graph, in plain numpy: the reference it is compared with.

Shapes: m members, n rows, k classes. For classification `outputs` is (m, n, k) logits; for regression (m, n, 2): mean
and log-scale of the standardised target. `weights` is (m,), summing to 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from scipy.optimize import minimize_scalar

from registry.metrics import Array, Labels, error_of_mean
from registry.schema import Frozen
from registry.scoring import Scores
from registry.target import Target
from retrain.levels import STEPS, TINY, class_shares
from retrain.losses import LOG_SCALE

SLACK = 1e-6
"""A radius is widened by this, so that float32 rounding cannot exclude the very row that set it."""

TEMPERATURES = (0.25, 4.0)
"""Bounds of the temperature: one beyond them says that the calibration rows are of another world than training's."""
SURE = 2.0
"""Standard errors by which a temperature must be better than none."""


class TargetScale(Frozen):
    """A regression target's mean and standard deviation on the training part: networks see (y - centre) / spread."""

    centre: float
    spread: float

    @classmethod
    def fit(cls, labels: Labels) -> TargetScale:
        """Learn from (n,) training labels; a target that does not vary has spread 1."""
        known = labels[np.isfinite(labels)].astype(np.float64)
        spread = float(known.std()) if known.size else 0.0
        return cls(centre=float(known.mean()) if known.size else 0.0, spread=spread if spread > 0 else 1.0)

    def standardise(self, labels: Labels) -> Array:
        """(n,) labels as networks see them."""
        return np.asarray((labels - self.centre) / self.spread, dtype=np.float64)


class Calibration(Frozen):
    """What is needed beside the members: temperature (classification), conformal radius, target scale (regression)."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    temperature: float = 1.0
    radius: float
    scale: TargetScale | None = None

    @classmethod
    def fit(
        cls, outputs: Array, weights: Array, labels: Labels, *, coverage: float, scale: TargetScale | None = None
    ) -> Calibration:
        """Learn from the calibration part: for regression when `scale` is given, else for classification."""
        if scale is None:
            temperature = fit_temperature(outputs, weights, labels)
            p = _mixture(outputs, weights, temperature)[0]
            misses = 1 - p[np.arange(len(labels)), labels.astype(np.int64)]
            return cls(temperature=temperature, radius=min(conformal_radius(misses, coverage), 1.0))
        mean, spread, _ = _moments(outputs, weights, scale)
        return cls(radius=conformal_radius(np.abs(labels - mean) / spread, coverage), scale=scale)

    def scores(self, outputs: Array, weights: Array, target: Target) -> Scores:
        """What the graph answers for these member outputs."""
        if self.scale is not None:
            mean, spread, disagreement = _moments(outputs, weights, self.scale)
            reach = self.radius * spread
            return Scores(mean, spread, disagreement, interval=np.stack([mean - reach, mean + reach], axis=1))
        p, total, disagreement = _mixture(outputs, weights, self.temperature)
        names = np.array(target.classes, dtype=object)
        return Scores(names[p.argmax(axis=1)], total, disagreement, p, conformal_sets(p, self.radius))


def fit_temperature(outputs: Array, weights: Array, labels: Labels) -> float:
    """The temperature that all members' logits are divided by: the minimum of the mixture's negative log-likelihood
    (Guo et al. 2017) on rows in time order.

    It is fitted together with a bias of each class (bias-corrected temperature scaling, Alexandari et al. 2020), which
    is then dropped: a week in which one class is unusually frequent would else be taken for a lack of confidence and be
    carried into everything served later. 1 unless the gain is more than `SURE` of its standard errors, and there is one
    without the biases too, as it will be served: what sharpens or softens outputs moves their level as well, and a rare
    class's away from the truth.
    """
    temperature = _minimum(outputs, weights, labels)[0]
    index, shares = (np.arange(len(labels)), labels.astype(np.int64)), class_shares(labels, outputs.shape[2])
    old, new = (np.log(_levelled(outputs / one, weights, shares)[0][index] + TINY) for one in (1.0, temperature))
    plain = [np.log(_mixture(outputs, weights, one)[0][index] + TINY).mean() for one in (1.0, temperature)]
    sure = (new - old).mean() > SURE * error_of_mean(new - old)
    return temperature if sure and plain[1] > plain[0] else 1.0


def fit_level(outputs: Array, labels: Labels) -> tuple[float, Array]:
    """One network's temperature, and the biases (k,) to be added after it, for rows (n, k) of another time than its
    training: bias-corrected temperature scaling (Alexandari et al. 2020)."""
    return _minimum(outputs[None], np.ones(1), labels)


def _minimum(outputs: Array, weights: Array, labels: Labels) -> tuple[float, Array]:
    index, shares = (np.arange(len(labels)), labels.astype(np.int64)), class_shares(labels, outputs.shape[2])

    def loss(log_temperature: float) -> float:
        p = _levelled(outputs / math.exp(log_temperature), weights, shares)[0]
        return float(-np.log(p[index] + TINY).mean())

    found = minimize_scalar(loss, bounds=tuple(math.log(t) for t in TEMPERATURES), method="bounded")
    temperature = math.exp(found.x)
    return temperature, _levelled(outputs / temperature, weights, shares)[1]


def _levelled(logits: Array, weights: Array, shares: Array) -> tuple[Array, Array]:
    """The mixture's probabilities (n, k) under biases (k,) with which their mean is `shares`: for a single member, the
    maximum of the likelihood over biases. A fixed point, which always undershoots and so converges."""
    bias = np.zeros(len(shares))
    for _ in range(STEPS):
        p = _mixture(logits + bias, weights, 1.0)[0]
        bias += np.log(shares / np.maximum(p.mean(axis=0), TINY))
    return _mixture(logits + bias, weights, 1.0)[0], bias


def conformal_radius(scores: Array, coverage: float) -> float:
    """The split conformal radius of (n,) nonconformity scores: their ceil((n + 1) * coverage)-th smallest (Vovk et al.
    2005; Lei et al. 2018). A new row's score is within it with probability `coverage` or more, if rows are
    exchangeable. Infinite when the n rows are too few for that coverage: the set is then all classes, the interval
    unbounded, which is the truth about so few rows.

    >>> round(conformal_radius(np.arange(1.0, 10.0), 0.9), 3), conformal_radius(np.arange(8.0), 0.9)
    (9.0, inf)
    """
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    if rank > len(scores):
        return math.inf
    radius = float(np.sort(scores)[rank - 1])
    return radius + SLACK * max(1.0, radius)


def conformal_sets(p: Array, radius: float) -> npt.NDArray[np.bool_]:
    """The (n, k) sets of classes with probability 1 - `radius` or more (LAC, Sadinle et al. 2019); the most probable
    class is always in its set."""
    return np.asarray(p >= np.minimum(1 - radius, p.max(axis=1, keepdims=True)))


def _mixture(outputs: Array, weights: Array, temperature: float) -> tuple[Array, Array, Array]:
    """Probabilities (n, k), their entropy (n,) in nats, and the part of it that is mutual information between class
    and member (Depeweg et al. 2018; Smith & Gal 2018)."""
    logits = np.asarray(outputs, dtype=np.float64) / temperature
    shifted = logits - logits.max(axis=2, keepdims=True)
    each = np.exp(shifted)
    each /= each.sum(axis=2, keepdims=True)
    p = np.einsum("m,mnk->nk", weights, each)
    total = _entropy(p)
    return p, total, np.maximum(total - np.einsum("m,mn->n", weights, _entropy(each)), 0)


def _entropy(p: Array) -> Array:
    return np.asarray(-(p * np.log(np.maximum(p, TINY))).sum(axis=-1), dtype=np.float64)


def _moments(outputs: Array, weights: Array, scale: TargetScale) -> tuple[Array, Array, Array]:
    """Mean, standard deviation and the standard deviation of members' means of the mixture of normals, each (n,), in
    the target's unit: variance = mean of variances + variance of means."""
    means, logs = np.moveaxis(np.asarray(outputs, dtype=np.float64), 2, 0)
    mean = weights @ means
    between = weights @ (means - mean) ** 2
    within = weights @ np.exp(2 * np.clip(logs, *LOG_SCALE))
    return mean * scale.spread + scale.centre, np.sqrt(within + between) * scale.spread, np.sqrt(between) * scale.spread
