"""The challenger in the champion's shadow: it predicts the live traffic too, and nobody hears of it but the log.

It lives in the keeper process, which reads every request from the journal anyway: the path of an answer is not a
microsecond longer for it. What it cannot answer is counted; should it end the keeper, the next one begins without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import eq
from pathlib import Path
from typing import Any

from registry.bundle import ModelBundle
from registry.errors import EverfitError
from registry.log_batch import Batch
from registry.logged import batch_of
from registry.scoring import GRAPH_ERRORS, Scorer, chunk_rows
from registry.watched import logged_features
from serving.rows import MisfitError, Row, RowReader
from serving.sightings import Sighting, sightings


class Shadow:
    """A version that predicts beside the one that answers, and how it fares."""

    def __init__(self, version: str, folder: Path) -> None:
        """Raises `BundleError` for a bundle that is not sound, or whose graph is not what it was."""
        bundle = ModelBundle.load(folder)
        self.version, self._schema = version, bundle.manifest.data_schema
        self.made_for = bundle.manifest.task.log
        self._reader = RowReader(self._schema, bundle.manifest.task.time)
        self._scorer = Scorer.load(bundle)
        self._scorer.self_test()
        self._rows = self._failed = self._agreed = 0
        self._seconds, self._error = 0.0, ""

    def beside(self, rows: Sequence[Row], answered: Batch) -> list[Batch]:
        """What it says of rows that were answered, a part after the other: requests with images stay below the
        champion's bound, not below this model's own. Nothing where it fails."""
        begun, size = time.perf_counter(), chunk_rows(self._schema)
        try:
            places = [slice(start, start + size) for start in range(0, len(rows), size)]
            made = [self._predict(rows[place], answered, place) for place in places]
        except (EverfitError, *GRAPH_ERRORS) as error:
            self._failed, self._error = self._failed + len(rows), _fault(error)
            return []
        self._seconds += time.perf_counter() - begun
        self._rows += len(rows)
        self._agreed += sum(_agreed(mine, answered, place) for mine, place in zip(made, places, strict=True))
        return made

    def report(self) -> dict[str, Any]:
        """How many rows it predicted, failed at (why, at the last one) and saw as the champion does, and the seconds
        all that took."""
        return {
            "version": self.version,
            "rows": self._rows,
            "failed": self._failed,
            "last_error": self._error or None,
            "agreed": self._agreed,
            "seconds": round(self._seconds, 6),
        }

    def _predict(self, rows: Sequence[Row], answered: Batch, place: slice) -> Batch:
        feed = self._reader.many(rows)
        scores, image = self._scorer.run(feed), self._schema.image
        seen: list[Sighting] = [(None, [])] * len(rows)
        if image is not None:
            seen = sightings(rows, feed[image.name], image, scores)
        name = None if image is None else image.name
        return batch_of(
            scores,
            ids=answered.ids[place],
            times=answered.times[place],
            received=answered.received[place],
            version=self.version,
            features=[
                logged_features(row, self._schema.names, name, *one) for row, one in zip(rows, seen, strict=True)
            ],
            role="shadow",
        )


def _fault(error: Exception) -> str:
    """An error in words that quote nobody's row: others than who sent it read them."""
    if isinstance(error, MisfitError):
        return f"a value in column {error.column!r} does not fit" if error.column else "a row does not fit"
    return str(error)[:300] if isinstance(error, EverfitError) else type(error).__name__


def _agreed(mine: Batch, theirs: Batch, place: slice) -> int:
    """How many of the rows at a place got the same class, or a number inside of the champion's interval."""
    if theirs.conformal is not None:
        return sum(map(eq, mine.predictions, theirs.predictions[place]))
    inside = zip(map(float, mine.predictions), theirs.scores[place], strict=True)
    return sum(low <= one <= high for one, (low, high) in inside)
