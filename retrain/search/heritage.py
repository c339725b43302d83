"""What a prior bundle hands down to a study: its best candidates and, where that leaks nothing, its members' weights.

Weights are handed down only when every row they were fitted to is older than every row that judges the new networks:
a network that has seen the validation rows would flatter itself. Without a time column nobody can tell, and
candidates alone are handed down.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from registry.bundle import WEIGHTS, ModelBundle
from registry.schema import Frozen
from retrain import levels
from retrain.export import Member
from retrain.families.base import Candidate, read_candidate
from retrain.members import level, read_members, told_of, trained_until
from retrain.preparation import Preparation
from retrain.search import plan as plans
from retrain.search.defaults import DEFAULTS
from retrain.search.material import Material, layout_of
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.tally import PRIOR, PRIOR_WEIGHTS, REFUSED, enqueue, origin_of, quality_of
from retrain.search.warm import Elder, PriorMembers, interleave

MOST = 8
"""Candidates handed down at most."""
UNSEEN_ROWS = 40
"""Fewest rows newer than a prior's training that judge, calibrate or level its members."""


@dataclass(frozen=True)
class Elders:
    """The prior's members as they are, and the newest event time of a row that they were fitted to. Old and new
    networks err apart, and the ensemble may hold both; what judges and calibrates it is newer than `until`. `known` are
    all of the prior's members, whose graphs serve for networks of their architecture."""

    members: tuple[Member, ...] = ()
    until: datetime | None = None
    known: tuple[Member, ...] = ()


class Handed(Frozen):
    """A candidate from the prior, as this space has it, and the prefix of its weights if they may be inherited."""

    candidate: Candidate
    member: str | None = None


@dataclass(frozen=True)
class Heritage:
    """The candidates in the order to try them, how many no longer fit the space, and whether weights are inherited."""

    handed: tuple[Handed, ...]
    dropped: int
    weights: str
    elect: Callable[[], Elders] = Elders

    @cached_property
    def elders(self) -> Elders:
        """The prior's members that may stand for election, levelled when first asked for: workers need not wait."""
        return self.elect()

    def enqueue(self, study: optuna.Study, space: SearchSpace, seed: int) -> None:
        """Fill a study's queue."""
        for one in self.queue(space, seed):
            enqueue(study, space, one.candidate, "prior" if one in self.handed else "fresh", member=one.member)

    def queue(self, space: SearchSpace, seed: int) -> list[Handed]:
        """The prior's candidates and fresh ones in turn. The fresh ones are the defaults that the prior does not hand
        down, then candidates at random; they are the guard, and what a prior that never met them is judged by: a short
        re-search of the prior's own kind would never leave it."""
        rng = np.random.default_rng(seed)
        known = {one.candidate.key for one in self.handed}
        fresh = [Handed(candidate=one) for one in portfolio(space) if one.key not in known]
        fresh += [Handed(candidate=space.sample(rng)) for _ in range(len(self.handed) - len(fresh))]
        return list(interleave(self.handed, fresh))

    def record(self, study: optuna.Study) -> dict[str, Any]:
        """What became of it, JSON-able: counts, and how often the guard refused one of the prior's candidates."""
        trials = study.get_trials(deepcopy=False)
        refused = sum(REFUSED in trial.user_attrs for trial in trials)
        tried = sum(origin_of(trial) == "prior" and quality_of(trial) is not None for trial in trials)
        return {
            "handed": len(self.handed),
            "tried": tried,
            "dropped": self.dropped,
            "refused": refused,
            "guard_fired": refused > 0,
            "weights": self.weights,
            "elders": len(self.elders.members),
        }


def hand_down(prior: ModelBundle, material: Material, space: SearchSpace, folder: Path) -> Heritage:
    """What a prior hands down to a study of this material; its weights are put into the study's folder."""
    found = list(_candidates(prior))
    reason = _why_not(prior, found, material)
    fitted = [(space.fit(one.candidate, DEFAULTS), one.member if reason is None else None) for one in found]
    kept: dict[str, Handed] = {}
    for candidate, member in fitted:
        if candidate is not None:
            kept.setdefault(candidate.key, Handed(candidate=candidate, member=member))
    if reason is None:
        shutil.copyfile(prior.folder / WEIGHTS, folder / PRIOR_WEIGHTS)
        plans.write_json(folder / PRIOR, PriorMembers(by_prefix=_by_prefix(prior, found)))
    dropped = sum(candidate is None for candidate, _ in fitted)

    def elect() -> Elders:
        known = tuple(read_members(prior))
        return Elders(tuple(_elders(prior, known, material)), trained_until(prior), known)

    return Heritage(
        tuple(kept.values())[:MOST],
        dropped,
        reason or "inherited by networks of the same kind, whatever their sizes",
        elect,
    )


def _elders(prior: ModelBundle, known: Sequence[Member], material: Material) -> Iterator[Member]:
    """The prior's members, where they answer the same question in the same unit from columns that are still there, and
    rows that they have not seen can judge them.

    Each is brought to the level of the new training rows, which the new networks share: a network of winter that says
    .1 in summer, where a third is late, would weigh next to nothing in a mean of probabilities.
    """
    same = prior.manifest.target.classes == material.target.classes and material.scale is None
    if not same or not set(prior.manifest.data_schema.names) <= set(material.schema.names):
        return
    until = trained_until(prior)
    unseen = {name: rows[material.after(until, rows)] for name, rows in vars(material.parts).items()}
    if until is None or min(len(unseen["validation"]), len(unseen["calibration"])) < UNSEEN_ROWS:
        return
    rows = unseen["train"] if len(unseen["train"]) >= UNSEEN_ROWS else material.parts.train
    rows = rows[:: math.ceil(len(rows) / levels.ROWS)]
    conformed, labels = material.conformed.iloc[rows], material.labels[rows]
    for elder in known:
        level(elder, conformed, labels)
        yield replace(elder, weight=0.0)


def _by_prefix(prior: ModelBundle, found: list[Handed]) -> dict[str, Elder]:
    """Each member that was found, by the prefix of its weights."""
    members = told_of(prior)
    return {
        one.member: Elder(
            candidate=one.candidate,
            layout=layout_of(Preparation.model_validate(members[one.member]["preparation"])),
        )
        for one in found
        if one.member is not None
    }


def _candidates(prior: ModelBundle) -> Iterator[Handed]:
    """The prior's members, then the other candidates of its study, best first."""
    for prefix, told in told_of(prior).items():
        if (candidate := read_candidate(told["candidate"])) is not None:
            yield Handed(candidate=candidate, member=prefix)
    for one in prior.candidates.get("study", []):
        if (candidate := read_candidate(one["candidate"])) is not None:
            yield Handed(candidate=candidate)


def _why_not(prior: ModelBundle, found: list[Handed], material: Material) -> str | None:
    """Why weights are not handed down; None when they are."""
    if not any(one.member for one in found):
        return "not inherited: the prior has no members that can be read"
    parts = material.parts
    judging = material.oldest(parts.validation, parts.calibration, parts.test)
    until = trained_until(prior)
    if judging is None or until is None:
        return "not inherited: without times nobody can tell whether they have seen the validation rows"
    if until >= judging:
        return f"not inherited: they were fitted to rows until {until}, the validation rows begin at {judging}"
    return None
