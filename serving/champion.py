"""The served version: loaded beside the old one, tested, swapped between two requests; and what follows the alias.

    registry's alias --poll--> Follower --fetch, verify, load, golden rows--> Slot.current = Served

The slot holds one reference. A request reads it once, so it is answered by one version whole, and a swap waits for
nobody. Whatever goes wrong with a new version, the old one stays, and `Slot` says what went wrong.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import orjson

from registry.bundle import Manifest, ModelBundle
from registry.errors import BundleError, NoModelError, OutsideError, words_of
from registry.schema import ColumnKind, ImageColumn
from registry.scoring import Scorer, Scores
from registry.serving_graph import ServingScorer, open_for_serving, scores_of
from serving.answers import Answers
from serving.cautions import Cautions
from serving.columns import Kinds
from serving.records import described, time_of
from serving.rows import RowReader
from serving.tabled import Logged
from serving.unfamiliar import Unfamiliar

CHAMPION = "champion"
FIRST_BACKOFF = 5.0
LONGEST_BACKOFF = 600.0

T = TypeVar("T")

_LOG = logging.getLogger("uvicorn.error")

Outcome: TypeAlias = list[float] | Scores
"""The answer to one row: as `registry.serving_graph` has it, or `Scores` of length 1."""


class VersionSource(Protocol):
    """What is asked of the registry: `registry.versions.Versions` has it, and `serving.scout.Scout` asks it."""

    def get(self, task: str, alias: str) -> str | None:
        """The version an alias points at. Raises `RegistryError`."""

    def radius(self, task: str, version: str) -> float | None:
        """The conformal radius that takes the place of a version's own, if one does. Raises `RegistryError`."""

    def fetch(self, task: str, version: str) -> ModelBundle:
        """The bundle of a version, verified, in a local folder. Raises `RegistryError`, `BundleError`."""


@dataclass(frozen=True)
class Served:
    """A version ready to answer, with all that a request needs of it."""

    version: str
    bundle: ModelBundle
    scorer: Scorer
    reader: RowReader
    answers: Answers
    unfamiliar: Unfamiliar
    cautions: Cautions
    record: bytes
    """The model as the journal describes it."""
    since: datetime

    @classmethod
    def load(cls, bundle: ModelBundle, version: str, task: str) -> Served:
        """Load a bundle's graph and try it on the golden rows. Raises `BundleError`."""
        manifest = bundle.manifest
        if manifest.task.name != task:
            raise BundleError(f"{bundle.folder}: expected a model of task {task!r}, found {manifest.task.name!r}")
        scorer = open_for_serving(bundle, tell=lambda why: _LOG.warning("version %s: %s", version, why))
        return cls(
            version=version,
            bundle=bundle,
            scorer=scorer,
            reader=RowReader(manifest.data_schema, manifest.task.time),
            answers=Answers(task, version, manifest.target),
            unfamiliar=Unfamiliar(manifest.data_schema, bundle.golden().disagreement),
            cautions=Cautions(manifest.data_schema),
            record=described(version, manifest),
            since=datetime.now(UTC).replace(tzinfo=None),
        )

    def score(self, rows: Sequence[list[Any]]) -> Sequence[Outcome]:
        """The answers to a few rows of `RowReader.values`; without images from the event loop's thread alone."""
        if isinstance(self.scorer, ServingScorer) and self.scorer.graph.takes_rows:
            return self.scorer.graph.rows(rows)
        inputs = self.reader.together(rows)
        scores = self.scorer.run(inputs) if self.image is None else self.scorer.run_in_parts(inputs)
        return [scores.take(slice(place, place + 1)) for place in range(len(rows))]

    def scores(self, answer: Outcome) -> Scores:
        """One of them as the graph gives it."""
        if not isinstance(answer, Scores):
            matrix = np.array([answer], dtype=np.float32)
            answer = scores_of(matrix, self.manifest.target.classes, self.scorer.conformal_radius)
        return answer

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @cached_property
    def graph_bytes(self) -> int:
        """How large its graph is as floats: loaded it takes about as much, and half of that again."""
        return self.bundle.graph_bytes

    @cached_property
    def kinds(self) -> dict[str, ColumnKind]:
        """What it reads of a row, and the time column, which the log reads."""
        time, read = self.manifest.task.time, {one.name: one.kind for one in self.manifest.data_schema.columns}
        return read if time is None else {time: "datetime", **read}

    @cached_property
    def logged(self) -> Logged:
        """What of its rows is logged."""
        return Logged(self.manifest.data_schema.names, time_of(self.manifest))

    @cached_property
    def image(self) -> ImageColumn | None:
        """The column of images, if there is one."""
        return self.manifest.data_schema.image


