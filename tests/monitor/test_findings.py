"""Faults and shifts: a large effect and a sure one, both; ranked, in words."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.findings import LASTING, Finding, broken, faults, holm, known, lag, settled, shifts, thin
from monitor.measurements import Measurement, WindowRecord
from tests.monitor.records import record

LEVEL, WINDOWS = 0.0025, 400


def share(name: str, value: float, reference: float, p_value: float = 1e-20, subject: str | None = "x") -> Measurement:
    return Measurement(name=name, subject=subject, value=value, reference=reference, p_value=p_value, rows=1_000)


def shift(value: float, p_value: float, subject: str = "x") -> Measurement:
    return Measurement(name="shift", subject=subject, value=value, p_value=p_value, rows=1_000, note="median 1 -> 2")


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (share("broken", 0.02, 0), "x: values of the wrong type in 2 % of the rows"),
        (share("missing", 0.3, 0.01), "x: missing in 30 % of the rows, 1 % in the reference"),
        (share("constant", 1, 0.3), "x: stands still, which 30 % of the reference had"),
        (share("duplicates", 0.4, 0, subject=None), "40 % of the rows repeat another one, 0 % in the reference"),
    ],
)
def test_what_is_broken(one: Measurement, sentence: str) -> None:
    assert [found.sentence for found in faults(record(0, one), LEVEL)] == [sentence]


@pytest.mark.parametrize(
    "one",
    [
        share("missing", 0.3, 0.01, p_value=0.01),  # could be chance
        share("missing", 0.05, 0.01),  # sure, but little
        share("missing", 0.9, 0.75),  # a column that is mostly missing anyway
        share("missing", 0.0, 0.9),  # less is missing than was
        share("constant", 1, 0.9),  # it nearly always stood there
        share("unseen", 1, 0),  # new categories are news, not a fault: a model can learn them
        share("out_of_range", 0.9, 0),  # summer, to a model of the winter
    ],
)
def test_what_is_not_broken(one: Measurement) -> None:
    assert faults(record(0, one), LEVEL) == []


def test_a_column_that_stands_still_long_enough_is_the_world_as_it_is() -> None:
    still, moving = share("constant", 1, 0.1), share("constant", 0, 0, p_value=1.0)
    eight = [record(week, still) for week in range(LASTING)]
    assert settled(eight, LEVEL) == {"x"}
    assert settled(eight[1:], LEVEL) == set()
    assert settled([*eight[:3], record(3, moving), *eight[4:]], LEVEL) == set()
    assert settled([*eight, record(8, moving), record(9, still)], LEVEL) == {"x"}
    assert faults(eight[-1], LEVEL, {"x"}) == []
    assert "x: has stood still" in known({"x"})[0]
    torn = record(8, still, share("missing", 0.9, 0.0))
    assert [one.measurement.name for one in faults(torn, LEVEL, {"x"})] == ["missing"]


def test_rows_that_repeat_one_another_long_enough_are_the_world_as_it_is() -> None:
    repeated = share("duplicates", 0.5, 0.06, subject=None)
    eight = [record(week, repeated) for week in range(LASTING)]
    assert faults(eight[0], LEVEL) != []
    assert settled(eight[1:], LEVEL) == set()
    assert settled(eight, LEVEL) == {None}
    assert broken(eight, LEVEL) == []
    assert known({None}) == (
        "rows have repeated one another for 8 windows in a row, which is no longer taken for a fault",
    )


def test_shifts_are_ranked_and_small_or_unsure_ones_left_out() -> None:
    made = [shift(0.12, 1e-9, "a"), shift(0.4, 1e-9, "b"), shift(0.09, 1e-99, "c"), shift(0.5, 0.2, "d")]
    found = shifts([record(0, *made)], WINDOWS)
    assert [one.measurement.subject for one in found] == ["b", "a"]
    assert found[0].sentence == "b: distribution moved by 0.40 (median 1 -> 2)"


def test_coverage_counts_when_it_falls_and_not_when_it_rises() -> None:
    fallen, risen = (Measurement(name="coverage", value=v, reference=0.9, p_value=1e-9, rows=900) for v in (0.8, 0.99))
    assert shifts([record(0, fallen)], WINDOWS)[0].sentence == "conformal coverage 80 % on 900 labels, promised 90 %"
    assert shifts([record(0, risen)], WINDOWS) == []


def test_many_columns_are_corrected_for() -> None:
    made = [shift(0.3, 1e-6, "c0"), *(shift(0.3, 0.5, f"c{number}") for number in range(1, 40))]
    assert shifts([record(0, *made)], WINDOWS) == []
    assert len(shifts([record(0, made[0])], WINDOWS)) == 1


def test_evidence_adds_up_over_windows_of_one_version() -> None:
    weak = shift(0.3, 1e-3)
    assert shifts([record(0, weak)], WINDOWS) == []
    assert len(shifts([record(week, weak) for week in range(3)], WINDOWS)) == 1
    others = [record(week, weak, version="0") for week in range(2)]
    assert shifts([*others, record(2, weak)], WINDOWS) == []


def test_a_shift_that_is_over_is_soon_forgotten() -> None:
    moved = [record(week, shift(0.3, 1e-20)) for week in range(10)]
    quiet = [record(10 + week, shift(0.3, 0.5)) for week in range(3)]
    assert shifts(moved, WINDOWS)
    assert shifts([*moved, *quiet], WINDOWS) == []


def test_shifts_are_named_falsely_once_in_so_many_windows_at_most() -> None:
    """p-values of 30 columns that have not moved, all effects large enough."""
    rng, rang, windows = np.random.default_rng(0), 0, 20
    for _ in range(60):
        p_values = rng.random((windows, 30))
        history = [record(i, *(shift(0.5, p, f"c{j}") for j, p in enumerate(row))) for i, row in enumerate(p_values)]
        rang += sum(bool(shifts(history[: until + 1], windows)) for until in range(windows))
    assert rang / (60 * windows) <= 1 / windows


def test_the_costliest_comes_first_and_of_the_others_only_what_is_known_is_said() -> None:
    free = shift(0.6, 1e-20, "a").model_copy(update={"cost": 0.001, "cost_error": 0.002})
    nil = shift(0.6, 1e-20, "d").model_copy(update={"cost": 3.5e-15, "cost_error": 7.0})
    assert shifts([record(0, nil)], WINDOWS)[0].sentence.endswith("what it costs is not shown (+0 +/- 7)")
    good = shift(0.6, 1e-20, "c").model_copy(update={"cost": -0.03, "cost_error": 0.002})
    dear = shift(0.2, 1e-20, "b").model_copy(update={"cost": 0.03, "cost_error": 0.004})
    found = shifts([record(0, free, dear, good)], WINDOWS)
    assert [one.subject for one in found] == ["b", "a", "c"]
    assert found[0].sentence.endswith("estimated to cost (+0.03 +/- 0.004)")
    assert found[1].sentence.endswith("what it costs is not shown (+0.001 +/- 0.002)")
    assert found[2].sentence.endswith("estimated to cost the model nothing (-0.03 +/- 0.002)")


def lagged(index: int, p_value: float, rows: int = 900) -> WindowRecord:
    return record(index, Measurement(name="gap", value=0.05, error=0.015, p_value=p_value, rows=rows, note="auc"))


def test_performance_that_lags_is_found_over_several_windows_with_enough_labels() -> None:
    found = lag([lagged(index, 1e-3) for index in range(6)], WINDOWS, 100)
    assert found is not None
    assert found.sentence == "performance: worse than expected by 0.05 +/- 0.0061 on 5,400 labels (auc)"
    assert lag([lagged(0, 1e-3)], WINDOWS, 100) is None
    assert lag([lagged(index, 1e-3, rows=40) for index in range(6)], WINDOWS, 100) is None
    assert lag([record(0)], WINDOWS, 100) is None


def surprised(index: int, value: float) -> WindowRecord:
    """A window whose gap is what it always was, and whose log loss is so much worse than expected."""
    known = {"error": 0.0427, "null_error": 0.015, "skew": 0.0, "rows": 900}
    usual = Measurement(name="gap", value=0.0, p_value=0.5, note="auc", **known)
    return record(index, usual, Measurement(name="log_gap", value=value, note="log_loss", **known))


def test_a_log_loss_that_lags_behind_that_of_the_windows_before_is_found_and_named() -> None:
    biased = [surprised(index, 0.05) for index in range(20)]
    assert lag(biased[:1], WINDOWS, 100) is None
    assert lag(biased, WINDOWS, 100) is None  # the champion always was so much off
    found = lag([*biased, *(surprised(20 + index, 0.12) for index in range(3))], WINDOWS, 100)
    assert found is not None
    assert found.sentence == "performance: worse than expected by 0.12 +/- 0.041 on 2,700 labels (log_loss)"


def sized(*rows: int) -> list[WindowRecord]:
    """Windows of so many rows each."""
    made = [record(index) for index in range(len(rows))]
    return [
        one.model_copy(update={"window": one.window.model_copy(update={"rows": n})})
        for one, n in zip(made, rows, strict=True)
    ]


def test_a_window_of_far_fewer_rows_is_found() -> None:
    usual = (1_000, 1_050, 980, 1_010, 990, 1_030, 960, 1_000, 1_020)
    found = thin(sized(*usual, 200), LEVEL)
    assert found is not None
    assert found.sentence == "200 rows, usually 1,000"
    assert thin(sized(*usual, 600), LEVEL) is None  # more than half are there
    assert thin(sized(*usual[:5], 200), LEVEL) is None  # nobody knows what is usual
    assert thin(sized(*usual, 5_000), LEVEL) is None


def test_numbers_of_rows_that_vary_much_are_no_fault() -> None:
    rng, rang = np.random.default_rng(0), 0
    for _ in range(2_000):
        rang += thin(sized(*np.exp(rng.normal(6, 1, 12)).astype(int)), 0.01) is not None
    assert rang / 2_000 <= 0.02


def test_holm_holds_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    wrong = [any(holm(list(rng.random(20)), 0.1)) for _ in range(2_000)]
    assert np.mean(wrong) <= 0.1 + 3 * np.sqrt(0.09 / 2_000)


def test_a_finding_that_has_no_example_says_nothing_of_one() -> None:
    assert "(" not in Finding(share("unseen", 0.5, 0), 1.0).sentence
