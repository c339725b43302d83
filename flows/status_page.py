"""The status page of a task (`python -m flows.status_page TASK`): loopback only, one page of HTML, no script.

Nothing on it is fetched from elsewhere, and every text from the ledger or the settings is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import groupby

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flows.chart import Mark, Point, line_chart
from flows.services import Running, running
from flows.status_style import STYLE
from flows.workplace import Workplace, enter
from monitor.alerts import ALERT, from_entry
from monitor.comparison import reference_level
from monitor.measurements import WindowRecord
from monitor.outlook import outlook
from registry.database import utc_now
from registry.errors import EverfitError
from registry.ledger import Entry
from registry.settings import LOOPBACK

_ENTRIES = 25
_SHOWN_ELSEWHERE = ("window", "report")  # in the chart, and among the links
_REPORTS = 8
_REFRESH_SECONDS = 10
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class Snapshot:
    """All that the page shows, read at one moment."""

    task: str
    metric: str
    served: str
    champion: str
    predictions: int
    labelled: int
    entries: tuple[Entry, ...]
    records: tuple[WindowRecord, ...]
    services: tuple[Running, ...]
    reports: tuple[str, ...]
    at: datetime

    @property
    def decision(self) -> Entry | None:
        """The last decision."""
        return next((entry for entry in reversed(self.entries) if entry.kind == "decision"), None)

    @property
    def alert(self) -> Entry | None:
        """The alert that is open."""
        last = next((entry for entry in reversed(self.entries) if entry.kind == ALERT), None)
        return last if last and from_entry(last).alert.is_open else None


def read(place: Workplace) -> Snapshot:
    """Read everything. An endpoint that is down is a text on the page; raises `StoreError`."""
    entries = place.ledger.read()
    counts = place.log.counts()
    return Snapshot(
        task=place.task.name,
        metric=place.task.metric,
        served=_served(place),
        champion=_champion(entries),
        predictions=counts.predictions,
        labelled=counts.labelled,
        entries=tuple(entries),
        records=newest_records(entries),
        services=running(place.settings, place.task.name),
        reports=tuple(sorted((path.name for path in place.reports.glob("*.html")), reverse=True)[:_REPORTS]),
        at=utc_now(),
    )


def newest_records(entries: Iterable[Entry]) -> tuple[WindowRecord, ...]:
    """The newest record of each window, in time order: windows are measured again when labels arrive."""
    records = [WindowRecord.model_validate(entry.details) for entry in entries if entry.kind == "window"]
    newest = {(record.window.start, record.window.end): record for record in records}
    return tuple(newest[place] for place in sorted(newest))


def _served(place: Workplace) -> str:
    settings = place.settings
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    key = settings.api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    try:
        answer = httpx.get(f"http://{host}:{settings.port}/model", headers=headers, timeout=1.0, trust_env=False)
        return f"version {answer.raise_for_status().json()['version']}"
    except (httpx.HTTPError, ValueError, KeyError):
        return "not answering"


def _champion(entries: Sequence[Entry]) -> str:
    """The version last promoted or gone back to, by the ledger: a page needs no registry for it."""
    found = [entry.version for entry in entries if entry.kind in ("promotion", "rollback")]
    return f"version {found[-1]}" if found else "none yet"


def page(snapshot: Snapshot) -> str:
    """The page as HTML."""
    name = escape(snapshot.task)
    body = [
        f"<header><h1>Everfit <span>{name}</span></h1><p>{snapshot.at:%Y-%m-%d %H:%M:%S} UTC</p></header>",
        _cards(snapshot),
        f"<section><h2>{escape(snapshot.metric)} by window</h2>{_chart(snapshot)}{_LEGEND}</section>",
        f"<section><h2>Ledger</h2>{_ledger(snapshot.entries)}</section>",
        f"<section><h2>Elsewhere</h2>{_links(snapshot)}</section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Everfit: {name}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


_LEGEND = (
    '<p class="legend"><span class="value">served model</span><span class="band">95 % interval</span>'
    '<span class="expected">expected, labels to come</span>'
    '<span class="reference">its reference</span><span class="mark">promotion or rollback</span></p>'
)


def _cards(snapshot: Snapshot) -> str:
    decision = snapshot.decision
    severity = decision.severity if decision and decision.severity else "no decision yet"
    judged = f"remedy {decision.outcome}, {decision.at:%Y-%m-%d}" if decision else "nothing was watched yet"
    cards = [
        _card("Endpoint", snapshot.served, f"champion: {snapshot.champion}"),
        _card("Last decision", severity, judged, mood=severity),
        _alert_card(snapshot.alert),
        _card(f"Newest {snapshot.metric}", *_newest(snapshot.records)),
        _card("Predictions logged", f"{snapshot.predictions:,}", f"{snapshot.labelled:,} with a label"),
    ]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons) if decision else ""
    return f'<div class="cards">{"".join(cards)}</div><ul class="reasons">{reasons}</ul>'


def _alert_card(alert: Entry | None) -> str:
    if alert is None:
        return _card("Alert", "none", "nothing is open")
    since = f"{alert.outcome}, since {from_entry(alert).alert.opened_at:%Y-%m-%d}"
    return _card("Alert", alert.severity or "open", since, mood=alert.severity or "")


def _card(title: str, value: str, note: str, *, mood: str = "") -> str:
    mood = mood if mood in ("ok", "shifted", "faulty", "degraded") else ""
    return (
        f'<div class="card {mood}"><h3>{escape(title)}</h3><p class="big">{escape(value)}</p>'
        f"<p>{escape(note)}</p></div>"
    )


def _newest(records: Sequence[WindowRecord]) -> tuple[str, str]:
    judged = [(record, record.performance) for record in records if record.performance is not None]
    if not judged:
        return "unknown", "no labels yet"
    record, found = judged[-1]
    reference = "unknown" if found.reference is None else f"{found.reference:.4f}"
    return f"{found.value:.4f}", f"reference {reference}, {record.window.end:%Y-%m-%d}"


def _chart(snapshot: Snapshot) -> str:
    marks = [
        Mark(entry.at, f"v{entry.version}") for entry in snapshot.entries if entry.kind in ("promotion", "rollback")
    ]
    points = [
        one for _, records in groupby(snapshot.records, lambda record: record.version) for one in _points(records)
    ]
    return line_chart(points, marks, metric=snapshot.metric)


def _points(records: Iterable[WindowRecord]) -> Iterator[Point]:
    """A version's windows: what came true, or what is to be expected after that."""
    served = list(records)
    for record, expected in zip(served, outlook(served), strict=True):
        realised, window = record.performance, record.window
        found, middle = realised or expected, window.start + (window.end - window.start) / 2
        if found is not None and found.value is not None:
            reference = None if (level := reference_level(record)) is None else level.value
            yield Point(middle, found.value, found.low, found.high, reference, record.version, realised is None)


