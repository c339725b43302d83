"""The tasks that the workers of one port serve: loaded or unloaded in one, they are so in the others a moment later.

The roster is a folder with an empty file a task, so that no two workers write the same thing. A worker that is replaced
begins with the tasks of the command line and follows the roster from there. A process that serves alone writes it too:
other programs read it (`presence.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from registry.errors import EverfitError, OutsideError
from serving.hosts import Hosts

_LOG = logging.getLogger("uvicorn.error")


class Roster:
    """One worker's end of it."""

    def __init__(self, folder: Path, hosts: Hosts, seconds: float | None) -> None:
        """`folder` is that of `workers_folder`; it is looked into every so many seconds, by a process that serves alone
        (None) never."""
        self._folder, self._hosts, self._seconds = folder / "tasks", hosts, seconds
        self._changing = asyncio.Lock()
        self._told = dict[str, str]()

    async def load(self, task: str) -> None:
        """Have a task served too: see `Hosts.load`. Raises `OutsideError` where the other workers cannot be told."""
        async with self._changing:
            await self._hosts.load(task)  # first: it knows which names there can be
            self._write(task, Path.touch)

    async def unload(self, task: str) -> None:
        """Have a task served no more: see `Hosts.unload`. Raises `OutsideError` as `load` does."""
        async with self._changing:
            await self._hosts.unload(task)
            self._write(task, partial(Path.unlink, missing_ok=True))

    def _write(self, task: str, how: Callable[[Path], None]) -> None:
        try:
            how(self._folder / task)
        except OSError as error:
            if self._seconds is not None:
                raise OutsideError(f"{task}: done by this worker, and the others cannot be told: {error}") from error

    async def follow(self) -> None:
        """Do as the others did, until cancelled. What fails is told once, and tried again."""
        while self._seconds is not None:
            await asyncio.sleep(self._seconds)
            async with self._changing:
                with suppress(OSError):
                    await self._follow({one.name for one in self._folder.iterdir()})

    async def _follow(self, wanted: set[str]) -> None:
        served = {host.task for host in self._hosts}
        for task in sorted(served ^ wanted):
            try:
                await (self._hosts.unload if task in served else self._hosts.load)(task)
                self._told.pop(task, None)
            except EverfitError as error:
                if self._told.get(task) != str(error):
                    _LOG.warning("%s: another worker serves it, this one cannot yet: %s", task, error)
                self._told[task] = str(error)