@dataclass
class Slot:
    """What is served now, and how following the champion goes."""

    task: str
    current: Served | None = None
    swaps: int = 0
    last_error: str | None = None
    """Why the champion of the registry is not the one that is served, if so."""
    registry_error: str | None = None
    """Why the registry could not be asked at the last look, if so."""
    registry_seen: bool = False
    refusals: int = 0
    """How often a new champion could not be served."""
    canary: tuple[Served, float] | None = None
    """A challenger that answers, and its share of the requests."""
    previous: Served | None = None
    """The version served before this one, kept loaded: a rollback to it waits for nothing."""

    awaited: str | None = None
    """The champion that is being loaded, where none is served yet."""
    loading: int = 0
    """How large the graph is that is being loaded, until it is one of those above, or given up."""

    @property
    def graph_bytes(self) -> int:
        """How large the graphs are that are loaded, or will be in a moment."""
        return sum(one.graph_bytes for one in self._all()) + self.loading

    def kinds(self) -> Kinds:
        """What is read of a row by whom its turn may be. Raises `NoModelError`."""
        kinds = self.served().kinds
        return kinds if self.canary is None else {**self.canary[0].kinds, **kinds}

    def loaded(self, version: str) -> Served | None:
        """A version that is loaded: the champion, the canary, the one before."""
        return next((one for one in self._all() if one.version == version), None)

    @property
    def versions(self) -> list[str]:
        """The versions that are loaded, the champion's first."""
        return list(dict.fromkeys(one.version for one in self._all()))

    def _all(self) -> list[Served]:
        canary = None if self.canary is None else self.canary[0]
        return [one for one in (self.current, canary, self.previous) if one is not None]

    def served(self) -> Served:
        """The version that answers. Raises `NoModelError`."""
        if self.current is None:
            coming = self.awaited and f"version {self.awaited} is being loaded"
            none = "the registry has no champion" if self.registry_seen else "the registry has not answered yet"
            why = self.last_error or self.registry_error or coming or none
            raise NoModelError(f"task {self.task!r} has no model to serve yet: {why}")
        return self.current

    def put(self, new: Served) -> None:
        """Answer with this version from the next request on."""
        self.swaps += self.current is not None
        self.previous, self.current = self.current, new
        self.last_error, self.awaited, self.loading = None, None, 0


