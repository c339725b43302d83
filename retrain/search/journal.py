"""The study's journal file, under a lock that dies with its holder: a killed worker never blocks the others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

JOURNAL = "journal.log"
STUDY = "study"


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on a file, waiting for it. Released by the kernel when the process ends."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


class KernelLock(JournalFileOpenLock):
    """Optuna's lock on the journal, by `flock`: a killed holder leaves nothing behind. Whoever acquires it cuts off a
    line that a killed writer left torn."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file = -1

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = os.open(self._journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        """Let it go."""
        os.close(self._file)


def cut_torn_line(journal: Path) -> None:
    """Shorten a journal to its last complete line. For the holder of the lock only."""
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def open_study(
    folder: Path,
    *,
    greater_is_better: bool,
    costs: int = 0,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """The study of a folder, made if need be: of the metric, and of so many costs beside it, of which less is better.
    Make it in one process before others open it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal, less = folder / JOURNAL, [StudyDirection.MINIMIZE] * costs
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock_obj=KernelLock(journal))),
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # `stopping/` does it
        study_name=STUDY,
        directions=[StudyDirection.MAXIMIZE if greater_is_better else StudyDirection.MINIMIZE, *less],
        load_if_exists=True,
    )
