"""A leak is a column that predicts the target alone on rows not seen; strong but honest columns are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from registry.errors import DataError
from registry.metrics import Problem
from retrain.checks import examine, require
from tests.handmade import make_frame, make_task

RNG = np.random.default_rng(0)
N = 4_000
LEAKS: list[tuple[str, Problem, Callable[[pd.DataFrame], object]]] = [
    ("a renamed class", "binary", lambda f: f["late"].map({"yes": "delayed", "no": "on time"})),
    ("a number with a threshold", "binary", lambda f: np.where(f["late"] == "yes", 5, 0) + RNG.random(N)),
    ("set only afterwards", "binary", lambda f: np.where(f["late"] == "yes", RNG.random(N), np.nan)),
    ("a text set only afterwards", "binary", lambda f: np.where(f["late"] == "yes", RNG.choice(["a", "b"], N), None)),
    ("classes as many codes", "multiclass", lambda f: f["late"] + RNG.integers(0, 9, N).astype(str)),
    ("a scaled target", "regression", lambda f: 3 * f["late"] + 1),
    ("a bent target", "regression", lambda f: np.exp(f["late"])),
]


@pytest.mark.parametrize(("problem", "make"), [pytest.param(*case[1:], id=case[0]) for case in LEAKS])
def test_a_leak_is_fatal(problem: Problem, make: Callable[[pd.DataFrame], object]) -> None:
    frame = make_frame(N, problem=problem)
    frame["leak"] = make(frame)
    task = make_task(problem, metric={"multiclass": "log_loss", "regression": "rmse"}.get(problem, "auc"))
    with pytest.raises(DataError, match=r"column 'leak': it predicts the target alone.*columns\.exclude"):
        require(examine(frame, task))


def test_excluded_or_declared_it_stops_nothing() -> None:
    frame = make_frame(N)
    frame["leak"] = frame["late"].map({"yes": "delayed", "no": "on time"})
    assert examine(frame, make_task(columns={"exclude": ["leak"]})) == []
    (finding,) = examine(frame, make_task(columns={"kinds": {"leak": "categorical"}}))
    assert finding.level == "warning"


@pytest.mark.parametrize(
    "make",
    [
        lambda f: [f"{number}" * 3 for number in RNG.permutation(N)],  # an identifier
        lambda f: np.where(RNG.random(N) < 0.9, f["late"], "no"),  # strong, not perfect
        lambda f: (f["late"] == "yes") + RNG.normal(0, 0.5, N),
        lambda f: np.where(RNG.random(N) < 0.1, np.finfo(float).max, RNG.random(N)),  # more than trees can read
    ],
)
def test_what_is_no_leak(make: Callable[[pd.DataFrame], object]) -> None:
    frame = make_frame(N)
    frame["honest"] = make(frame)
    require(examine(frame, make_task()))


def test_a_rare_class_is_not_drowned_by_the_common_one() -> None:
    frame = make_frame(N)
    frame["late"] = np.where(RNG.random(N) < 0.02, "yes", "no")
    assert examine(frame, make_task()) == []  # 98 % accuracy of nothing is no leak
    frame["leak"] = np.where(frame["late"] == "yes", 1, 0) + RNG.random(N) / 2
    with pytest.raises(DataError, match="column 'leak'"):
        require(examine(frame, make_task()))
