"""What former studies teach: a predictor over tasks, and the strategy that begins with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from registry.schema import NumericColumn, Schema
from registry.target import Target
from retrain.families.base import Candidate
from retrain.search.experience import LEAST, Experience, Facts, Former
from retrain.search.space import SearchSpace
from retrain.search.strategies.tapas import FIRST, Tapas
from tests.handmade import make_bundle

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
    expected = experience.expect(SPACE, drawn)
    names = np.array([one.text("activation") for one in drawn])
    return {name: float(expected[names == name].mean()) for name in ("relu", "silu", "elu")}


def test_what_was_good_elsewhere_is_expected_to_be_good() -> None:
    means = told(Experience(facts=HERE, formers=(study("silu"), study("silu", seed=2))))
    assert means["silu"] > max(means["relu"], means["elu"]) + 0.2


def test_a_task_counts_the_more_the_more_alike_its_data_are() -> None:
    assert HERE.likeness(HERE) == 1 + LEAST
    assert LEAST < HERE.likeness(HERE.model_copy(update={"rows": 8_000})) < 1
    assert HERE.likeness(ELSEWHERE) < LEAST + 1e-6
    means = told(Experience(facts=HERE, formers=(study("silu"), study("elu", ELSEWHERE))))
    assert means["silu"] > means["elu"]
    means = told(Experience(facts=ELSEWHERE, formers=(study("silu"), study("elu", ELSEWHERE))))
    assert means["elu"] > means["silu"]


def test_studies_of_other_spaces_teach_nothing() -> None:
    strange = tuple(Candidate(family="convnet", choices={"blocks": 1}) for _ in range(20))
    experience = Experience(facts=HERE, formers=(Former(facts=HERE, candidates=strange),))
    assert experience.expect(SPACE, [SPACE.sample(np.random.default_rng(0))]).tolist() == [0.0]


def test_batches_are_compared_by_the_steps_they_make() -> None:
    """The smallest batches were best on a tenth of the rows: here the smallest are, too."""
    rng, small = np.random.default_rng(0), SearchSpace.of(("mlp",), 1_000, 9, "binary")
    drawn = sorted((small.sample(rng) for _ in range(60)), key=lambda one: one.count("batch_size"))
    former = Former(facts=HERE.model_copy(update={"rows": 1_000}), candidates=tuple(drawn))
    space = SearchSpace.of(("mlp",), 31_000, 9, "binary")
    asked = [space.sample(rng) for _ in range(200)]
    facts = HERE.model_copy(update={"rows": 31_000})
    expected = Experience(facts=facts, formers=(former,)).expect(space, asked)
    sizes = np.array([one.count("batch_size") for one in asked])
    means = [float(expected[sizes == size].mean()) for size in (512, 1024, 2048)]
    assert means == sorted(means, reverse=True)


def test_tapas_begins_with_the_most_promising_and_is_gp_without_studies() -> None:
    experience = Experience(facts=HERE, formers=(study("silu"), study("silu", seed=2)))
    taught, plain = (Tapas(one, np.random.default_rng(0)) for one in (replace(SPACE, experience=experience), SPACE))
    first = [taught.ask().candidate for _ in range(FIRST)]
    assert {one.text("activation") for one in first} == {"silu"}
    assert len({one.key for one in first}) == FIRST
    assert SPACE.expected(first) is None
    assert len({plain.ask().candidate.text("activation") for _ in range(FIRST)}) > 1


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


def test_facts_count_columns_by_kind() -> None:
    schema = Schema(columns=(NumericColumn(name="x", low=0.0, high=1.0),))
    assert Facts.of(90, schema, Target(problem="regression")) == Facts(rows=90, numeric=1, other=0, classes=1)
