"""The status page (`python -m flows.status_page`): loopback only, a page of HTML for each task, no script.

Nothing on it is fetched from elsewhere, and every text from the ledger or the settings is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import groupby

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flows.approval import pending
from flows.chart import NARROW, WIDTH, Mark, Point, line_chart
from flows.ledger_table import ledger_table
from flows.overview import judged_first
from flows.services import Running, running
from flows.status_cards import LOCKED, cards, reasons
from flows.status_style import STYLE
from flows.workplace import Workplace, find_task, task_names
from monitor.alerts import ALERT, from_entry
from monitor.comparison import reference_level
from monitor.measurements import WindowRecord
from monitor.outlook import outlook
from registry.database import utc_now
from registry.errors import EverfitError, InputError
from registry.ledger import Entry
from registry.metrics import metrics_for
from registry.settings import Settings
from registry.task import TaskSpec
from serving.tls import trusted

_REPORTS = 8
_REFRESH_SECONDS = 10
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY}


@dataclass(frozen=True)
class Snapshot:
    """All that the page shows, read at one moment."""

    task: str
    metric: str
    meant: str
    bounds: tuple[float, float]
    served: str
    champion: str
    predictions: int
    labelled: int
    entries: tuple[Entry, ...]
    records: tuple[WindowRecord, ...]
    asked: Entry | None
    services: tuple[Running, ...]
    reports: tuple[str, ...]

    @property
    def decision(self) -> Entry | None:
        """The decision on the newest window."""
        decisions = judged_first([entry for entry in self.entries if entry.kind == "decision"])
        return max(decisions, key=lambda entry: (entry.at, entry.id), default=None)

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
        meant=meant(place.task),
        bounds=metrics_for(place.task.problem)[place.task.metric].bounds,
        served=_served(place),
        champion=_champion(entries),
        predictions=counts.predictions,
        labelled=counts.labelled,
        entries=tuple(entries),
        records=newest_records(entries),
        asked=pending(place),
        services=running(place.settings),
        reports=tuple(sorted((path.name for path in place.reports.glob("*.html")), reverse=True)[:_REPORTS]),
    )


def meant(task: TaskSpec) -> str:
    """How the task's metric is read: its unit, where it has one, and which way is better."""
    better = "higher" if metrics_for(task.problem)[task.metric].greater_is_better else "lower"
    unit = f"in units of {task.target}, " if task.metric in ("rmse", "mae") else ""
    return f"{unit}{better} is better"


def newest_records(entries: Iterable[Entry]) -> tuple[WindowRecord, ...]:
    """The newest record of each window, in time order: windows are measured again when labels arrive. What was realised
    stays until the labels of another version, which answered rows that came late, are there."""
    newest: dict[tuple[datetime, datetime], WindowRecord] = {}
    for record in (WindowRecord.model_validate(entry.details) for entry in entries if entry.kind == "window"):
        place = record.window.start, record.window.end
        before = newest.get(place)
        if before is None or before.version == record.version or record.performance or not before.performance:
            newest[place] = record
    return tuple(newest[place] for place in sorted(newest))


def _served(place: Workplace) -> str:
    settings = place.settings
    key = settings.api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    try:
        url = f"{settings.endpoint_url}/models/{place.task.name}"
        answer = httpx.get(url, headers=headers, timeout=1.0, trust_env=False, verify=trusted(settings))
        if answer.status_code in (401, 403):
            return LOCKED
        return f"version {answer.raise_for_status().json()['version']}"
    except (httpx.HTTPError, InputError, ValueError, KeyError):
        return "not answering"


def _champion(entries: Sequence[Entry]) -> str:
    """The version last promoted or gone back to, by the ledger: a page needs no registry for it."""
    found = [entry.version for entry in entries if entry.kind in ("promotion", "rollback")]
    return f"version {found[-1]}" if found else "none yet"


def page(snapshot: Snapshot) -> str:
    """The page as HTML."""
    body = [
        cards(snapshot) + reasons(snapshot),
        f"<section><h2>{escape(snapshot.metric)} by window <small>{escape(snapshot.meant)}</small></h2>"
        f"{_chart(snapshot)}</section>",
        f"<section><h2>Ledger</h2>{ledger_table(snapshot.entries)}</section>",
        f"<section><h2>Elsewhere</h2>{_links(snapshot)}</section>",
    ]
    return _html(snapshot.task, "".join(body))


def overview(snapshots: Sequence[Snapshot]) -> str:
    """The page of several tasks: how each fares, and where there is more of it."""
    none = '<p class="quiet">No task yet; begin with: everfit init DATA --target COL</p>'
    return _html("", "".join(_summary(one) for one in snapshots) or none)


def not_found(what: str, tasks: Sequence[str]) -> str:
    """The page for an address that there is not: what is missing, and the tasks that there are."""
    links = "".join(_link(f"/tasks/{name}", name) for name in tasks)
    known = f'<ul class="links">{links}</ul>' if links else '<p class="quiet">No task is registered.</p>'
    return _html("", f"<section><h2>{escape(what)}</h2>{known}</section>")


