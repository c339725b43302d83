"""What it costs to keep a prediction: the journal's own time for a single-row request before it is answered, and the
CPU-time a row of what the keeper does afterwards, into SQLite, for requests of several forms."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import orjson

from benchmarks.serving_load import ARROW
from benchmarks.serving_rivals import Bench, arrow_body
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.log_ids import runs_of
from serving.arrow import table_of
from serving.champion import Served
from serving.journal import TABLE, Journal
from serving.prediction import Ids
from serving.runs import Run
from serving.tabled import payload

REQUESTS = {"os": 20_000, "disk": 200}
"""How many are stored, by `EVERFIT_LOG_SYNC`."""

FORMS = {"Arrow, 1,024 rows": 1024, "JSON, 32 rows": 32, "JSON, 1 row": 1}
"""Rows a request, by the form in which they are sent."""
MANY = 32
"""More rows than these are sent by columns."""

KEPT, REPEATS = 20_480, 5
"""Rows that the keeper stores, and how often."""


def show_journal(bench: Bench) -> None:
    """Measure and print."""
    served, row = Served.load(bench.bundle, "1", bench.home.task), bench.rows[0]
    print(f"\n{len(row)} columns, body of {len(orjson.dumps(row))} bytes")
    for sync, requests in REQUESTS.items():
        cost = journal_cost(bench.scratch / "journal", served, row, synced=sync == "disk", requests=requests)
        print(f"journal, EVERFIT_LOG_SYNC={sync}: {cost:.1f} us a request")
    for form, size in FORMS.items():
        costs = sorted(keeper_cost(bench, served, size, bench.scratch / f"kept-{size}-{n}") for n in range(REPEATS))
        print(f"keeper, {form}: {costs[REPEATS // 2]:.1f} us of CPU a row ({costs[0]:.1f} to {costs[-1]:.1f})")


def journal_cost(folder: Path, served: Served, row: dict[str, Any], *, synced: bool, requests: int) -> float:
    """Microseconds to store one single-row request."""
    journal = Journal(folder, max_bytes=10**12, synced=synced)
    scores = served.scorer.run(served.reader.one(row))
    body = orjson.dumps(row)
    started = perf_counter()
    for _ in range(requests):
        answer = served.answers.write(["0660d8c4ce0cdb73e9f0759f"], scores)
        journal.append(served.version, served.record, b'{"received":1,"answer":%b,"sent":%b}' % (answer, body), 1)
        if synced:
            journal.settle()
    total = perf_counter() - started
    started = perf_counter()
    for _ in range(requests):
        served.answers.write(["0660d8c4ce0cdb73e9f0759f"], scores)
    return (total - (perf_counter() - started)) / requests * 1e6


def keeper_cost(bench: Bench, served: Served, size: int, folder: Path) -> float:
    """Microseconds of CPU-time a row from the journal into an empty inference log, for requests of `size` rows."""
    journal = Journal(folder / "journal", max_bytes=10**12)
    made = Ids()
    rows = [bench.rows[place % len(bench.rows)] for place in range(KEPT if size > 1 else KEPT // 4)]
    for start in range(0, len(rows), size):
        some, ids, received = rows[start : start + size], made.take(size), time.time_ns() // 1000
        if size > MANY:
            content = _by_columns(bench, served, some, ids, received)
            journal.append(served.version, served.record, content, size, TABLE)
        else:
            content = b'{"received":%d,%b}' % (received, _by_rows(served, some, ids))
            journal.append(served.version, served.record, content, size)
    journal.close()
    run, log = Run(journal.folder), InferenceLog(open_engine(f"sqlite:///{folder}/everfit.db"), bench.home.task)
    gc.freeze()  # as the keeper does
    started = process_time()
    while run.drain(log):
        pass
    return (process_time() - started) / len(rows) * 1e6


def _by_rows(served: Served, rows: list[dict[str, Any]], ids: list[str]) -> bytes:
    answer = served.answers.write(ids, served.scorer.run(served.reader.many(rows)))
    return b'"answer":%b,"sent":%b' % (answer, orjson.dumps(rows if len(rows) > 1 else rows[0]))


def _by_columns(bench: Bench, served: Served, rows: list[dict[str, Any]], ids: list[str], received: int) -> bytes:
    table, _ = table_of(arrow_body(bench.bundle)(rows), ARROW, served.kinds, max_rows=len(rows), max_bytes=10**9)
    scores = served.scorer.run(served.reader.table(table))
    return payload(served.version, served.logged, runs_of(ids), table, scores, received)
