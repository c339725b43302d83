"""The tasks of a server: loaded and unloaded one by one while the others answer, in memory that is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

from starlette.types import ASGIApp

from registry.errors import BundleError, NoModelError, TaskError, did_you_mean
from registry.settings import Settings
from serving.champion import Slot, VersionSource
from serving.host import Host
from serving.problems import UnknownTaskError
from serving.singles import Singles

_SHORT = frozenset(("/predict", "/feedback", "/invocations", "/model", "/version", "/v2"))
"""The short forms, and what their clients ask of the server that tells of no task."""


class Hosts:
    """Belongs to one event loop. `routes` are the hot paths: a POST to one of them is answered without FastAPI;
    `singles` those on which single rows may be answered without ASGI."""

    def __init__(self, settings: Settings, tasks: Sequence[str], source: VersionSource) -> None:
        """Raises `TaskError` for a name that no task can have, and for one that comes twice."""
        self._settings, self._source = settings, source
        self._by_name: dict[str, Host] = {}
        self._changing, self._coming = asyncio.Lock(), list[Host]()
        self._counting = threading.Lock()
        self.routes: dict[str, ASGIApp] = {}
        self.singles: dict[str, Singles] = {}
        for task in tasks:
            if task in self._by_name:
                raise TaskError(f"task {task!r} is named twice")
            self._by_name[task] = self._make(task)
        self._first = tasks[0] if len(tasks) == 1 else None
        self._arrange()

    def __iter__(self) -> Iterator[Host]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def short(self) -> Host | None:
        """Whose the short forms of the routes are: the task's that the server began with, if it was one, as long as it
        is served, so that its clients are answered whatever is loaded beside it; else the only one's."""
        if self._first in self._by_name:
            return self._by_name[self._first]
        return next(iter(self._by_name.values())) if len(self._by_name) == 1 else None

    def whose(self, path: str) -> str | None:
        """The task whose a path is that names none, if it is one's: what tells of all tasks is the only one's."""
        found = self.short if path in _SHORT or len(self) == 1 else None
        return None if found is None else found.task

    def named(self, task: str) -> Host:
        """A task's host. Raises `UnknownTaskError`."""
        found = self._by_name.get(task)
        if found is None:
            known = list(self._by_name)
            listed = ", ".join(sorted(known)) or "none"
            if not task and known:
                paths = ", ".join(f"/models/{one}/..." for one in sorted(known))
                raise UnknownTaskError(f"several tasks are served here: ask {paths}")
            raise UnknownTaskError(f"no task {task!r} is served here{did_you_mean(task, known)}; served: {listed}")
        return found

    async def open(self) -> None:
        """Open all tasks, all at once."""
        await asyncio.gather(*(host.open() for host in self))

    async def close(self) -> None:
        """Close all tasks."""
        await asyncio.gather(*(host.close() for host in self))

    async def load(self, task: str) -> Host:
        """Serve a task too; one that is served looks at the registry now. Raises `TaskError`, and `NoModelError` when
        the registry has no version of it to serve: then nothing has changed."""
        async with self._changing:
            if (known := self._by_name.get(task)) is not None:
                await known.follower.look()
                return known
            host = self._make(task)
            self._coming = [host]
            try:
                await host.open()
                if host.slot.current is None:
                    await host.follower.look()
                host.slot.served()
            except NoModelError:
                await host.close()
                raise
            finally:
                self._coming = []
            self._by_name[task] = host
            self._arrange()
            return host

    async def unload(self, task: str) -> None:
        """Serve a task no more, once the requests inside are answered. Raises `UnknownTaskError`."""
        async with self._changing:
            host = self.named(task)
            del self._by_name[task]
            self._arrange()
            await host.close()

    def _make(self, task: str) -> Host:
        return Host(self._settings, task, self._source, self._room)

    def _arrange(self) -> None:
        routes: dict[str, ASGIApp] = {}
        singles: dict[str, Singles] = {}
        for host in self:
            prefixes = [f"/models/{host.task}", *([""] if host is self.short else [])]
            for prefix in prefixes:
                routes |= {f"{prefix}/predict": host.predict, f"{prefix}/feedback": host.feedback}
                routes[f"{prefix}/invocations"] = host.invocations
                singles[f"{prefix}/predict"] = host.singles
            routes[f"/v2/models/{host.task}/infer"] = host.infer
        self.routes, self.singles = routes, singles

    def _room(self, slot: Slot, size: int) -> None:
        """Make room for a graph of so many bytes: versions that are only kept warm go. From now on its slot counts it,
        so that two that load at once do not both take what is left. Raises `BundleError`."""
        most = self._settings.max_graph_bytes
        with self._counting:
            for host in self:
                if self._used() + size <= most:
                    break
                host.slot.previous = None
            if (used := self._used()) + size > most:
                raise BundleError(
                    f"its graph has {size:,} bytes, beside {used:,} that are loaded: expected at most {most:,} "
                    "together (EVERFIT_MAX_GRAPH_BYTES)"
                )
            slot.loading = size

    def _used(self) -> int:
        return sum(host.slot.graph_bytes for host in (*self, *self._coming))
