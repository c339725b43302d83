"""What is read twice is decoded once, and nobody can tell by what is read: labels come late, others write, rows go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal
from sqlalchemy.engine import Engine

from registry import log_decoded
from registry.database import from_micros, open_engine
from registry.inference_log import Feedback, InferenceLog
from registry.log_decoded import LEAST, Kept, features_of
from tests.registry.test_log_batches import START, batch, made

ROWS = 2 * LEAST
WHOLE, REAL, TEXT, NONE = ([1, 2], [1.5, None], ["a", None, "b"], [None])
MIXED: list[list[list[Any]]] = [
    [WHOLE, WHOLE],
    [WHOLE, REAL],
    [WHOLE, NONE],
    [REAL, NONE],
    [NONE, NONE],
    [TEXT, NONE],
    [TEXT, WHOLE],
    [TEXT, REAL, NONE],
    [[1, None], [2]],
    [[True, False], [True]],
    [[True], WHOLE],
    [[2**63, 1], WHOLE],
    [[2**53 + 1], REAL],
    [[[1, 2]], [{"a": 1}], NONE],
]
"""Kinds of values of one column, a batch each."""


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Nothing is kept yet."""
    fresh = Kept()
    monkeypatch.setattr(log_decoded, "KEPT", fresh)
    return fresh


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """Six batches, a second a row."""
    log = InferenceLog(engine, "flights")
    for first in range(0, 6 * ROWS, ROWS):
        numbers = range(first, first + ROWS)
        log.append_batches([batch(made(numbers), [1_000_000 * one for one in numbers])])
    return log


def label(number: int, value: str, second: int) -> Feedback:
    at = from_micros(START + 1_000_000 * second)
    return Feedback(made([number])[0], value, at, at)


@pytest.mark.parametrize("size", [3, ROWS])
@pytest.mark.parametrize("kinds", MIXED)
def test_a_column_is_what_pandas_makes_of_its_values(tmp_path: Path, kinds: list[list[Any]], size: int) -> None:
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "flights")
    values = [(kind * size)[:size] for kind in kinds]
    for at, some in enumerate(values):
        numbers = range(at * size, (at + 1) * size)
        log.append_batches([batch(made(numbers), list(numbers), features=[{"x": one} for one in some])])
    log.append_batches([batch(made([10**6]), [10**6], features=[{"other": 1}])])
    flat = [*(one for some in values for one in some), None]
    for _ in range(2):
        assert_series_equal(log.frame()["x"], pd.Series(flat, name="x"))
        inside: Any = {"offset": size - 1, "limit": 2}
        assert_series_equal(log.frame(**inside)["x"], pd.Series(flat[size - 1 : size + 1], name="x"))


def test_what_is_read_again_is_not_decoded_again(log: InferenceLog, kept: Kept) -> None:
    found = log.frame()
    many, size = len(kept), kept.size
    assert many == 6 + 6 + 1  # ids with moments, features; and outputs, which are the same in all
    assert_frame_equal(log.frame(), found)
    assert (len(kept), kept.size) == (many, size)
    text = '{"x":[' + ",".join(map(str, range(ROWS))) + "]}"
    assert features_of(text, ROWS) is features_of(text[:1] + text[1:], ROWS)


def test_whoever_changes_a_frame_changes_nothing_that_is_kept(log: InferenceLog) -> None:
    before, mine = log.frame(), log.frame()
    for name in ("at", "__uncertainty__", "__time__"):
        mine.loc[:, name] = mine[name].iloc[0]
    assert_frame_equal(log.frame(), before)
    assert not mine["at"].equals(before["at"])


def test_a_label_that_comes_late_is_seen_and_none_before_its_moment(log: InferenceLog) -> None:
    def labels(second: int | None = None) -> list[str | None]:
        known = None if second is None else from_micros(START + 1_000_000 * second)
        return log.frame(labels_by=known, columns=[])["__label__"].tolist()[:3]

    assert labels() == [None, None, None]
    log.add_feedback([label(0, "yes", 9_000), label(2, "no", 9_100)])
    assert (labels(), labels(8_999), labels(9_000)) == (["yes", None, "no"], [None] * 3, ["yes", None, None])
    log.add_feedback([label(1, "no", 9_200), label(0, "no", 9_300)])
    assert (labels(), labels(9_299), labels(9_000)) == (["no", "no", "no"], ["yes", "no", "no"], ["yes", None, None])
    found = log.frame(labelled_only=True, labels_by=from_micros(START + 9_150_000_000), newest=5)
    assert found["__label__"].tolist() == ["yes", "no"]


def test_another_writer_s_rows_labels_and_joins_are_seen(log: InferenceLog, empty_url: str) -> None:
    other = InferenceLog(open_engine(empty_url), "flights")
    before = log.frame()
    late = [7 * 10**6 + one for one in range(ROWS)]
    other.append_batches([batch(made(late), [500_000] * ROWS, version="2")])  # among rows that are kept
    other.add_feedback([label(5, "yes", 1)])
    found = log.frame()
    assert len(found) == len(before) + ROWS
    assert (found["__version__"] == "2").sum() == ROWS
    assert found.set_index("__id__")["__label__"][made([5])[0]] == "yes"
    for one in range(10**7, 10**7 + 40):
        other.append_batches([batch(made([one]), [one])])
    found = log.frame()
    while other.join():
        pass
    assert_frame_equal(log.frame(), found)


def test_rows_that_were_let_go_are_gone_and_may_come_again_as_others(log: InferenceLog) -> None:
    log.add_feedback([label(0, "yes", 1)])
    before = log.frame()
    first = from_micros(START + 2 * ROWS * 1_000_000)
    while log.drop(first):
        pass
    found = log.frame()
    assert_frame_equal(found, before[before["__time__"] >= first].reset_index(drop=True))
    numbers = range(ROWS)
    again = batch(made(numbers), [1_000_000 * one for one in numbers], predictions=["yes"] * ROWS)
    log.append_batches([again])
    back = log.frame(limit=ROWS)
    assert back["__id__"].tolist() == made(numbers)
    assert set(back["__prediction__"]) == {"yes"}
    assert back["__label__"].isna().all()


def test_two_databases_with_the_same_ids_keep_their_own_answers(tmp_path: Path) -> None:
    logs = [InferenceLog(open_engine(f"sqlite:///{tmp_path}/{one}.db"), "flights") for one in "ab"]
    for log, answer in zip(logs, ("yes", "no"), strict=True):
        log.append_batches([batch(made(range(ROWS)), list(range(ROWS)), predictions=[answer] * ROWS)])
    for _ in range(2):
        assert [log.frame()["__prediction__"].unique().tolist() for log in logs] == [["yes"], ["no"]]


def test_memory_is_bounded_and_what_was_longest_not_asked_for_goes(
    log: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = log.frame()
    few = Kept(whole.memory_usage(deep=True).sum() // 6)
    monkeypatch.setattr(log_decoded, "KEPT", few)
    for _ in range(2):
        assert_frame_equal(log.frame(), whole)
        assert 0 < few.size <= few._most
    weighed: list[str] = []
    small = Kept(10)
    for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb", "far too long"):
        small.of((text,), lambda text=text: weighed.append(text) or text, lambda _: 1)  # type: ignore[misc, func-returns-value]
    assert weighed == ["aaaa", "bbbb", "cccc", "bbbb", "far too long"]
    assert small.size == 10
