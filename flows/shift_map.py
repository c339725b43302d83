"""What moved, by window, as inline SVG: a row for the inputs together, the predictions and each column that moved most,
a cell for each window, darker the further it lies from the champion's reference; a frame where the decision named it.

Pure text from numbers, as `chart.py` is: no script, no request, colours from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from flows.chart import WIDTH
from monitor.findings import DISTANCES, subject_of
from monitor.measurements import Measurement, WindowRecord
from registry.ledger import Entry

COLUMNS = 10
"""Most columns that have a row: those named most often, then those that moved furthest."""

_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 150, 16, 4, 22, 24
_CELL = 14  # the least width of a window's cell, in pixels: older windows are left out before cells get thinner
_BROADEST = 44
_LETTERS = 17  # of a name that fit beside the cells
_DATE = 84  # pixels that a day with its year takes


@dataclass(frozen=True)
class Cell:
    """A subject in one window: its distance from the reference, 0 to 1, whether the decision on the window named it,
    and that in words."""

    value: float
    named: bool
    words: str


Rows = Mapping[str, Mapping[datetime, Cell]]
"""Cells by subject, in the order in which they are drawn, and by the moment the window begins."""


def rows_of(records: Sequence[WindowRecord], decisions: Sequence[Entry]) -> Rows:
    """What is drawn: whole windows first, then the columns that were named most often or moved furthest."""
    named = dict(_named(decisions, "columns"))
    found: dict[str, dict[datetime, Cell]] = {}
    columns: set[str] = set()
    for record in records:
        start = record.window.start
        for one in record.named(*DISTANCES):
            if one.value is None:
                continue
            subject = subject_of(one) or one.name
            columns |= {subject} if one.subject is not None else set()
            said = subject in named.get(start, ())
            found.setdefault(subject, {})[start] = Cell(one.value, said, _words(subject, record, one))
    whole = [subject for subject in found if subject not in columns]

    def rank(subject: str) -> tuple[float, float]:
        cells = found[subject].values()
        return -sum(cell.named for cell in cells), -max(cell.value for cell in cells)

    return {subject: found[subject] for subject in (*whole, *sorted(columns, key=rank)[:COLUMNS])}


def shift_map(rows: Rows, *, width: int = WIDTH) -> str:
    """The SVG element, so many pixels wide, of the newest windows that fit; a sentence where nothing was measured."""
    starts = sorted({start for cells in rows.values() for start in cells})[-((width - _LEFT - _RIGHT) // _CELL) :]
    if not starts:
        return '<p class="quiet">No window has been compared with the reference yet.</p>'
    step = min((width - _LEFT - _RIGHT) / len(starts), _BROADEST)
    x = {start: round(_LEFT + place * step, 1) for place, start in enumerate(starts)}
    height = _TOP + _ROW * len(rows) + _BOTTOM
    drawn = [*_rows(rows, x, step), *_dates(starts, x, step, height)]
    title = "how far each window lies from the reference, by column"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{"".join(drawn)}</svg>'


def _rows(rows: Rows, x: Mapping[datetime, float], step: float) -> Iterator[str]:
    for place, (subject, cells) in enumerate(rows.items()):
        y = _TOP + _ROW * place
        short = subject if len(subject) <= _LETTERS else f"{subject[: _LETTERS - 1]}…"
        whole = f"<title>{escape(subject)}</title>"
        yield f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(short)}{whole}</text>'
        for start, cell in cells.items():
            if start in x:
                kind = "moved named" if cell.named else "moved"
                box = f'x="{x[start] + 1.5:.1f}" y="{y + 2}" width="{step - 3:.1f}" height="{_ROW - 4}" rx="2"'
                depth = f'fill-opacity="{0.04 + 0.96 * min(cell.value, 1.0):.2f}"'
                yield f'<rect class="{kind}" {box} {depth}><title>{escape(cell.words)}</title></rect>'


def _dates(starts: Sequence[datetime], x: Mapping[datetime, float], step: float, height: int) -> Iterator[str]:
    """Days under the windows, with their years, as many as there is room for."""
    every = max(1, -(-_DATE // max(int(step), 1)))
    for start in starts[::every]:
        yield f'<text x="{x[start] + 1.5:.1f}" y="{height - 7}">{start:%d %b %Y}</text>'


def named_segments(decisions: Sequence[Entry]) -> Iterator[tuple[datetime, frozenset[str]]]:
    """The segments that each window's newest decision named, in the order they were taken."""
    return _named(decisions, "segments")


def _named(decisions: Sequence[Entry], what: str) -> Iterator[tuple[datetime, frozenset[str]]]:
    """What each window's newest decision named, in the order they were taken."""
    for entry in decisions:
        window, diagnosis = entry.details.get("window"), entry.details.get("diagnosis")
        if window and diagnosis:
            names = diagnosis.get(what, ())  # one that names none is written without
            yield datetime.fromisoformat(window["start"]), frozenset(names)


def _words(subject: str, record: WindowRecord, one: Measurement) -> str:
    note = f" ({one.note})" if one.note else ""
    return f"{subject}, window from {record.window.name}, version {record.version}: moved by {one.value:.2f}{note}"
