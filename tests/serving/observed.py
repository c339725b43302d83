"""What tests of observability share: weeks that monitoring has measured, and metrics as numbers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from monitor.watching import watch
from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.deliveries import ARRIVED, NOTICE, SENT
from registry.inference_log import InferenceLog
from registry.ledger import Entry, Ledger
from tests.handmade import make_frame, make_task
from tests.monitor.logged import write_rows

WEEK = 7 * 24 * 6
"""Rows of ten minutes."""


def watch_weeks(home: Path, bundle: ModelBundle, *, third: bool = True) -> None:
    """A week as the reference was, with its labels; a later one, where `amount` has moved, without."""
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    log, ledger = InferenceLog(engine, "handmade"), Ledger(engine, "handmade")
    write_rows(log, bundle, make_frame(WEEK, start="2024-03-04"), tag="a")
    if third:
        write_rows(log, bundle, make_frame(WEEK, seed=1, start="2024-03-11", shift=1.0), tag="b", delay=None)
    watch(make_task(), bundle, "1", log, ledger, as_of=datetime(2024, 3, 19 if third else 13))
    ledger.note_pass()
    of = notify(ledger, "https://hooks.example")
    delivered(ledger, of, "https://hooks.example", ARRIVED)
    engine.dispose()


def notify(ledger: Ledger, *channels: str) -> int | None:
    """A notice for these channels to hear; its number."""
    details = {"of": 1, "told": True, "channels": list(channels)}
    return ledger.write(Entry(task="handmade", kind=NOTICE, at=datetime(2024, 3, 20), details=details)).id


def delivered(ledger: Ledger, of: int | None, channel: str, outcome: str) -> None:
    """What became of it at one of them."""
    told = {"of": of, "channel": channel}
    ledger.write(Entry(task="handmade", kind=SENT, at=datetime(2024, 3, 20), outcome=outcome, details=told))


def metrics_of(client: httpx.Client) -> dict[str, float]:
    """What `/metrics` shows, by `name{label="value",...}`, the labels in order of their names."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for one in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}"] = one.value
    return found
