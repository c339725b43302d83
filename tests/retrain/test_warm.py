"""Warm starts: weights matched by name, the guard, and no weights that have seen the rows that judge them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import safetensors.torch
import torch

from registry.bundle import CANDIDATES, WEIGHTS, ModelBundle
from registry.conforming import conform
from registry.schema import Schema, TextColumn
from retrain.export import Member, member_outputs
from retrain.families.base import Candidate, TabularNet
from retrain.families.catalogue import FAMILIES, family_named
from retrain.families.parameters import Choice
from retrain.preparation import Preparation
from retrain.search.defaults import DEFAULTS
from retrain.search.heritage import hand_down
from retrain.search.inputs import Layout
from retrain.search.material import Material, gather, layout_of
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.tally import ORIGIN, guard
from retrain.search.warm import Elder, PriorMembers, guard_fires, inherit, interleave
from retrain.search.worker import prior_members, prior_weights
from tests.handmade import make_bundle, make_frame, make_task

OLD = Layout(numeric=("a", "b"), categorical=(("city", ("rome", "oslo")), ("kind", ("x", "y"))))
NEW = Layout(numeric=("b", "c"), categorical=(("kind", ("y", "z")), ("city", ("oslo", "rome"))))
SPACE = SearchSpace.of(("mlp", "resnet"), 420, 9, "binary")
EVERY = SearchSpace.of([family.name for family in FAMILIES], 420, 9, "binary")


def candidate_of(family: str, **own: Choice) -> Candidate:
    choices: dict[str, Choice] = {"numeric_embedding": "periodic", "width": 64, "depth": 1, **own}
    candidate = EVERY.fit(Candidate(family=family, choices=choices), DEFAULTS)
    assert candidate is not None
    return candidate


def build(family: str, layout: Layout, seed: int, embedding: str = "periodic", **own: Choice) -> TabularNet:
    candidate = candidate_of(family, numeric_embedding=embedding, **own)
    torch.manual_seed(seed)
    network = family_named(family).build(candidate, len(layout.numeric), layout.cardinalities, 2)
    torch.nn.init.normal_(network.inputs.words.table.weight)  # type: ignore[union-attr]
    return network.eval()


every_family = pytest.mark.parametrize("family", [family.name for family in FAMILIES if "table" in family.reads])


@every_family
@pytest.mark.parametrize("embedding", ["none", "periodic", "piecewise"])
def test_the_same_columns_in_another_order_give_the_same_answers(family: str, embedding: str) -> None:
    turned = Layout(numeric=("b", "a"), categorical=OLD.categorical[::-1])
    old, new = build(family, OLD, 0, embedding), build(family, turned, 1, embedding)
    state = inherit(new, old.state_dict(), OLD, turned, keep=1.0)
    assert state is not None
    new.load_state_dict(state)
    numeric, categories = torch.randn(5, 2), torch.randint(4, (5, 2))
    torch.testing.assert_close(old(numeric, categories), new(numeric.flip(1), categories.flip(1)))


@every_family
def test_what_is_new_keeps_its_own_weights(family: str) -> None:
    old, new = build(family, OLD, 0), build(family, NEW, 1)
    state, own = inherit(new, old.state_dict(), OLD, NEW, keep=1.0), new.state_dict()
    assert state is not None
    table, mine, theirs = (one["inputs.words.table.weight"] for one in (state, own, old.state_dict()))
    assert torch.equal(table[3], mine[3])  # kind z is new
    assert torch.equal(table[2], theirs[7])  # kind y
    assert torch.equal(table[6], theirs[3])  # city oslo
    frequencies = "inputs.numbers.frequencies"
    assert torch.equal(state[frequencies][0], old.state_dict()[frequencies][1])
    assert torch.equal(state[frequencies][1], own[frequencies][1])


@every_family
def test_shrinking_stands_between_old_and_own(family: str) -> None:
    old, new = build(family, OLD, 0), build(family, OLD, 1)
    state = inherit(new, old.state_dict(), OLD, OLD, keep=0.75)
    assert state is not None
    expected = 0.75 * old.state_dict()["first.weight"] + 0.25 * new.state_dict()["first.weight"]
    torch.testing.assert_close(state["first.weight"], expected)


def answers(network: TabularNet, layout: Layout = OLD) -> torch.Tensor:
    torch.manual_seed(9)
    codes = torch.stack([torch.randint(count, (50,)) for count in layout.cardinalities], dim=1)
    return network(torch.randn(50, len(layout.numeric)), codes).detach()


def grown(old: TabularNet, new: TabularNet) -> TabularNet:
    """The new one with all that the old one hands down."""
    state = inherit(new, old.state_dict(), OLD, OLD, keep=1.0)
    assert state is not None
    new.load_state_dict(state)
    return new


def seasoned(network: TabularNet) -> TabularNet:
    """Its batch norms have seen rows, and are no identity."""
    with torch.no_grad():
        for _ in range(20):
            network.train()(2 + torch.randn(64, 2), torch.randint(4, (64, 2)))
    return network.eval()


@pytest.mark.parametrize(
    ("family", "before", "after"),
    [
        ("mlp", {"normalisation": "none", "width": 64}, {"width": 192}),
        ("mlp", {"normalisation": "none", "depth": 2}, {"depth": 4}),
        ("mlp", {"normalisation": "batch", "depth": 3, "width": 128}, {"width": 192}),
        ("mlp", {"normalisation": "layer", "depth": 2, "width": 64}, {"width": 128}),
        ("mlp", {"normalisation": "batch", "category_cap": 4}, {"category_cap": 32}),
        ("resnet", {"normalisation": "batch", "width": 64}, {"width": 192}),
        ("resnet", {"normalisation": "layer", "depth": 1}, {"depth": 4}),
        ("resnet", {"normalisation": "batch", "expansion": 1.0}, {"expansion": 1.5}),
        ("resnet", {"normalisation": "layer", "depth": 1, "width": 64}, {"depth": 2, "width": 128}),
    ],
)
def test_larger_networks_begin_with_the_same_answers(
    family: str, before: dict[str, Choice], after: dict[str, Choice]
) -> None:
    """Net2Net: wider and deeper without another answer, where normalisation and activation let them."""
    old = seasoned(build(family, OLD, 0, **before))
    new = build(family, OLD, 1, **{**before, **after})
    assert (answers(new) - answers(old)).abs().max() > 0.1
    torch.testing.assert_close(answers(grown(old, new)), answers(old), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["mlp", "resnet"])
@pytest.mark.parametrize("smaller", [{"width": 64}, {"depth": 1}, {"depth": 1, "width": 128, "category_cap": 4}])
def test_smaller_networks_take_the_slices_there_are(family: str, smaller: dict[str, Choice]) -> None:
    large: dict[str, Choice] = {"width": 192, "depth": 3, "normalisation": "batch", "category_cap": 16}
    old, new = build(family, OLD, 0, **large), build(family, OLD, 1, **{**large, **smaller})
    grown(old, new)
    rows = new.first.weight.shape[0]
    assert torch.equal(new.first.weight[:, :2], old.first.weight[:rows, :2])
    assert answers(new).isfinite().all()


def test_the_nearest_akin_member_is_the_one() -> None:
    layout = Layout(numeric=("a",))
    small, large = candidate_of("mlp", width=64), candidate_of("mlp", width=384, depth=5)
    elders = PriorMembers(
        by_prefix={"s": Elder(candidate=small, layout=layout), "l": Elder(candidate=large, layout=layout)}
    )
    assert elders.nearest(candidate_of("mlp", width=128, depth=2)) == "s"
    assert elders.nearest(candidate_of("mlp", width=320, depth=3)) == "l"
    assert elders.nearest(candidate_of("mlp", activation="elu")) is None
    assert elders.nearest(candidate_of("resnet")) is None


def test_another_number_of_outputs_inherits_nothing() -> None:
    old = build("mlp", OLD, 0)
    weights = {
        name: torch.cat([value, value[:1]]) if "head" in name else value for name, value in old.state_dict().items()
    }
    assert inherit(build("mlp", OLD, 1), weights, OLD, OLD) is None


def test_words_of_a_text_keep_their_weights_under_another_order() -> None:
    def preparation(*words: str) -> Preparation:
        schema = Schema(columns=(TextColumn(name="letter", words=words),))
        frame = pd.DataFrame({"letter": ["late and lost", "late", "lost once more", "fine"]})
        return Preparation.fit(conform(frame, schema), schema)

    before, now = layout_of(preparation("late", "lost")), layout_of(preparation("lost", "fine", "late"))
    assert before.numeric == ("letter characters", "letter words", "letter: late", "letter: lost")
    assert now.numeric[2:] == ("letter: lost", "letter: fine", "letter: late")


def test_another_architecture_inherits_nothing() -> None:
    assert inherit(build("mlp", OLD, 0), build("resnet", OLD, 0).state_dict(), OLD, OLD) is None
    narrow = {name: value[:1] for name, value in build("mlp", OLD, 0).state_dict().items() if value.dim()}
    assert inherit(build("mlp", OLD, 0), narrow, OLD, OLD) is None


def test_the_guard_needs_enough_of_each_and_a_clear_case() -> None:
    assert not guard_fires([0.6, 0.6], [0.7, 0.7, 0.7], greater_is_better=True)
    assert not guard_fires([0.6, 0.6, 0.8], [0.7, 0.7, 0.7], greater_is_better=True)
    assert not guard_fires([0.6, 0.6, 0.6], [0.7, 0.5, 0.5], greater_is_better=True)
    assert guard_fires([0.6, 0.6, 0.6], [0.5, 0.5, 0.7], greater_is_better=False)


def test_the_guard_reads_the_journal() -> None:
    study = optuna.create_study(direction="maximize")
    for origin, value in [("prior", 0.6), ("fresh", 0.7)] * 3:
        study.enqueue_trial({}, user_attrs={ORIGIN: origin})
        study.tell(study.ask(), value)
    assert guard(study.trials, greater_is_better=True)
    assert not guard(study.trials[:-1], greater_is_better=True)


def test_every_second_is_fresh() -> None:
    assert interleave(["p0", "p1", "p2", "p3"], ["f0", "f1"]) == ["p0", "f0", "p1", "f1", "p2", "p3"]


@pytest.fixture(scope="module")
def material() -> Material:
    return gather(make_task(), make_frame(ROWS))


ROWS = 600


def prior_bundle(folder: Path, material: Material, trained_until: str | None) -> ModelBundle:
    """A bundle whose one member is a network over the material's columns."""
    bundle = make_bundle(folder)
    preparation = material.preparations["robust"]
    candidate = portfolio(SPACE)[0]
    layout = layout_of(preparation)
    network = family_named(candidate.family).build(candidate, len(layout.numeric), layout.cardinalities, 2)
    safetensors.torch.save_file({f"member0.{k}": v for k, v in network.state_dict().items()}, folder / WEIGHTS)
    gone = {"family": "transformer", "choices": {}}
    told = {
        "members": [{"candidate": candidate.model_dump(), "preparation": preparation.model_dump(mode="json")}],
        "study": [{"candidate": one.model_dump()} for one in portfolio(SPACE)] + [{"candidate": gone}],
        "trained_until": trained_until,
    }
    (folder / CANDIDATES).write_text(json.dumps(told))
    return ModelBundle.seal(folder, bundle.manifest)


