"""Continual fine-tuning: every answer is given before its label, the reference's too, and it pays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.golden import GOLDEN_ROWS
from registry.metrics import Problem, metrics_for
from registry.scoring import Scorer, Scores
from retrain.following import BEGUN, Followed, follow, lessons
from retrain.gate import judge
from retrain.learners import DEEPEST, PACES, Ground, Lesson, Pace
from retrain.members import read_members, trained_until
from retrain.race import Standing
from retrain.renewal import Request
from tests.handmade import make_frame

DAY = 144
DAYS = 6


def turned(problem: Problem, days: int = DAYS) -> pd.DataFrame:
    """Days after it, whose relation to the target is reversed."""
    return make_frame(days * DAY, seed=4, problem=problem, start="2024-01-15", flip=1.0)


def asked(champion: ModelBundle, frame: pd.DataFrame, out: Path) -> Request:
    return Request(task=champion.manifest.task, bundle=champion, version="1", frame=frame, out=out / "bundle")


def known(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[: -DAY // 2]


def followed(champion: ModelBundle, frame: pd.DataFrame, out: Path, pace: Pace | None = None) -> Followed:
    """Day by day, labels half a day late: the last half day's are not there yet."""
    ends = [np.datetime64("2024-01-15") + np.timedelta64(day, "D") for day in range(1, len(frame) // DAY + 1)]
    frame = known(frame)
    arrived = (frame["when"] + timedelta(hours=12)).to_numpy()
    steps = lessons(np.arange(len(frame)) // DAY, arrived, ends)
    return follow(asked(champion, frame, out), steps, paces=PACES if pace is None else (pace,))


def test_nobody_learns_what_he_answers_later_and_each_window_so_many_times() -> None:
    rng, moments = np.random.default_rng(0), np.datetime64("2024-01-01T00", "h") + np.arange(240)
    arrived = moments + rng.integers(1, 60, 240)
    ends = [np.datetime64("2024-01-01T00", "h") + 24 * day for day in range(1, 11)]
    found = lessons(np.arange(240) // 24, arrived, ends)
    for end, lesson in zip(ends, found, strict=True):
        assert (arrived[lesson.learn] <= end).all()
        assert (moments[lesson.answer] >= end).all()
        assert (arrived[lesson.learn] > end - 24 * (lesson.ago + 1)).all()
        assert (arrived[lesson.learn] <= end - 24 * lesson.ago).all()
    for pace in PACES:
        learnt = np.bincount(np.concatenate([one.learn[one.ago < pace.windows] for one in found]))
        assert learnt.max() == min(pace.windows, len(ends) - 1)
    assert max(pace.windows for pace in PACES) == DEEPEST
    answered = np.concatenate([one.answer for one in found])
    assert answered.tolist() == list(range(24, 240))  # each row once, but those that nobody could follow yet


def test_it_learns_a_new_relation_and_proves_it(champion: ModelBundle, tmp_path: Path) -> None:
    problem = champion.manifest.task.problem
    frame = turned(problem)
    chain = followed(champion, frame, tmp_path)
    rows, metric = frame.iloc[chain.answered], metrics_for(problem)[champion.manifest.task.metric]
    labels = champion.manifest.target.encode(rows["late"])
    old = Scorer.load(champion).predict(rows).scores
    late = slice(3 * DAY, None)
    assert metric.value(labels[late], chain.answers.scores[late]) < 0.8 * metric.value(labels[late], old[late])
    made = chain.seal()
    Scorer.load(made).self_test()
    verdict = judge(champion.manifest.task, champion, made, rows.reset_index(drop=True), said=(None, chain.answers))
    assert verdict.checks[0].value is not None
    assert verdict.checks[0].value > 0
    lineage = made.manifest.lineage
    assert lineage.parent_version == "1"
    assert lineage.known_until == known(frame)["when"].max().to_pydatetime()
    assert made.candidates["heritage"][BEGUN] == champion.manifest.lineage.known_until.isoformat()  # type: ignore[union-attr]
    assert [one.candidate for one in read_members(made)] == [one.candidate for one in read_members(champion)]


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_labels_that_had_not_come_change_no_answer(champion: ModelBundle, tmp_path: Path) -> None:
    """Other labels for the last day: the answers of all days are those that they were, the newest model is another."""
    frame = turned("binary")
    lied = frame.assign(late=frame["late"].where(np.arange(len(frame)) < (DAYS - 1) * DAY, "yes"))
    told, other = (followed(champion, one, tmp_path) for one in (frame, lied))
    assert np.array_equal(told.answers.scores, other.answers.scores)
    rows = np.arange(len(known(frame)))
    assert not np.allclose(told.race.first.outputs(rows), other.race.first.outputs(rows))


@pytest.mark.parametrize("champion", ["binary", "regression"], indirect=True)
def test_each_window_is_answered_at_the_pace_that_has_been_the_best(champion: ModelBundle, tmp_path: Path) -> None:
    """By the labels that had come: the first days have none, and the paces that are raced are those alone."""
    task, frame = champion.manifest.task, turned(champion.manifest.task.problem)
    metric, labels = metrics_for(task.problem)[task.metric], champion.manifest.target.encode(known(frame)["late"])
    raced, alone = followed(champion, frame, tmp_path), [followed(champion, frame, tmp_path, pace) for pace in PACES]
    scores = [one.answers.scores for one in alone]
    taken = set()
    for day in range(1, DAYS):
        mine = raced.answered // DAY == day
        told = raced.answered < day * DAY - DAY // 2  # half a day late
        values = [metric.value(labels[raced.answered[told]], one[told]) if told.any() else 0.0 for one in scores]
        best = int(np.argmax([metric.gain(value, values[0]) for value in values]))
        assert np.allclose(raced.answers.scores[mine], scores[best][mine])
        taken.add(best)
    assert taken == {0, 1}
    made = raced.seal(pictures=False)
    standing = Standing.of(made)
    assert standing.paces[standing.leader] == raced.race.first.pace
    assert "trained on by a window" in (made.folder / "card.md").read_text()


@pytest.mark.parametrize("champion", ["binary", "regression"], indirect=True)
def test_reference_rows_bear_what_was_answered_before_they_were_learnt(champion: ModelBundle, tmp_path: Path) -> None:
    frame = known(turned(champion.manifest.task.problem))
    chain = followed(champion, turned(champion.manifest.task.problem), tmp_path)
    made = chain.seal(pictures=False)
    Scorer.load(made).self_test()  # by the golden rows, which the model itself answers
    found = made.reference().iloc[GOLDEN_ROWS:]
    places = np.searchsorted(frame["when"].to_numpy(), found["when"].to_numpy())
    said = Scores.read(found).scores
    now = chain.race.first.outputs(places)
    now = chain.calibration.scores(now, chain.race.ground.weights, champion.manifest.target).scores
    before = chain.answers.scores[np.searchsorted(chain.answered, places)]
    assert np.allclose(said, before, atol=0.05)  # another temperature
    assert np.abs(said - before).mean() < 0.2 * np.abs(said - now).mean()
    lineage = made.manifest.lineage.rows
    assert lineage["test"] == made.manifest.reference.rows == len(chain.answered) == len(frame) - DAY
    assert lineage["train"] == len(frame)
    assert not list(made.folder.rglob("*.png"))
    card = (made.folder / "card.md").read_text()
    assert "Answered, then learnt, in the order of `when`" in card
    assert f"{made.manifest.lineage.data_hash[:16]}...`\n" in card  # a row of both parts is not counted twice
    assert trained_until(made) == frame["when"].max()


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_what_cannot_be_followed_is_said(champion: ModelBundle, tmp_path: Path) -> None:
    one = asked(champion, turned("binary", 1).head(20), tmp_path)
    step = Lesson(np.arange(16), np.zeros(16, dtype=np.int64), np.arange(16, 20))
    with pytest.raises(DataError, match="only 4 rows with labels had been answered before, 5 are needed"):
        follow(one, [step]).seal()
    with pytest.raises(DataError, match="without times"):
        Ground(replace(one, task=one.task.model_copy(update={"time": None})))


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_rows_of_one_class_are_no_reference_of_a_metric_that_needs_two(champion: ModelBundle, tmp_path: Path) -> None:
    """It is said, and the pass that would have taken the step goes on."""
    task = champion.manifest.task.model_copy(update={"metric": "auc"})
    frame = turned("binary").assign(late="yes")
    step = Lesson(np.arange(DAY), np.zeros(DAY, dtype=np.int64), np.arange(DAY, 2 * DAY))
    chain = follow(replace(asked(champion, frame, tmp_path), task=task), [step])
    with pytest.raises(DataError, match="auc is not defined on the 144 test rows"):
        chain.seal(pictures=False)
