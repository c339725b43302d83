"""When rows and labels arrived lately, from a bounded sample: how long the usual pauses between them are.

Of each hour in which a batch's last row lies one batch is looked at, the newest, and of each of those a few labels. So
many are read however much is logged; what lies between is not seen, so that pauses are rather told too long than too
short. Hours to come are among them: what is predicted days ahead has arrived by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_ids import ids_of, read_runs
from registry.log_tables import BATCHES, FEEDBACK
from registry.statements import among

_MINUTE, _HOUR = 60_000_000, 3_600_000_000
_BATCHES = 2_000
"""Most that are looked at, the newest: some weeks of hours, and as many to come."""
_LABELS = 20
"""Ids of a batch whose labels are looked for."""


class Arrivals(NamedTuple):
    """Moments at which the champion's rows, and labels of them, were received, in microseconds and in order: of each
    minute the last."""

    rows: list[int]
    labels: list[int]


def arrivals(connection: Connection, task: str, start: int) -> Arrivals:
    """Of batches whose last row's event time is this one or later, in microseconds."""
    c, f = BATCHES.c, FEEDBACK.c
    lately = (c.task == task) & (c.role == "champion") & (c.latest >= start)
    number = sa.func.max(c.number)
    hours = sa.select(number).where(lately).group_by(c.latest // _HOUR).order_by(number.desc()).limit(_BATCHES)
    newest = connection.execute(hours).scalars().all()
    batches = connection.execute(sa.select(c.moments, c.ids).where(among(connection, c.number, newest))).all()
    received = [moment for moments, _ in batches for moment, _ in orjson.loads(moments)["received"]]
    ids = [one for _, runs in batches for one in sampled(runs)]
    told = sa.select(f.received).where(f.task == task, among(connection, f.id, ids)).distinct()
    return Arrivals(_thinned(received), _thinned(connection.execute(told).scalars().all()))


def _thinned(moments: Sequence[int]) -> list[int]:
    found = np.sort(np.array(moments, dtype=np.int64))
    minutes = found // _MINUTE
    last: list[int] = found[np.append(minutes[1:] != minutes[:-1], True)[: len(found)]].tolist()
    return last


def sampled(text: str) -> list[str]:
    """A few ids of a batch, from all over it: one that was joined may hold the rows of days."""
    runs = read_runs(text)
    each = max(1, _LABELS // len(runs))
    return ids_of(
        (name, start + place * size // min(size, each), 1)
        for name, start, size in runs[:: -(-len(runs) // _LABELS)]
        for place in range(min(size, each))
    )
