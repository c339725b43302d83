"""Columns whose luck outlasts a window, in small windows of a reference of few days: what is said of them is paid from
the budget all the same, and what lasts is found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from monitor.dependence import Dependence
from monitor.evidence import detect, part_of, score_of, scores_of
from monitor.quality import MissingShare, OutOfRange
from monitor.shift import ColumnShift
from monitor.views import Measure, Side, View, reference_side
from registry.bundle import ModelBundle
from registry.metrics import Array
from registry.schema import NumericColumn, Schema
from registry.scoring import Scores

ROWS, DAY, SIZE, WINDOWS = 10_000, 336, 35, 150
BUDGET, CHAMPIONS = 1_000, 15


def column(kind: str, rows: int, rng: np.random.Generator) -> Array:
    """A day's weather, or one that fades within a day; now and then an hour without a value, or a third of a day."""
    if kind == "independent":
        return rng.normal(size=rows)
    if kind == "fading":
        keep = math.exp(-3 / DAY)
        return lfilter([math.sqrt(1 - keep**2)], [1, -keep], rng.normal(size=rows + 3 * DAY))[3 * DAY :]
    values = np.repeat(rng.normal(size=rows // DAY + 2), DAY)[rng.integers(DAY) :][:rows] + 0.1 * rng.normal(size=rows)
    length = {"by day": 1, "hours missing": 20, "long hours missing": 120}[kind]
    out = np.repeat(rng.random(rows // length + 2) < 0.02, length)[:rows] & (kind != "by day")
    return np.where(out & (rng.random(rows) < 0.7), np.nan, values)


def side(like: Side, values: Array) -> Side:
    """Rows of which only this column matters."""
    n = len(values)
    half = np.full((n, 2), 0.5)
    scores = Scores(np.full(n, "no", dtype=object), half[:, 0], half[:, 0], probabilities=half)
    known = np.ones(n, dtype=bool)
    inputs = pd.DataFrame({"x": values})
    return dataclasses.replace(
        like, columns=inputs, own=known, scores=scores, labels=np.arange(n) % 2, labelled=known, times=None, names={}
    )


def watched(bundle: ModelBundle, measure: Measure, known: Array, now: Array) -> Array:
    """p-values (windows,) of a measure of the column."""
    like = reference_side(bundle)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    schema = Schema(columns=(NumericColumn(name="x", missing=float(np.isnan(known).mean()), low=low, high=high),))
    reference = bundle.manifest.reference.model_copy(update={"rows": len(known)})
    manifest = bundle.manifest.model_copy(update={"data_schema": schema, "reference": reference})
    before, memory = side(like, known), {}
    views = (View(side(like, part), before, manifest, memory=memory) for part in now.reshape(-1, SIZE))
    return np.array([one.p_value for view in views for one in measure.measure(view)], dtype=np.float64)


def entered(p_values: Array) -> int:
    """How often an alarm is entered, one in BUDGET windows being allowed."""
    on = detect(scores_of(p_values)[:, None], cap=2.0 * BUDGET)[:, 0] >= BUDGET
    return int((on & ~np.append(False, on[:-1])).sum())


@pytest.mark.parametrize("kind", ["by day", "fading", "hours missing", "long hours missing"])
@pytest.mark.parametrize("measure", [MissingShare(), OutOfRange(), ColumnShift()], ids=lambda one: one.name)
def test_luck_of_a_day_is_paid_from_the_budget(bundle: ModelBundle, measure: Measure, kind: str) -> None:
    """A day is ten windows: a hot one is outside the range of thirty days in one of thirty."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(CHAMPIONS):
        known, now = column(kind, ROWS, rng), column(kind, SIZE * WINDOWS, rng)
        found += entered(watched(bundle, measure, known, now))
    assert found <= 2 * CHAMPIONS * WINDOWS / BUDGET


@pytest.mark.parametrize(("kind", "measure", "moved", "most"), [
    ("independent", MissingShare(), "half missing", 1),
    ("independent", ColumnShift(), "up", 1),
    ("by day", MissingShare(), "half missing", 1),
    ("hours missing", MissingShare(), "gone", 12),
    ("hours missing", MissingShare(), "half missing", 40),
    ("by day", ColumnShift(), "up", 260),
])  # fmt: skip
def test_what_lasts_is_found(bundle: ModelBundle, measure: Measure, kind: str, moved: str, most: int) -> None:
    """At once where rows are independent, or where values were always there; else after some days, which are ten
    windows each."""
    rng, found = np.random.default_rng(5), []
    share, by = {"half missing": (0.5, 0.0), "gone": (1.0, 0.0), "up": (0.0, 2.5)}[moved]
    for _ in range(5):
        known, now = column(kind, ROWS, rng), column(kind, SIZE * 250, rng)
        now = np.where(rng.random(len(now)) < share, np.nan, now) + by
        on = detect(scores_of(watched(bundle, measure, known, now))[:, None], cap=2.0 * BUDGET)[:, 0] >= BUDGET
        found.append(int(on.argmax()) if on.any() else len(on))
    assert max(found) <= most


def test_parts_of_a_row_add_up_to_the_whole() -> None:
    whole = score_of(0.01)
    parts = [score_of(part_of(0.01, 0.1))] * 10
    assert sum(parts) / math.sqrt(10) == pytest.approx(whole)
    assert part_of(0.01, 1.0) == part_of(0.01, 40.0) == 0.01
    assert part_of(1.0, 0.01) > 0.5


def test_no_rows_are_no_luck() -> None:
    """And no search without an end for longer stretches of them."""
    assert Dependence(np.zeros((100, 1))).over_windows(0) == (1.0, math.inf)
