"""Predictions by columns: how many rows of one request reach the inference log without an object each.

>>> batch = Batch("3", "champion", ["a1"], [0], [0], [{"delay": 4}], ["no"], [[0.9, 0.1]], [[0]], [0.33], [0.01])
>>> len(batch), batch.take([0]) == batch
(1, True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from registry.privacy import Privacy
from registry.task import LogColumns

Role: TypeAlias = Literal["champion", "shadow"]


def about(task: str, name: str) -> str:
    """What the encrypted values of a row are bound to."""
    return f"{task}\0{name}"


@dataclass(frozen=True)
class Batch:
    """n predictions of one version, by columns. Raises `ValueError` for columns of different lengths.

    `times` are event times and `received` the wall clock, both in microseconds since 1970 UTC. `features` hold the
    schema's columns as JSON values, `scores` the class probabilities, or `[low, high]` for regression; `conformal` the
    class indices of the conformal sets, None for regression. `role` is that of the version that answered: a champion
    and a shadow may answer under one id. `private` says which columns of a row's features are lacking or hashed,
    `sealed` holds the encrypted ones; both are None where nothing was hidden yet.
    """

    version: str
    role: Role
    ids: Sequence[str]
    times: Sequence[int]
    received: Sequence[int]
    features: Sequence[Mapping[str, Any]]
    predictions: Sequence[str] | Sequence[float]
    scores: Sequence[Sequence[float]]
    conformal: Sequence[Sequence[int]] | None
    uncertainty: Sequence[float]
    disagreement: Sequence[float]
    private: Sequence[LogColumns | None] | None = None
    sealed: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        columns = (self.times, self.received, self.features, self.predictions, self.scores, self.conformal)
        lengths = {len(one) for one in (*columns, self.uncertainty, self.disagreement) if one is not None}
        if lengths != {len(self.ids)}:
            raise ValueError(f"expected columns of {len(self.ids)} values, as there are ids, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.ids)

    def hidden(self, task: str, privacy: Privacy) -> Batch:
        """The same as a task's log may hold it; of rows that are hidden already nothing more is."""
        if self.private is not None or not privacy.columns.names:
            return self
        found = [privacy.hidden(one, about(task, name)) for name, one in zip(self.ids, self.features, strict=True)]
        features, private, sealed = zip(*found, strict=True) if found else ((), (), ())
        return replace(self, features=features, private=private, sealed=sealed)

    def take(self, places: Sequence[int]) -> Batch:
        """The predictions at these places."""
        columns: dict[str, Any] = {
            name: [values[place] for place in places]
            for name, values in vars(self).items()
            if name not in ("version", "role") and values is not None
        }
        return replace(self, **columns)