def first_judged(material: Material) -> pd.Timestamp:
    return pd.Timestamp(material.oldest(material.parts.validation))  # type: ignore[arg-type]


def test_weights_are_handed_down_when_they_are_older_than_what_judges_them(tmp_path: Path, material: Material) -> None:
    until = first_judged(material) - pd.Timedelta("1min")
    heritage = hand_down(prior_bundle(tmp_path / "prior", material, until.isoformat()), material, SPACE, tmp_path)
    assert heritage.handed[0].member == "member0."
    assert [one.member for one in heritage.handed[1:]] == [None] * 7
    assert heritage.dropped == 1
    assert prior_members(tmp_path).by_prefix["member0."].layout == material.layout
    assert "first.weight" in prior_weights(tmp_path, "member0.")


def same_but_for_the_last_layer(elder: Member, stored: dict[str, torch.Tensor]) -> bool:
    state = elder.module.state_dict()
    inner = [name for name in state if not name.startswith("head.")]
    return len(inner) > 0 and all(torch.equal(state[name], stored[name]) for name in inner)


def test_elders_answer_at_the_new_level(tmp_path: Path, material: Material) -> None:
    until = first_judged(material) - pd.Timedelta("1min")
    prior = prior_bundle(tmp_path / "prior", material, until.isoformat())
    (elder,) = hand_down(prior, material, SPACE, tmp_path).elders.members
    assert elder.preparation == material.preparations["robust"]
    assert same_but_for_the_last_layer(elder, prior_weights(tmp_path, "member0."))
    rows = material.parts.train
    shares = np.bincount(material.labels[rows]) / len(rows)
    answers = torch.softmax(torch.from_numpy(member_outputs([elder], material.conformed.iloc[rows])[0]), dim=1)
    assert answers.mean(dim=0).numpy() == pytest.approx(shares, abs=0.005)


