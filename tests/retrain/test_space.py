"""The search space: what it draws is inside it, and what comes from elsewhere is brought inside it or dropped."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from registry.errors import TaskError
from retrain.families.base import Candidate
from retrain.families.cell import EDGES
from retrain.families.parameters import Option, Real, Whole
from retrain.search.defaults import DEFAULTS
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace


def make_space(**changes: object) -> SearchSpace:
    return SearchSpace.of(
        **{"families": ("mlp", "resnet"), "rows": 5_000, "max_epochs": 27, "problem": "binary", **changes}
    )


def test_what_is_drawn_is_inside() -> None:
    space, rng = make_space(), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(50)]
    assert {one.family for one in drawn} == {"mlp", "resnet"}
    assert all(space.fit(one, {}) == one for one in drawn)


def test_dimensions_exist_only_under_their_condition() -> None:
    rng = np.random.default_rng(1)
    for candidate in (make_space().sample(rng) for _ in range(50)):
        sgd = candidate.choices["optimizer"] == "sgd"
        assert ("momentum" in candidate.choices) == sgd
        assert ("adamw_rate" in candidate.choices) != sgd
        assert ("sigma" in candidate.choices) == (candidate.choices["numeric_embedding"] == "periodic")


def test_regression_has_no_class_choices() -> None:
    candidate = make_space(problem="regression").sample(np.random.default_rng(0))
    assert not {"label_smoothing", "class_weights"} & set(candidate.choices)


def test_optuna_draws_and_takes_the_same_candidates() -> None:
    space, study = make_space(), optuna.create_study()
    wanted = space.sample(np.random.default_rng(3))
    study.enqueue_trial(space.params(wanted))
    assert space.suggest(study.ask()) == wanted
    free = space.suggest(study.ask())
    assert space.fit(free, {}) == free


def test_a_foreign_candidate_is_clipped_and_rounded() -> None:
    space = make_space()
    foreign = Candidate(
        family="mlp", choices={"width": 10_000, "adamw_rate": 5.0, "batch_size": 7, "dropout": 0.123456}
    )
    fitted = space.fit(foreign, DEFAULTS)
    assert fitted is not None
    assert (fitted.choices["width"], fitted.choices["adamw_rate"], fitted.choices["dropout"]) == (384, 2e-2, 0.12)
    assert fitted.choices["batch_size"] == min(one.values[0] for one in space.training if one.name == "batch_size")


@pytest.mark.parametrize(
    "foreign",
    [
        Candidate(family="transformer", choices={}),
        Candidate(family="mlp", choices={"activation": "tanh"}),
        Candidate(family="mlp", choices={"width": "wide"}),
    ],
)
def test_a_candidate_whose_choice_is_gone_is_dropped(foreign: Candidate) -> None:
    assert make_space().fit(foreign, DEFAULTS) is None


@pytest.mark.parametrize("problem", ["binary", "regression"])
@pytest.mark.parametrize("rows", [200, 50_000])
def test_the_portfolio_fits_every_space(problem: str, rows: int) -> None:
    space = make_space(problem=problem, rows=rows)
    found = portfolio(space)
    assert len(found) == 8
    assert len({one.key for one in found}) == 8
    assert all(space.recipe(one).batch_size <= rows for one in found)


def test_the_portfolio_of_one_family_is_its_part() -> None:
    assert {one.family for one in portfolio(make_space(families=("mlp",)))} == {"mlp"}


def test_a_recipe_says_how_to_train() -> None:
    space = make_space()
    candidate = space.fit(Candidate(family="mlp", choices={"optimizer": "sgd", "class_weights": "balanced"}), DEFAULTS)
    assert candidate is not None
    recipe = space.recipe(candidate)
    assert (recipe.optimizer, recipe.rate, recipe.momentum, recipe.balanced) == ("sgd", 0.05, 0.9, True)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(TaskError, match="unknown family 'tree'"):
        make_space(families=("tree",))


def test_dimensions_snap() -> None:
    assert Option("o", (16, 32, 64)).snap(50) == 64
    assert Option("o", ("a", "b")).snap("c") is None
    assert Option("o", (True, False)).snap(False) is False
    assert Whole("w", 64, 384, step=64).snap(100) == 128
    assert Real("r", 0.1, 1.0).snap(0.5678) == 0.57
    assert Real("r", 0.1, 1.0).snap(float("nan")) is None


def test_paths_of_graphs_have_a_place_of_their_own() -> None:
    """Alike for isomorphic cells, none for what has no graph, and in images those of their own operations."""
    space, rng = make_space(families=("mlp", "cell", "graph")), np.random.default_rng(0)
    drawn = {name: make_space(families=(name,)).sample(rng) for name in ("mlp", "cell", "graph")}
    paths = {name: space.paths(one) for name, one in drawn.items()}
    assert {len(one) for one in paths.values()} == {84 + 780}
    assert not paths["mlp"].any()
    assert not paths["cell"][84:].any()
    assert not paths["graph"][:84].any()
    cells = [
        Candidate(family="cell", choices={**drawn["cell"].choices, **dict(zip(EDGES, operations, strict=True))})
        for operations in (
            ("wide", "none", "skip", "none", "none", "narrow"),
            ("skip", "none", "wide", "none", "none", "narrow"),
        )
    ]
    assert (space.paths(cells[0]) == space.paths(cells[1])).all()
    assert space.paths(cells[0]).sum() == 1
    assert len(make_space(families=("graph",), reads="image").paths(drawn["graph"])) == 399
