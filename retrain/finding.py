"""What a check of the data found."""

from __future__ import annotations

from typing import Literal

from registry.schema import Frozen


class Finding(Frozen):
    """One finding: fatal or a warning, about a column or the whole frame, in words that hold the counts and values,
    with the remedy and the number of rows concerned."""

    level: Literal["fatal", "warning"]
    column: str | None = None
    message: str
    remedy: str
    rows: int = 0

    def __str__(self) -> str:
        where = f"column {self.column!r}: " if self.column else ""
        return f"{where}{self.message}; {self.remedy}"
