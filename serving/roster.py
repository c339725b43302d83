"""The tasks that the workers of one port serve: loaded or unloaded in one, they are so in the others a moment later.

The roster is a folder with an empty file a task, so that no two workers write the same thing. A worker that is replaced
begins with the tasks of the command line and follows the roster from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from registry.errors import EverfitError, OutsideError
from registry.settings import Settings
from serving.hosts import Hosts

_LOG = logging.getLogger("uvicorn.error")


def workers_folder(settings: Settings) -> Path:
    """Where the workers of one port tell one another what concerns all of them."""
    return settings.folder / "served" / "workers" / str(settings.port)


class Roster:
    """One worker's end of it; a process that serves alone has no folder."""

    def __init__(self, folder: Path | None, hosts: Hosts, seconds: float) -> None:
        """`folder` is that of `workers_folder`; it is looked into every so many seconds."""
        self._folder, self._hosts, self._seconds = None if folder is None else folder / "tasks", hosts, seconds
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
        if self._folder is not None:
            try:
                how(self._folder / task)
            except OSError as error:
                raise OutsideError(f"{task}: done by this worker, and the others cannot be told: {error}") from error

    async def follow(self) -> None:
        """Do as the others did, until cancelled. What fails is told once, and tried again."""
        while self._folder is not None:
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


def begin(folder: Path, tasks: Iterable[str]) -> None:
    """A roster of these tasks, whatever an earlier one held. Raises `OutsideError`."""
    roster, wanted = folder / "tasks", set(tasks)
    try:
        roster.mkdir(parents=True, exist_ok=True, mode=0o700)
        for one in roster.iterdir():
            if one.name not in wanted:
                one.unlink()
        for task in wanted:
            (roster / task).touch()
    except OSError as error:
        raise OutsideError(f"workers cannot tell one another which tasks they serve: {error}") from error
