"""What former studies teach: a prior for a new search, what opens it, and when it is dropped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from registry.schema import NumericColumn, Schema
from registry.target import Target
from retrain.families.base import Candidate
from retrain.search.budget import Budget
from retrain.search.experience import MOST, Experience, Facts, Former, lesson
from retrain.search.material import gather
from retrain.search.portfolio import opening, portfolio
from retrain.search.progress import silent
from retrain.search.session import Session
from retrain.search.space import SearchSpace
from retrain.search.strategies.auto import Auto
from retrain.search.strategies.base import AskTellSampler, Seen
from retrain.search.strategies.guided import GaussianGuided
from retrain.search.strategies.tapas import Tapas
from retrain.search.tally import origin_of
from retrain.search.taught import STRANGE, Informed, first
from retrain.search.worker import Worker
from tests.handmade import make_bundle, make_frame, make_task

SPACE = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
HERE = Facts(rows=2_000, numeric=10, other=2, classes=2)
ELSEWHERE = Facts(rows=200_000, numeric=300, other=40, classes=12)


def study(best: str, facts: Facts = HERE, seed: int = 0) -> Former:
    """Forty candidates at random, those of an activation first."""
    rng = np.random.default_rng(seed)
    drawn = [SPACE.sample(rng) for _ in range(40)]
    return Former(facts=facts, candidates=tuple(sorted(drawn, key=lambda one: one.text("activation") != best)))


def told(experience: Experience) -> dict[str, float]:
    """The mean of what is expected of candidates by their activation."""
    rng = np.random.default_rng(1)
    drawn = [SPACE.sample(rng) for _ in range(200)]
    taught = experience.taught(SPACE)
    assert taught is not None
    expected = taught.expect(np.stack([SPACE.encode(one) for one in drawn]))
    names = np.array([one.text("activation") for one in drawn])
    return {name: float(expected[names == name].mean()) for name in ("relu", "silu", "elu")}


def test_what_was_good_elsewhere_is_expected_to_be_good() -> None:
    means = told(Experience(facts=HERE, formers=(study("silu"), study("silu", seed=2))))
    assert means["silu"] > max(means["relu"], means["elu"]) + 0.2


def test_a_task_counts_the_more_the_more_alike_its_data_are() -> None:
    assert HERE.likeness(HERE) == 1 + STRANGE
    assert STRANGE < HERE.likeness(HERE.model_copy(update={"rows": 8_000})) < 1
    assert HERE.likeness(ELSEWHERE) < STRANGE + 1e-6
    means = told(Experience(facts=HERE, formers=(study("silu"), study("elu", ELSEWHERE))))
    assert means["silu"] > means["elu"]
    means = told(Experience(facts=ELSEWHERE, formers=(study("silu"), study("elu", ELSEWHERE))))
    assert means["elu"] > means["silu"]


def test_of_many_studies_the_most_alike_teach() -> None:
    one = study("silu")
    likes = [one.model_copy(update={"facts": HERE.model_copy(update={"rows": 100 * n})}) for n in range(1, MOST + 11)]
    taught = Experience(facts=HERE, formers=tuple(likes)).taught(SPACE)
    assert taught is not None
    weights = sorted((HERE.likeness(one.facts) for one in likes), reverse=True)
    assert [one.weight for one in taught.studies] == weights[:MOST]


def test_studies_of_other_spaces_teach_nothing() -> None:
    strange = tuple(Candidate(family="convnet", choices={"blocks": 1}) for _ in range(20))
    experience = Experience(facts=HERE, formers=(Former(facts=HERE, candidates=strange),))
    assert experience.taught(SPACE) is None


def test_studies_of_images_teach_a_table_nothing() -> None:
    """The spaces of architectures have both: some of a chain's layers fit either."""
    schema, target = Schema(columns=(NumericColumn(name="x", low=0.0, high=1.0),)), Target(problem="regression")
    table, image = study("silu"), study("silu").model_copy(update={"image": True})
    assert Experience.of(90, schema, target, (image,)) is None
    found = Experience.of(90, schema, target, (image, table))
    assert found is not None
    assert found.formers == (table,)


