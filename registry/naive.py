"""What a model reaches that knows nothing of the columns: it answers every row with the training rows' mean, or with
the shares that the classes have among them. A model that is not surely better is a weak one, and that is said."""

from __future__ import annotations

import numpy as np

from registry.metrics import METRICS, Array, Labels, Problem

SURE = 1.645
"""Standard errors by which a model must be ahead not to be called weak: 95 %, one-sided."""


def naive_scores(training: Labels, classes: int, rows: int) -> Array:
    """The same answer for so many rows: (rows,) of the mean of the training labels where there are no classes, else
    (rows, classes) of their shares.

    >>> naive_scores(np.array([0, 1, 1, 1]), 2, 1).tolist()
    [[0.25, 0.75]]
    """
    if not classes:
        return np.full(rows, np.mean(training), dtype=np.float64)
    shares = np.bincount(training.astype(np.int64), minlength=classes) / len(training)
    return np.tile(shares, (rows, 1))


def weakness(metric: str, problem: Problem, value: float, naive: float, error: float) -> str | None:
    """A sentence on a model whose metric on the test rows is not surely better than the naive one's there; `error` is
    the standard error of their difference. None of a model that is better.

    >>> weakness("auc", "binary", 0.7, 0.5, 0.02)
    >>> weakness("rmse", "regression", 5.4, 4.9, 0.2)
    "weak: rmse 5.4000 on the test rows is no better than the 4.9000 of always answering the training rows' mean"
    """
    gain = next(one for one in METRICS if one.name == metric).gain(value, naive)
    if gain > SURE * error:
        return None
    answer = "mean" if problem == "regression" else "shares of the classes"
    better = "no better" if gain <= 0 else "not surely better"
    of = f"the {naive:.4f} of always answering the training rows' {answer}"
    return f"weak: {metric} {value:.4f} on the test rows is {better} than {of}"
