"""Recalibration and fine-tuning of a champion that a real search made, on rows of a world that has moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.metrics import Problem, metrics_for
from registry.scoring import Scorer
from registry.task import TaskSpec
from retrain.fine_tuning import DIETS, fine_tune
from retrain.gate import judge
from retrain.members import read_members, read_scale, trained_until
from retrain.recalibration import recalibrate
from retrain.renewal import Renewal, Request
from retrain.search.session import search
from tests.handmade import make_frame

OLD, NEW, FRESH = "2024-01-01", "2024-02-01", "2024-02-20"


def champion_of(folder: Path, task: TaskSpec, frame: pd.DataFrame) -> ModelBundle:
    return search(task, frame, folder=folder / "study", out=folder / "champion", trials=1, seconds=60, seed=0)


def asked(champion: ModelBundle, newer: pd.DataFrame, out: Path) -> Request:
    """January's rows and newer ones are known."""
    task = champion.manifest.task
    frame = pd.concat([make_frame(2_000, seed=1, problem=task.problem, start=OLD), newer], ignore_index=True)
    return Request(task=task, bundle=champion, version="1", frame=frame, out=out / "bundle", seconds=60)


def moved(frame: pd.DataFrame, problem: Problem, rng: np.random.Generator) -> pd.DataFrame:
    """A world whose answers are at another level: of "no" two in three have become "yes", or all are 5 more."""
    if problem == "regression":
        return frame.assign(late=frame["late"] + 5.0)
    return frame.assign(late=frame["late"].where(rng.random(len(frame)) < 1 / 3, "yes"))


def value(bundle: ModelBundle, frame: pd.DataFrame) -> float:
    """The task's metric on raw rows."""
    task = bundle.manifest.task
    scores = np.asarray(Scorer.load(bundle).predict(frame).scores, dtype=np.float64)
    return metrics_for(task.problem)[task.metric].value(bundle.manifest.target.encode(frame["late"]), scores)


def test_recalibration_brings_a_champion_to_another_level(champion: ModelBundle, tmp_path: Path) -> None:
    rng, problem = np.random.default_rng(0), champion.manifest.task.problem
    newer = moved(make_frame(1_000, seed=2, problem=problem, start=NEW), problem, rng)
    fresh = moved(make_frame(1_000, seed=3, problem=problem, start=FRESH), problem, rng)
    made = recalibrate(asked(champion, newer, tmp_path))
    assert value(made, fresh) < 0.8 * value(champion, fresh)
    assert judge(champion.manifest.task, champion, made, fresh).outcome.value == "promote"
    lineage = made.manifest.lineage
    assert (lineage.parent_version, lineage.trials, lineage.known_until) == (
        "1",
        0,
        newer["when"].max().to_pydatetime(),
    )
    assert trained_until(made) == trained_until(champion)
    assert made.candidates["study"] == champion.candidates["study"]
    for old, new in zip(read_members(champion), read_members(made), strict=True):
        stored, before = new.module.state_dict(), old.module.state_dict()
        assert np.allclose(stored["first.weight"], before["first.weight"])


def test_a_tuned_champion_learns_a_new_relation(champion: ModelBundle, tmp_path: Path) -> None:
    """Where the relation to the target is reversed, no calibration helps; trained on, the networks follow. Once such a
    one was rolled back it does not come back: it would be judged by rows that it was fitted to."""
    problem = champion.manifest.task.problem
    newer = make_frame(1_500, seed=4, problem=problem, start=NEW, flip=1.0)
    fresh = make_frame(1_000, seed=5, problem=problem, start=FRESH, flip=1.0)
    made = fine_tune(asked(champion, newer, tmp_path))
    assert value(made, fresh) < 0.7 * value(champion, fresh)
    assert judge(champion.manifest.task, champion, made, fresh).outcome.value == "promote"
    told = made.candidates["heritage"]
    assert told["diet"] in {diet.name for diet in DIETS}
    assert told["tuned"] == len(list(read_members(champion)))
    assert told["trained"] == len(DIETS) + told["tuned"] - 1
    until = trained_until(made)
    assert until is not None
    assert newer["when"].min() < until < newer["when"].max()
    assert made.manifest.lineage.known_until < fresh["when"].min()
    assert (read_scale(made) is None) == (problem == "binary")
    Scorer.load(made).self_test()
    again = recalibrate(asked(champion, newer, tmp_path / "again"), {"2": made})
    assert again.candidates["heritage"] == {"recalibrated": "1"}


