"""The ledger on the status page: a table of HTML, without script; what comes from the ledger is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape

from registry.ledger import Entry

ENTRIES = 25
"""So many are shown."""

ELSEWHERE = ("window", "report", "notice")
"""Kinds that are not: they are in the charts, among the links, or tell of another entry."""


def ledger_table(entries: Sequence[Entry]) -> str:
    """All of them, newest first; of several reasons of one the first, the others when it is opened."""
    if not entries:
        return '<p class="quiet">Nothing has been written yet.</p>'
    rows = "".join(_row(entry, reasons) for entry, reasons in reversed(list(_once(entries))))
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    return f'{_TIMES}<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


_HEADS = ("written", "about", "kind", "version", "outcome", "reasons", "took")
_TIMES = (
    '<p class="quiet">Newest first, in the order in which it was written (wall clock); <em>about</em> is the moment of '
    "the data that an entry speaks of (event time). Both are UTC.</p>"
)


def _once(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Sequence[str]]]:
    """Entries in order with their reasons; in place of those that one before it gave, of the same version and moment,
    where they are: a gate's sentence is behind a promotion and behind the improvement that it ends."""
    first: dict[tuple[str | None, datetime, str], str] = {}
    for entry in entries:
        keys = {reason: (entry.version, entry.at, reason) for reason in entry.reasons}
        before = dict.fromkeys(f"as said under {first[key]}" for key in keys.values() if key in first)
        yield entry, [*(reason for reason, key in keys.items() if key not in first), *before]
        first |= {key: entry.kind for key in keys.values() if key not in first}


def _row(entry: Entry, reasons: Sequence[str]) -> str:
    written = f"{entry.written:%Y-%m-%d %H:%M:%S}" if entry.written else ""
    outcome = " / ".join(part for part in (entry.severity, entry.outcome) if part)
    about = f"{entry.at:%Y-%m-%d %H:%M}"
    took = f"{entry.seconds:.1f} s" if entry.seconds else ""
    plain = (escape(cell) for cell in (written, about, entry.kind, entry.version or "", outcome))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*plain, _folded(reasons), escape(took)))}</tr>"


def _folded(reasons: Sequence[str]) -> str:
    """The first reason, and the others behind it."""
    first, *others = map(escape, reasons or ("",))
    return f"<details><summary>{first}</summary>{'; '.join(others)}</details>" if others else first