class Follower:
    """Makes the slot follow the champion alias. Loading runs in a thread; the event loop only swaps."""

    def __init__(
        self,
        slot: Slot,
        source: VersionSource,
        memory: Path,
        *,
        seconds: float,
        report: Callable[[int, str], None],
        room: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`source` is asked in the thread; `memory` is the file that remembers what
        was served last; `report` takes a level of `logging` and a line for the operator; `room` is asked before a graph
        of so many bytes is loaded, and raises `BundleError` when there is none."""
        self._slot, self._source, self._memory = slot, source, memory
        self._seconds, self._report, self._room = seconds, report, room
        self._woken, self._looking = asyncio.Event(), asyncio.Lock()
        self.beside: list[Callable[[Any], Awaitable[None]]] = []
        """Looks at the same registry that come after each look at the champion."""
        self._refused: tuple[str, float, float] | None = None  # version, when to try again, backoff
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="champion")

    async def remember(self) -> None:
        """Serve what was served last, from the cache; what is wrong with it is kept in the slot."""
        if not self._memory.exists():
            return
        served, error = await self.attempt(self._recall)
        if served is not None:
            self._slot.put(served)
        else:
            self._slot.loading = 0
            self._slot.last_error = f"the version served last cannot be served again: {error}"

    async def follow(self) -> None:
        """Look at the alias again and again, until cancelled."""
        await self.look()
        gc.freeze()  # what imports and the first version leave the collector, which stops all requests, need not walk
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._seconds)
            self._woken.clear()
            await self.look()

    def wake(self) -> None:
        """Look now: somebody says that the registry changed."""
        self._woken.set()

    async def look(self) -> None:
        """One look at the champion, and what else is looked for; one after another, so that nothing loads twice."""
        async with self._looking:
            await self._look_at_champion()
            for look in self.beside:
                await look(self._source)

    async def _look_at_champion(self) -> None:
        """If the champion is another version, load, test and swap."""
        found, error = await self.attempt(self._champion)
        self._tell(error)
        version, radius = found or (None, None)
        current = self._slot.current
        if error is not None or version is None or not self._due(version):
            return
        if current is not None and current.version == version:
            self._slot.last_error = self._refused = None
            if current.scorer.radius != radius:
                current.scorer.radius = radius
                await self.attempt(self._remember, current)
            return
        loaded, self._slot.awaited = self._slot.loaded(version), version
        served, error = await self.attempt(self._load, version, loaded)
        if served is None:
            assert error is not None
            self._slot.loading, self._slot.awaited = 0, None
            self._refuse(version, error)
            return
        self._refused = None
        self._slot.put(served)
        self._report(logging.INFO, f"task {self._slot.task!r}: version {version} is served")

    def close(self) -> None:
        """Stop looking."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def attempt(self, work: Callable[..., T], *args: Any) -> tuple[T | None, BaseException | None]:
        """The result of work in the thread, or its error, of whatever kind: no bundle may end the following."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        future.add_done_callback(lambda one: one.cancelled() or one.exception())  # of a server that ends nobody asks
        await asyncio.wait([future])
        error = future.exception()
        return (None, error) if error is not None else (future.result(), None)

    def _champion(self) -> tuple[str | None, float | None]:
        version = self._source.get(self._slot.task, CHAMPION)
        return version, None if version is None else self._source.radius(self._slot.task, version)

    def _fetch(self, version: str) -> ModelBundle:
        return self._source.fetch(self._slot.task, version)

    def _load(self, version: str, loaded: Served | None) -> Served:
        if loaded is not None:
            served = replace(loaded, since=datetime.now(UTC).replace(tzinfo=None))
        else:
            bundle = self._fetch(version)
            self._room(bundle.graph_bytes)
            served = Served.load(bundle, version, self._slot.task)
        served.scorer.radius = self._source.radius(self._slot.task, version)
        self._remember(served)
        return served

    def _remember(self, served: Served) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        partial = self._memory.with_suffix(f".{os.getpid()}.partial")
        told = {"version": served.version, "folder": str(served.bundle.folder), "radius": served.scorer.radius}
        partial.write_bytes(orjson.dumps(told))
        partial.replace(self._memory)

    def _recall(self) -> Served:
        last = orjson.loads(self._memory.read_bytes())
        bundle = ModelBundle.load(Path(last["folder"]))
        self._room(bundle.graph_bytes)
        served = Served.load(bundle, last["version"], self._slot.task)
        served.scorer.radius = last.get("radius")
        return served

    def _tell(self, error: BaseException | None) -> None:
        text = None if error is None or isinstance(error, NoModelError) else words_of(error)
        if text is not None and self._slot.registry_error is None:
            self._report(logging.WARNING, f"task {self._slot.task!r}: the registry cannot be asked: {text}")
        self._slot.registry_error = text
        self._slot.registry_seen |= text is None

    def _due(self, version: str) -> bool:
        return self._refused is None or self._refused[0] != version or time.monotonic() >= self._refused[1]

    def _refuse(self, version: str, error: BaseException) -> None:
        known = self._refused is not None and self._refused[0] == version
        wait = min(2 * self._refused[2], LONGEST_BACKOFF) if known and self._refused else FIRST_BACKOFF
        if isinstance(error, OutsideError):
            wait = self._seconds  # the version may be sound: the registry failed while it was fetched
        self._refused = (version, time.monotonic() + wait, wait)
        self._slot.refusals += 1
        self._slot.last_error = f"version {version} is the champion but cannot be served: {words_of(error)}"
        if not known:
            self._report(logging.WARNING, f"task {self._slot.task!r}: {self._slot.last_error}")