def test_it_is_told_whose_studies_teach_or_why_none_does() -> None:
    like, own = (study("silu").model_copy(update={"task": name}) for name in ("bike", "here"))
    image = like.model_copy(update={"image": True, "task": "digits"})
    strange = tuple(Candidate(family="convnet", choices={"blocks": 1}) for _ in range(20))
    odd = Former(facts=HERE, candidates=strange, task="odd")

    def said(*formers: Former) -> str | None:
        tables = tuple(one for one in formers if not one.image)
        experience = Experience(facts=HERE, formers=tables) if tables else None
        return lesson("here", formers, experience, experience and experience.taught(SPACE))

    assert said() is said(own) is None
    assert said(own, like, image) == "learning from the studies of 1 other task: bike"
    assert said(own, image) == "nothing is learnt from the studies of other tasks (digits): tables and images differ"
    assert "other tasks (odd): fewer than 8 of their candidates" in str(said(odd))


def test_batches_are_compared_by_the_steps_they_make() -> None:
    """The smallest batches were best on a tenth of the rows: here the smallest are, too."""
    rng, small = np.random.default_rng(0), SearchSpace.of(("mlp",), 1_000, 9, "binary")
    drawn = sorted((small.sample(rng) for _ in range(60)), key=lambda one: one.count("batch_size"))
    former = Former(facts=HERE.model_copy(update={"rows": 1_000}), candidates=tuple(drawn))
    space = SearchSpace.of(("mlp",), 31_000, 9, "binary")
    asked = [space.sample(rng) for _ in range(200)]
    facts = HERE.model_copy(update={"rows": 31_000})
    taught = Experience(facts=facts, formers=(former,)).taught(space)
    assert taught is not None
    expected = taught.expect(np.stack([space.encode(one) for one in asked]))
    sizes = np.array([one.count("batch_size") for one in asked])
    means = [float(expected[sizes == size].mean()) for size in (512, 1024, 2048)]
    assert means == sorted(means, reverse=True)


def taught_by(*studies: Former) -> SearchSpace:
    """The space of a task that knows these studies."""
    return replace(SPACE, experience=Experience(facts=HERE, formers=studies))


@pytest.mark.parametrize("strategy", [Auto, Tapas])
def test_a_search_begins_with_the_most_promising_until_that_is_of_no_use(strategy: type[GaussianGuided]) -> None:
    space = taught_by(study("silu"), study("silu", seed=2))
    taught, plain = (strategy(one, np.random.default_rng(0)) for one in (space, SPACE))
    for number in range(6):  # all alike: what was seen says nothing against what was taught
        candidate = taught.ask().candidate
        assert candidate.text("activation") == "silu"
        taught.tell(Seen(number, candidate, 0.7))
    taught.forget()
    for one in (taught, plain):
        assert len({one.ask().candidate.text("activation") for _ in range(16)}) > 1


def test_what_is_seen_corrects_what_was_taught() -> None:
    """Former tasks liked silu; here elu is better, as the first trials show."""
    space, rng = taught_by(study("silu"), study("silu", seed=2)), np.random.default_rng(3)
    assert space.taught is not None
    drawn = [space.sample(rng) for _ in range(30)]
    places = np.stack([space.encode(one) for one in drawn])
    scores = np.array([1.0 if one.text("activation") == "elu" else -0.5 for one in drawn])
    process = Informed.fit(space.taught, places, scores)
    asked = [space.sample(rng) for _ in range(300)]
    asked_places = np.stack([space.encode(one) for one in asked])
    mean, deviation = process.predict(asked_places)
    silu, elu = (np.array([one.text("activation") == name for one in asked]) for name in ("silu", "elu"))
    expected = space.taught.expect(asked_places)
    assert expected[silu].mean() > expected[elu].mean() + 0.2
    assert mean[elu].mean() > mean[silu].mean() + 0.1
    assert process.predict(places)[1].mean() < deviation.mean()


