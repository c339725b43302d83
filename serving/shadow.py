"""The challenger in the champion's shadow: it predicts the live traffic too, and nobody hears of it but the log.

It lives in the keeper process, which reads every request from the journal anyway: the path of an answer is not a
microsecond longer for it. What it cannot answer is counted; should it end the keeper, the next one begins without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.bundle import ModelBundle
from registry.errors import EverfitError
from registry.inference_log import Prediction
from registry.logged import prediction_of
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

    def beside(self, rows: Sequence[Row], answered: Sequence[Prediction]) -> list[Prediction]:
        """What it says of rows that were answered; nothing where it fails."""
        begun = time.perf_counter()
        try:
            made = self._predict(rows, answered)
        except (EverfitError, *GRAPH_ERRORS) as error:
            self._failed, self._error = self._failed + len(rows), _fault(error)
            return []
        self._seconds += time.perf_counter() - begun
        self._rows += len(made)
        self._agreed += sum(_agree(mine, theirs) for mine, theirs in zip(made, answered, strict=True))
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

    def _predict(self, rows: Sequence[Row], answered: Sequence[Prediction]) -> list[Prediction]:
        """A part after the other: requests with images stay below the champion's bound, not below this model's own."""
        size, made = chunk_rows(self._schema), list[Prediction]()
        for start in range(0, len(rows), size):
            made += self._predict_part(rows[start : start + size], answered[start : start + size])
        return made

    def _predict_part(self, rows: Sequence[Row], answered: Sequence[Prediction]) -> list[Prediction]:
        feed = self._reader.many(rows)
        scores, image = self._scorer.run(feed), self._schema.image
        seen: list[Sighting] = [(None, [])] * len(rows)
        if image is not None:
            seen = sightings(rows, feed[image.name], image, scores)
        name = None if image is None else image.name
        return [
            prediction_of(
                scores,
                place,
                name=one.id,
                time=one.time,
                received=one.received,
                version=self.version,
                features=logged_features(row, self._schema.names, name, *seen[place]),
                role="shadow",
            )
            for place, (row, one) in enumerate(zip(rows, answered, strict=True))
        ]


def _fault(error: Exception) -> str:
    """An error in words that quote nobody's row: others than who sent it read them."""
    if isinstance(error, MisfitError):
        return f"a value in column {error.column!r} does not fit" if error.column else "a row does not fit"
    return str(error)[:300] if isinstance(error, EverfitError) else type(error).__name__


def _agree(mine: Prediction, theirs: Prediction) -> bool:
    """The same class, or a number inside of the champion's interval."""
    if isinstance(mine.prediction, str):
        return mine.prediction == theirs.prediction
    low, high = theirs.scores
    return low <= mine.prediction <= high