def test_elders_stand_only_where_rows_they_have_not_seen_can_judge_them(tmp_path: Path, material: Material) -> None:
    """Of 1,500 rows with spread validation, the prior has seen some runs, then nearly all; it inherits in neither."""
    task = make_task(splits={"validation": 0.12, "calibration": 0.1, "test": 0.1, "spread": 3.0})
    spread = gather(task, make_frame(1_500))
    times = pd.to_datetime(spread.frame["when"])
    early, late = times.iloc[spread.parts.validation].quantile([0.4, 0.95])
    some = prior_bundle(tmp_path / "some", material, early.isoformat())
    heritage = hand_down(some, spread, SPACE, tmp_path)
    assert len(heritage.elders.members) == 1
    assert heritage.elders.until == early
    assert "not inherited" in heritage.weights
    unseen = spread.after(heritage.elders.until, spread.parts.validation)
    assert 0.5 < unseen.mean() < 0.7
    seen = prior_bundle(tmp_path / "seen", material, late.isoformat())
    assert hand_down(seen, spread, SPACE, tmp_path).elders.members == ()


def test_each_member_keeps_its_own_layout_whatever_became_of_its_neighbours(tmp_path: Path, material: Material) -> None:
    until = (first_judged(material) - pd.Timedelta("1min")).isoformat()
    now = material.preparations["robust"]
    before = turned(now)
    assert layout_of(now) != layout_of(before)
    prior = with_members(prior_bundle(tmp_path / "prior", material, until), [None, now, before])
    heritage = hand_down(prior, material, SPACE, tmp_path)
    assert prior_members(tmp_path).by_prefix["member1."].layout == layout_of(now)
    assert prior_members(tmp_path).by_prefix["member2."].layout == layout_of(before)
    assert [elder.preparation for elder in heritage.elders.members] == [now, before]
    for elder, prefix in zip(heritage.elders.members, ("member1.", "member2."), strict=True):
        assert same_but_for_the_last_layer(elder, prior_weights(tmp_path, prefix))