def _ledger(entries: Sequence[Entry]) -> str:
    if not entries:
        return '<p class="quiet">Nothing has been written yet.</p>'
    told = [entry for entry in entries if entry.kind not in _SHOWN_ELSEWHERE]
    rows = "".join(_row(entry) for entry in reversed(told[-_ENTRIES:]))
    heads = "".join(f"<th>{head}</th>" for head in ("as of", "kind", "version", "outcome", "reasons", "took"))
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(entry: Entry) -> str:
    outcome = " / ".join(part for part in (entry.severity, entry.outcome) if part)
    cells = (f"{entry.at:%Y-%m-%d %H:%M}", entry.kind, entry.version or "", outcome, "; ".join(entry.reasons))
    took = f"{entry.seconds:.1f} s" if entry.seconds else ""
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in (*cells, took))}</tr>"


def _links(snapshot: Snapshot) -> str:
    links = [_link(one.url, one.what) for one in snapshot.services if one.url and one.name != "status"]
    links += [_link(f"{one.url}/docs", "the endpoint's API") for one in snapshot.services if one.name == "endpoint"]
    links += [_link(f"/reports/{name}", f"report {name.removesuffix('.html')}") for name in snapshot.reports]
    return f'<ul class="links">{"".join(links)}</ul>' if links else '<p class="quiet">No service answers.</p>'


def _link(url: str, text: str) -> str:
    return f'<li><a href="{escape(url)}">{escape(text)}</a></li>'


def create_app(place: Workplace) -> FastAPI:
    """The application: `/`, `/health`, `/reports/NAME`."""
    app = FastAPI(title="Everfit's status page", openapi_url=None)
    # Without it a page from elsewhere could reach this one under a name of its own that resolves to loopback.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.get("/")
    def show() -> HTMLResponse:
        try:
            return HTMLResponse(page(read(place)), headers={"Content-Security-Policy": _POLICY})
        except EverfitError as error:
            return HTMLResponse(f"<pre>{escape(str(error))}</pre>", status_code=503)

    @app.get("/health")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/reports/{name}")
    def report(name: str) -> FileResponse:
        if name not in {path.name for path in place.reports.glob("*.html")}:
            raise HTTPException(404, f"no report {name!r}")
        return FileResponse(place.reports / name, media_type="text/html")

    return app


def main() -> None:
    """The process's door."""
    import uvicorn

    place = enter(sys.argv[1])
    uvicorn.run(create_app(place), host="127.0.0.1", port=place.settings.status_port, log_level="warning")


if __name__ == "__main__":
    main()
