"""The kept numbers of rows and labels are those of the rows, whatever was stored, told, joined, let go, or killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.engine import Engine

from registry.database import from_micros, open_engine, reading, writing
from registry.inference_log import Counts, Feedback, InferenceLog
from registry.log_counted import tally
from registry.log_query import Asked
from tests.registry.test_log_batches import START, batch, made

DAY = 86_400_000_000


def labels(ids: Sequence[str], label: str = "yes", received: int = START) -> list[Feedback]:
    return [Feedback(one, label, from_micros(START), from_micros(received)) for one in ids]


def counted(engine: Engine, task: str) -> tuple[Counts, int]:
    """Counted anew, row by row: predictions, those with a label, and the labels without a prediction."""
    with reading(engine) as connection:
        found = Counts(*Asked(task).counts(connection))
        text = f"SELECT count(DISTINCT id) FROM feedback WHERE task = '{task}'"
        return found, int(connection.exec_driver_sql(text).scalar_one()) - found.labelled


def kept(engine: Engine, task: str) -> tuple[Counts, int]:
    with reading(engine) as connection:
        return InferenceLog(engine, task).counts(), tally(connection, task)[1]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_the_numbers_are_those_of_the_rows(engine: Engine, seed: int) -> None:
    """Labels before their predictions and after, again and corrected; rows again, joined, and gone with their labels;
    ids of the endpoint and of clients; a shadow that answers more than the champion; another task beside."""
    rng, tasks = random.Random(seed), ("flights", "loans")
    names = [*made(range(400)), *(f"own-{number}" for number in range(100))]
    waited = labelled = 0
    for turn in range(60):
        log, name = InferenceLog(engine, task := rng.choice(tasks)), rng.randrange(len(names) - 60)
        some = names[name : name + rng.randrange(1, 60)]
        act = rng.choice(["rows", "rows", "shadow", "labels", "labels", "labels", "corrected", "join", "drop"])
        if act in ("rows", "shadow"):
            role = "champion" if act == "rows" else "shadow"
            log.append_batches([batch(some, [turn * DAY + row for row in range(len(some))], role=role)])
        elif act in ("labels", "corrected"):
            log.add_feedback(labels(some, act, START + turn))
        elif act == "join":
            log.join()
        else:
            log.drop(from_micros(START + rng.randrange(turn + 1) * DAY))
        found = counted(engine, task)
        assert kept(engine, task) == found, (turn, act)
        labelled, waited = max(labelled, found[0].labelled), max(waited, found[1])
    assert min(labelled, waited) > 20


def test_a_database_of_before_is_counted_once(engine: Engine, empty_url: str) -> None:
    log = InferenceLog(engine, "flights")
    log.append_batches([batch([*made(range(50)), "a", "b"], range(52)), batch(["s"], [0], role="shadow")])
    log.add_feedback(labels([*made(range(40, 60)), "b", "s", "z"]))
    log.add_feedback(labels(["b"], "no", START + 1))
    with writing(engine) as connection:  # as the migration before left it
        connection.exec_driver_sql("DROP TABLE tallies")
        connection.exec_driver_sql("DELETE FROM migrations WHERE number = 7")
    again = open_engine(empty_url)
    assert kept(again, "flights") == (Counts(52, 11), 12) == counted(again, "flights")
    assert kept(again, "loans") == (Counts(0, 0), 0)
    again.dispose()


def test_what_an_older_everfit_stored_after_the_migration_is_counted(engine: Engine) -> None:
    """It goes on until its endpoint is started again, and counts nothing."""
    log, ids = InferenceLog(engine, "flights"), made(range(40))
    log.append_batches([batch(ids[:20], range(20))])
    log.add_feedback(labels(ids[:30]))
    assert not log.recount()
    before = kept(engine, "flights")
    log.append_batches([batch(ids[20:], range(20))])
    log.add_feedback(labels([*ids, "waits"]))
    expected = kept(engine, "flights")
    with writing(engine) as connection:  # as if nobody had counted
        connection.exec_driver_sql(f"UPDATE tallies SET labelled = {before[0].labelled}, waiting = {before[1]}")
    assert (log.recount(), log.recount()) == (True, False)
    assert kept(engine, "flights") == expected == counted(engine, "flights") == (Counts(40, 40), 1)


def test_rows_and_their_labels_may_come_at_once(engine: Engine) -> None:
    """Neither of two writers sees what the other has not finished: one has to wait, or nobody would count the pair."""
    log, ids = InferenceLog(engine, "flights"), made(range(600))
    parts = [ids[first : first + 20] for first in range(0, len(ids), 20)]
    with ThreadPoolExecutor(4) as pool:
        rows = pool.map(lambda some: log.append_batches([batch(some, range(len(some)))]), parts)
        told = pool.map(lambda some: log.add_feedback(labels(some)), [*parts, *parts])
        assert (sum(rows), len(list(told))) == (len(ids), 2 * len(parts))
    assert kept(engine, "flights") == (Counts(600, 600), 0)


_WRITES = """
import sys
from itertools import count
from registry.database import from_micros, open_engine
from registry.inference_log import InferenceLog
from tests.registry.test_log_counted import START, batch, labels, made
log = InferenceLog(open_engine(sys.argv[1]), "flights")
for turn in count(int(sys.argv[2])):
    ids = made(range(20 * turn, 20 * turn + 20))
    log.add_feedback(labels(ids[:12]))
    log.append_batches([batch(ids, [turn * 1_000_000] * 20)])
    log.add_feedback(labels(ids[8:]))
    log.drop(from_micros(START + (turn - 5) * 1_000_000))
    print(turn, flush=True)
"""


def test_a_killed_writer_leaves_both_or_neither(engine: Engine, empty_url: str) -> None:
    """kill -9 at any moment; what is there then is counted as it is."""
    turn = 0
    for pause in (0.0, 0.017):
        command = [sys.executable, "-c", _WRITES, empty_url, str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            turn = [int(process.stdout.readline()) for _ in range(10)][-1] + 100
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        rows, waiting = kept(engine, "flights")
        assert (rows, waiting) == counted(engine, "flights")
        assert rows.predictions > 0
