"""What a benchmark has run before, in a JSON file: a run that is there is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Kept:
    """Results by name, JSON-able; without a file they are only remembered."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known: dict[str, Any] = json.loads(file.read_text()) if file is not None and file.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def __getitem__(self, name: str) -> Any:
        return self.known[name]

    def put(self, name: str, result: Any) -> None:
        """Remember a result, and write all of them."""
        self.known[name] = result
        if self.file is not None:
            self.file.write_text(json.dumps(self.known))

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of that name, by `work` where there is none."""
        if name not in self:
            self.put(name, work())
        return self[name]
