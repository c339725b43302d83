"""The remedy `fine_tune`: the champion's networks are trained on, with their own recipe at a lower rate, for a few
epochs. Which rows they are trained on, and how far their weights are first shrunk towards a random beginning (shrink
and perturb, Ash & Adams 2020), is tried out on the heaviest network and chosen on the newest validation rows. The
champion's own networks stand for election to the ensemble beside the tuned ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.metrics import Labels
from registry.plurals import counted
from retrain.batches import Rows, rows_of
from retrain.ensemble import select
from retrain.export import Member, member_outputs
from retrain.families.base import Candidate, Network, Reads
from retrain.families.catalogue import build
from retrain.levels import levelled
from retrain.preparation import Preparation
from retrain.renewal import Renewal, Request
from retrain.search.material import layout_of
from retrain.search.sealing import one_thread
from retrain.search.space import SearchSpace
from retrain.splits import Rows as Places
from retrain.training import DivergedError, Outputs, Recipe, Trained, load_state, train

EPOCHS = 6
RATE = 0.5
"""Of the rate that a network was first trained with."""
BATCHES = 16
"""Fewest batches of an epoch, if rows allow."""
LEAST_BATCH = 16


@dataclass(frozen=True)
class Diet:
    """What a network is trained on with: the newest `recent` of the newer rows (a share), `replay` old rows for each of
    them (infinitely many: all), and how much of its weights it keeps."""

    name: str
    recent: float
    replay: float
    keep: float


DIETS = (
    Diet("newest third", 1 / 3, 0.0, 1.0),
    Diet("newer rows", 1.0, 0.0, 1.0),
    Diet("newer rows, as many old ones", 1.0, 1.0, 1.0),
    Diet("all rows, shrunk", 1.0, np.inf, 0.8),
)


def fine_tune(asked: Request) -> ModelBundle:
    """The champion trained on. Raises `DataError`, see `Renewal`, and when every training diverges."""
    renewal = Renewal(asked)
    with one_thread():
        renewal.tell(
            "tuning", f"{counted(len(renewal.members), 'network')}, {counted(len(renewal.new.train), 'newer row')}"
        )
        tuner = Tuner(renewal)
        tuned, diet = tuner.tuned()
        elders = [renewal.levelled(member) for member in renewal.members]
        conformed, labels = renewal.rows(renewal.new.validation)
        everybody = [*tuned, *elders]
        answers = renewal.answers(member_outputs(everybody, conformed))
        groups = [0] * len(tuned) + [1] * len(elders)
        weights = select(answers, labels, renewal.metric, size=asked.task.search.ensemble, groups=groups)
    chosen = [replace(one, weight=float(weight)) for one, weight in zip(everybody, weights, strict=True) if weight > 0]
    kept = sum(weight > 0 for weight in weights[len(tuned) :])
    return renewal.seal(
        chosen,
        {"tuned": len(tuned), "diet": diet.name, "kept": int(kept), "trained": tuner.trained},
        renewal.material.parts.train,
    )


class Tuner:
    """Trains a renewal's networks on. Prepared rows are kept by preparation; `trained` counts trainings."""

    def __init__(self, renewal: Renewal) -> None:
        self.renewal, self.rng, self.trained = renewal, np.random.default_rng(renewal.asked.seed), 0
        self._known: list[tuple[Preparation, dict[str, Rows]]] = []

    def tuned(self) -> tuple[list[Member], Diet]:
        """Every network tuned on the diet that suits the heaviest best, while there is time; and that diet."""
        first, *others = sorted(self.renewal.members, key=lambda member: -member.weight)
        tried = [(diet, found) for diet in DIETS if (found := self._tune(first, diet)) is not None]
        if not tried:
            raise DataError("every training diverged")
        sign = 1 if self.renewal.metric.greater_is_better else -1
        diet, best = max(tried, key=lambda one: sign * one[1][1].score)
        return [best[0], *(found[0] for other in others if (found := self._tune(other, diet)) is not None)], diet

    def _tune(self, member: Member, diet: Diet) -> tuple[Member, Trained] | None:
        """A network trained on; None when that diverges, or the time is over."""
        if time.monotonic() >= self.renewal.deadline and diet is not DIETS[0]:
            return None
        told, renewal = dict(member.candidate), self.renewal
        candidate = Candidate(family=told["family"], choices=told["choices"])
        training = self._rows(member.preparation, "train").take(torch.from_numpy(self._places(diet)))
        validation = self._rows(member.preparation, "validation")
        labels = renewal.rows(renewal.new.validation)[1]
        network = self._network(candidate, member, diet.keep)
        recipe = self._recipe(candidate, len(training))

        def score(outputs: Outputs) -> float:
            return renewal.metric.value(labels, renewal.answers(outputs.astype(np.float64)))

        self.trained += 1
        try:
            trained = train(
                network,
                training,
                validation,
                recipe,
                problem=renewal.asked.task.problem,
                score=score,
                greater_is_better=renewal.metric.greater_is_better,
                seed=renewal.asked.seed,
                deadline=max(renewal.deadline, time.monotonic() + 1.0),
            )
        except DivergedError:
            return None
        trained = trained if renewal.scale is not None else levelled(trained, network, training, score)
        facts = {"score": trained.score, "epochs": trained.best_epoch, "seed": renewal.asked.seed}
        tuned = load_state(network, trained.state)
        return Member(tuned, member.preparation, 0.0, {**told, **facts}, member.graph), trained

    def _network(self, candidate: Candidate, member: Member, keep: float) -> Network:
        """A copy of a member's network, its weights shrunk towards a new beginning."""
        torch.manual_seed(self.renewal.asked.seed)
        layout = layout_of(member.preparation)
        d_out = self.renewal.material.d_out
        network = build(candidate, len(layout.numeric), layout.cardinalities, d_out, layout.image)
        given = member.module.state_dict()
        state = {
            name: torch.lerp(value, given[name], keep)
            if value.is_floating_point() and keep < 1
            else given[name].clone()
            for name, value in network.state_dict().items()
        }
        network.load_state_dict(state)
        return network

    def _recipe(self, candidate: Candidate, rows: int) -> Recipe:
        problem, most = self.renewal.asked.task.problem, self.renewal.asked.task.search.max_epochs
        reads: Reads = "table" if self.renewal.material.schema.image is None else "image"
        own = SearchSpace.of((candidate.family,), rows, most, problem, reads).recipe(candidate)
        batch = min(own.batch_size, max(LEAST_BATCH, rows // BATCHES))
        return replace(own, epochs=EPOCHS, patience=EPOCHS, batch_size=batch, rate=RATE * own.rate, schedule="cosine")

    def _places(self, diet: Diet) -> Places:
        """Positions in the training rows, old ones first: the newest of the newer, and a sample of the old."""
        old, new = len(self.renewal.old), len(self.renewal.new.train)
        recent = old + np.arange(new)[-max(LEAST_BATCH, round(diet.recent * new)) :]
        if diet.replay == np.inf:
            return np.concatenate([np.arange(old), recent])
        replayed = self.rng.choice(old, min(old, round(diet.replay * len(recent))), replace=False)
        return np.concatenate([np.sort(replayed), recent]).astype(np.int64)

    def _rows(self, preparation: Preparation, part: str) -> Rows:
        known = next((rows for one, rows in self._known if one == preparation), None)
        if known is None:
            known = dict(self._prepared(preparation))
            self._known.append((preparation, known))
        return known[part]

    def _prepared(self, preparation: Preparation) -> Iterator[tuple[str, Rows]]:
        parts = self.renewal.material.parts
        for name, part in (("train", parts.train), ("validation", parts.validation)):
            conformed, labels = self.renewal.rows(part)
            yield name, rows_of(preparation.apply(conformed), self._targets(labels))

    def _targets(self, labels: Labels) -> Any:
        scale = self.renewal.scale
        return torch.from_numpy(labels if scale is None else scale.standardise(labels).astype(np.float32))
