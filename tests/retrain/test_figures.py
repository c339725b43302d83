"""Each picture of the test rows is drawn from real numbers, says what it shows, and leaves no state behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from registry.metrics import Problem
from registry.target import Target
from retrain import figures
from tests.handmade import make_task

RNG = np.random.default_rng(0)


def made(problem: Problem, rows: int = 3_000, classes: int = 3) -> tuple[np.ndarray, np.ndarray, Target]:
    """Labels, scores that know something of them, and the target."""
    if problem == "regression":
        labels = RNG.normal(10, 4, rows)
        return labels, labels + RNG.normal(0, 1 + np.abs(labels) / 10, rows), Target(problem=problem)
    k = 2 if problem == "binary" else classes
    logits = RNG.normal(0, 1.2, (rows, k))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < RNG.random((rows, 1))).sum(axis=1)
    names = ("no", "yes") if k == 2 else tuple(f"class {number}" for number in range(k))
    return labels, p, Target(problem=problem, classes=names)


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("binary", ["calibration", "confusion"]),
        ("multiclass", ["calibration", "confusion"]),
        ("regression", ["residuals"]),
    ],
)
def test_all_pictures_of_a_problem_are_written(problem: Problem, names: list[str], tmp_path: Path) -> None:
    task = make_task(problem, metric={"multiclass": "log_loss", "regression": "rmse"}.get(problem, "auc"))
    labels, scores, target = made(problem)
    paths = figures.draw(tmp_path / "figures", task, target, labels, scores)
    assert [path.stem for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_same_numbers_give_the_same_picture(tmp_path: Path) -> None:
    labels, scores, target = made("binary", 300)
    one, again = (figures.draw(tmp_path / name, make_task(), target, labels, scores)[0].read_bytes() for name in "ab")
    assert one == again


def test_titles_and_axes_say_what_is_shown() -> None:
    labels, scores, target = made("binary")
    above, below = figures.calibration_curve(labels, scores, target.classes).axes
    assert above.get_title().startswith("Calibration of 'yes' on 3,000 test rows (ECE 0.0")
    assert below.get_xlabel() == "predicted probability of 'yes'"
    counts = sum(patch.get_height() for patch in below.patches)
    assert counts == 3_000


def test_many_classes_are_pooled() -> None:
    labels, scores, target = made("multiclass", classes=30)
    axes = figures.confusion(labels, scores, target.classes).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == figures.MAX_CLASSES
    assert names[-1] == "other"


def test_few_rows_and_constant_predictions(tmp_path: Path) -> None:
    for problem, count in (("binary", 2), ("regression", 1)):
        labels, scores, target = made(problem, 3)  # type: ignore[arg-type]
        task = make_task(problem)  # type: ignore[arg-type]
        assert len(figures.draw(tmp_path / problem, task, target, labels, np.zeros_like(scores))) == count
