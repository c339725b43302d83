"""Trials in the search's own process, where all of them take less than workers take to start.

A re-search of a table trains a few known networks. Where these are small, importing torch once more costs as much as
all of them; `fine_tune` trains in its own process, too. A trial that fails here runs again in a worker, as after the
death of one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from registry.errors import EverfitError
from retrain.families.base import Candidate
from retrain.search.journal import locked
from retrain.search.sealing import one_thread
from retrain.search.tally import WORKING
from retrain.search.worker import Worker
from retrain.search.workshop import Workshop

_LOG = logging.getLogger("everfit")

ROWS = 20_000
"""Of more rows workers are started before anything is known of the networks: they take longer to prepare, too."""
SECONDS = 10.0
"""CPU-seconds that the trials may be expected to take together. At 6 one process ends when two workers would, of which
each begins 3 later; up to here CPU-time is saved for a little wall-clock."""
LONGEST = 2 * SECONDS
"""Workers go on once trials have taken so much: they are longer than was expected."""


def is_small(workshop: Workshop, candidates: Sequence[Candidate], trials: int) -> bool:
    """Whether so many trials of candidates such as these (the first ones of a queue) are short together. Looked at on
    one thread, as they train: the seconds of further ones would not be counted."""
    share, left = trials / max(1, len(candidates)), SECONDS
    with one_thread():
        for candidate in candidates:
            left -= share * workshop.training_seconds(candidate)
            if left < 0:
                return False
    return bool(candidates)


def train_here(worker: Worker, after: Callable[[], None]) -> bool:
    """Run a worker's trials in this process, on one thread, and `after` each; whether that was all of them."""
    begun = time.thread_time()

    def is_long() -> bool:
        after()
        return time.thread_time() - begun > LONGEST

    try:
        with one_thread(), locked(worker.folder / WORKING, shared=True):
            return worker.run(is_long)
    except EverfitError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError):
        _LOG.exception("a trial has failed in the search's own process; workers go on")
        return False
