"""The study's journal file, under a lock that dies with its holder: a killed worker never blocks the others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import TrialState

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


class Journal(JournalStorage):
    """Optuna's storage, which can write the choices and marks of a trial at once: each alone is locked, written and
    synced for itself, and a candidate has dozens."""

    def __init__(self, backend: JournalFileBackend) -> None:
        self._kept: list[dict[str, Any]] | None = None
        super().__init__(backend)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Keep choices and marks until the end, or until something else is written: others learn of them then, in their
        order. A process that is killed before that leaves a trial without choices, as one does that is asking."""
        self._kept = []
        try:
            yield
        finally:
            kept, self._kept = self._kept, None
            if kept:
                with self._thread_lock:
                    self._backend.append_logs(kept)
                    self._sync_with_backend()

    def _write_log(self, op_code: int, extra_fields: dict[str, Any]) -> None:
        if self._kept is None:
            super()._write_log(op_code, extra_fields)
            return
        self._kept.append({"op_code": op_code, "worker_id": self._replay_result.worker_id, **extra_fields})
        if op_code not in (JournalOperation.SET_TRIAL_PARAM, JournalOperation.SET_TRIAL_USER_ATTR):
            kept, self._kept = self._kept, []
            self._backend.append_logs(kept)

    def _sync_with_backend(self) -> None:
        if not self._kept:
            super()._sync_with_backend()


@contextmanager
def together(study: optuna.Study) -> Iterator[None]:
    """Write the choices and marks of a study's trials at once; as ever where it is in no journal of ours."""
    if isinstance(study._storage, Journal):
        with study._storage.together():
            yield
    else:
        yield


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
        storage=Journal(JournalFileBackend(str(journal), lock_obj=KernelLock(journal))),
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # `stopping/` does it
        study_name=STUDY,
        directions=[StudyDirection.MAXIMIZE if greater_is_better else StudyDirection.MINIMIZE, *less],
        load_if_exists=True,
    )


def begin_study(folder: Path, *, greater_is_better: bool, costs: int = 0) -> optuna.Study:
    """The study of a folder for whoever is to fill its queue: one of which no trial was begun is made anew, as a kill
    may have cut the filling short. Nobody else may have it open."""
    study = open_study(folder, greater_is_better=greater_is_better, costs=costs)
    if any(one.state is not TrialState.WAITING for one in study.get_trials(deepcopy=False)):
        return study
    (folder / JOURNAL).unlink()
    return open_study(folder, greater_is_better=greater_is_better, costs=costs)
