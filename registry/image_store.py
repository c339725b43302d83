"""Images of logged rows: a folder beside the inference log, one PNG file an image, named by its digest.

They are kept at the size that their model reads, for remedies and gates, which need the pixels. The folder is bounded:
when it is full, those that came first go.
"""

from __future__ import annotations

import os
from pathlib import Path

from registry.images import Pixels, to_png

ROOM = 0.9
"""The share of the bound that is left taken when the oldest have gone."""


class ImageStore:
    """The images of one task. One process writes, any may read."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._size: int | None = None

    def keep(self, digest: str, pixels: Pixels) -> None:
        """Keep an image (channels, size, size), unless it is there. Raises `OSError` when the disk fails."""
        path = self._path(digest)
        if path.exists():
            return
        data = to_png(pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._size = self._measured() if self._size is None else self._size + len(data)
        if self._size > self._max_bytes:
            self._make_room()

    def has(self, digest: str) -> bool:
        """Whether an image is there."""
        return self._path(digest).exists()

    def find(self, digest: object) -> bytes | None:
        """The PNG file of an image; None where it is not kept, or gone."""
        if not isinstance(digest, str) or not digest.isalnum():
            return None
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}.png"

    def _measured(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("*/*.png"))

    def _make_room(self) -> None:
        """Delete the oldest."""
        found = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.glob("*/*.png"))
        self._size = sum(size for _, size, _ in found)
        for _, size, path in found:
            if self._size <= ROOM * self._max_bytes:
                break
            path.unlink(missing_ok=True)
            self._size -= size
