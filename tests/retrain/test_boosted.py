"""The boosted reference learns what there is to learn, from training rows only, whatever the columns hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from registry.conforming import conform
from registry.inference import learn_schema
from registry.metrics import Problem, log_loss, metrics_for
from registry.target import Target
from registry.yardstick import Yardstick, lean
from retrain.boosted import Boosted, fit_boosted
from retrain.splits import split
from tests.handmade import make_frame, make_task


def fit(frame: pd.DataFrame, problem: Problem = "binary", **task_changes: object) -> Boosted:
    metric = {"multiclass": "log_loss", "regression": "rmse"}.get(problem, "auc")
    task = make_task(problem, metric=metric, **task_changes)
    parts = split(frame, task)
    schema = learn_schema(frame, frame.iloc[parts.train], task)
    return fit_boosted(frame, schema, Target.learn(frame["late"], problem), "late", parts, seed=0)


@pytest.mark.parametrize(
    ("problem", "metric", "bound"), [("binary", "auc", 0.9), ("multiclass", "accuracy", 0.7), ("regression", "r2", 0.8)]
)
def test_it_learns_and_reports_every_metric(problem: Problem, metric: str, bound: float) -> None:
    found = fit(make_frame(3_000, problem=problem), problem)
    assert found.metrics[metric] > bound
    assert set(metrics_for(problem)) <= set(found.metrics)
    assert found.scores.shape == ((300,) if problem == "regression" else (300, 3 if problem == "multiclass" else 2))
    assert 1 <= found.rounds <= 200


def test_it_is_repeatable() -> None:
    frame = make_frame(1_000)
    assert fit(frame).metrics == fit(frame).metrics


@pytest.mark.parametrize("helps", [True, False])
def test_moments_are_left_out_where_they_mislead(helps: bool) -> None:
    """Labels that rise with the day of the training rows, and after them (`helps`) or no more."""
    frame, rng, n = make_frame(2_000), np.random.default_rng(0), 2_000
    days = np.linspace(0, 1, n) if helps else np.where(np.arange(n) < 0.7 * n, np.linspace(0, 1.4, n), 0.0)
    frame["late"] = np.where(rng.random(n) < days, "yes", "no")
    task = make_task("binary", metric="auc")
    parts = split(frame, task)
    schema = learn_schema(frame, frame.iloc[parts.train], task)
    target = Target.learn(frame["late"], "binary")
    rows, labels = conform(frame, schema), target.encode(frame["late"])
    given = [(rows.iloc[part], labels[part]) for part in (parts.train, parts.validation)]
    both = [Yardstick.fit(*given[0], *given[1], schema=one, target=target) for one in (schema, lean(schema))]
    losses = [log_loss(given[1][1], one.scores(given[1][0])) for one in both]
    assert (losses[0] < losses[1]) == helps
    found = fit_boosted(frame, schema, target, "late", parts, seed=0)
    np.testing.assert_array_equal(found.scores, both[int(not helps)].scores(rows.iloc[parts.test]))


def test_gaps_unknown_categories_and_many_of_them() -> None:
    rng = np.random.default_rng(0)
    frame = make_frame(4_000).astype({"member": object})
    frame["many"] = [f"v{number}" for number in rng.integers(0, 600, 4_000)]
    frame.loc[rng.random(4_000) < 0.1, ["amount", "carrier", "member"]] = None
    frame["seen"] = frame["when"].where(rng.random(4_000) < 0.9)
    frame.loc[3_900:, "carrier"] = "new"
    found = fit(frame, columns={"kinds": {"many": "categorical"}})
    assert found.metrics["auc"] > 0.8
    assert np.isfinite(found.scores).all()


def test_a_class_that_training_lacks_has_no_probability() -> None:
    frame = make_frame(2_000, problem="multiclass")
    frame.loc[1_750:1_760, "late"] = "validation only"
    frame.loc[1_990:, "late"] = "test only"
    found = fit(frame, "multiclass")
    assert found.scores.shape == (200, 5)
    assert (found.scores[:, [2, 4]] == 0).sum() >= 200
    np.testing.assert_allclose(found.scores.sum(axis=1), 1)


def test_later_rows_change_nothing_that_was_learnt() -> None:
    frame = make_frame(2_000)
    changed = frame.copy()
    changed.loc[1_800:, "amount"] *= 100
    assert fit(frame).rounds == fit(changed).rounds
