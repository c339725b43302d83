"""How many of a task's predictions have a label, kept beside the rows: nobody counts millions to tell it.

Of each task two numbers: the champion's predictions that have a `labelled` id, and the labels that are `waiting` for
such a prediction. Whoever stores predictions or labels, or lets them go, changes the numbers in the same transaction,
under the task's lock, so that they are those of the rows whatever is killed. An endpoint of an Everfit that does not
count may go on for a while after the migration: the next one to start sees it by the labels, and counts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_ids import Run, ids_of, read_runs
from registry.log_packed import Packed
from registry.log_tables import BATCHES, FEEDBACK, labelled_in, labelled_of
from registry.statements import insert

FEW = 20
"""So many rows a run make it quicker to ask for the labels of a run than for those of its rows."""

_BATCHES_AT_ONCE = 100
_TALLIES = sa.Table(
    "tallies",
    sa.MetaData(),
    sa.Column("task", sa.Text, primary_key=True),
    *(sa.Column(name, sa.BigInteger) for name in ("labelled", "waiting")),
)


def tally(connection: Connection, task: str) -> tuple[int, int]:
    """Predictions of the champion that have a label, and labels that wait for a prediction of it."""
    c = _TALLIES.c
    found = connection.execute(sa.select(c.labelled, c.waiting).where(c.task == task)).one_or_none()
    return (0, 0) if found is None else (found.labelled, found.waiting)


def change(connection: Connection, task: str, *, labelled: int = 0, waiting: int = 0) -> None:
    """Add to both numbers, in the transaction that changes the rows. The caller holds the task's lock."""
    if not labelled and not waiting:
        return
    statement = insert(connection, _TALLIES)
    more = {name: _TALLIES.c[name] + statement.excluded[name] for name in ("labelled", "waiting")}
    new = {"task": task, "labelled": labelled, "waiting": waiting}
    connection.execute(statement.on_conflict_do_update(index_elements=["task"], set_=more), new)


def claim(connection: Connection, task: str, stored: Iterable[Packed]) -> None:
    """Count the labels that have waited for predictions that are new."""
    runs = [one.runs for one in stored if one.role == "champion"]
    if not runs or not tally(connection, task)[1]:
        return
    met = sum(_labelled(connection, task, some) for some in runs)
    change(connection, task, labelled=met, waiting=-met)


def agrees(connection: Connection, task: str) -> bool:
    """Whether as many labels are counted as there are: whoever does not count stores more of them, or lets some go."""
    return sum(tally(connection, task)) == _labels(connection, task)


def recount(connection: Connection, task: str) -> None:
    """Count all rows of a task. The caller holds its lock."""
    c, (labelled, waiting) = BATCHES.c, tally(connection, task)
    mine = sa.select(c.ids).where(c.task == task, c.role == "champion")
    batches = connection.execute(mine, execution_options={"yield_per": _BATCHES_AT_ONCE}).scalars()
    met = sum(_labelled(connection, task, read_runs(ids)) for ids in batches)
    left = _labels(connection, task) - met
    change(connection, task, labelled=met - labelled, waiting=left - waiting)


def count_all(connection: Connection) -> None:
    """Count all rows of all tasks, once: a migration."""
    for task in connection.execute(sa.select(FEEDBACK.c.task).distinct()).scalars().all():
        recount(connection, task)


def _labels(connection: Connection, task: str) -> int:
    found = sa.select(sa.func.count(FEEDBACK.c.id.distinct())).where(FEEDBACK.c.task == task)
    return int(connection.execute(found).scalar_one())


def _labelled(connection: Connection, task: str, runs: Sequence[Run]) -> int:
    mine = FEEDBACK.c.task == task
    if len(runs) * FEW <= sum(size for _, _, size in runs):
        return sum(labelled_in(connection, mine, run) for run in runs)
    return sum(labelled_of(connection, mine, ids_of(runs)))
