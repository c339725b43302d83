"""Numbers are placed where a bisection places them, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.borders import CHUNK, MANY, Borders, SortedColumns

NUMBERS = st.floats(allow_nan=False, width=64)


@given(st.lists(NUMBERS, max_size=40), st.lists(NUMBERS, max_size=40))
def test_places_are_those_of_a_bisection(borders: list[float], numbers: list[float]) -> None:
    known = np.unique(np.array(borders))
    with np.errstate(over="ignore"):
        asked = np.array([*numbers, *known, *np.nextafter(known, -np.inf), *np.nextafter(known, np.inf)])
    assert Borders(known).places(asked).tolist() == np.searchsorted(known, asked, side="left").tolist()


@given(st.lists(NUMBERS, max_size=40), st.lists(NUMBERS, min_size=1, max_size=4))
@example([0.0, 1e-304], [0.0])  # too near for the finer cells alone
def test_of_many_numbers_few_are_bisected(borders: list[float], numbers: list[float]) -> None:
    known = np.unique(np.array(borders))
    with np.errstate(over="ignore"):
        asked = np.array([*known, *np.nextafter(known, -np.inf), *np.nextafter(known, np.inf), -np.inf, np.inf])
    asked = np.concatenate([asked, np.resize(numbers, MANY)])
    found, expected = Borders(known), np.searchsorted(known, asked, side="left")
    assert found.places(asked).tolist() == expected.tolist()
    with_nan = np.append(asked, np.nan)
    counted = np.bincount(expected, minlength=len(known) + 1)
    assert found.count(with_nan, 1).tolist() == Borders(known).count(with_nan, 1).tolist() == counted.tolist()


@given(st.lists(st.lists(NUMBERS.filter(np.isfinite), max_size=12), max_size=4), st.lists(NUMBERS, max_size=8))
def test_columns_are_bisected_at_once(columns: list[list[float]], numbers: list[float]) -> None:
    known = [np.unique(np.array(one)) for one in columns]
    asked = np.array([*numbers, *(value for one in columns for value in one), np.nan])
    table, everywhere = SortedColumns(known), np.tile(asked, (len(columns), 1))
    below = table.below(everywhere)
    places = [np.searchsorted(one, np.where(np.isnan(asked), -np.inf, asked), side="left").tolist() for one in known]
    assert below.tolist() == places
    finite = np.isfinite(asked)
    found = table.hold(everywhere, below)[:, finite].tolist()
    assert found == [np.isin(asked[finite], one).tolist() for one in known]


@pytest.mark.parametrize("kind", ["normal", "whole", "heavy", "one", "none"])
def test_counts_pass_over_what_is_missing(kind: str) -> None:
    rng = np.random.default_rng(0)
    made = {
        "normal": rng.normal(size=2 * CHUNK + 7),
        "whole": rng.integers(0, 12, 2 * CHUNK + 7).astype(np.float64),
        "heavy": rng.standard_cauchy(2 * CHUNK + 7) ** 5,
        "one": np.ones(100),
        "none": rng.normal(size=100),
    }[kind]
    known = np.empty(0) if kind == "none" else np.unique(np.quantile(made, np.arange(1, 32) / 32, method="lower"))
    numbers = np.where(rng.random(len(made)) < 0.1, np.nan, made)
    present = numbers[~np.isnan(numbers)]
    expected = np.bincount(np.searchsorted(known, present, side="left"), minlength=len(known) + 1)
    assert Borders(known).count(numbers, int(np.isnan(numbers).sum())).tolist() == expected.tolist()
