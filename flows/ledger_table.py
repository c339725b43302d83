"""The ledger on the status page: a table of HTML, without script; what comes from the ledger is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from registry.ledger import Entry

_ENTRIES = 25
_SHOWN_ELSEWHERE = ("window", "report")  # in the chart, and among the links


def ledger_table(entries: Sequence[Entry]) -> str:
    """The newest of them, newest first; of several reasons of one the first, the others when it is opened."""
    if not entries:
        return '<p class="quiet">Nothing has been written yet.</p>'
    told = [entry for entry in entries if entry.kind not in _SHOWN_ELSEWHERE]
    rows = "".join(_row(entry) for entry in reversed(told[-_ENTRIES:]))
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    return f'{_TIMES}<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


_HEADS = ("written", "about", "kind", "version", "outcome", "reasons", "took")
_TIMES = (
    '<p class="quiet">Newest first, in the order in which it was written (wall clock); <em>about</em> is the moment of '
    "the data that an entry speaks of (event time). Both are UTC.</p>"
)


def _row(entry: Entry) -> str:
    written = f"{entry.written:%Y-%m-%d %H:%M:%S}" if entry.written else ""
    outcome = " / ".join(part for part in (entry.severity, entry.outcome) if part)
    about = f"{entry.at:%Y-%m-%d %H:%M}"
    took = f"{entry.seconds:.1f} s" if entry.seconds else ""
    plain = (escape(cell) for cell in (written, about, entry.kind, entry.version or "", outcome))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*plain, _folded(entry.reasons), escape(took)))}</tr>"


def _folded(reasons: Sequence[str]) -> str:
    """The first reason, and the others behind it."""
    first, *others = map(escape, reasons or ("",))
    return f"<details><summary>{first}</summary>{'; '.join(others)}</details>" if others else first
