"""A re-search ends when what it has found is surely better than the champion, on rows that the champion never saw."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from registry.bundle import ModelBundle
from registry.metrics import Problem
from retrain.search import plan as plans
from retrain.search.enough import Enough
from retrain.search.material import Material, gather
from retrain.search.plan import Plan, Result
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from tests.handmade import make_bundle, make_frame, make_task

ROWS = 6_000
"""Until the middle of April: the champion knows the rows of January and February."""


def material_of(problem: Problem, start: str = "2024-03-02") -> Material:
    return gather(make_task(problem), make_frame(ROWS, problem=problem, start=start))


def plan_of(material: Material) -> Plan:
    scale = material.scale
    return Plan(
        problem=material.task.problem, metric=material.task.metric, strategy="tpe", families=("mlp",), rows=ROWS,
        max_epochs=3, trials=4, workers=1, deadline=0.0, seed=0, layout=material.layout, d_out=material.d_out,
        centre=scale.centre if scale else 0.0, spread=scale.spread if scale else 1.0,
    )  # fmt: skip


def keep(folder: Path, material: Material, number: int, *, sign: float) -> Result:
    """A trial whose outputs tell the truth with some noise, or its opposite."""
    rng = np.random.default_rng(number)
    labels = material.labels[material.parts.validation].astype(np.float64)
    if material.scale is not None:
        told = sign * (labels - material.scale.centre) / material.scale.spread
        outputs = np.column_stack([told, np.zeros(len(told))])
    else:
        told = sign * (2 * labels - 1)
        outputs = np.column_stack([-told, told])
    candidate = portfolio(SearchSpace.of(("mlp",), ROWS, 3, material.task.problem))[0]
    result = Result(
        number=number, candidate=candidate, origin="prior", state="complete", score=0.5, best_epoch=1, history=(0.5,),
        seed=0, seconds=1.0, ending="done",
    )  # fmt: skip
    noise = rng.normal(0, 0.3, outputs.shape)
    plans.keep_trial(folder, result, b"", (outputs + noise).astype(np.float32))
    return result


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_what_is_surely_better_is_enough_and_what_is_not_is_not(problem: Problem, tmp_path: Path) -> None:
    material = material_of(problem)
    champion = make_bundle(tmp_path / "champion", problem=problem, quality=0.1)
    goal = Enough(champion, material, plan_of(material))
    right, wrong = (keep(tmp_path, material, number, sign=sign) for number, sign in ((0, 1.0), (1, -1.0)))
    assert goal.reached(tmp_path, [right])
    assert not goal.reached(tmp_path, [wrong])


def test_a_champion_that_is_as_good_is_never_beaten(tmp_path: Path) -> None:
    """The truth itself, as the champion knows it, against itself with noise."""
    material = material_of("binary")
    goal = Enough(make_bundle(tmp_path / "champion"), material, plan_of(material))
    outputs = np.log(np.clip(goal._old, 1e-6, 1))
    result = keep(tmp_path, material, 0, sign=1.0)
    everything = np.zeros((len(material.parts.validation), 2), dtype=np.float32)
    everything[goal._unseen] = outputs + np.random.default_rng(0).normal(0, 0.2, outputs.shape)
    np.save(plans.trial_folder(tmp_path, 0) / plans.OUTPUTS, everything)
    assert not goal.reached(tmp_path, [result])


def test_rows_that_the_champion_knows_prove_nothing(tmp_path: Path) -> None:
    material = material_of("binary", start="2024-01-01")
    with pytest.raises(ValueError, match="fewer than 200 validation rows that the champion does not know"):
        Enough(make_bundle(tmp_path / "champion"), material, plan_of(material))


def test_a_champion_whose_column_is_gone_cannot_be_compared(tmp_path: Path) -> None:
    rows = make_frame(ROWS, start="2024-03-02").drop(columns="weight")
    material = gather(make_task(), rows)
    with pytest.raises(ValueError, match="the champion reads weight, which the rows do not have"):
        Enough(make_bundle(tmp_path / "champion"), material, plan_of(material))


def test_other_classes_cannot_be_compared(tmp_path: Path) -> None:
    champion = make_bundle(tmp_path / "champion", problem="multiclass")
    early = champion.manifest.lineage.model_copy(update={"known_until": datetime(2024, 1, 1)})
    sealed = ModelBundle(champion.folder, champion.manifest.model_copy(update={"lineage": early}))
    material = material_of("binary")
    with pytest.raises(ValueError, match="other classes"):
        Enough(sealed, material, plan_of(material))