def turned(preparation: Preparation) -> Preparation:
    """As another generation would have it: the same categories, their frequencies the other way round."""
    columns = tuple(one.model_copy(update={"categories": one.categories[::-1]}) for one in preparation.categories)
    return preparation.model_copy(update={"categories": columns})


def with_members(bundle: ModelBundle, preparations: list[Preparation | None]) -> ModelBundle:
    """The bundle with one member for each preparation; one that nobody can read for None."""
    weights, members = {}, []
    for place, preparation in enumerate(preparations):
        if preparation is None:
            members.append({"candidate": {"name": "of another age"}, "preparation": {}})
            continue
        candidate, layout = portfolio(SPACE)[place], layout_of(preparation)
        network = family_named(candidate.family).build(candidate, len(layout.numeric), layout.cardinalities, 2)
        weights |= {f"member{place}.{name}": value for name, value in network.state_dict().items()}
        told = preparation.model_dump(mode="json")
        members.append({"candidate": candidate.model_dump(), "preparation": told})
    safetensors.torch.save_file(weights, bundle.folder / WEIGHTS)
    told = json.loads((bundle.folder / CANDIDATES).read_text()) | {"members": members}
    (bundle.folder / CANDIDATES).write_text(json.dumps(told))
    return ModelBundle.seal(bundle.folder, bundle.manifest)


@pytest.mark.parametrize("later", ["0min", "30D"])
def test_weights_that_have_seen_what_judges_them_are_not(tmp_path: Path, material: Material, later: str) -> None:
    until = first_judged(material) + pd.Timedelta(later)
    heritage = hand_down(prior_bundle(tmp_path / "prior", material, until.isoformat()), material, SPACE, tmp_path)
    assert {one.member for one in heritage.handed} == {None}
    assert "not inherited" in heritage.weights
    assert len(heritage.handed) == 8


def test_without_a_time_nobody_can_tell(tmp_path: Path) -> None:
    timeless = gather(make_task(time=None), make_frame(ROWS).drop(columns="when"))
    heritage = hand_down(prior_bundle(tmp_path / "prior", timeless, None), timeless, SPACE, tmp_path)
    assert {one.member for one in heritage.handed} == {None}


def test_the_queue_mixes_prior_and_fresh(tmp_path: Path, material: Material) -> None:
    heritage = hand_down(prior_bundle(tmp_path / "prior", material, None), material, SPACE, tmp_path)
    study = optuna.create_study(direction="maximize")
    heritage.enqueue(study, SPACE, seed=0)
    assert [trial.user_attrs[ORIGIN] for trial in study.trials] == ["prior", "fresh"] * 8


def test_the_first_fresh_ones_are_the_defaults_that_the_prior_lacks(tmp_path: Path, material: Material) -> None:
    space, study = SearchSpace.of(("mlp", "resnet"), 420, 27, "binary"), optuna.create_study()
    heritage = hand_down(prior_bundle(tmp_path / "prior", material, None), material, space, tmp_path)
    heritage.enqueue(study, space, seed=0)
    queued = [trial.system_attrs["fixed_params"] for trial in study.trials if trial.user_attrs[ORIGIN] == "fresh"]
    known = [one.candidate.key for one in heritage.handed]
    lacking = [space.params(one) for one in portfolio(space) if one.key not in known]
    assert lacking
    assert queued[: len(lacking)] == lacking


def test_a_record_tells_what_became_of_it(tmp_path: Path, material: Material) -> None:
    heritage = hand_down(prior_bundle(tmp_path / "prior", material, None), material, SPACE, tmp_path)
    study = optuna.create_study(direction="maximize")
    heritage.enqueue(study, SPACE, seed=0)
    assert heritage.record(study) | {"weights": ""} == {
        "handed": 8, "tried": 0, "dropped": 1, "refused": 0, "guard_fired": False, "weights": "", "elders": 0,
    }  # fmt: skip