def test_what_judges_a_renewal_is_newer_than_what_the_champion_learnt(champion: ModelBundle, tmp_path: Path) -> None:
    problem = champion.manifest.task.problem
    renewal = Renewal(asked(champion, make_frame(600, seed=6, problem=problem, start=NEW), tmp_path))
    until, times = trained_until(champion), renewal.material.frame["when"]
    for part in vars(renewal.new).values():
        assert (times.iloc[part] > until).all()
    assert (times.iloc[renewal.old] <= until).all()
    parts = [renewal.old, *vars(renewal.new).values()]
    assert sorted(np.concatenate(parts)) == list(range(len(times)))
    assert times.iloc[renewal.new.test].min() > times.iloc[np.concatenate(parts[:-1])].max()


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_a_former_champion_comes_back_with_its_world(champion: ModelBundle, tmp_path: Path) -> None:
    """Version 2 has learnt the reversed relation; January's is back, and version 1 with it, though nothing is trained.
    Where the newer champion is right, it stays."""
    task = champion.manifest.task
    first = make_frame(2_000, seed=7, problem=task.problem, start="2023-12-01", flip=1.0)
    other = champion_of(tmp_path, task, first)
    newer = make_frame(800, seed=8, problem=task.problem, start=NEW, flip=1.0)
    made = recalibrate(asked(champion, newer, tmp_path), {"0": other})
    assert made.candidates["heritage"] == {"recalibrated": "0"}
    fresh = make_frame(500, seed=9, problem=task.problem, start=FRESH, flip=1.0)
    assert value(made, fresh) < 0.7 * value(champion, fresh)
    same = make_frame(800, seed=8, problem=task.problem, start=NEW)
    stays = recalibrate(asked(champion, same, tmp_path), {"0": other})
    assert stays.candidates["heritage"] == {"recalibrated": "1"}


def test_what_cannot_be_done_is_said(champion: ModelBundle, tmp_path: Path) -> None:
    problem = champion.manifest.task.problem
    one = asked(champion, make_frame(40, seed=6, problem=problem, start=NEW), tmp_path)
    with pytest.raises(DataError, match="newer than the champion's, 150 are needed"):
        Renewal(replace(one, frame=one.frame[one.frame["when"] > datetime(2024, 1, 31)]))
    with pytest.raises(DataError, match="without times"):
        Renewal(replace(one, task=one.task.model_copy(update={"time": None})))
    if problem == "regression":
        return
    enough = make_frame(400, seed=6, problem=problem, start=NEW)
    with pytest.raises(DataError, match="classes that the champion does not know"):
        Renewal(asked(champion, enough.assign(late="perhaps"), tmp_path))
    alike = enough.assign(late=enough["late"].where(enough.index < 300, "no"))
    undefined = asked(champion, alike, tmp_path)
    undefined = replace(undefined, task=undefined.task.model_copy(update={"metric": "auc"}))
    with pytest.raises(DataError, match="of the test part tell nothing: all targets are 'no', and auc is undef"):
        fine_tune(undefined)
    of_order = replace(
        asked(champion, enough, tmp_path), task=champion.manifest.task.model_copy(update={"metric": "auc"})
    )
    with pytest.raises(DataError, match="the order of rows, which is all that auc looks at"):
        recalibrate(of_order)
