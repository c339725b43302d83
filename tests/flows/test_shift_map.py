"""The map of what moved: which rows it has, what a cell says, and that it fits."""

from __future__ import annotations

from datetime import datetime, timedelta
from xml.etree import ElementTree

import pytest

from flows.chart import NARROW, WIDTH
from flows.shift_map import COLUMNS, rows_of, shift_map
from monitor.measurements import Measurement, Window, WindowRecord
from registry.decisions import Diagnosis
from registry.ledger import Entry

START = datetime(2024, 3, 1)


def moment(number: int) -> datetime:
    return START + timedelta(days=7 * number)


def record(number: int, **moved: float) -> WindowRecord:
    """A window in which the inputs together lie at .5, and columns where they are said to."""
    span = Window(index=number, start=moment(number), end=moment(number + 1), rows=500)
    columns = [Measurement(name="shift", subject=name, value=value, note="1 -> 2") for name, value in moved.items()]
    other = (
        Measurement(name="missing", subject="age", value=0.9),
        Measurement(name="shift", subject="day", note="left out"),
    )
    whole = Measurement(name="domain_shift", value=0.5, note="AUC 0.75")
    return WindowRecord(window=span, version="1", metric="auc", measurements=(whole, *columns, *other))


def decision(number: int, *columns: str) -> Entry:
    """As a pass writes it: a diagnosis that names no column has none."""
    span = {"start": moment(number).isoformat()}
    found = Diagnosis(kind="covariate shift", sentence="Inputs moved", columns=columns)
    told = found.model_dump(mode="json", exclude_defaults=True)
    return Entry(task="t", kind="decision", at=START, details={"window": span, "diagnosis": told})


def boxes(svg: str, kind: str) -> list[ElementTree.Element]:
    found = [one for one in ElementTree.fromstring(svg).iter("rect") if kind in (one.get("class") or "").split()]
    assert all(float(one.get("width", "0")) > 0 for one in found)
    return found


def test_rows_are_whole_windows_and_then_columns_named_most_often_or_moved_furthest() -> None:
    records = [record(0, a=0.1, b=0.9, c=0.2), record(1, a=0.1, b=0.3, c=0.7)]
    found = rows_of(records, [decision(0, "a"), decision(1), Entry(task="t", kind="decision", at=START)])
    assert list(found) == ["inputs together", "a", "b", "c"]
    assert [cell.named for cell in found["a"].values()] == [True, False]
    assert found["b"][moment(0)].words == "b, window from 2024-03-01 00:00, version 1: moved by 0.90 (1 -> 2)"


def test_a_later_decision_on_a_window_replaces_the_former_one() -> None:
    found = rows_of([record(0, a=0.1, b=0.2)], [decision(0, "a"), decision(0, "b")])
    assert [found[name][moment(0)].named for name in "ab"] == [False, True]


def test_a_cell_a_window_framed_where_named_and_the_darker_the_further() -> None:
    svg = shift_map(rows_of([record(0, a=0.1), record(1, a=0.8)], [decision(1, "a")]))
    (framed,) = boxes(svg, "named")
    assert len(boxes(svg, "moved")) == 4
    depths = [float(one.get("fill-opacity", "nan")) for one in boxes(svg, "moved")]
    assert depths[3] == float(framed.get("fill-opacity", "nan")) == max(depths)
    assert depths[2] == min(depths)


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_many_windows_and_columns_fit_with_the_newest_windows_in_it(width: int) -> None:
    moved = {f"a column with a long name & a number {number}": number / 40 for number in range(40)}
    svg = shift_map(rows_of([record(number, **moved) for number in range(200)], []), width=width)
    found = boxes(svg, "moved")
    assert max(float(one.get("x", "nan")) + float(one.get("width", "nan")) for one in found) <= width
    assert len({one.get("y") for one in found}) == COLUMNS + 1
    assert f"window from {moment(199):%Y-%m-%d}" in svg
    assert f"window from {moment(0):%Y-%m-%d}" not in svg


def test_nothing_to_compare_is_a_sentence() -> None:
    assert shift_map(rows_of([], [])) == '<p class="quiet">No window has been compared with the reference yet.</p>'
