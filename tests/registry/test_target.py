"""Labels in every form they come in, as class indices or numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from registry.errors import RowError
from registry.target import UNKNOWN_CLASS, Target


@pytest.mark.parametrize(
    ("values", "classes", "label_type"),
    [
        ([True, False, None], ("false", "true"), "boolean"),
        ([10, 9, 10], ("9", "10"), "integer"),
        ([1.0, 0.0, np.nan], ("0", "1"), "integer"),
        (["no", "yes"], ("no", "yes"), "string"),
        (["03", "12"], ("03", "12"), "string"),
        (["-1", "1"], ("-1", "1"), "integer"),
        (["²", "1"], ("1", "²"), "string"),
    ],
)
def test_classes_are_learnt(values: list[object], classes: tuple[str, ...], label_type: str) -> None:
    target = Target.learn(pd.Series(values), "binary")
    assert target.classes == classes
    assert target.label_type == label_type


def test_labels_are_encoded_and_unknown_ones_marked() -> None:
    target = Target(problem="binary", classes=("0", "1"), label_type="integer")
    assert list(target.encode(pd.Series([1, "0", 1.0, 7]))) == [1, 0, 1, UNKNOWN_CLASS]


def test_regression_keeps_numbers() -> None:
    target = Target.learn(pd.Series([1, 2.5]), "regression")
    assert list(target.encode(pd.Series(["1", 2.5]))) == [1.0, 2.5]
    assert target.canonical(3) == 3.0


@pytest.mark.parametrize(("label", "quoted"), [("maybe", "'maybe'"), (None, "null"), (True, "true"), (3, "3")])
def test_a_label_of_no_class_is_refused(label: object, quoted: str) -> None:
    """In the words of JSON, in which it came."""
    with pytest.raises(RowError, match=f"expected one of no, yes, got {quoted}$"):
        Target(problem="binary", classes=("no", "yes")).canonical(label)


@pytest.mark.parametrize("label", [True, float("nan"), "3", None])
def test_a_label_that_is_no_number_is_refused(label: object) -> None:
    with pytest.raises(RowError, match="expected a finite number"):
        Target(problem="regression").canonical(label)


@pytest.mark.parametrize("label", [1.1e37, -1e200, 10**38])
def test_a_label_that_no_model_can_answer_is_refused(label: float) -> None:
    """The square of 1e200 is infinite: of all labels of its window no metric could be told."""
    with pytest.raises(RowError, match=r"expected a number between -1e.37 and 1e.37, got"):
        Target(problem="regression").canonical(label)
    assert Target(problem="regression").canonical(-1e37) == -1e37


def test_what_answers_show_is_accepted_as_a_label() -> None:
    target = Target.learn(pd.Series(["03", "12"]), "binary")
    assert [target.canonical(target.decode(name)) for name in target.classes] == ["03", "12"]


def test_answers_are_written_in_the_users_type() -> None:
    assert Target(problem="binary", classes=("false", "true"), label_type="boolean").decode("true") is True
    assert Target(problem="binary", classes=("0", "1"), label_type="integer").decode("1") == 1
