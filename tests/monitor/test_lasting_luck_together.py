"""What a classifier tells apart, and coverage, where luck outlasts a window: paid from the budget all the same, and
what lasts is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from monitor.domain import DomainShift, OutputShift
from monitor.evidence import detect, scores_of
from monitor.uncertainty import Coverage, chance_of_so_few, surely_kept
from monitor.views import Measure, Side, View, reference_side
from registry.bundle import ModelBundle
from registry.metrics import Array
from registry.schema import NumericColumn, Schema
from registry.scoring import Scores

ROWS, WINDOWS, BUDGET = 10_000, 150, 1_000
COLUMNS = 4


def by_day(rows: int, day: int, columns: int, rng: np.random.Generator) -> Array:
    """Levels (rows, columns) that hold for a day; for a row if `day` is 1."""
    start = rng.integers(day)
    return np.repeat(rng.normal(size=(rows // day + 2, columns)), day, axis=0)[start : start + rows]


def side(like: Side, rows: int, day: int, rng: np.random.Generator, *, moved: float = 0.0, missed: float = 0.0) -> Side:
    """Rows whose columns, outputs and coverage are partly a day's; all columns moved, so many more labels outside of
    their sets."""
    levels, noise = by_day(rows, day, COLUMNS, rng), rng.normal(size=(rows, COLUMNS))
    inputs = (levels + noise) / np.sqrt(2) + moved
    positive = 1 / (1 + np.exp(-inputs[:, 0]))
    probabilities, labels = np.column_stack([1 - positive, positive]), np.arange(rows) % 2
    kept = 0.92 - missed - (0.06 * by_day(rows, day, 1, rng)[:, 0] if day > 1 else 0.0)
    sets = np.zeros((rows, 2), dtype=bool)
    sets[np.arange(rows), labels] = rng.random(rows) < np.clip(kept, 0, 1)
    answers = np.full(rows, "no", dtype=object)
    scores = Scores(answers, positive, np.zeros(rows), probabilities=probabilities, sets=sets)
    known, frame = np.ones(rows, dtype=bool), pd.DataFrame(inputs, columns=_names())
    return dataclasses.replace(
        like, columns=frame, own=known, scores=scores, labels=labels, labelled=known, times=None, names={}
    )


def _names() -> list[str]:
    return [f"x{place}" for place in range(COLUMNS)]


def alarms(bundle: ModelBundle, measure: Measure, known: Side, now: Side, size: int) -> np.ndarray:
    """In which windows of so many rows an alarm is on, one in BUDGET windows being allowed."""
    schema = Schema(columns=tuple(NumericColumn(name=name) for name in _names()))
    task = bundle.manifest.task.model_copy(update={"coverage": 0.9})
    reference = bundle.manifest.reference.model_copy(update={"rows": len(known)})
    manifest = bundle.manifest.model_copy(update={"data_schema": schema, "task": task, "reference": reference})
    memory, p_values = {}, []
    for start in range(0, len(now), size):
        rows = np.arange(start, start + size)
        part = dataclasses.replace(
            now,
            columns=now.inputs.iloc[rows].reset_index(drop=True),
            own=now.own[rows],
            scores=now.scores.take(rows),
            labels=now.labels[rows],
            labelled=now.labelled[rows],
        )
        p_values += [one.p_value for one in measure.measure(View(part, known, manifest, memory=memory))]
    return detect(scores_of(np.array(p_values))[:, None], cap=2.0 * BUDGET)[:, 0] >= BUDGET


def entered(on: np.ndarray) -> int:
    return int((on & ~np.append(False, on[:-1])).sum())


@pytest.mark.parametrize(("measure", "size", "day", "champions"), [
    (Coverage(), 35, 336, 20),
    (Coverage(), 500, 2_000, 20),
    (DomainShift(), 150, 1_000, 8),
    (OutputShift(), 150, 1_000, 8),
], ids=lambda one: getattr(one, "name", str(one)))  # fmt: skip
def test_luck_of_a_day_is_paid_from_the_budget(
    bundle: ModelBundle, measure: Measure, size: int, day: int, champions: int
) -> None:
    rng, like, found = np.random.default_rng(3), reference_side(bundle), 0
    for _ in range(champions):
        known, now = side(like, ROWS, day, rng), side(like, size * WINDOWS, day, rng)
        found += entered(alarms(bundle, measure, known, now, size))
    assert found <= 2 * champions * WINDOWS / BUDGET


@pytest.mark.parametrize(("measure", "size", "day", "moved", "missed", "most"), [
    (Coverage(), 35, 1, 0.0, 0.3, 4),
    (Coverage(), 35, 336, 0.0, 0.3, 40),
    (DomainShift(), 150, 1, 0.5, 0.0, 3),
    (DomainShift(), 150, 1_000, 2.0, 0.0, 20),
    (OutputShift(), 150, 1_000, 2.0, 0.0, 50),
], ids=lambda one: getattr(one, "name", str(one)))  # fmt: skip
def test_what_lasts_is_found(
    bundle: ModelBundle, measure: Measure, size: int, day: int, moved: float, missed: float, most: int
) -> None:
    """At once where rows are independent, else after some days, by half of the champions."""
    rng, like, found = np.random.default_rng(5), reference_side(bundle), []
    for _ in range(4):
        known, now = side(like, ROWS, day, rng), side(like, size * 120, day, rng, moved=moved, missed=missed)
        on = alarms(bundle, measure, known, now, size)
        found.append(int(on.argmax()) if on.any() else len(on))
    assert np.median(found) <= most, found


@pytest.mark.parametrize(("rows", "day", "missed"), [(400, 400, 0.0), (400, 1, 0.0), (12, 1, 0.0), (6, 1, 0.92)])
@pytest.mark.parametrize("measure", [Coverage(), DomainShift(), OutputShift()], ids=lambda one: one.name)
def test_small_and_poor_references_have_chances(
    bundle: ModelBundle, measure: Measure, rows: int, day: int, missed: float
) -> None:
    """One day alone, columns that never move, a handful of rows, a coverage that is hardly ever kept, no labels."""
    rng, like = np.random.default_rng(1), reference_side(bundle)
    known, now = side(like, rows, day, rng, missed=missed), side(like, 205, 1, rng, missed=missed)
    schema = Schema(columns=tuple(NumericColumn(name=name) for name in _names()))
    manifest = bundle.manifest.model_copy(update={"data_schema": schema})
    for reference in (known, dataclasses.replace(known, columns=known.inputs * 0)):
        for size in (5, 200):
            part = dataclasses.replace(
                now,
                columns=now.inputs.head(size) * 0,
                own=now.own[:size],
                scores=now.scores.take(slice(size)),
                labels=now.labels[:size],
                labelled=now.labelled[:size],
            )
            for window in (part, dataclasses.replace(part, labelled=np.zeros(size, dtype=bool))):
                found = [one.p_value for one in measure.measure(View(window, reference, manifest))]
                assert all(one is None or 0 <= one <= 1 for one in found), found


def test_rows_that_depend_hardly_have_the_chance_of_independent_ones() -> None:
    for hits in range(21):
        alone, hardly, more = (chance_of_so_few(hits, 20, 0.88, effect) for effect in (1.0, 1.02, 3.0))
        assert alone <= hardly
        assert hardly <= max(more, alone) or hits > 0.88 * 20
    assert 0.0 <= surely_kept(1, 5, 3.0) <= 0.2
