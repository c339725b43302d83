"""One task on a server: what answers its requests, what logs them, and what follows its aliases in the registry."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from datetime import UTC
from functools import partial
from typing import Any

from registry.errors import TaskError
from registry.settings import Settings
from serving.catalogue import Sample
from serving.challenger import Understudy
from serving.champion import Follower, Served, Slot, VersionSource
from serving.feedback import TakeFeedback
from serving.hot import LARGE_AT_ONCE
from serving.infer import Infer
from serving.invocations import Invocations
from serving.journal import JOURNALS
from serving.logbook import Logbook, LogSettings
from serving.metrics import Counts, Histogram, batch_histogram
from serving.predict import Predict
from serving.prediction import Predictor
from serving.singles import Singles

_LOG = logging.getLogger("uvicorn.error")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Host:
    """A task's parts, put together."""

    def __init__(self, settings: Settings, task: str, source: VersionSource, room: Callable[[Slot, int], None]) -> None:
        """`source` is the registry; `room` is told how many bytes of graphs a slot's new version has, and raises
        `BundleError` when they are too many. Raises `TaskError` for a name that no task can have."""
        if _NAME.fullmatch(task) is None:
            raise TaskError(f"task: expected lower-case letters, digits and hyphens, got {task!r}")
        self.task, self.slot, self.counts = task, Slot(task), Counts()
        own_room = partial(room, self.slot)
        self.logbook = Logbook(_log_settings(settings, task))
        self.follower = Follower(
            self.slot,
            source,
            settings.folder / "served" / f"{task}.json",
            seconds=settings.poll_seconds,
            report=_LOG.log,
            room=own_room,
        )
        cast = self.logbook.cast if settings.shadow else None
        self.follower.beside.append(Understudy(self.slot, self.follower.attempt, _LOG.log, cast, own_room).look)
        bounds: dict[str, Any] = {"max_bytes": settings.max_body_bytes, "max_rows": settings.max_rows}
        self._predictor = Predictor(self.slot, self.logbook, self.counts)
        batcher, ids = self._predictor.batcher, self._predictor.ids
        self.singles = Singles(self.slot, self.logbook, self.counts, ids, batcher, settings.max_body_bytes)
        gate = asyncio.Semaphore(LARGE_AT_ONCE + self.logbook.synced)
        self.predict = Predict(self.slot, self._predictor, self.counts, **bounds, gate=gate)
        self.infer = Infer(self.slot, self._predictor, self.counts, **bounds, gate=gate)
        self.invocations = Invocations(self.slot, self._predictor, self.counts, **bounds, gate=gate)
        self.feedback = TakeFeedback(self.slot, self.logbook, self.counts, **bounds)

    async def open(self) -> None:
        """Begin: serve what was served last, then follow the registry."""
        await self.logbook.open()
        await self.follower.remember()
        # a task that a request had loaded is no part of that request
        self._following = asyncio.create_task(self.follower.follow(), context=Context())

    async def close(self) -> None:
        """End once the requests inside are answered and the log has taken them."""
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        self.follower.close()
        while self.inside:
            await asyncio.sleep(0.01)
        await self.logbook.close()

    @property
    def inside(self) -> int:
        """How many requests are not answered yet."""
        routes = (self.predict, self.infer, self.invocations, self.feedback)
        return self.singles.inside + sum(route.inside for route in routes)

    def readiness(self) -> dict[str, Any]:
        """Whether it can predict, and what ails it."""
        slot = self.slot
        asked = slot.registry_seen or slot.registry_error
        return {
            "ready": slot.current is not None,
            "version": slot.current.version if slot.current is not None else None,
            "since": slot.current.since if slot.current is not None else None,
            "registry": _word(slot.registry_error) if asked else "not asked yet",
            "log": _word(self.logbook.fault),
            "last_error": slot.last_error,
        }

    def state(self) -> dict[str, Any]:
        """The served version, and how serving fares."""
        slot, logbook = self.slot, self.logbook
        current = slot.current
        state: dict[str, Any] = {
            "task": slot.task,
            "version": current.version if current is not None else None,
            "since": current.since if current is not None else None,
            "swaps": slot.swaps,
            "last_error": slot.last_error,
            "registry": _word(slot.registry_error),
            "log": _word(logbook.fault),
            "log_backlog": logbook.backlog,
            "images": _word(logbook.images),
            "shadow": logbook.shadow or None,
            "canary": None if slot.canary is None else {"version": slot.canary[0].version, "share": slot.canary[1]},
            "warm": None if slot.previous is None else slot.previous.version,
            "graph_bytes": slot.graph_bytes,
        }
        return state if current is None else state | _model(current)

    def samples(self) -> Iterator[Sample]:
        """The counts and the state, by the names of metrics."""
        slot, logbook, batcher = self.slot, self.logbook, self._predictor.batcher
        yield from self.counts.samples()
        yield Sample("everfit_requests_in_progress", self.inside)
        yield Sample("everfit_batch_wait_seconds_total", batcher.wait_seconds)
        yield Sample("everfit_batch_graph_seconds_total", batcher.graph_seconds)
        yield Sample("everfit_ready", slot.current is not None)
        yield from _versions(slot)
        yield Sample("everfit_log_up", logbook.fault is None)
        yield Sample("everfit_images_up", logbook.images is None)
        yield Sample("everfit_log_backlog_records", logbook.backlog)
        yield Sample("everfit_log_backlog_bytes", logbook.journal.waiting.size)
        for key in ("rows", "failed", "agreed", "seconds"):
            yield Sample(f"everfit_shadow_{key}_total", logbook.shadow.get(key, 0))
        yield from logbook.monitored.samples()

    def histograms(self) -> Iterator[Histogram]:
        """The distributions of latencies and batches."""
        yield from self.counts.histograms()
        yield batch_histogram(self._predictor.batcher.calls)


