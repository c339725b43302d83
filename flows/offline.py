"""An endpoint without HTTP, for a back-test: the champion answers in this process, and straight into the log.

Times are the rows' own: a prediction is received when its row happened, a label when it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

import pandas as pd

from flows.publishing import alias_of, fetch
from flows.traffic import Counts
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.conforming import as_datetimes, conform
from registry.database import to_micros
from registry.errors import NoModelError
from registry.image_store import ImageStore
from registry.images import stack
from registry.inference_log import Feedback
from registry.logged import batch_of
from registry.schema import ImageColumn, canonical_category
from registry.scoring import Scorer, Scores
from registry.watched import logged_features
from serving.sightings import sightings


class Offline:
    """What a replay talks to; see `flows.traffic.Server`."""

    def __init__(self, place: Workplace) -> None:
        self._place, self.counts = place, Counts()
        self._loaded: tuple[str, ModelBundle, Scorer] | None = None
        settings = place.settings
        self._images = ImageStore(settings.images(place.task.name), settings.max_image_bytes)

    def close(self) -> None:
        """Nothing is open."""

    def model(self, *, patient: bool = True) -> dict[str, Any]:
        """Task and version; the log is never behind."""
        return {"task": self._place.task.name, "version": self._champion()[0], "log_backlog": 0}

    def meanwhile(self, bodies: Sequence[object]) -> AbstractContextManager[Counts]:
        """No traffic goes on while windows are judged."""
        return nullcontext(Counts())

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer rows (`/predict`) or take labels (`/feedback`)."""
        self.counts.sent += 1
        if path == "/predict":
            self._predict(body["rows"], body["ids"])
        else:
            self._place.log.add_feedback([self._feedback(one) for one in body["labels"]])
        return {}

    def _feedback(self, one: Mapping[str, Any]) -> Feedback:
        """A label of a class that the model does not know is kept as it is: monitoring counts it."""
        at, label = datetime.fromisoformat(one["time"]), one["label"]
        numbers = self._place.task.problem == "regression"
        return Feedback(one["id"], float(label) if numbers else canonical_category(label) or "", at, at)

    def _predict(self, rows: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> None:
        version, bundle, scorer = self._champion()
        frame, schema = pd.DataFrame(rows), bundle.manifest.data_schema
        conformed = conform(frame, schema)
        scores, image = scorer.predict(conformed), schema.image
        times = as_datetimes(frame[self._place.task.time], str(self._place.task.time))
        known = [{name: row.get(name) for name in schema.names} for row in rows]
        if image is not None:
            keep = bundle.manifest.task.monitor.keep_images and image.name not in self._place.task.log.names
            known = self._seen(known, conformed[image.name], image, scores, keep=keep)
        moments = [to_micros(moment.to_pydatetime()) for moment in times]
        batch = batch_of(scores, ids=ids, times=moments, received=moments, version=version, features=known)
        self._place.log.append_batches([batch])

    def _seen(
        self, rows: Sequence[dict[str, Any]], images: pd.Series[Any], image: ImageColumn, scores: Scores, *, keep: bool
    ) -> list[dict[str, Any]]:
        """Rows as they are logged; `keep` says whether their conformed images are kept."""
        pixels = stack(images.to_list(), image.size, image.channels, image.fill)
        seen = sightings(rows, pixels, image, scores)
        for one, (digest, _) in zip(pixels, seen, strict=True):
            if keep and digest is not None:
                self._images.keep(digest, one)
        return [logged_features(row, list(row), image.name, *told) for row, told in zip(rows, seen, strict=True)]

    def _champion(self) -> tuple[str, ModelBundle, Scorer]:
        version = alias_of(self._place, "champion")
        if version is None:
            raise NoModelError(f"task {self._place.task.name!r} has no champion")
        if self._loaded is None or self._loaded[0] != version:
            bundle = fetch(self._place, version)
            self._loaded = version, bundle, Scorer.load(bundle)
        self._loaded[2].radius = self._place.versions.radius(self._place.task.name, version)
        return self._loaded
