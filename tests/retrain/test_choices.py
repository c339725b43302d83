"""What a user knows beforehand narrows the space for every strategy; what contradicts is told before a start."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from registry.choices import Preference
from registry.errors import TaskError
from registry.proposal import to_yaml
from registry.task import load
from retrain.families.base import Candidate, Reads
from retrain.families.catalogue import FAMILIES
from retrain.families.parameters import Option, Real, Whole
from retrain.search.asking import propose
from retrain.search.defaults import DEFAULTS
from retrain.search.inputs import Layout
from retrain.search.narrowing import described, narrowed
from retrain.search.plan import Plan
from retrain.search.portfolio import portfolio, weighted_draws
from retrain.search.question import fingerprint
from retrain.search.session import require_means, search
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import Strategy
from retrain.search.strategies.catalogue import STRATEGIES, strategy_named
from tests.handmade import make_frame, make_task

KNOWN: dict[str, Any] = {
    "activation": {"only": ["relu", "silu"]},
    "optimizer": {"fixed": "adamw"},
    "schedule": {"never": ["constant"]},
    "mlp.depth": {"low": 2, "high": 3},
    "width": {"fixed": 128},
    "dropout": {"high": 0.2},
    "mlp.dropout": {"only": [0.1, 0.3]},
}


def space_of(choices: dict[str, Any], **changes: Any) -> SearchSpace:
    wishes = {name: Preference.model_validate(one) for name, one in choices.items()}
    given: dict[str, Any] = {"families": ("mlp", "resnet"), "rows": 2_000, "max_epochs": 9, "problem": "binary"}
    return SearchSpace.of(**{**given, **changes}, choices=wishes)


def obeys(candidate: Candidate) -> bool:
    choices, mlp = candidate.choices, candidate.family == "mlp"
    return (
        choices["activation"] in ("relu", "silu")
        and choices["optimizer"] == "adamw"
        and "momentum" not in choices
        and choices["schedule"] != "constant"
        and choices["width"] == 128
        and (choices["dropout"] in (0.1, 0.3) if mlp else candidate.number("dropout") <= 0.2)
        and (not mlp or choices["depth"] in (2, 3))
    )


@pytest.mark.parametrize("strategy", [one for one in STRATEGIES if not one.needs], ids=lambda strategy: strategy.name)
def test_every_strategy_obeys_without_knowing(strategy: type[Strategy]) -> None:
    space = space_of(KNOWN)
    study, keys = optuna.create_study(direction="maximize", sampler=strategy.sampler(space, 0)), []
    for _ in range(16):
        trial, candidate = propose(study, space, keys)
        keys.append(space.canonical(candidate))
        study.tell(trial, -candidate.number("weight_decay"))
        assert obeys(candidate)
    assert len({one.params["family"] for one in study.trials}) == 2


def test_the_portfolio_is_brought_in() -> None:
    found = portfolio(space_of(KNOWN))
    assert len(found) >= 5
    assert all(map(obeys, found))
    assert {one.text("activation") for one in portfolio(space_of({"activation": {"fixed": "silu"}}))} == {"silu"}
    weighted = portfolio(space_of({"activation": {"never": ["relu"], "weights": {"elu": 2}}}))
    assert {one.text("activation") for one in weighted} == {"elu"}


def test_a_priors_candidate_is_clipped_or_dropped() -> None:
    space = space_of(KNOWN)
    old = Candidate(family="mlp", choices={"depth": 5, "width": 384, "dropout": 0.5, "activation": "silu"})
    fitted = space.fit(old, DEFAULTS)
    assert fitted is not None
    assert (fitted.choices["depth"], fitted.choices["width"], fitted.choices["dropout"]) == (3, 128, 0.3)
    assert space.fit(old.model_copy(update={"choices": {**old.choices, "activation": "elu"}}), DEFAULTS) is None


def test_weights_are_followed_by_draws_and_mutations() -> None:
    space, rng = (
        space_of({"activation": {"weights": {"relu": 8}}, "family": {"weights": {"mlp": 9}}}),
        np.random.default_rng(0),
    )
    drawn = [space.sample(rng) for _ in range(500)]
    assert np.mean([one.family == "mlp" for one in drawn]) == pytest.approx(0.9, abs=0.04)
    assert np.mean([one.text("activation") == "relu" for one in drawn]) == pytest.approx(0.8, abs=0.06)
    start = space.vary(drawn[0], f"{drawn[0].family}.activation", "elu", rng)
    mutated = [space.mutate(start, rng) for _ in range(3_000)]
    changed = [one.choices["activation"] for one in mutated if one.family == start.family]
    counts = {name: changed.count(name) for name in ("relu", "silu")}
    assert counts["relu"] / sum(counts.values()) == pytest.approx(8 / 9, abs=0.08)


@pytest.mark.parametrize("name", ["random", "tpe", "reinforce", "q-learning", "evolution", "gp"])
def test_strategies_begin_by_weight(name: str) -> None:
    space = space_of({"activation": {"weights": {"elu": 30}}, "optimizer": {"weights": {"sgd": 30}}})
    drawn = []
    for seed in range(3):
        study = optuna.create_study(sampler=strategy_named(name).sampler(space, seed))
        for _ in range(9):
            trial = study.ask()
            drawn.append(space.suggest(trial))
            study.tell(trial, 1.0)
    assert np.mean([one.text("activation") == "elu" for one in drawn]) > 0.75
    assert np.mean([one.text("optimizer") == "sgd" for one in drawn]) > 0.75


@pytest.mark.parametrize("name", ["tpe", "auto"])
def test_those_that_hardly_draw_are_given_draws_by_weight_after_the_portfolio(name: str) -> None:
    space = space_of({"activation": {"weights": {"elu": 30}}})
    given = weighted_draws(space, strategy_named(name), 0)
    assert len(given) == 10
    assert sum(one.text("activation") == "elu" for one in given) > 7
    assert weighted_draws(space_of({}), strategy_named(name), 0) == []
    assert weighted_draws(space, strategy_named("evolution"), 0) == []


def test_without_choices_draws_are_what_they_were() -> None:
    plain = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
    assert plain == space_of({})
    assert all(plain.adapt(one, DEFAULTS) == plain.fit(one, DEFAULTS) for one in portfolio(plain))
    assert plain.odds("mlp.activation").tolist() == [1, 1, 1]


def test_the_probability_of_augmentation_is_a_dimension_where_it_is_named() -> None:
    plain = SearchSpace.of(("mlp",), 500, 9, "binary")
    assert "augmented" not in plain.sample(np.random.default_rng(0)).choices
    asked = SearchSpace.of(("mlp",), 500, 9, "binary", choices={"augmented": Preference(only=(1.0, 0.5))})
    rng = np.random.default_rng(0)
    drawn = {asked.recipe(asked.sample(rng)).augmentation.augmented for _ in range(30)}
    assert drawn == {1.0, 0.5}
    assert plain.recipe(portfolio(plain)[0]).augmentation.augmented == 1.0


@pytest.mark.parametrize(("reads", "family"), [("table", "mlp"), ("image", "convnet")])
def test_ways_to_augment_columns_are_dimensions_where_they_are_named(reads: Reads, family: str) -> None:
    plain = space_of({}, families=(family,), reads=reads)
    known = {label for label, _ in plain.parameters(family)}
    assert not known & {"jitter", "swap_noise"}
    assert ("feature_dropout" in known) is (reads == "table")
    wishes = {
        "jitter": {"only": [0.0, 0.1], "weights": {0.1: 30}},
        "swap_noise": {"never": [0.05]},
        "feature_dropout": {"fixed": 0.15},
    }
    space, rng = space_of(wishes, families=(family,), reads=reads), np.random.default_rng(0)
    drawn = [space.recipe(space.sample(rng)).augmentation for _ in range(60)]
    assert np.mean([one.jitter == 0.1 for one in drawn]) > 0.85
    assert {one.swap_noise for one in drawn} == {0.0, 0.15}
    assert {one.feature_dropout for one in drawn} == {0.15}
    first = space.recipe(portfolio(space)[0]).augmentation
    assert (first.jitter, first.swap_noise, first.feature_dropout) == (0.0, 0.0, 0.15)


@pytest.mark.parametrize("strategy", [one for one in STRATEGIES if not one.needs], ids=lambda strategy: strategy.name)
def test_every_strategy_decides_on_augmentation(strategy: type[Strategy]) -> None:
    """In a space of nothing else each way is found."""
    fixed = space_of({}).sample(np.random.default_rng(0))
    wishes = {name: {"fixed": value} for name, value in fixed.choices.items()}
    ways = {name: {"never": [0.05]} for name in ("jitter", "swap_noise")}
    space = space_of({**wishes, **ways, "augmented": {"only": [1.0, 0.5]}}, families=(fixed.family,))
    study, seen, keys = optuna.create_study(direction="maximize", sampler=strategy.sampler(space, 0)), [], []
    for _ in range(12):
        trial, candidate = propose(study, space, keys)
        keys.append(space.canonical(candidate))
        seen.append(space.recipe(candidate).augmentation)
        study.tell(trial, -seen[-1].jitter)
    found = {(one.jitter, one.swap_noise, one.augmented) for one in seen}
    assert len(found) >= 10
    assert found <= set(product((0.0, 0.1, 0.2), (0.0, 0.15), (1.0, 0.5)))


def test_a_single_candidate_is_a_space_too() -> None:
    plain = SearchSpace.of(("mlp",), 2_000, 1, "regression")
    only = plain.sample(np.random.default_rng(0))
    space = space_of(
        {name: {"fixed": value} for name, value in only.choices.items()},
        families=("mlp",), max_epochs=1, problem="regression",
    )  # fmt: skip
    rng = np.random.default_rng(1)
    assert space.sample(rng) == space.mutate(only, rng) == portfolio(space)[0] == only
    assert list(space.neighbours(only, rng)) == []
    assert np.isfinite(space.encode(only)).all()


@pytest.mark.parametrize("rows", [200, 5_000, 2_000_000])
def test_batch_sizes_stay_possible_however_many_rows(rows: int) -> None:
    def left(wish: dict[str, Any]) -> tuple[object, ...]:
        space = space_of({"batch_size": wish}, rows=rows)
        return next(one.values for label, one in space.parameters("mlp") if label == "batch_size")

    assert left({"fixed": 256}) == (256,)
    assert left({"only": [64, 128]}) == (64, 128)
    assert left({"low": 128}) == {200: (128,), 5_000: (128, 256), 2_000_000: (1024, 2048, 4096)}[rows]
    assert left({"high": 512}) == {200: (16, 32, 64), 5_000: (64, 128, 256), 2_000_000: (512,)}[rows]


def test_dimensions_are_narrowed_to_what_is_left() -> None:
    def left(parameter: Option | Whole | Real, **wish: Any) -> object:
        return narrowed("key", "label", parameter, Preference.model_validate(wish))

    depth, rate = Whole("depth", 1, 5), Real("rate", 1e-4, 1e-1, log=True)
    assert left(Whole("width", 64, 384, step=64), low=100, high=300) == Whole("width", 128, 256, step=64)
    assert left(depth, never=[3]) == Option("depth", (1, 2, 4, 5))
    assert left(depth, low=2, weights={"2": 5}) == Option("depth", (2, 3, 4, 5), weights=(5, 1, 1, 1))
    assert left(rate, low=1e-3) == Real("rate", 1e-3, 1e-1, log=True)
    assert left(rate, low="1e-3", high=1e-3) == Option("rate", (0.001,))
    assert left(rate, only=["1e-3", 0.02], weights={0.02: 4}) == Option("rate", (0.001, 0.02), weights=(1, 4))
    assert left(Option("link", (False, True)), fixed=True) == Option("link", (True,))
    assert left(Option("smoothing", (0.0, 0.02)), fixed=0) == Option("smoothing", (0.0,))
    assert described(rate) == "a number from 0.0001 to 0.1"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"activaton": {"fixed": "relu"}}, r"dimension 'activaton' \(did you mean 'activation'\?\); known are .*width"),
    ({"swap_nois": {"fixed": 0.05}}, r"unknown dimension 'swap_nois' \(did you mean 'swap_noise'\?\)"),
    ({"mlp.dept": {"fixed": 2}}, r"unknown dimension 'mlp.dept' \(did you mean 'mlp.depth'\?\)"),
    ({"cell.width": {"fixed": 64}}, r"cell.width: a dimension of cell, not of what is searched \(mlp, resnet\)"),
    ({"activation": {"fixed": "rellu"}}, r"search.choices.activation: unknown value of activation 'rellu'.*'relu'"),
    ({"activation": {"never": ["tanh"]}}, "unknown value of activation 'tanh': expected one of elu, relu, silu"),
    ({"activation": {"weights": {"gelu": 2}}}, "unknown value of activation 'gelu'"),
    ({"mlp.width": {"fixed": 100}}, r"from 64 to 384 in steps of 64, got 100 \(nearest: 128\)"),
    ({"adamw_rate": {"fixed": 0.5}}, r"adamw_rate is a number from 0.0003 to 0.02, got 0.5 \(nearest: 0.02\)"),
    ({"adamw_rate": {"never": [1e-3]}}, "give it low and high, or a list as only"),
    ({"activation": {"low": 2}}, "low is for numbers, and activation is one of relu, silu, elu"),
    ({"mlp.depth": {"high": 9}}, "high 9 is outside of mlp.depth, .*from 1 to 5: choices narrow a space"),
    ({"activation": {"never": ["relu", "silu", "elu"]}}, "activation: nothing is left of mlp.activation"),
    ({"mlp.width": {"low": 65, "high": 100}}, "nothing is left of mlp.width"),
    ({"family": {"never": ["mlp", "resnet"]}}, "no family is left"),
    ({"family": {"only": ["cell"]}}, "unknown value of family 'cell'"),
    ({"optimizer": {"fixed": "sgd"}, "adamw_rate": {"fixed": 1e-3}},
     "adamw_rate: exists only where optimizer is adamw, and search.choices leaves optimizer as sgd"),
    ({"numeric_embedding": {"never": ["periodic"]}, "mlp.sigma": {"low": 0.1}},
     "mlp.sigma: exists only where numeric_embedding is periodic"),
    ({"batch_size": {"fixed": 100}}, "batch_size is one of 16, 32, .*got 100 .nearest: 128"),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "message"), WRONG)
def test_what_does_not_fit_the_space_is_told(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        space_of(choices)


def test_a_child_may_stay_where_one_family_still_has_it() -> None:
    space = space_of({"mlp.numeric_embedding": {"fixed": "none"}, "sigma": {"low": 0.1}})
    labels = dict(space.parameters("resnet"))
    assert labels["resnet.sigma"] == Real("sigma", 0.1, 1.0, log=True, when=labels["resnet.sigma"].when)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("{fixed: relu, only: [silu]}", "fixed to 'relu', which is not among only"),
        ("{fixed: relu, never: [relu]}", "fixed to 'relu', which is in never"),
        ("{only: [relu], never: [relu]}", "everything is ruled out"),
        ("{low: 3, high: 2}", "low 3 is above high 2"),
        ("{fixed: 5, high: 2}", "fixed to 5, which is above high"),
        ("{fixed: relu, weights: {relu: 2}}", "weights mean nothing"),
        ("{never: [relu], weights: {relu: 2}}", "weighted is 'relu', which is in never"),
        ("{weights: {relu: 0}}", "greater than 0"),
        ("{}", "says nothing: give one of fixed"),
        ("{fixd: relu}", r"search.choices.activation.fixd: unknown key \(did you mean 'fixed'\?\)"),
        ("{only: [[relu]]}", "expected a word, a number or true or false"),
    ],
)
def test_what_contradicts_itself_is_told_with_the_file(wish: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    text = to_yaml(make_task()).replace("choices: {}", f"choices: {{activation: {wish}}}")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=message) as error:
        load(path)
    assert "search.choices.activation" in str(error.value)


def test_a_space_without_families_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(to_yaml(make_task()).replace("families: [mlp, resnet]", "families: []"), encoding="utf-8")
    with pytest.raises(TaskError, match=r"line \d+: search.families: expected a list of one or more"):
        load(path)


def test_choices_come_back_from_their_file(tmp_path: Path) -> None:
    task = make_task(search={"choices": {**KNOWN, "mlp.pieces": {"weights": {8: 2, 16: 1.5}}}})
    path = tmp_path / "task.yaml"
    path.write_text(to_yaml(task), encoding="utf-8")
    back = load(path)
    assert back.search.model_dump_json() == task.search.model_dump_json()
    assert "optimizer: {fixed: adamw}" in path.read_text()
    spaces = [SearchSpace.of(("mlp",), 500, 9, "binary", one.search.choices).parameters("mlp") for one in (back, task)]
    assert spaces[0] == spaces[1]


def test_choices_are_part_of_the_question_and_of_the_plan() -> None:
    wishes = {"activation": Preference(fixed="relu")}
    tasks = [make_task(), make_task(search={"choices": wishes}), make_task(search={"choices": {}})]
    names = [fingerprint(task, "data", 0, None) for task in tasks]
    assert names[0] == names[2] != names[1]
    plan = Plan(
        problem="binary", metric="auc", strategy="random", families=("mlp",), rows=500, max_epochs=9, trials=1,
        workers=1, deadline=0.0, seed=0, layout=Layout(numeric=("x",)), d_out=2, choices=wishes,
    )  # fmt: skip
    read = Plan.model_validate_json(plan.model_dump_json())
    assert read == plan
    assert dict(read.space.parameters("mlp"))["mlp.activation"] == Option("activation", ("relu",))


def test_a_search_with_wrong_choices_never_starts(tmp_path: Path) -> None:
    task = make_task(search={"choices": {"activaton": {"fixed": "relu"}}})
    with pytest.raises(TaskError, match="unknown dimension 'activaton'"):
        search(task, make_frame(10), folder=tmp_path / "s", out=tmp_path / "o", trials=1, seconds=1, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_dimension_of_every_family_can_be_fixed_to_its_default(family: Any) -> None:
    for one in family.parameters():
        if one.when is None:
            value = one.snap(DEFAULTS[one.name])
            space = space_of({f"{family.name}.{one.name}": {"fixed": value}}, families=(family.name,))
            assert space.sample(np.random.default_rng(0)).choices[one.name] == value


def test_choices_for_images_are_refused_on_a_table_before_it_is_prepared(tmp_path: Path) -> None:
    task = make_task(search={"choices": {"crop": {"high": 0.1}}})
    require_means(task)
    with pytest.raises(TaskError, match="unknown dimension 'crop'"):
        search(task, make_frame(300), folder=tmp_path / "study", out=tmp_path / "out", trials=1, seconds=30, seed=0)
    assert not list((tmp_path / "study").rglob("arrays"))


def test_a_family_that_the_strategy_needs_is_not_ruled_out() -> None:
    means = {"strategy": "one-shot", "families": ("mlp", "cell")}
    require_means(make_task(search=means))
    with pytest.raises(TaskError, match=r"search\.families must have one of 'chain', 'cell', 'darts'"):
        require_means(make_task(search={**means, "choices": {"family": Preference(never=("cell",))}}))


def test_a_study_is_another_one_by_its_stopping_but_keeps_its_name_without() -> None:
    names = [
        fingerprint(make_task(search=one), "data", 0, None) for one in ({}, {"stopping": "asha"}, {"stopping": "none"})
    ]
    assert names[0] == names[1] != names[2]
