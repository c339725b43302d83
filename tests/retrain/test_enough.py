"""A re-search ends when what it has found is surely better than the champion, on rows that the champion never saw."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from registry.bundle import ModelBundle
from registry.metrics import Array, Problem
from retrain.search.enough import Enough
from retrain.search.material import Material, gather
from tests.handmade import make_bundle, make_frame, make_task

ROWS = 6_000
"""Until the middle of April: the champion knows the rows of January and February."""


def material_of(problem: Problem, start: str = "2024-03-02") -> Material:
    return gather(make_task(problem), make_frame(ROWS, problem=problem, start=start))


def answers(material: Material, *, sign: float) -> Array:
    """The truth with some noise, or its opposite."""
    labels = material.labels[material.parts.validation].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 0.3, len(labels))
    if material.scale is not None:
        return np.asarray(sign * (labels - material.scale.centre) + material.scale.centre + noise)
    yes = 1 / (1 + np.exp(-2 * (sign * (2 * labels - 1) + noise)))
    return np.column_stack([1 - yes, yes])


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_what_is_surely_better_is_enough_and_what_is_not_is_not(problem: Problem, tmp_path: Path) -> None:
    material = material_of(problem)
    champion = make_bundle(tmp_path / "champion", problem=problem, quality=0.1)
    goal = Enough(champion, material)
    assert goal.reached(answers(material, sign=1.0))
    assert not goal.reached(answers(material, sign=-1.0))


def test_a_champion_that_is_as_good_is_never_beaten(tmp_path: Path) -> None:
    """The truth itself, as the champion knows it, against itself with noise."""
    material = material_of("binary")
    goal = Enough(make_bundle(tmp_path / "champion"), material)
    outputs = np.log(np.clip(goal._old, 1e-6, 1)) + np.random.default_rng(0).normal(0, 0.2, goal._old.shape)
    said = np.zeros((len(material.parts.validation), 2))
    said[goal._unseen] = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert not goal.reached(said)


def test_rows_that_the_champion_knows_prove_nothing(tmp_path: Path) -> None:
    material = material_of("binary", start="2024-01-01")
    with pytest.raises(ValueError, match="fewer than 200 validation rows that the champion does not know"):
        Enough(make_bundle(tmp_path / "champion"), material)


def test_a_champion_whose_column_is_gone_cannot_be_compared(tmp_path: Path) -> None:
    rows = make_frame(ROWS, start="2024-03-02").drop(columns="weight")
    material = gather(make_task(), rows)
    with pytest.raises(ValueError, match="the champion reads weight, which the rows do not have"):
        Enough(make_bundle(tmp_path / "champion"), material)


def test_other_classes_cannot_be_compared(tmp_path: Path) -> None:
    champion = make_bundle(tmp_path / "champion", problem="multiclass")
    early = champion.manifest.lineage.model_copy(update={"known_until": datetime(2024, 1, 1)})
    sealed = ModelBundle(champion.folder, champion.manifest.model_copy(update={"lineage": early}))
    material = material_of("binary")
    with pytest.raises(ValueError, match="other classes"):
        Enough(sealed, material)
