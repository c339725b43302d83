"""What former studies of other tasks teach of candidates before any is trained: a predictor from characteristics of the
data and of the candidate (after Istrate et al. 2019, "TAPAS: Train-less Accuracy Predictor for Architecture Search").

TAPAS trains a recurrent network on thousands of experiments, those on data sets of like difficulty. A registry holds
some studies of a few dozen candidates, of which the order is kept: a ridge regression on encodings, in which a study
counts the more the more alike its data are. It does not know the balance of classes, nor how hard a task is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from registry.bundle import ModelBundle
from registry.schema import Frozen, Schema
from registry.target import Target
from retrain.families.base import Candidate, read_candidate
from retrain.search.defaults import DEFAULTS
from retrain.search.geometry import Encoding, Space

FEWEST = 8
"""Candidates of a study that say something of their order."""
PENALTY = 30.0
LIKE = 1.0
"""Tasks this far apart, in logarithms, count by exp(-1/2) beside one that is the same."""
LEAST = 0.05
"""What a task counts that has nothing in common."""


class Facts(Frozen):
    """Characteristics of a task's data: training rows, columns of numbers and others, classes (1: a regression)."""

    rows: int
    numeric: int
    other: int
    classes: int

    @classmethod
    def of(cls, rows: int, schema: Schema, target: Target) -> Facts:
        """Those of a schema with so many training rows."""
        numeric = len(schema.of("numeric"))
        return cls(rows=rows, numeric=numeric, other=len(schema.columns) - numeric, classes=max(1, len(target.classes)))

    def likeness(self, other: Facts) -> float:
        """How much another task's study counts beside one of this very task, which counts 1 + `LEAST`."""
        apart = [math.log1p(getattr(self, name)) - math.log1p(getattr(other, name)) for name in type(self).model_fields]
        return math.exp(-sum(one * one for one in apart) / (2 * LIKE**2)) + LEAST


class Former(Frozen):
    """A former study: its data, and its candidates, the best first."""

    facts: Facts
    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, bundle: ModelBundle) -> Former | None:
        """The study that a bundle keeps; None where that is too small."""
        manifest, told = bundle.manifest, bundle.candidates.get("study", [])
        candidates = tuple(one for each in told if (one := read_candidate(each["candidate"])) is not None)
        if len(candidates) < FEWEST:
            return None
        facts = Facts.of(manifest.lineage.rows.get("train", 0), manifest.data_schema, manifest.target)
        return cls(facts=facts, candidates=candidates)


class Experience(Frozen):
    """The studies of other tasks, and what is known of this one's data."""

    facts: Facts
    formers: tuple[Former, ...]

    @classmethod
    def of(cls, rows: int, schema: Schema, target: Target, formers: tuple[Former, ...]) -> Experience | None:
        """What former studies teach a task of such data; None without any."""
        return cls(facts=Facts.of(rows, schema, target), formers=formers) if formers else None

    def expect(self, space: Space, candidates: Sequence[Candidate]) -> Encoding:
        """How good candidates (n,) are expected to be, in spreads of a study's ranks; 0 without studies that fit the
        space."""
        places, ranks, weights = [np.empty((0, len(space.encode(candidates[0]))))], [np.empty(0)], [np.empty(0)]
        for former in self.formers:
            fitted = [space.fit(self._resized(one, former), DEFAULTS) for one in former.candidates]
            known = [(place, one) for place, one in enumerate(fitted) if one is not None]
            if len(known) >= FEWEST:
                places.append(np.stack([space.encode(one) for _, one in known]))
                ranks.append(scores_of_ranks(len(fitted))[[place for place, _ in known]])
                weights.append(np.full(len(known), self.facts.likeness(former.facts)))
        told, wanted, counts = np.concatenate(places), np.concatenate(ranks), np.concatenate(weights)
        asked = np.stack([space.encode(one) for one in candidates])
        return ridge(told, wanted, counts, asked) if len(told) else np.zeros(len(asked))

    def _resized(self, candidate: Candidate, former: Former) -> Candidate:
        """A candidate with as many steps an epoch as it had on its own rows."""
        size = candidate.choices.get("batch_size")
        if size is None or not former.facts.rows:
            return candidate
        scaled = float(size) * self.facts.rows / former.facts.rows
        return candidate.model_copy(update={"choices": {**candidate.choices, "batch_size": scaled}})


def scores_of_ranks(count: int) -> Encoding:
    """The normal quantiles of ranks (n,), the best first: studies have other metrics, and an order each.

    >>> scores_of_ranks(3).round(2).tolist()
    [0.97, 0.0, -0.97]
    """
    from scipy.stats import norm

    return np.asarray(norm.ppf((count - np.arange(count) - 0.5) / count))


def ridge(places: Encoding, wanted: Encoding, weights: Encoding, asked: Encoding) -> Encoding:
    """Predictions (m,) for places (m, d) of a weighted ridge regression on places (n, d) with values (n,)."""
    share = weights / weights.sum()
    centre, level = share @ places, float(share @ wanted)
    inside = (places - centre).T * weights
    penalty = PENALTY * np.eye(places.shape[1])
    slopes = np.linalg.solve(inside @ (places - centre) + penalty, inside @ (wanted - level))
    return np.asarray(level + (asked - centre) @ slopes)
