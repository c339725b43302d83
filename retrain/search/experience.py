"""Former studies, of this task and of others, as a new search learns from them (`taught.py`): of each a registry keeps
some dozens of candidates in their order. One counts the more the more alike its data are (after Istrate et al. 2019,
"TAPAS: Train-less Accuracy Predictor for Architecture Search", who train on data sets of like difficulty); the balance
of classes is not known of them, nor how hard a task is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from registry.bundle import ModelBundle
from registry.plurals import counted
from registry.schema import Frozen, Schema
from registry.target import Target
from retrain.families.base import Candidate, read_candidate
from retrain.search.defaults import DEFAULTS
from retrain.search.geometry import Encoding, Space
from retrain.search.taught import STRANGE, Study, Taught

FEWEST = 8
"""Candidates of a study that say something of their order."""
LIKE = 1.0
"""Tasks this far apart, in logarithms, count by exp(-1/2) beside one that is the same."""
MOST = 30
"""Studies that teach a search, the most alike: with a hundred of forty candidates each the first two proposals took .7
and .9 CPU-seconds, with these .06 and .09 (one run, a busy machine). What the others would have added was not
measured."""


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
        """How much another task's study counts beside one of this very task, which counts 1 + `STRANGE`."""
        apart = [math.log1p(getattr(self, name)) - math.log1p(getattr(other, name)) for name in type(self).model_fields]
        return math.exp(-sum(one * one for one in apart) / (2 * LIKE**2)) + STRANGE


class Former(Frozen):
    """A former study: its data, whether they were images, its candidates, the best first, and its task's name."""

    facts: Facts
    candidates: tuple[Candidate, ...]
    image: bool = False
    task: str = ""

    @classmethod
    def of(cls, bundle: ModelBundle) -> Former | None:
        """The study that a bundle keeps; None where that is too small."""
        manifest, told = bundle.manifest, bundle.candidates.get("study", [])
        candidates = tuple(one for each in told if (one := read_candidate(each["candidate"])) is not None)
        if len(candidates) < FEWEST:
            return None
        rows = told[0].get("rows", manifest.lineage.rows.get("train", 0))
        schema = manifest.data_schema
        image = schema.image is not None
        facts = Facts.of(rows, schema, manifest.target)
        return cls(facts=facts, candidates=candidates, image=image, task=manifest.task.name)


class Experience(Frozen):
    """Former studies, and what is known of this task's data."""

    facts: Facts
    formers: tuple[Former, ...]

    @classmethod
    def of(cls, rows: int, schema: Schema, target: Target, formers: tuple[Former, ...]) -> Experience | None:
        """What former studies of tables, or of images, teach a task of such data; None without any."""
        alike = tuple(one for one in formers if one.image == (schema.image is not None))
        return cls(facts=Facts.of(rows, schema, target), formers=alike) if alike else None

    def taught(self, space: Space) -> Taught | None:
        """What the `MOST` studies that are most alike teach of a space; None where none has enough candidates that fit
        it."""
        found = [one for former in self.formers if (one := self._study(space, former)) is not None]
        most = sorted(found, key=lambda one: -one.weight)[:MOST]
        return Taught(tuple(most)) if most else None

    def _study(self, space: Space, former: Former) -> Study | None:
        fitted = [space.fit(self._resized(one, former), DEFAULTS) for one in former.candidates]
        known = {place: one for place, one in enumerate(fitted) if one is not None}
        if len(known) < FEWEST:
            return None
        places = np.stack([space.encode(one) for one in known.values()])
        scores = scores_of_ranks(len(fitted))[list(known)]
        return Study(tuple(known.values()), places, scores, self.facts.likeness(former.facts), former.task)

    def _resized(self, candidate: Candidate, former: Former) -> Candidate:
        """A candidate with as many steps an epoch as it had on its own rows."""
        size = candidate.choices.get("batch_size")
        if size is None or not former.facts.rows:
            return candidate
        scaled = float(size) * self.facts.rows / former.facts.rows
        return candidate.model_copy(update={"choices": {**candidate.choices, "batch_size": scaled}})


def lesson(task: str, formers: Sequence[Former], experience: Experience | None, taught: Taught | None) -> str | None:
    """From whose studies a task learns, or why from no other's, as a sentence; None where there are none of others."""
    others = [one.task for one in formers if one.task != task]
    if not others:
        return None
    if teachers := [one for one in (taught.teachers if taught is not None else ()) if one != task]:
        return f"learning from the studies of {counted(len(teachers), 'other task')}: {', '.join(teachers)}"
    like = experience is not None and any(one.task != task for one in experience.formers)
    why = f"fewer than {FEWEST} of their candidates are of this search's spaces" if like else "tables and images differ"
    return f"nothing is learnt from the studies of other tasks ({', '.join(others)}): {why}"


def scores_of_ranks(count: int) -> Encoding:
    """The normal quantiles of ranks (n,), the best first: studies have other metrics, and an order each.

    >>> scores_of_ranks(3).round(2).tolist()
    [0.97, 0.0, -0.97]
    """
    from scipy.stats import norm

    return np.asarray(norm.ppf((count - np.arange(count) - 0.5) / count))
