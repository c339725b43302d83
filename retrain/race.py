"""Learners at several paces side by side, what each has answered before the labels came, and who leads by those that
have come since (follow the leader: Hannan 1957).

How much a step should learn is a matter of the world: where it turns quickly, much learning of what is a week old
harms, and where it does not, little learning wastes it; and the world may change its ways. So the race goes on for as
long as a champion follows: the leader's networks are what a bundle serves, and `race.safetensors` beside them holds the
others' weights with the record of what all have answered, by which the leader is chosen at the next step. The record
knows rows by a hash of their id, and nothing else of them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from registry.bundle import ModelBundle
from registry.metrics import Array
from registry.scoring import Floats
from retrain.cadence import RECENT, chance, losses, wait, worth
from retrain.export import Member
from retrain.learners import PACES, Ground, Learner, Lesson, Pace
from retrain.members import read_members
from retrain.splits import Rows as Places
from retrain.training import load_state

RACE, PACE, RACED, WAIT = "race.safetensors", "pace", "paces", "wait"
"""The file of a bundle with the race, and the keys of its heritage: the pace that is served, all in their order, and
how many windows its next step waits for."""

REMEMBERED, LARGEST = 50_000, 32 * 2**20
"""Answers that are remembered at most, and bytes of them: the newest."""
PATIENCE = 16
"""Steps after which an answer whose label has not come is forgotten."""

_FORMER, _LAG = "former", "former.lag"
_RECORDED = ("keys", "labels", "age", "lag", "older", "outputs")


def keys_of(ids: Iterable[str]) -> npt.NDArray[np.int64]:
    """What a record knows rows by: 8 bytes of a hash of each id (n,)."""
    digests = b"".join(hashlib.blake2b(one.encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(digests, dtype=np.int64)


def recorded(names: Container[str]) -> bool:
    """Whether a record is whole among the names of tensors."""
    return all(name in names for name in _RECORDED)


def places_among(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> Places:
    """The place of each of the wanted (m,) among keys (n,); -1 where it is not among them.

    >>> places_among(np.array([7, 3, 5]), np.array([5, 4, 7])).tolist()
    [2, -1, 0]
    """
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[found] == wanted, found, -1)


def waits(bundle: ModelBundle) -> int:
    """How many windows the step that comes after this bundle waits for."""
    return int(bundle.candidates.get("heritage", {}).get(WAIT, 1))


def most_rows(scores: Sequence[Array], outputs: Array) -> int:
    """How many rows are remembered whose scores by pace, (n, k) or (n,), and outputs (m, n, d_out) are like these: of
    many classes fewer.

    >>> [most_rows([np.empty((1, k))] * 2, np.empty((4, 1, k))) for k in (2, 100)]
    [50000, 11848]
    """
    numbers = sum(one[:1].size for one in scores) + scores[0][:1].size + outputs[:, :1].size
    return min(REMEMBERED, LARGEST // (4 * 8 + 4 * numbers))


@dataclass(frozen=True)
class Record:
    """What was answered: n rows by their `keys`, with their `labels` (NaN: not come), how many steps ago they were
    answered, each pace's scores, (n, k) probabilities or (n,) numbers, and the leader's outputs (m, n, d_out); and the
    scores of the model that the leader was before its last step, `lag` windows (n,) earlier (0: there was none)."""

    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    labels: Array = field(default_factory=lambda: np.empty(0))
    age: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    scores: tuple[Floats, ...] = ()
    outputs: Floats = field(default_factory=lambda: np.empty((0, 0, 0), dtype=np.float32))
    older: Floats = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    lag: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def grown(
        self, keys: npt.NDArray[np.int64], scores: Sequence[Array], outputs: Array, older: Array, lag: int
    ) -> Record:
        """With rows that were answered, and without those that are forgotten: a step that answers none is no later."""
        if not len(keys) and self.scores:
            return self
        age, most = self.age + 1, most_rows(scores, outputs)
        kept, added = _remembered(np.isfinite(self.labels), age, len(keys), most)

        def joined(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.concatenate([old[kept], new[added]]) if self.scores else new[added]

        said = np.moveaxis(outputs, 1, 0).astype(np.float32)
        return Record(
            joined(self.keys, keys),
            joined(self.labels, np.full(len(keys), np.nan)),
            joined(age, np.zeros(len(keys), dtype=np.int64)),
            tuple(joined(a, b.astype(np.float32)) for a, b in zip(self.scores or scores, scores, strict=True)),
            np.moveaxis(joined(np.moveaxis(self.outputs, 1, 0), said), 0, 1),
            joined(self.older, older.astype(np.float32)),
            joined(self.lag, np.full(len(keys), lag)),
        )

    def told(self, keys: npt.NDArray[np.int64], labels: Array) -> Record:
        """With the labels (m,) of the rows of these keys, if they are among its own."""
        found = places_among(keys, self.keys)
        return replace(self, labels=np.where(found >= 0, labels[found], self.labels) if len(labels) else self.labels)

    def among(self, keys: npt.NDArray[np.int64]) -> tuple[Places, Array]:
        """Which of these rows (n,) were answered, in their order, and the outputs (m, r, d_out): the latest of each."""
        places = places_among(keys, self.keys)[::-1]
        found, latest = np.unique(places, return_index=True)
        found, latest = found[found >= 0], latest[found >= 0]
        return found, self.outputs[:, len(places) - 1 - latest].astype(np.float64)


def _remembered(
    told: npt.NDArray[np.bool_], age: npt.NDArray[np.int64], added: int, most: int
) -> tuple[Places, Places]:
    """Which rows are remembered of those answered `age` steps ago (n,), `told` their label, and of some that are added:
    `most` of them, the newest. Of each step that waits for its labels a share is, evenly, however late they come."""
    share = max(1, most // (PATIENCE + 1))
    spared = np.zeros(len(age), dtype=bool)
    for step in np.unique(age[~told & (age < PATIENCE)]):
        spared[_evenly(np.flatnonzero(~told & (age == step)), share)] = True
    new = _evenly(np.arange(added), most - int(spared.sum()))
    old = np.flatnonzero(told | (age < PATIENCE))
    droppable = old[~spared[old]]
    return np.setdiff1d(old, droppable[: max(0, len(old) + len(new) - most)]), new


def _evenly(rows: Places, most: int) -> Places:
    """So many of the rows, evenly; all where they are no more.

    >>> _evenly(np.arange(7), 3).tolist()
    [0, 2, 4]
    """
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


@dataclass(frozen=True)
class Former:
    """The networks that led before their last step, which came so many windows later."""

    members: tuple[Member, ...]
    lag: int


@dataclass(frozen=True)
class Standing:
    """Where a race stands that a bundle has: its paces, each one's networks, the record, and the place of the one that
    is served; what that was before its last step, and how many windows the next one was to wait for."""

    paces: tuple[Pace, ...]
    members: tuple[tuple[Member, ...], ...]
    record: Record
    leader: int = 0
    former: Former | None = None
    wait: int = 1

    @classmethod
    def of(cls, bundle: ModelBundle) -> Standing:
        """The race of a bundle that is to go on. One without goes on at its pace alone, at the first if it has none."""
        heritage, own = bundle.candidates.get("heritage", {}), tuple(read_members(bundle))
        served = Pace(*heritage.get(PACE, (PACES[0].windows, PACES[0].epochs)))
        paces = tuple(Pace(*one) for one in heritage.get(RACED, ()))
        if RACE not in bundle.manifest.files or served not in paces:
            return cls((served,), (own,), Record())
        tensors = safetensors.torch.load_file(bundle.folder / RACE)
        return replace(cls.read(tensors, own, paces, paces.index(served)), wait=waits(bundle))

    @classmethod
    def read(
        cls, tensors: Mapping[str, torch.Tensor], own: tuple[Member, ...], paces: tuple[Pace, ...], leader: int
    ) -> Standing:
        """From what `Race.tensors` gives; networks that are not in it are the bundle's own. A record from before, which
        lacks the outputs, begins anew."""
        members = tuple(_members(own, tensors, _pace(place)) for place in range(len(paces)))
        if not recorded(tensors):
            return cls(paces, members, Record(), leader)
        arrays = {name: tensors[name].numpy() for name in _RECORDED}
        named = (f"{_pace(place)}.scores" for place in range(len(paces)))
        scores = tuple(tensors[name].numpy() for name in named if name in tensors)
        lag = int(tensors[_LAG]) if _LAG in tensors else 0
        former = Former(_members(own, tensors, _FORMER), lag) if lag else None
        return cls(paces, members, Record(**arrays, scores=scores), leader, former)


class Race:
    """The learners of a champion, or of a race that goes on, over the rows of a `Ground`; `keys` (n,) are the rows'."""

    def __init__(self, ground: Ground, paces: Sequence[Pace], keys: npt.NDArray[np.int64]) -> None:
        self.ground, self.keys = ground, keys
        self.learners, self.record, self.leader = [Learner(ground, one) for one in paces], Record(), 0
        self.former: Former | None = None
        self.waited = 1

    @classmethod
    def going_on(cls, ground: Ground, standing: Standing, keys: npt.NDArray[np.int64]) -> Race:
        """From where it stands."""
        race = cls(ground, standing.paces, keys)
        for learner, members in zip(race.learners, standing.members, strict=True):
            learner.members = members
        race.record, race.leader = standing.record, standing.leader
        race.former, race.waited = standing.former, standing.wait
        return race

    @property
    def first(self) -> Learner:
        """The one that leads."""
        return self.learners[self.leader]

    def hear(self, rows: Places) -> None:
        """The labels of these rows have come: who leads by all that have? The same as before while they say nothing."""
        rows = rows[self.ground.known[rows]]
        self.record = self.record.told(self.keys[rows], self.ground.material.labels[rows].astype(np.float64))
        self.leader = self._leader()

    def learn(self, step: Lesson) -> None:
        """Everybody takes the step."""
        before = self.first.members
        for learner in self.learners:
            learner.learn(step)
        if any(new is not old for new, old in zip(self.first.members, before, strict=True)):
            self.former = Former(before, step.windows)

    def answer(self, rows: Places) -> Array:
        """What the leader answers to these rows, (m, n, d_out); everybody's answers are remembered."""
        outputs = [learner.outputs(rows) for learner in self.learners]
        scores = [self.ground.scores(one).scores for one in outputs]
        older, lag = scores[self.leader], 0
        if self.former is not None and len(rows):
            lag = self.former.lag
            older = self.ground.scores(self.ground.outputs(self.former.members, rows)).scores
        self.record = self.record.grown(self.keys[rows], scores, outputs[self.leader], older, lag)
        return outputs[self.leader]

    def _leader(self) -> int:
        told = np.isfinite(self.record.labels)
        if len(self.learners) == 1 or not told.any():
            return self.leader
        metric, labels = self.ground.metric, self.record.labels[told]
        if self.ground.material.scale is None:
            labels = labels.astype(self.ground.material.labels.dtype)
        values = [metric.value(labels, one[told].astype(np.float64)) for one in self.record.scores]
        gains = [metric.gain(value, values[0]) for value in values]
        return int(np.argmax(gains)) if np.isfinite(gains).all() else self.leader

    def heritage(self) -> dict[str, Any]:
        """What `candidates.json` tells of it."""
        paces = [[one.pace.windows, one.pace.epochs] for one in self.learners]
        return {PACE: paces[self.leader], RACED: paces, WAIT: self.wait}

    @property
    def wait(self) -> int:
        """For how many windows the next step may wait, by what the last ones were worth."""
        record, classes = self.record, self.ground.material.scale is None
        told = np.isfinite(record.labels) & (record.lag > 0) & (record.age < RECENT)
        if not told.any():
            return 1
        labels = record.labels[told]
        newer = self.ground.scores(record.outputs[:, told].astype(np.float64)).scores
        older = record.older[told].astype(np.float64)
        before, after = (losses(one, labels, classes=classes) for one in (older, newer))
        return wait(worth(before, after, record.lag[told], chance(labels, classes=classes)), self.waited)

    def save(self, folder: Path) -> None:
        """Write what the leader's bundle does not hold."""
        others = [place for place in range(len(self.learners)) if place != self.leader]
        safetensors.torch.save_file(self.tensors(others), folder / RACE)

    def tensors(self, places: Iterable[int]) -> dict[str, torch.Tensor]:
        """The record, and the networks of the learners at these places."""
        record = self.record
        found = {name: torch.from_numpy(getattr(record, name)) for name in _RECORDED}
        found |= {f"{_pace(place)}.scores": torch.from_numpy(one) for place, one in enumerate(record.scores)}
        for place in places:
            found |= _weights(self.learners[place].members, _pace(place))
        if self.former is not None:
            found |= {_LAG: torch.tensor(self.former.lag), **_weights(self.former.members, _FORMER)}
        return {name: one.contiguous() for name, one in found.items()}


def _pace(place: int) -> str:
    """What the tensors of a pace are named by."""
    return f"pace{place}"


def _weights(members: Sequence[Member], owner: str) -> dict[str, torch.Tensor]:
    """Networks' weights under their names in the file."""
    return {
        f"{owner}.member{number}.{name}": value.detach().clone()
        for number, member in enumerate(members)
        for name, value in member.module.state_dict().items()
    }


def _members(own: Sequence[Member], weights: Mapping[str, torch.Tensor], owner: str) -> tuple[Member, ...]:
    """The networks of a pace, built as those that the bundle serves; these where it has no own."""
    out = []
    for number, member in enumerate(own):
        prefix = f"{owner}.member{number}."
        state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        out.append(replace(member, module=load_state(copy.deepcopy(member.module), state)) if state else member)
    return tuple(out)
