"""What of a logged row the keeper hides: as the registered task says now, or, on a machine where the task is not
registered, as the task said that the row's model was made for.

A changed task holds from the next batch of rows on; rows that are logged stay as they are. A task that cannot be read
lets no row through: they wait in the journal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.log_batch import Batch
from registry.privacy import Privacy, Vault
from registry.task import LogColumns, load

_Stamp = tuple[int, int, int]


@dataclass
class Discretion:
    """Hides columns of a task's rows. `file` is the registered task's; None: nowhere."""

    task: str
    vault: Vault
    file: Path | None = None
    _read: tuple[_Stamp, LogColumns] | None = None

    @classmethod
    def of(cls, opening: Mapping[str, Any]) -> Discretion:
        """As the endpoint's first line to its keeper says."""
        told = opening.get("hidden") or {}
        key_file, file = (None if told.get(name) is None else Path(told[name]) for name in ("key_file", "file"))
        return cls(opening["task"], Vault(told.get("secret"), key_file), file)

    def columns(self, made_for: LogColumns) -> LogColumns:
        """The columns that are hidden now of rows of a model that was made for such a task. Raises `TaskError`."""
        if self.file is None:
            return made_for
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return made_for
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, load(self.file).log
        return self._read[1]

    def hidden(self, made: Batch, made_for: LogColumns) -> Batch:
        """Predictions as they may be logged. Raises `TaskError`, and `InputError` or `StoreError` for the key."""
        return made.hidden(self.task, Privacy(self.columns(made_for), self.vault))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read: it holds rows as they were sent."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
