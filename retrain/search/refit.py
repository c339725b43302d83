"""The networks that a search has chosen learn the rows that were held out from them, the newest where there is time.

Held-out rows choose networks, calibrate them and measure them; who serves should know them too. So the chosen networks
are trained on twice, each time from where the search left them, by their own recipe for a few epochs. First comes the
rehearsal, on training and validation rows alone: its networks calibrate and are measured on rows that they have never
seen. Then the same is done with all rows, and that is what serves. What the card tells and what monitoring holds the
model against was measured on the rehearsal; rows in time order may be easier or harder later than those it was
measured on, which it does not know.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from retrain.batches import Rows, rows_of
from retrain.export import Member
from retrain.families.base import Candidate, Reads
from retrain.search.material import Material
from retrain.search.space import SearchSpace
from retrain.splits import Rows as Places
from retrain.training import Loop, Recipe

EPOCHS = 3
REHEARSAL = 0.45
"""Share of the time that the rehearsal may take: it has fewer rows."""
BATCHES, LEAST_BATCH = 16, 16
"""Fewest batches of an epoch, if rows allow, and the smallest batch."""


@dataclass(frozen=True)
class Refit:
    """Networks that have learnt training and validation rows, and those that have learnt all rows; for how many whole
    epochs each of these has, at least."""

    rehearsed: list[Member]
    served: list[Member]
    epochs: int


def refit(material: Material, members: Sequence[Member], *, seed: int, until: float) -> Refit | None:
    """Train the networks on, with the rehearsal. None where they cannot all finish an epoch in each before `until`, a
    reading of `time.monotonic`, or where one diverges: then they stay as they are."""
    parts, now = material.parts, time.monotonic()
    known = np.sort(np.concatenate([parts.train, parts.validation]))
    rehearsed = _trained(material, members, known, seed, now + REHEARSAL * (until - now))
    if rehearsed is None:
        return None
    served = _trained(material, members, np.sort(np.concatenate([*vars(parts).values()])), seed, until)
    return None if served is None else Refit(rehearsed[0], *served)


def _trained(
    material: Material, members: Sequence[Member], places: Places, seed: int, until: float
) -> tuple[list[Member], int] | None:
    """All networks trained on with the rows at these places, each in an equal share of the time that is left; the
    fewest whole epochs of any."""
    conformed, labels = material.conformed.iloc[places], material.labels[places]
    targets = labels if material.scale is None else material.scale.standardise(labels).astype(np.float32)
    out, fewest = list[Member](), EPOCHS
    for left, member in zip(range(len(members), 0, -1), members, strict=True):
        now = time.monotonic()
        rows = rows_of(member.preparation.apply(conformed), torch.from_numpy(targets))
        made = _member(material, member, rows, seed, now + (until - now) / left)
        if made is None:
            return None
        out.append(made[0])
        fewest = min(fewest, made[1])
    return out, fewest


def _member(material: Material, member: Member, rows: Rows, seed: int, until: float) -> tuple[Member, int] | None:
    """A network trained on, and for how many whole epochs."""
    network, recipe = copy.deepcopy(member.module), _recipe(material, member, len(rows))
    torch.manual_seed(seed)
    loop = Loop(network, rows, recipe, material.task.problem, seed)
    whole = 0
    for _ in range(EPOCHS):
        complete, finite = loop.epoch(until)
        if not finite or not (complete or whole):
            return None
        if not complete:
            break
        whole += 1
    kept = loop.kept
    if not all(bool(value.isfinite().all()) for value in kept.parameters()):
        return None
    return replace(member, module=kept.eval()), whole


def _recipe(material: Material, member: Member, rows: int) -> Recipe:
    """A network's own recipe, its learning rate falling within these epochs."""
    told, task = member.candidate, material.task
    candidate = Candidate(family=told["family"], choices=told["choices"])
    reads: Reads = "table" if material.schema.image is None else "image"
    own = SearchSpace.of((candidate.family,), rows, task.search.max_epochs, task.problem, reads).recipe(candidate)
    batch = min(own.batch_size, max(LEAST_BATCH, rows // BATCHES))
    return replace(own, epochs=EPOCHS, patience=EPOCHS, batch_size=batch, schedule="cosine")
