"""Each fault of the data is found, counted and named; sound data pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from registry.errors import DataError
from registry.metrics import Problem
from retrain.checks import examine, require, usable
from retrain.finding import Finding
from tests.handmade import make_frame, make_task
from tests.pictures import encoded, painted

RNG = np.random.default_rng(0)


def find(frame: pd.DataFrame, words: str, problem: Problem = "binary", **task: Any) -> Finding:
    """The one finding whose text holds the words."""
    findings = examine(frame, make_task(problem, **task))
    found = [one for one in findings if words in str(one)]
    assert len(found) == 1, [str(one) for one in findings]
    return found[0]


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_sound_data_have_no_finding(problem: Problem) -> None:
    task = make_task(problem, metric={"multiclass": "log_loss", "regression": "rmse"}.get(problem, "auc"))
    assert examine(make_frame(2_000, problem=problem), task) == []


FATAL: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("late", lambda f: f.rename(columns={"late": "lat"}), r"no such column \(did you mean 'lat'\?\)"),
    ("when", lambda f: f.drop(columns="when"), "no such column"),
    ("late", lambda f: f.assign(late=None), "no row has a target"),
    ("late", lambda f: f.assign(late="yes"), r"only one class, yes \(400\)"),
    ("late", lambda f: f.assign(late=["maybe"] + ["yes", "no"] * 199 + ["no"]), "3 classes, but the problem is binary"),
    ("late", lambda f: f.assign(late=["yes"] * 5 + ["no"] * 395), "too few rows in all classes but one: .*yes .5.;"),
    ("late", lambda f: f.assign(late=["no"] * 300 + ["yes"] * 100), "the oldest 280 rows, which train, are all 'no'"),
    ("when", lambda f: f.assign(when=range(400)), "times are numbers, such as 0"),
    ("when", lambda f: f.assign(when=["2024-01-01"] * 398 + ["soon"] * 2), "2 of 400 values are no times.* 'soon'"),
    ("when", lambda f: f.assign(when=pd.NaT), "all times are missing"),
    ("", lambda f: f.head(100), "100 rows, at least 200 are needed; give more rows"),
    ("", lambda f: f.assign(late=[*f["late"].head(150), *[None] * 250]), "150 usable rows, at least 200 are needed"),
    ("when", lambda f: f.assign(when="2024-01-01"), "every row has the same time, .2024-01-01."),
    ("", lambda f: f.head(0), "there are no rows"),
    ("", lambda f: f[["late"]], "no column is left"),
    ("late", lambda f: f.assign(late=[[1, 2]] * 400), "values of type list are not supported"),
    ("", lambda f: f[["late"]].assign(a=[[0.5]] * len(f)), r"left to learn from \('a': values of type list are not"),
]


@pytest.mark.parametrize(("part", "first"), [("validation", 1_400), ("test", 1_800)])
@pytest.mark.parametrize(("problem", "metric"), [("binary", "auc"), ("regression", "r2"), ("binary", "log_loss")])
def test_a_part_on_which_the_metric_is_undefined_is_fatal_before_anything_is_trained(
    problem: Problem, metric: str, part: str, first: int
) -> None:
    frame = make_frame(2_000, problem=problem)
    one = "no" if problem == "binary" else 0.5
    size = round(2_000 * (make_task().splits.validation if part == "validation" else make_task().splits.test))
    frame.loc[first : first + size - 1, "late"] = one
    findings = [str(found) for found in examine(frame, make_task(problem, metric=metric)) if found.level == "fatal"]
    words = (
        f"the {size} rows of the {part} part tell nothing: all targets are {one!r}, and {metric} is undefined on them"
    )
    assert [words in found for found in findings] == ([] if metric == "log_loss" else [True])


@pytest.mark.parametrize(("column", "spoil", "words"), FATAL)
def test_fatal_findings_stop_and_name_the_column(
    column: str, spoil: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    frame = spoil(make_frame(400))
    task = make_task(time="when" if column else None)
    with pytest.raises(DataError, match=words) as caught:
        require(examine(frame, task))
    assert f"column '{column}': " in str(caught.value) or not column


def test_warnings_count_rows_and_do_not_stop() -> None:
    frame = make_frame(2_000).astype({"late": object})
    frame.loc[:9, "late"] = None
    frame.loc[10:14, "when"] = pd.NaT
    frame.loc[20, "amount"] = np.inf
    frame = pd.concat([frame, frame.tail(7)], ignore_index=True)
    frame["empty"], frame["same"] = None, 1
    task = make_task()
    findings = examine(frame, task)
    require(findings)
    by_message = {finding.message: finding.rows for finding in findings}
    assert by_message["10 of 2,007 rows have no target"] == 10
    assert by_message["5 of 2,007 rows have no time"] == 5
    assert by_message["7 of 2,007 rows repeat an earlier row exactly"] == 7
    assert by_message["1 of 2,007 values are infinite"] == 1
    assert by_message["all values are missing"] == 2_007
    assert by_message["constant: every value is 1"] == 2_007
    assert len(usable(frame, task)) == 1_992


def test_a_regressions_targets_must_be_finite_numbers() -> None:
    frame = make_frame(2_000, problem="regression")
    frame.loc[:4, "late"] = np.inf
    assert find(frame, "missing or infinite target", "regression").rows == 5
    assert len(usable(frame, make_task("regression"))) == 1_995
    texts = frame.astype({"late": object})
    texts.loc[7, "late"] = "n/a"
    assert find(texts, "1 of 2,000 targets are no numbers, such as 'n/a'", "regression").level == "fatal"
    assert find(frame.assign(late=1.5), "every target is 1.5", "regression").level == "fatal"


def test_a_regressions_targets_must_fit_into_single_precision() -> None:
    """The graph answers in it: of 1e9 and a little it says 1e9, whatever the network knows."""
    frame = make_frame(2_000, problem="regression")
    assert find(frame.assign(late=1e9 + frame["late"]), "steps of 64", "regression").level == "fatal"
    assert find(frame.assign(late=1e39 * frame["late"]), "in a larger unit", "regression").level == "fatal"
    for sound in (1e6 + frame["late"], 1e30 * frame["late"], 1e-30 * frame["late"]):
        assert examine(frame.assign(late=sound), make_task("regression")) == []


def test_a_few_targets_that_rule_all_others_are_warned_of() -> None:
    """A slip of the point makes a unit of the targets in which all others are the same."""
    frame = make_frame(2_000, problem="regression")
    slipped = frame["late"].where(frame.index != 7, -1e6)
    finding = find(frame.assign(late=slipped), "2 of 2,000 targets make up more than 99%", "regression")
    assert (finding.level, finding.column, finding.rows) == ("warning", "late", 2)
    assert "such as -1e+06 (median " in finding.message
    heavy = np.exp(2 * np.random.default_rng(0).normal(size=2_000))
    assert examine(frame.assign(late=heavy), make_task("regression")) == []


@pytest.mark.parametrize("name", ["late", "place"])
def test_segments_that_nobody_logs_are_told(name: str) -> None:
    frame = make_frame(2_000).assign(place="here")
    found = find(frame, "no model reads it", monitor={"segments": [name, "carrier"]})
    assert (found.level, found.column) == ("warning", name)


def test_times_that_have_not_come_yet_are_told() -> None:
    frame = make_frame(2_000)
    frame.loc[:19, "when"] = pd.Timestamp("9999-12-31").as_unit("us")
    found = find(frame, "in the future")
    assert (found.level, found.column, found.rows) == ("warning", "when", 20)
    assert "20 of 2,000 times are in the future, up to 9999-12-31" in found.message


def test_categories_that_no_row_has_are_no_classes() -> None:
    frame = make_frame(2_000)
    kept = frame.astype({"late": pd.CategoricalDtype(["yes", "no", "maybe"])})
    assert examine(kept, make_task()) == []


def test_mixed_types_are_counted() -> None:
    frame = make_frame(2_000)
    frame["weight"] = frame["weight"].round(1).astype(str)
    frame.loc[:2, "weight"] = "?"
    finding = find(frame, "mixed types: 1,997 numbers and 3 texts such as '?'")
    assert (finding.level, finding.column, finding.rows) == ("warning", "weight", 3)
    declared = find(frame, "expected a number", columns={"kinds": {"weight": "numeric"}})
    assert (declared.level, declared.column) == ("fatal", "weight")


def test_rare_classes_are_named() -> None:
    frame = make_frame(2_000, problem="multiclass")
    frame.loc[:3, "late"] = "odd"
    finding = find(frame, "1 of 4 classes have fewer than 20 rows", "multiclass", metric="log_loss")
    assert (finding.level, finding.rows) == ("warning", 4)
    assert "odd (4)" in finding.message


def test_the_examination_of_many_rows_is_quick() -> None:
    import time

    frame = make_frame(60_000)
    for number in range(15):
        column = (
            RNG.normal(size=60_000) if number % 2 else RNG.choice([f"v{k}" for k in range(5**number % 997)], 60_000)
        )
        frame[f"x{number}"] = column
    examine(frame.head(2_000), make_task())  # the first call imports scikit-learn
    start = time.process_time()
    examine(frame, make_task())
    assert time.process_time() - start < 1.5


def test_columns_named_like_what_the_log_holds_of_an_image_are_fatal() -> None:
    image = encoded(painted(8, 8))
    frame = make_frame(400).assign(photo=[image] * 400, **{"photo [1]": RNG.normal(size=400)})
    finding = find(frame, "the log needs this name for what is seen of the images in 'photo'")
    assert (finding.level, finding.column) == ("fatal", "photo [1]")
    told = [str(one) for one in examine(frame, make_task(columns={"exclude": ["photo [1]"]}))]
    assert not [one for one in told if "the log needs" in one]
    renamed = frame.drop(columns="photo [1]").rename(columns={"late": "photo [8]"})
    assert any("the log needs" in str(one) for one in examine(renamed, make_task(target="photo [8]")))


def test_augmented_columns_that_are_not_there_beside_images_are_fatal() -> None:
    frame = make_frame(400).assign(photo=[encoded(painted(8, 8))] * 400)
    task = make_task(search={"choices": {"jitter": {"fixed": 0.1}}})
    assert not [one for one in examine(frame, task) if "beside the images" in one.message]
    without_time = task.model_copy(update={"time": None})
    (finding,) = (one for one in examine(frame[["photo", "late"]], without_time) if "beside the images" in one.message)
    assert finding.level == "fatal"
    assert finding.message.startswith("search.choices.jitter")
