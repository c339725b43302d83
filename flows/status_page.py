"""The status page (`python -m flows.status_page`): loopback only, a page of HTML for each task, no script.

Nothing on it is fetched from elsewhere, and every text from the ledger or the settings is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.chart import NARROW, WIDTH, Mark, Point, line_chart
from flows.ledger_table import ledger_table
from flows.shift_map import named_segments, rows_of, shift_map
from flows.status_cards import cards, reasons
from flows.status_snapshot import Snapshot, read
from flows.status_style import STYLE
from flows.workplace import Workplace, find_task, task_names
from monitor.comparison import reference_level
from monitor.measurements import WindowRecord
from monitor.outlook import outlook
from monitor.segment_table import segment_table
from monitor.told import figure
from registry.database import utc_now
from registry.errors import EverfitError
from registry.settings import Settings

_REFRESH_SECONDS = 10
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY}


def page(snapshot: Snapshot) -> str:
    """The page as HTML."""
    body = [
        cards(snapshot) + reasons(snapshot),
        f"<section><h2>{escape(snapshot.metric)} by window <small>{escape(snapshot.meant)}</small></h2>"
        f"{_chart(snapshot)}</section>",
        f"<section><h2>What moved <small>distance from the champion's reference, by window</small></h2>"
        f"{_moved(snapshot)}</section>",
        _segments(snapshot),
        f"<section><h2>Ledger</h2>{ledger_table(snapshot.told)}</section>",
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
"""Of a page, and of a telephone's, which shows one of the two."""

_LEGEND = (
    '<span class="value">served model</span><span class="band">95 % interval</span>'
    '<span class="expected">expected, labels to come</span>'
    '<span class="reference">reference: on its test rows</span><span class="mark">promotion or rollback</span>'
)
_STEPS = '<span class="step">a step: the champion has learnt on</span>'


def _chart(snapshot: Snapshot) -> str:
    marks, steps = ([Mark(one.at, f"v{one.version}") for one in done] for done in (snapshot.moves, snapshot.steps))
    bounds = snapshot.bounds
    points = [
        one.within(*bounds)
        for _, records in groupby(snapshot.records, lambda record: record.version)
        for one in _points(records)
    ]
    metric = snapshot.metric
    drawn = {name: line_chart(points, marks, steps, metric=metric, width=width) for name, width in _WIDTHS.items()}
    if not points:
        return drawn["broad"]
    return f'{_either(drawn)}<p class="legend">{_LEGEND}{_STEPS if steps else ""}</p>'


_MOVED_LEGEND = (
    '<p class="legend"><span class="moved">the darker, the further: 0 as the reference, 1 nothing in common</span>'
    '<span class="named">named in the decision on the window</span></p>'
)


def _moved(snapshot: Snapshot) -> str:
    rows = rows_of(snapshot.records, snapshot.decisions)
    drawn = {name: shift_map(rows, width=width) for name, width in _WIDTHS.items()}
    return _either(drawn) + _MOVED_LEGEND if rows else drawn["broad"]


def _segments(snapshot: Snapshot) -> str:
    """The newest window in which any segment was measured, and the newest where labels are; nothing where the task
    watches none and none was found."""
    newest = snapshot.records[::-1]
    found = [next((one for one in newest if one.named(name)), None) for name in ("segment_share", "segment_coverage")]
    shown = {one.window.start: one for one in found if one is not None}
    named = dict(named_segments(snapshot.decisions))
    out = ""
    for start, record in shown.items():
        of = f"window from {record.window.name}, version {escape(record.version)}; {_BESIDE}"
        table = segment_table(record, named.get(start, ()))
        out += f'<section><h2>Segments <small>{of}</small></h2><div class="wide">{table}</div></section>'
    return out


_BESIDE = "in brackets the reference: of calibration what chance shows, of answers how far they moved elsewhere"


def _either(drawn: Mapping[str, str]) -> str:
    return "".join(f'<div class="{name}">{svg}</div>' for name, svg in drawn.items())


def _points(records: Iterable[WindowRecord]) -> Iterator[Point]:
    """A version's windows: what came true, or what is to be expected after that."""
    served = list(records)
    for record, expected in zip(served, outlook(served), strict=True):
        told = figure(record)
        reference = None if (level := reference_level(record)) is None else level.value
        at, version = record.window.start, record.version
        if told is not None:
            yield Point(at, told.level.value, told.low, told.high, reference, version)
        elif expected is not None and expected.value is not None:
            yield Point(at, expected.value, expected.low, expected.high, reference, version, expected=True)


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


class HeadAsGet:
    """Answers HEAD as a GET, whose body the server leaves out: probes ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        await self.app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The application: `/`, `/health`, `/tasks/TASK`, `/tasks/TASK/reports/NAME`."""
    app, places = FastAPI(title="Everfit's status page", openapi_url=None), Places(settings)
    # Without it a page from elsewhere could reach this one under a name of its own that resolves to loopback.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_middleware(HeadAsGet)

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
