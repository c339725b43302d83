"""What it costs to store a prediction before it is answered: the journal's own time for a single-row request."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from benchmarks.serving_rivals import Bench
from serving.champion import Served
from serving.journal import Journal

REQUESTS = {"os": 20_000, "disk": 200}
"""How many are stored, by `EVERFIT_LOG_SYNC`."""


def show_journal(bench: Bench) -> None:
    """Measure and print."""
    served, row = Served.load(bench.bundle, "1", bench.home.task), bench.rows[0]
    print(f"\n{len(row)} columns, body of {len(orjson.dumps(row))} bytes")
    for sync, requests in REQUESTS.items():
        cost = journal_cost(bench.scratch / "journal", served, row, synced=sync == "disk", requests=requests)
        print(f"journal, EVERFIT_LOG_SYNC={sync}: {cost:.1f} us a request")


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
