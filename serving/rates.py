"""Rates of keys: token buckets that the workers behind one port share: a key has its rate, however many there are.

The buckets lie in a file that every worker maps, each in one of the few places that the key's digest allows it, so that
as many keys as there may be cost as much as one. A lock on the file, for some microseconds, keeps two from taking the
same token; it is not waited for: a worker that stops while it holds it must not stop the others, who then may give a
token twice. A process that serves alone needs neither. The clock is the machine's monotonic one, which its processes
share.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SLOT = struct.Struct("=32sdd")  # the digest, tokens left, when that was
_SETS, _WAYS = 512, 8
SIZE = _SETS * _WAYS * _SLOT.size
_TRIES = 50
"""So often the lock is asked for: some 20 microseconds."""


class Rates:
    """The buckets of all keys. A bucket holds the requests of one second, one at least, and is full at first."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` is shared by the workers; None for a process that serves alone. Raises `OSError`."""
        self._places: dict[str, int] = {}
        if file is None:
            self._file, self._buckets = None, mmap.mmap(-1, SIZE)
            return
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(0o600)
        self._file = file.open("r+b", buffering=0)
        with self._alone():
            if (missing := SIZE - file.stat().st_size) > 0:
                self._file.seek(0, 2)
                self._file.write(bytes(missing))  # zeros on the disk: a page that it has no room for would be a SIGBUS
        self._buckets = mmap.mmap(self._file.fileno(), SIZE)

    def wait(self, digest: str, rate: float, now: float) -> float:
        """Take one of `rate` a second for the key of this SHA-256 (hex); 0, or when there is none the seconds until
        there is. `now` is a reading of `time.monotonic`."""
        most = max(1.0, rate)
        with self._alone():
            place = self._place(digest)
            name, left, at = _SLOT.unpack_from(self._buckets, place)
            passed = now - at if at <= now + 1 else math.inf  # of a time before the machine started anew
            left = min(most, left + max(0.0, passed) * rate)
            if taken := left >= 1:
                left -= 1
            _SLOT.pack_into(self._buckets, place, name, left, now)
        return 0.0 if taken else (1 - left) / rate

    def close(self) -> None:
        """Let the file go."""
        self._buckets.close()
        if self._file is not None:
            self._file.close()

    def _place(self, digest: str) -> int:
        """Where a key's bucket is. A new one takes the place, of its few, that was asked for the longest ago."""
        name, known = bytes.fromhex(digest), self._places.get(digest)
        if known is not None and self._buckets[known : known + len(name)] == name:
            return known
        first = int.from_bytes(name[:4], "big") % _SETS * _WAYS * _SLOT.size
        slots: list[tuple[int, bytes, float, float]] = [
            (place, *_SLOT.unpack_from(self._buckets, place))
            for place in range(first, first + _WAYS * _SLOT.size, _SLOT.size)
        ]
        found = next((place for place, one, _, _ in slots if one == name), None)
        if found is None:
            found = min((at, place) for place, _, _, at in slots)[1]
            _SLOT.pack_into(self._buckets, found, name, math.inf, 0.0)
        if len(self._places) >= _SETS * _WAYS:
            self._places.clear()
        self._places[digest] = found
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        held = self._lock()
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        assert self._file is not None
        for _ in range(_TRIES):
            with suppress(BlockingIOError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False
