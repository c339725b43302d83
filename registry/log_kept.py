"""How long rows of the log are kept: batches that lie before a moment go, with the labels of their rows.

Whole batches go, when the newest of their rows is old enough, some in one transaction: no writer waits for more than
that. SQLite's file does not become smaller by it: later rows take the room. What was measured of them stays in the
ledger. A label that comes later waits for a prediction as any other does.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_counted import change
from registry.log_ids import ids_of, read_runs
from registry.log_query import ROLES
from registry.log_tables import BATCHES, FEEDBACK, lock, remove
from registry.statements import among

AT_ONCE, MOST_ROWS = 20, 20_000
"""So many batches go in one transaction, and no further one once so many rows have."""


def drop(connection: Connection, task: str, before: int) -> int:
    """Delete the oldest batches all of whose rows lie before this moment, in microseconds: some of them, and how many
    rows that were; 0 where there are no more."""
    lock(connection, task)
    c, gone = BATCHES.c, 0
    for role in ROLES:  # one after another: the index begins with the role
        old = sa.select(c.number, c.size, c.ids).where(c.task == task, c.role == role, c.latest < before)
        for number, size, ids in connection.execute(old.order_by(c.latest).limit(AT_ONCE)).all():
            runs = read_runs(ids)
            remove(connection, task, role, runs, [number])
            if role == "champion":  # a row of the shadow is of a request that has one of the champion, and one label
                mine = FEEDBACK.c.task == task, among(connection, FEEDBACK.c.id, ids_of(runs))
                labels = connection.execute(sa.delete(FEEDBACK).where(*mine).returning(FEEDBACK.c.id)).scalars()
                change(connection, task, labelled=-len(set(labels)))  # a corrected one is several
            gone += int(size)
            if gone >= MOST_ROWS:
                return gone
    return gone