def _versions(slot: Slot) -> Iterator[Sample]:
    """What is loaded, and how following the registry goes."""
    canary, share = slot.canary or (None, 0.0)
    for role, one in (("champion", slot.current), ("canary", canary), ("previous", slot.previous)):
        if one is not None:
            task = one.manifest.task
            yield Sample("everfit_model_info", 1, (one.version, role, task.problem, task.metric))
    if slot.current is not None:
        since = slot.current.since.replace(tzinfo=UTC).timestamp()
        yield Sample("everfit_model_served_timestamp_seconds", since)
    yield Sample("everfit_canary_share", share)
    yield Sample("everfit_swaps_total", slot.swaps)
    yield Sample("everfit_refused_versions_total", slot.refusals)
    yield Sample("everfit_graph_bytes", slot.graph_bytes)
    yield Sample("everfit_registry_up", slot.registry_error is None)


def _log_settings(settings: Settings, task: str) -> LogSettings:
    return LogSettings(
        task=task,
        folder=settings.folder / JOURNALS,
        store=settings.store,
        synced=settings.log_sync == "disk",
        max_bytes=settings.max_backlog_bytes,
        images=settings.images(task),
        max_image_bytes=settings.max_image_bytes,
        secret=None if settings.log_key is None else settings.log_key.get_secret_value(),
        key_file=settings.log_key_file,
        task_file=settings.task_file(task),
        ledger_seconds=settings.ledger_seconds,
    )


def _model(current: Served) -> dict[str, Any]:
    manifest = current.manifest
    return {
        "problem": manifest.task.problem,
        "metric": manifest.task.metric,
        "reference": manifest.reference.model_dump(),
        "metrics": manifest.metrics,
        "coverage": manifest.task.coverage,
        "target": {"column": manifest.task.target, **manifest.target.model_dump()},
        "schema": manifest.data_schema.model_dump(),
        "lineage": manifest.lineage.model_dump(),
    }


def _word(fault: str | None) -> str:
    return "ok" if fault is None else fault