def _summary(snapshot: Snapshot) -> str:
    name = escape(snapshot.task)
    return f'<section><h2><a href="/tasks/{name}">{name}</a></h2>{cards(snapshot)}</section>'


def _html(task: str, body: str) -> str:
    name = escape(task)
    head = f'<h1><a href="/">Everfit</a> <span>{name}</span></h1><p>{utc_now():%Y-%m-%d %H:%M:%S} UTC</p>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Everfit{': ' * bool(name)}{name}</title><style>{STYLE}</style></head>"
        f"<body><header>{head}</header>{body}</body></html>"
    )


_WIDTHS = {"broad": WIDTH, "narrow": NARROW}
_LEGEND = (
    '<p class="legend"><span class="value">served model</span><span class="band">95 % interval</span>'
    '<span class="expected">expected, labels to come</span>'
    '<span class="reference">its reference</span><span class="mark">promotion or rollback</span></p>'
)


def _chart(snapshot: Snapshot) -> str:
    marks = [
        Mark(entry.at, f"v{entry.version}") for entry in snapshot.entries if entry.kind in ("promotion", "rollback")
    ]
    bounds = snapshot.bounds
    points = [
        one.within(*bounds)
        for _, records in groupby(snapshot.records, lambda record: record.version)
        for one in _points(records)
    ]
    drawn = {name: line_chart(points, marks, metric=snapshot.metric, width=width) for name, width in _WIDTHS.items()}
    if not points:
        return drawn["broad"]
    return "".join(f'<div class="{name}">{svg}</div>' for name, svg in drawn.items()) + _LEGEND


def _points(records: Iterable[WindowRecord]) -> Iterator[Point]:
    """A version's windows: what came true, or what is to be expected after that."""
    served = list(records)
    for record, expected in zip(served, outlook(served), strict=True):
        realised = record.performance
        found = realised or expected
        if found is not None and found.value is not None:
            reference = None if (level := reference_level(record)) is None else level.value
            yield Point(
                record.window.start, found.value, found.low, found.high, reference, record.version, realised is None
            )


def _links(snapshot: Snapshot) -> str:
    links = [
        _link(one.url, one.what) for one in snapshot.services if one.url and one.name not in ("status", "endpoint")
    ]
    links += [_link(f"{one.url}/docs", "the endpoint's API") for one in snapshot.services if one.name == "endpoint"]
    reports = f"/tasks/{snapshot.task}/reports"
    links += [_link(f"{reports}/{name}", f"report {name.removesuffix('.html')}") for name in snapshot.reports]
    return f'<ul class="links">{"".join(links)}</ul>' if links else '<p class="quiet">No service answers.</p>'


def _link(url: str, text: str) -> str:
    return f'<li><a href="{escape(url)}">{escape(text)}</a></li>'


class Places:
    """The registered tasks, opened when first asked for, and again when a task's file is another one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[int, Workplace]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return task_names(self._settings)

    def __getitem__(self, name: str) -> Workplace:
        """Raises `HTTPException`, `EverfitError`."""
        if name not in self.names:
            raise HTTPException(404, f"no task {name!r}")
        stamp = self._settings.task_file(name).stat().st_mtime_ns
        if name not in self._known or self._known[name][0] != stamp:
            self._known[name] = stamp, Workplace.open(self._settings, find_task(self._settings, name))
        return self._known[name][1]


def create_app(settings: Settings) -> FastAPI:
    """The application: `/`, `/health`, `/tasks/TASK`, `/tasks/TASK/reports/NAME`."""
    app, places = FastAPI(title="Everfit's status page", openapi_url=None), Places(settings)
    # Without it a page from elsewhere could reach this one under a name of its own that resolves to loopback.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.exception_handler(HTTPException)
    def absent(_request: Request, error: HTTPException) -> HTMLResponse:
        return HTMLResponse(not_found(error.detail, places.names), status_code=error.status_code, headers=_HEADERS)

    @app.exception_handler(EverfitError)
    def fault(_request: Request, error: EverfitError) -> HTMLResponse:
        return HTMLResponse(f"<pre>{escape(str(error))}</pre>", status_code=503)

    @app.get("/")
    def show() -> HTMLResponse:
        names = places.names
        shown = page(read(places[names[0]])) if len(names) == 1 else overview([read(places[one]) for one in names])
        return HTMLResponse(shown, headers=_HEADERS)

    @app.get("/tasks/{task}")
    def show_task(task: str) -> HTMLResponse:
        return HTMLResponse(page(read(places[task])), headers=_HEADERS)

    @app.get("/tasks/{task}/reports/{name}")
    def report(task: str, name: str) -> FileResponse:
        folder = places[task].reports
        if name not in {path.name for path in folder.glob("*.html")}:
            raise HTTPException(404, f"no report {name!r}")
        return FileResponse(folder / name, media_type="text/html")

    @app.get("/health")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    return app


def main() -> None:
    """The process's door."""
    import uvicorn

    settings = Settings()
    uvicorn.run(create_app(settings), host="127.0.0.1", port=settings.status_port, log_level="warning")


if __name__ == "__main__":
    main()
