"""The metrics of all workers behind one port: a scrape meets any of them, and is told of each, by the label `worker`.

Each worker writes its own metrics into a file every `WRITE_SECONDS`; the one that is asked adds those of the others.
A worker that has ended is told of for `STALE_SECONDS` more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

WRITE_SECONDS, STALE_SECONDS = 2.0, 10.0
_LOG = logging.getLogger("uvicorn.error")


class Siblings:
    """One worker's end of it. `text` gives its own metrics."""

    def __init__(self, folder: Path, text: Callable[[], bytes]) -> None:
        """`folder` is that of the workers of one port."""
        self._folder, self._own = folder, text
        self._file = folder / f"{os.getpid()}.prom"

    async def follow(self) -> None:
        """Write again and again, until cancelled. A disk that fails is told once, and tried again."""
        told = False
        while True:
            try:
                await asyncio.to_thread(self._write, self._own())
                told = False
            except OSError as error:
                if not told:
                    _LOG.warning("the metrics of this worker cannot be written for the others: %s", error)
                told = True
            await asyncio.sleep(WRITE_SECONDS)

    def text(self) -> bytes:
        """The metrics of all workers."""
        found = {self._file.stem: self._own().decode()}
        for file in self._folder.glob("*.prom"):
            with suppress(OSError):
                if file != self._file and time.time() - file.stat().st_mtime < STALE_SECONDS:
                    found[file.stem] = file.read_text()
        registry = CollectorRegistry()
        registry.register(_Together(found))
        return generate_latest(registry)

    def _write(self, text: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in self._folder.glob("*.prom"):
            if time.time() - file.stat().st_mtime > STALE_SECONDS:
                file.unlink(missing_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_bytes(text)
        partial.replace(self._file)


class _Together(Collector):
    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        """Families of the same name as one."""
        families: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            for one in text_string_to_metric_families(text):
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                family.samples += [
                    sample._replace(labels={**sample.labels, "worker": worker}) for sample in one.samples
                ]
        return families.values()
