"""What is measured by segment in one window as a table of HTML, for the status page and above a report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from monitor.measurements import Measurement, WindowRecord

ROWS = 20
"""Most segments that are shown: of more those that are named, then the surest; all are in the ledger."""

_METRIC = ("segment_performance", "slice_performance")
_HEADS = {
    "segment_share": "share of the rows",
    "metric": "",
    "segment_coverage": "coverage",
    "segment_calibration": "calibration error",
    "segment_shift": "answers moved by",
}


def segment_table(record: WindowRecord, named: Collection[str] = ()) -> str:
    """A row a segment; empty where none is watched or found. `named`: those that the decision on the window names."""
    by_subject: dict[str, dict[str, Measurement]] = {}
    for one in record.named("segment_share", *_METRIC, "segment_coverage", "segment_calibration", "segment_shift"):
        if one.subject is not None and one.value is not None:
            by_subject.setdefault(one.subject, {})["metric" if one.name in _METRIC else one.name] = one
    if not by_subject:
        return ""
    heads = {**_HEADS, "metric": record.metric}
    there = [name for name in heads if any(name in found for found in by_subject.values())]
    head = "".join(f"<th>{escape(one)}</th>" for one in ("segment", *(heads[name] for name in there)))
    shown = sorted(by_subject, key=lambda subject: (subject not in named, _least_p(by_subject[subject])))[:ROWS]
    told = [subject for subject in by_subject if subject in shown]
    rows = "".join(_row(subject, by_subject[subject], there, named=subject in named) for subject in told)
    left = len(by_subject) - len(shown)
    more = f'<p class="quiet">and {left} more in the ledger</p>' if left else ""
    return f'<table class="segments"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}'


def _row(subject: str, found: dict[str, Measurement], there: Sequence[str], *, named: bool) -> str:
    cells = "".join(f"<td>{_cell(found.get(name))}</td>" for name in there)
    kind = ' class="named"' if named else ""
    return f"<tr{kind}><th>{escape(subject)}</th>{cells}</tr>"


def _cell(one: Measurement | None) -> str:
    """The value, and in brackets what it is beside."""
    if one is None or one.value is None:
        return ""
    percent = one.name in ("segment_share", "segment_coverage")
    value, beside = (
        "" if number is None else f"{100 * number:.3g} %" if percent else f"{number:.3f}"
        for number in (one.value, one.reference)
    )
    return f"{value} ({beside})" if beside else value


def _least_p(found: dict[str, Measurement]) -> float:
    return min((one.p_value for one in found.values() if one.p_value is not None), default=1.0)
