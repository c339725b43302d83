"""A race that goes on from a bundle is the race that was never broken off, and who leads may change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.torch

from registry.bundle import WEIGHTS, ModelBundle
from registry.errors import BundleError
from registry.scoring import Scorer
from retrain.calibration import Calibration
from retrain.following import Followed, Trail, follow, lessons
from retrain.learners import PACES, Lesson
from retrain.members import read_scale
from retrain.race import LARGEST, PATIENCE, RACE, REMEMBERED, Record, Standing, keys_of, places_among, waits
from retrain.renewal import Request
from tests.handmade import make_frame

DAY, DAYS, BROKEN = 144, 6, 3
BEGIN = np.datetime64("2024-01-15", "us")


def world(champion: ModelBundle) -> tuple[pd.DataFrame, np.ndarray]:
    """Days whose relation to the target is reversed, and when their labels come: half a day late."""
    frame = make_frame(DAYS * DAY, seed=4, problem=champion.manifest.task.problem, start="2024-01-15", flip=1.0)
    return frame, (frame["when"] + timedelta(hours=12)).to_numpy()


def steps_until(frame: pd.DataFrame, arrived: np.ndarray, last: int) -> list[Lesson]:
    """The steps at the ends of all days until this one, the first of them where the champion alone is known."""
    ends = [BEGIN + np.timedelta64(day, "D") for day in range(last + 1)]
    return lessons(np.arange(len(frame)) // DAY + 1, arrived, ends)


def raced(champion: ModelBundle, frame: pd.DataFrame, arrived: np.ndarray, last: int, out: Path) -> Followed:
    asked = Request(champion.manifest.task, champion, "1", frame, out)
    manifest = champion.manifest
    calibration = Calibration(
        temperature=manifest.temperature, radius=manifest.conformal_radius, scale=read_scale(champion)
    )
    steps = steps_until(frame, arrived, last)
    return follow(asked, steps, keys=keys_of(map(str, range(len(frame)))), calibration=calibration)


@pytest.mark.parametrize("champion", ["binary", "regression"], indirect=True)
def test_a_race_that_is_sealed_goes_on_as_if_it_had_never_been_broken_off(
    champion: ModelBundle, tmp_path: Path
) -> None:
    frame, arrived = world(champion)
    whole = raced(champion, frame, arrived, DAYS - 1, tmp_path / "whole")
    early = frame.iloc[: (BROKEN + 1) * DAY]
    first = raced(champion, early, arrived[: len(early)], BROKEN, tmp_path / "first").seal(pictures=False)
    standing = Standing.of(first)
    assert standing.paces == PACES
    later = list(steps_until(frame, arrived, DAYS - 1)[BROKEN + 1 :])
    again = follow(
        Request(champion.manifest.task, first, "2", frame, tmp_path / "again"),
        later,
        standing=standing,
        keys=keys_of(map(str, range(len(frame)))),
    )
    rows = np.arange(len(frame))
    assert again.race.leader == whole.race.leader
    for one, other in zip(again.race.learners, whole.race.learners, strict=True):
        assert np.allclose(one.outputs(rows), other.outputs(rows), atol=1e-5)
    assert np.array_equal(again.race.record.keys, whole.race.record.keys)
    assert np.allclose(again.race.record.labels, whole.race.record.labels, equal_nan=True)
    for one, other in zip(again.race.record.scores, whole.race.record.scores, strict=True):
        assert np.allclose(one, other, atol=1e-4)
    assert np.allclose(again.race.record.older, whole.race.record.older, atol=1e-4)
    assert np.array_equal(again.race.record.lag, whole.race.record.lag)
    assert again.race.wait == whole.race.wait


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_the_others_are_sealed_beside_the_one_that_is_served(champion: ModelBundle, tmp_path: Path) -> None:
    frame, arrived = world(champion)
    found = raced(champion, frame, arrived, DAYS - 1, tmp_path / "made")
    made, rows = found.seal(pictures=False), np.arange(len(frame))
    assert RACE in made.manifest.files
    assert (made.folder / RACE).stat().st_size < 2 * (made.folder / WEIGHTS).stat().st_size + 300 * len(frame)
    for learner, members in zip(found.race.learners, Standing.of(made).members, strict=True):
        again = replace_members(found, members)
        assert np.allclose(again, learner.outputs(rows), atol=1e-6)
    with (made.folder / RACE).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(BundleError, match=RACE):
        ModelBundle.load(made.folder)


def replace_members(found: Followed, members: tuple[object, ...]) -> np.ndarray:
    """What these networks answer to all rows."""
    learner = found.race.learners[0]
    learner.members, before = members, learner.members  # type: ignore[assignment]
    said = learner.outputs(np.arange(len(found.race.keys)))
    learner.members = before
    return said


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_another_may_come_to_lead_by_the_labels_that_come(champion: ModelBundle, tmp_path: Path) -> None:
    frame, arrived = world(champion)
    found = raced(champion, frame, arrived, DAYS - 1, tmp_path / "made")
    race, rows = found.race, np.arange(len(frame))
    right = np.eye(2, dtype=np.float32)[race.ground.material.labels[places_among(race.keys, race.record.keys)]]
    for leader, scores in enumerate(((right, 1 - right), (1 - right, right))):
        race.record = replace(race.record, scores=scores)
        race.hear(rows)
        assert race.leader == leader
        made = found.seal(pictures=False)
        assert Standing.of(made).leader == leader
        said, wanted = Scorer.load(made).predict(frame), race.learners[leader].outputs(rows)
        wanted = found.calibration.scores(wanted, race.ground.weights, race.ground.material.target)
        assert np.allclose(said.scores, wanted.scores, atol=1e-4)
    assert race.wait == 1  # what was answered a step later is far better
    race.record = replace(race.record, older=race.ground.scores(race.record.outputs).scores)
    assert race.wait == 2  # no better: twice as long as it was to wait
    race.waited = 2
    assert race.wait == 4
    made = found.seal(pictures=False)
    assert Standing.of(made).wait == waits(made) == 4
    race.record = Record()
    race.hear(rows)
    assert race.wait == 1
    assert race.leader == 1  # nothing says that it should not be


def test_a_record_is_bounded_and_forgets_what_nobody_answers() -> None:
    record, scores = Record(), [np.full((10, 2), 0.5), np.full((10, 2), 0.25)]
    outputs = np.arange(60.0).reshape(3, 10, 2)
    for step in range(PATIENCE + 3):
        keys = np.arange(10) + 10 * step
        record = record.grown(keys, scores, outputs + step, scores[0], 1).told(keys[:5], np.arange(5.0))
    assert len(record.keys) == 5 * 3 + 10 * PATIENCE
    assert np.isfinite(record.labels).sum() == 5 * (PATIENCE + 3)
    assert record.labels[np.searchsorted(record.keys, 3)] == 3.0
    many = np.arange(REMEMBERED) + 10_000
    found, said = record.among(np.array([4, 99_999, 3]))
    assert found.tolist() == [0, 2]
    assert np.array_equal(said, outputs[:, [4, 3]])
    first = [one[:1] for one in scores]
    again = record.grown(np.array([3]), first, outputs[:, :1] + 100, first[0], 1)
    assert np.array_equal(again.among(np.array([3]))[1], outputs[:, :1] + 100)  # the latest of two
    flat = np.zeros((REMEMBERED, 2))
    grown = record.grown(many, [flat] * 2, np.zeros((3, REMEMBERED, 2)), flat, 1)
    waiting = 5 * PATIENCE - 5  # of the steps before, which have not outlived it
    assert np.array_equal(
        grown.keys[waiting:], many[np.arange(REMEMBERED - waiting) * REMEMBERED // (REMEMBERED - waiting)]
    )
    assert all(len(one) == REMEMBERED for one in (grown.labels, grown.age, *grown.scores))
    assert len(set(keys_of(["a", "b", "a"]))) == 2
    wide = [np.zeros((20_000, 100), dtype=np.float32)] * 2  # of many classes fewer, so that a bundle stays small
    kept = Record().grown(np.arange(20_000), wide, np.stack(wide * 2), wide[0], 1)
    assert (kept.keys[0], kept.keys[-1]) == (0, 19_998)
    arrays = (kept.keys, kept.labels, kept.age, kept.lag, kept.older, kept.outputs, *kept.scores)
    assert sum(one.nbytes for one in arrays) <= LARGEST
    for _ in range(PATIENCE):  # the newest model, which answers nothing yet, is made at each pass
        again = grown.grown(many[:0], [one[:0] for one in scores], outputs[:, :0], flat[:0], 1)
    assert again is grown


def test_rows_whose_labels_come_late_are_remembered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each step a share, evenly: who learns needs some of the latest answers with labels, however late they come."""
    monkeypatch.setattr("retrain.race.REMEMBERED", 1_020)
    record, late = Record(), 5
    scores, outputs = np.full((600, 2), 0.5), np.zeros((1, 600, 2))
    for step in range(12):
        record = record.grown(np.arange(600) + 600 * step, [scores] * 2, outputs, scores, 1)
        told = np.arange(600) + 600 * (step - late)
        record = record.told(told, np.ones(600)) if step >= late else record
        assert len(record.keys) <= 1_020
        if step >= late:
            mine = (record.keys >= told[0]) & (record.keys <= told[-1])
            assert np.isfinite(record.labels[mine]).sum() >= 60
            assert record.keys[mine].min() < told[20]
            assert record.keys[mine].max() > told[-20]


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_a_record_from_before_that_lacks_the_outputs_begins_anew(champion: ModelBundle, tmp_path: Path) -> None:
    frame, arrived = world(champion)
    early = frame.iloc[: (BROKEN + 1) * DAY]
    chain = raced(champion, early, arrived[: len(early)], BROKEN, tmp_path / "first")
    trail, moment = tmp_path / "trail.safetensors", early["when"].max().to_pydatetime()
    chain.keep(trail, champion, moment)
    assert Trail.load(trail, champion) is not None
    made = chain.seal(pictures=False)
    for path in (trail, made.folder / RACE):
        with safetensors.safe_open(path, "pt") as file:
            told = file.metadata()
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file({k: v for k, v in tensors.items() if k != "outputs"}, path, metadata=told)
    assert Trail.load(trail, champion) is None
    standing = Standing.of(made)
    assert (standing.paces, standing.leader, len(standing.record.keys)) == (PACES, chain.race.leader, 0)
    asked = Request(champion.manifest.task, made, "2", frame, tmp_path / "again")
    again = follow(asked, steps_until(frame, arrived, DAYS - 1)[BROKEN + 1 :], standing=standing)
    assert again.seal(pictures=False).manifest.reference.rows == len(again.answered) > 0


@pytest.mark.parametrize("champion", ["binary"], indirect=True)
def test_a_bundle_without_a_race_goes_on_alone(champion: ModelBundle) -> None:
    found = Standing.of(champion)
    assert (found.paces, len(found.members), len(found.record.keys)) == (PACES[:1], 1, 0)
