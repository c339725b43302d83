"""Networks that learn the rows that were held out from them: when, which, and without a look ahead."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from registry.bundle import ModelBundle
from registry.golden import GOLDEN_ROWS
from registry.metrics import Problem
from registry.scoring import Scorer
from retrain.export import Member, member_outputs
from retrain.families.base import Candidate
from retrain.families.catalogue import build
from retrain.members import trained_until
from retrain.search.budget import Budget, kept_seconds
from retrain.search.defaults import DEFAULTS
from retrain.search.material import Material, gather
from retrain.search.refit import EPOCHS, refit
from retrain.search.session import search
from retrain.search.space import SearchSpace
from tests.handmade import make_frame, make_task

ROWS = 800


def material_of(problem: Problem = "binary") -> Material:
    return gather(make_task(problem), make_frame(ROWS, problem=problem))


def member_of(material: Material, seed: int = 0) -> Member:
    """A network that has learnt nothing yet."""
    task, layout = material.task, material.layout
    space = SearchSpace.of(("mlp",), ROWS, 9, task.problem)
    candidate = space.fit(Candidate(family="mlp", choices={"width": 64, "depth": 1}), DEFAULTS)
    assert candidate is not None
    torch.manual_seed(seed)
    network = build(candidate, len(layout.numeric), layout.cardinalities, material.d_out, layout.image)
    return Member(network.eval(), material.preparations["robust"], 1.0, candidate.model_dump())


def same(one: Member, other: Member) -> bool:
    mine, its = one.module.state_dict(), other.module.state_dict()
    return all(torch.equal(mine[name], its[name]) for name in its)


def loss(member: Member, material: Material, rows: np.ndarray) -> float:
    outputs = torch.from_numpy(member_outputs([member], material.conformed.iloc[rows])[0])
    return float(torch.nn.functional.cross_entropy(outputs, torch.from_numpy(material.labels[rows])))


def turned(material: Material, *parts: str) -> Material:
    """The labels of these parts are the other class."""
    labels = material.labels.copy()
    for part in parts:
        rows = getattr(material.parts, part)
        labels[rows] = 1 - labels[rows]
    other = replace(material)
    other.__dict__["labels"] = labels  # what the cached property holds
    return other


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_what_serves_has_learnt_more_than_what_was_rehearsed(problem: Problem) -> None:
    material = material_of(problem)
    member = member_of(material)
    weights = {name: value.clone() for name, value in member.module.state_dict().items()}
    made, again = (refit(material, [member, member], seed=1, until=math.inf) for _ in range(2))
    assert made is not None
    assert again is not None
    assert len(made.rehearsed) == len(made.served) == 2
    assert same(made.served[0], again.served[0])
    assert not same(made.served[0], made.rehearsed[0])
    assert all(torch.equal(value, weights[name]) for name, value in member.module.state_dict().items())
    assert made.served[0].preparation is member.preparation


def test_the_rehearsal_never_sees_the_labels_that_judge_it() -> None:
    material = material_of()
    member = member_of(material)
    plain = refit(material, [member], seed=0, until=math.inf)
    other = refit(turned(material, "calibration", "test"), [member], seed=0, until=math.inf)
    third = refit(turned(material, "validation"), [member], seed=0, until=math.inf)
    assert plain is not None
    assert other is not None
    assert third is not None
    assert same(plain.rehearsed[0], other.rehearsed[0])
    assert not same(plain.served[0], other.served[0])
    assert not same(plain.rehearsed[0], third.rehearsed[0])


def test_a_world_that_has_turned_in_the_held_out_rows_is_learnt() -> None:
    parts = ("validation", "calibration", "test")
    material = turned(material_of(), *parts)
    newest = np.concatenate([getattr(material.parts, part) for part in parts])
    made = refit(material, [member_of(material)], seed=0, until=math.inf)
    assert made is not None
    assert loss(made.served[0], material, newest) < loss(made.rehearsed[0], material, newest)


def test_without_the_time_for_an_epoch_all_stay_as_they_are() -> None:
    material = material_of()
    assert refit(material, [member_of(material)], seed=0, until=time.monotonic()) is None


class Ticks:
    """A clock that goes on by one whenever it is read."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic(self) -> int:
        self.now += 1
        return self.now


def test_epochs_that_there_was_no_time_for_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    material = material_of()
    members = [member_of(material), member_of(material, 1)]
    told = []
    for until in (150, 300, 450, 900):
        clock = Ticks()
        for module in ("retrain.search.refit", "retrain.training"):
            monkeypatch.setattr(f"{module}.time", clock)
        made = refit(material, members, seed=0, until=until)
        told.append(0 if made is None else made.epochs)
    assert told == [0, 1, 2, EPOCHS]


def test_one_that_diverges_keeps_all_as_they_are() -> None:
    material = material_of()
    bad = member_of(material)
    with torch.no_grad():
        next(bad.module.parameters()).fill_(math.nan)
    assert refit(material, [member_of(material), bad], seed=0, until=math.inf) is None


def test_a_first_search_serves_networks_that_know_all_rows_and_tells_what_others_answered(tmp_path: Path) -> None:
    """Its warm-started successor is judged by a gate, and keeps its rows apart."""
    task = make_task(search={"families": ["mlp"], "workers": 1, "max_epochs": 3})
    frame = make_frame(ROWS)

    def made(name: str, prior: ModelBundle | None = None) -> ModelBundle:
        home = tmp_path / name
        return search(task, frame, folder=home / "study", out=home / "out", trials=1, seconds=60, seed=0, prior=prior)

    first = made("first")
    newest: datetime = frame["when"].max().to_pydatetime()
    assert first.manifest.refitted == EPOCHS
    assert trained_until(first) == first.manifest.lineage.known_until == newest
    reference = first.reference()
    own = Scorer.load(first).predict(reference[list(first.manifest.data_schema.names)]).columns()["uncertainty"]
    told = reference["uncertainty"].to_numpy()
    assert told[:GOLDEN_ROWS] == pytest.approx(own[:GOLDEN_ROWS], abs=1e-5)
    assert abs(told[GOLDEN_ROWS:] - own[GOLDEN_ROWS:]).max() > 1e-3
    Scorer.load(first).self_test()
    shown = (first.folder / "card.md").read_text(encoding="utf-8")
    assert "those that serve have learnt all" in shown
    assert shown.count("; learnt since") == 3
    second = made("second", prior=first)
    assert second.manifest.refitted == 0
    assert trained_until(second) < newest


def test_the_budget_tells_of_the_time_that_is_kept() -> None:
    budget = Budget(0.0, 3, 60.0, 0, 0, *kept_seconds(60.0, refit=True))
    assert (budget.refit_until(100.0), Budget(0.0, 3, 60.0, 0).refit_until(100.0)) == (94.0, None)
    assert budget.told == "; the last 15 s are kept for ensemble, refit, graph and card"
