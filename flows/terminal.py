"""Progress on one line of a terminal: rewritten in place; where there is no terminal, a new line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from flows.progress import line
from retrain.search.progress import Progress

EVERY_SECONDS = 5.0


class ProgressLine:
    """Shows sentences on a stream; used as a context, so that the last line ends properly."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._shown_at = float("-inf")
        self._stage = ""
        self._late = ""
        self._width = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            self._write("\n")
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Show the progress of a search. Off a terminal it waits for its turn, unless a new stage begins: then
        the last word of the one before is said, too.
        What lasts keeps a line of its own."""
        text = line(progress)
        if progress.lasting:
            self._write(f"\r{text:<{self._width}}\n" if self._terminal else f"{text}\n")
            self._width = 0
            return
        if self._terminal:
            self._write(f"\r{text:<{self._width}}")
            self._width = len(text)
            return
        if (now := time.monotonic()) - self._shown_at >= EVERY_SECONDS or progress.stage != self._stage:
            self._write(f"{self._late * (progress.stage != self._stage)}{text}\n")
            self._shown_at, self._stage, self._late = now, progress.stage, ""
        else:
            self._late = f"{text}\n"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
