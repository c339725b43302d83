"""Whether a model does worse on its test rows than on the rows that chose it, by more than luck explains: then what it
was chosen by says little of the rows that come."""

from __future__ import annotations

from math import hypot

from registry.metrics import METRICS, tolerated_loss

SURE = 3.0
"""Standard errors of the difference: a model is best by chance, too, on the rows that chose it."""

TOLERATE = 0.02
"""The share of the figure that is tolerated where the policy of a task names none."""


def fall(
    metric: str, test: tuple[float, float], validation: tuple[float, float], *, tolerate: float | None, timed: bool
) -> str | None:
    """A sentence on a model that is worse on the test rows than on the validation rows by more than is tolerated and
    by more than `SURE` standard errors; of either the value and its standard error. None of one that is not.

    >>> fall("auc", (0.70, 0.01), (0.72, 0.01), tolerate=0.02, timed=True)
    >>> print(fall("rmse", (147.2, 9.0), (60.2, 4.0), tolerate=0.02, timed=True))
    surely worse on the test rows than on the validation rows, by which it was chosen: rmse 147.2000 after 60.2000 \
(standard error of the difference 9.8489); the test rows are the newest: they are likely to differ from those before
    """
    loss = next(one for one in METRICS if one.name == metric).gain(validation[0], test[0])
    error = hypot(validation[1], test[1])
    tolerated = tolerated_loss(metric, validation[0], TOLERATE if tolerate is None else tolerate)
    if not loss > max(SURE * error, tolerated):
        return None
    likely = (
        "the test rows are the newest: they are likely to differ from those before"
        if timed
        else "both were drawn alike: it is likely to have been chosen by too few rows"
    )
    said = "surely worse on the test rows than on the validation rows, by which it was chosen"
    figures = f"{metric} {test[0]:.4f} after {validation[0]:.4f} (standard error of the difference {error:.4f})"
    return f"{said}: {figures}; {likely}"