def test_candidates_to_try_first_are_those_of_each_study_in_turn() -> None:
    """Two kinds of task: what is best for one is not for the other, and what is good for both is neither's best."""
    silu, elu = study("silu"), study("elu", seed=2)
    taught = taught_by(silu, elu, elu).taught
    assert taught is not None
    assert {one.text("activation") for one in first(taught, 2)} == {"silu", "elu"}
    assert taught.shares.sum() == pytest.approx(1, abs=0.02)
    assert len(first(taught, 1_000)) == len(taught.candidates) == 80


def drawing() -> Callable[[], Candidate]:
    return partial(SPACE.sample, np.random.default_rng(0))


def test_a_search_that_is_taught_opens_with_both_kinds_in_turn() -> None:
    defaults = portfolio(SPACE)
    assert opening(defaults, None, drawing()) == [(one, "portfolio") for one in defaults]
    taught = taught_by(study("silu")).taught
    assert taught is not None
    opened = opening([*first(taught, 1), *defaults], taught, drawing())
    assert [origin for _, origin in opened] == ["prior", "prior", "fresh", "prior", *["fresh"] * 7]
    assert [one for one, origin in opened if origin == "fresh"] == defaults
    assert [one for one, origin in opened if origin == "prior"] == first(taught, 3)
    few = opening(defaults[:1], taught, drawing())  # as a space of one family of architectures has
    assert [origin for _, origin in few] == ["prior", "prior", "fresh", "prior", "fresh", "fresh"]


@pytest.mark.parametrize("better", ["prior", "fresh"])
def test_a_worker_drops_what_was_taught_when_defaults_beat_it(better: str, tmp_path: Path) -> None:
    task = make_task(search={"families": ["mlp", "resnet"], "workers": 1, "strategy": "auto", "stopping": "none"})
    session = Session(task, tmp_path / "study", Budget(time.monotonic(), 40, 600.0, 0), None, silent, [study("silu")])
    session.folder.mkdir()
    session._ready(gather(task, make_frame(200)))
    worker = Worker(session.folder, 0)
    for number in range(11):
        asked = worker._ask()
        assert asked is not None
        trial, _ = asked
        worker.study.tell(trial, number / 100 + (0.8 if origin_of(trial) == better else 0.6))
    asked = worker._ask()
    assert asked is not None
    assert origin_of(asked[0]) == "sampled"
    assert isinstance(worker.study.sampler, AskTellSampler)
    assert isinstance(worker.study.sampler.strategy, Auto)
    assert (worker.study.sampler.strategy.taught is None) == (better == "fresh")


def test_a_bundle_tells_of_its_study(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert Former.of(bundle) is None
    drawn = study("relu").candidates[:9]
    file = bundle.folder / "candidates.json"
    file.write_text(json.dumps({"study": [{"candidate": one.model_dump()} for one in drawn]}))
    found = Former.of(bundle)
    assert found is not None
    assert found.candidates == drawn
    assert found.facts.rows == bundle.manifest.lineage.rows["train"]
    assert found.facts.classes == len(bundle.manifest.target.classes)
    file.write_text(json.dumps({"study": [{"candidate": one.model_dump(), "rows": 7_000} for one in drawn]}))
    found = Former.of(bundle)
    assert found is not None
    assert found.facts.rows == 7_000  # of the search, whatever the bundle has learnt since


def test_facts_count_columns_by_kind() -> None:
    schema = Schema(columns=(NumericColumn(name="x", low=0.0, high=1.0),))
    assert Facts.of(90, schema, Target(problem="regression")) == Facts(rows=90, numeric=1, other=0, classes=1)
