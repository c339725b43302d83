"""All windows share one reference: what it is off by luck must not add up, and what has moved is found all the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from monitor.dependence import Dependence
from monitor.distribution import Distribution, distribution_of
from monitor.domain import Known, Sample, Usual
from monitor.evidence import detect, scores_of
from monitor.measurements import Window, WindowRecord
from monitor.measures import measure_all
from monitor.policy import MIN_LABELS, decide
from monitor.significance import LUCK, homogeneity, share_beyond
from monitor.values import Numbers
from monitor.views import Side, View, reference_side
from registry.bundle import Estimate, ModelBundle
from registry.metrics import METRICS, Array
from registry.policies import PerformancePolicy
from registry.schema import NumericColumn, Schema
from registry.scoring import Scores
from tests.monitor.records import START

COLUMNS, BUDGET = 60, 1_000
DOUBT = LUCK / (3 * COLUMNS + 7)

Law = Callable[[Array], float]


def smirnov(reference: Array) -> Law:
    known = distribution_of(Numbers(reference))
    return lambda window: _chance(known, window, 0.05)


def pearson(reference: Array) -> Law:
    (before, edges) = np.histogram(reference, 5, (-1.5, 1.5))
    return lambda window: homogeneity(np.histogram(window, edges)[0].astype(float), before.astype(float), 0.05)


def more(reference: Array) -> Law:
    before = int((reference > 1).sum()), len(reference)
    return lambda window: share_beyond(int((window > 1).sum()), len(window), *before, 0.05)


@pytest.mark.parametrize("law", [smirnov, pearson, more])
@pytest.mark.parametrize(("known", "rows"), [(100, 500), (100, 35), (1_000, 1_000)])
def test_given_its_reference_a_window_bets_at_most_one(law: Callable[[Array], Law], known: int, rows: int) -> None:
    """For all references but those of the doubt, 5 in 100, the p-values of its windows are small as seldom as they
    say: no more than a binomial of 100 windows allows."""
    rng, worse = np.random.default_rng(0), 0
    for _ in range(40):
        chance = law(rng.normal(size=known))
        worse += sum(chance(rng.normal(size=rows)) < 0.05 for _ in range(100)) > 12
    assert worse <= 5


@pytest.mark.parametrize(("known", "doubt", "rings"), [(100, DOUBT, False), (100, 1.0, True), (1_400, DOUBT, False)])
def test_columns_beside_a_small_reference_do_not_ring_for_ever(known: int, doubt: float, rings: bool) -> None:
    """60 columns of noise; without an allowance for the reference's luck each of six champions rings."""
    rng, rang = np.random.default_rng(1), 0
    for _ in range(6):
        columns = [distribution_of(Numbers(rng.normal(size=known))) for _ in range(COLUMNS)]
        found = [[_chance(one, rng.normal(size=500), doubt) for one in columns] for _ in range(24)]
        rang += bool((detect(scores_of(np.array(found))).mean(axis=1) >= BUDGET).any())
    assert rang == (6 if rings else 0)


def _chance(known: Distribution, window: Array, doubt: float) -> float:
    found = known.distance(known.count(Numbers(window)), doubt=doubt)
    return 1.0 if found is None else found.p_value


@pytest.mark.parametrize(("columns", "known", "rows"), [(60, 100, 500), (3, 200, 1_000), (20, 2_000, 1_000)])
def test_together_they_do_not_either(columns: int, known: int, rows: int) -> None:
    rng, numbers = np.random.default_rng(2), [False] * columns
    for _ in range(12):
        reference = Known(Sample(rng.normal(size=(known, columns)), 1.0), numbers)
        separated = [reference.separate(Sample(rng.normal(size=(rows, columns)), 1.0)) for _ in range(12)]
        scores = scores_of(np.array([one.p_value(Usual(), DOUBT) for one in separated]))
        assert scores.mean() < 0
        assert detect(scores[:, None]).max() < BUDGET


def test_what_dependent_rows_share_is_the_references_luck_too() -> None:
    rng = np.random.default_rng(3)
    alone = [Dependence(rng.normal(size=(1_000, 1))).whole for _ in range(50)]
    days = [Dependence(rng.normal(size=(100, 1)).repeat(10, axis=0)).whole for _ in range(50)]
    assert np.mean(np.array(alone) == 1) > 0.8
    assert 5 < np.median(days) < 25


def side(like: Side, rows: int, rng: np.random.Generator, moved: float = 0.0) -> Side:
    """Rows of noise, of which the first column alone tells the label, and calibrated answers; another column moved."""
    inputs = rng.normal(size=(rows, COLUMNS))
    positive = 1 / (1 + np.exp(-2 * inputs[:, 0]))
    inputs[:, 1] += moved
    chances, labels = np.column_stack([1 - positive, positive]), (rng.random(rows) < positive).astype(np.int64)
    unsure, answers = -(chances * np.log(chances)).sum(axis=1), np.where(positive > 0.5, "yes", "no").astype(object)
    scores = Scores(answers, unsure, unsure / 10, probabilities=chances, sets=chances > 0.1)
    known, frame = np.ones(rows, dtype=bool), pd.DataFrame(inputs, columns=[f"x{place}" for place in range(COLUMNS)])
    return dataclasses.replace(
        like, columns=frame, own=known, scores=scores, labels=labels, labelled=known, times=None, names={}
    )


def severities(bundle: ModelBundle, known: Side, windows: Sequence[Side]) -> list[str]:
    """What is decided after each of these windows, all measures and verdicts together."""
    (auc,) = (metric for metric in METRICS if metric.name == "auc")
    labels, scores = known.known
    figure = Estimate(
        value=auc.value(labels, scores.scores), error=auc.standard_error(labels, scores.scores), rows=len(known)
    )
    schema = Schema(columns=tuple(NumericColumn(name=str(name), low=-9, high=9) for name in known.columns))
    manifest = bundle.manifest.model_copy(update={"data_schema": schema, "reference": figure})
    memory, records, found = {}, [], []
    for index, one in enumerate(windows):
        start = START + index * timedelta(hours=1)
        window = Window(index=index, start=start, end=start + timedelta(hours=1), rows=len(one))
        made = measure_all(View(one, known, manifest, memory=memory))
        records.append(WindowRecord(window=window, version="1", metric="auc", measurements=made))
        policy = PerformancePolicy.model_validate({"false_alarms": "1 per 500 windows"})
        found.append(decide(policy, records, version="1", min_labels=MIN_LABELS).severity)
    return found


def test_nothing_rings_beside_a_small_reference(bundle: ModelBundle) -> None:
    """Six champions of 100 reference rows each, 12 windows of 500 rows: no verdict of any kind."""
    rng, like, found = np.random.default_rng(4), reference_side(bundle), []
    for _ in range(6):
        known = side(like, 100, rng)
        found += severities(bundle, known, [side(like, 500, rng) for _ in range(12)])
    assert set(found) == {"ok"}


@pytest.mark.parametrize(("known", "moved", "late"), [(10_000, 0.4, 1), (100, 1.5, 1)])
def test_what_has_moved_is_found_all_the_same(bundle: ModelBundle, known: int, moved: float, late: int) -> None:
    """Within so many windows after the first one that moved, and not before."""
    rng, like = np.random.default_rng(5), reference_side(bundle)
    windows = [side(like, 500, rng, moved if place >= 4 else 0.0) for place in range(6)]
    found = severities(bundle, side(like, known, rng), windows)
    assert found[:4] == ["ok"] * 4
    assert "shifted" in found[4 : 5 + late]
