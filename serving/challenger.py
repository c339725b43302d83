"""What the endpoint does with a challenger: it predicts in the champion's shadow, and may answer a share of requests.

A canary is a challenger that answers: `everfit canary TASK SHARE` writes its share into the registry. Which requests
are its own is decided by a key, the header `X-Everfit-Key` or else the request's own bytes, so that one user, or one
row, always meets the same version, and those who met it at a small share still do at a larger one. A request that it
cannot answer is the champion's.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from registry.bundle import ModelBundle
from serving.champion import Served, Slot

CHALLENGER = "challenger"
BACKOFF = 600.0
"""Seconds until a challenger that could not be fetched or loaded is tried again."""

Cast: TypeAlias = Callable[[str | None, Path | None], None]
"""Told which version is to predict in the champion's shadow, and where its bundle is; None for none."""

Attempt: TypeAlias = Callable[..., Awaitable[tuple[Any, BaseException | None]]]
"""Does work in a thread; its result, or its error."""


class ChallengerSource(Protocol):
    """What is asked of the registry."""

    def get(self, task: str, alias: str) -> str | None:
        """The version an alias points at. Raises `RegistryError`."""

    def fetch(self, task: str, version: str) -> ModelBundle:
        """The bundle of a version. Raises `RegistryError`, `BundleError`."""

    def canary(self, task: str, version: str) -> float:
        """The share of requests that a version answers as a challenger. Raises `RegistryError`."""


def chosen(key: bytes, share: float) -> bool:
    """Whether the requests with this key are the canary's.

    >>> chosen(b"user 1", 0.0), chosen(b"user 1", 1.0)
    (False, True)
    """
    return zlib.crc32(key) < share * 2**32


@dataclass(frozen=True)
class _Seen:
    """The challenger that was followed last, and until when one that failed is left alone."""

    version: str | None = None
    failed: str | None = None
    until: float = 0.0


class Understudy:
    """Follows the challenger alias for one slot."""

    def __init__(
        self,
        slot: Slot,
        attempt: Attempt,
        report: Callable[[int, str], None],
        cast: Cast | None,
        room: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Without `cast` it never predicts in the shadow. `room`: see `Follower`."""
        self._slot, self._attempt, self._report, self._cast, self._room = slot, attempt, report, cast, room
        self._seen = _Seen()

    async def look(self, source: ChallengerSource) -> None:
        """One look: shadow and canary are those of the registry, or nothing."""
        found, error = await self._attempt(self._ask, source)
        if error is not None:
            return
        version, share = found
        if version is None or (self._slot.current is not None and version == self._slot.current.version):
            self._leave()
        elif version != self._seen.failed or time.monotonic() > self._seen.until:
            await self._follow(source, version, share)

    def _ask(self, source: ChallengerSource) -> tuple[str | None, float]:
        version = source.get(self._slot.task, CHALLENGER)
        return version, 0.0 if version is None else source.canary(self._slot.task, version)

    def _leave(self) -> None:
        self._slot.canary = None
        if self._seen.version is not None and self._cast is not None:
            self._cast(None, None)
        self._seen = _Seen()

    async def _follow(self, source: ChallengerSource, version: str, share: float) -> None:
        if version != self._seen.version:
            self._leave()
            bundle, error = await self._attempt(source.fetch, self._slot.task, version)
            if bundle is None:
                self._fail(version, error)
                return
            self._seen = _Seen(version)
            if self._cast is not None:
                self._cast(version, bundle.folder)
        await self._let_answer(source, version, share)

    async def _let_answer(self, source: ChallengerSource, version: str, share: float) -> None:
        """The canary's share, its graph loaded and tried when it is to answer for the first time."""
        if share <= 0:
            self._slot.canary = None
            return
        if self._slot.canary is not None:
            self._slot.canary = self._slot.canary[0], share
            return
        served, error = await self._attempt(self._load, source, version)
        if served is None:
            self._slot.loading = 0
            self._fail(version, error)
            return
        self._slot.canary, self._slot.loading = (served, share), 0
        self._report(logging.INFO, f"task {self._slot.task!r}: version {version} answers {share:.0%} of the requests")

    def _load(self, source: ChallengerSource, version: str) -> Served:
        bundle = source.fetch(self._slot.task, version)
        self._room(bundle.graph_bytes)
        return Served.load(bundle, version, self._slot.task)

    def _fail(self, version: str, error: BaseException | None) -> None:
        self._seen = _Seen(self._seen.version, version, time.monotonic() + BACKOFF)
        self._report(logging.WARNING, f"task {self._slot.task!r}: challenger {version}: {error}")
