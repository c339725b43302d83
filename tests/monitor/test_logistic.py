"""The fit is the one that scikit-learn's finds, also where a line parts the sides."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from monitor.logistic import fit


@pytest.mark.parametrize("shift", [0.0, 0.5, 30.0])
@pytest.mark.parametrize("strength", [0.01, 10.0])
def test_it_is_scikit_learns(shift: float, strength: float) -> None:
    rng = np.random.default_rng(0)
    marks = np.r_[np.zeros(300), np.ones(100)]
    rows, weights = rng.normal(size=(400, 5)) + shift * marks[:, None], np.where(marks > 0, 1.0, 1 / 3)
    model = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10).fit(rows, marks, sample_weight=weights)
    intercept, *slopes = fit(np.vstack([np.ones(400), rows.T]), marks, weights, strength)
    assert slopes == pytest.approx(model.coef_[0], abs=1e-3 * max(1.0, np.abs(model.coef_).max()))
    assert intercept == pytest.approx(model.intercept_[0], abs=1e-2 * max(1.0, abs(model.intercept_[0])))
