"""From a finished study to a sealed bundle: the ensemble is chosen, and calibrated."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import safetensors.torch
from optuna.trial import FrozenTrial

from registry.bundle import Estimate, ModelBundle
from registry.errors import StateError, TaskError
from registry.metrics import Array, metrics_for
from registry.plurals import counted
from registry.scoring import Scores
from retrain.calibration import Calibration
from retrain.ensemble import select
from retrain.export import Member, lent, member_outputs
from retrain.families.catalogue import build
from retrain.search import plan as plans
from retrain.search.account import account
from retrain.search.heritage import Elders
from retrain.search.limits import INFEASIBLE, megabytes_of, why_none_fits
from retrain.search.material import Material
from retrain.search.plan import Plan, Result
from retrain.search.refit import refit
from retrain.search.sealing import Finish, one_thread, seal
from retrain.search.tally import DIVERGED
from retrain.training import load_state
from retrain.trials import unbeaten

LIBRARY = 20
"""The best trials from which the ensemble is chosen."""
KEPT = 50
"""The best trials whose candidates a bundle keeps."""


def close(
    material: Material,
    folder: Path,
    plan: Plan,
    study: optuna.Study,
    out: Path,
    finish: Finish,
    elders: Elders,
    refit_until: float | None = None,
) -> ModelBundle:
    """Make and seal the bundle in `out`, replacing what is there. The networks learn the rows that were held out as
    well, if that can be done before `refit_until`, a reading of `time.monotonic`; never where it is None. Raises
    `StateError` when no trial has a result, `TaskError` when no network keeps to the task's constraints."""
    tried = plans.read_results(folder)
    results = standing(tried, plan)
    if not results:
        require_feasible(tried, plan, study)
        trials = study.get_trials(deepcopy=False)
        if why := why_none(trials):
            raise StateError(f"no network has a result{why}")
        start = start_of_workers(plan, trials, finish.seconds(), datetime.now())
        raise StateError(
            f"no network has a result in the time there was{start}: give the search more (--seconds, or "
            f"`search.seconds`), or see what its workers say in {folder / 'workers'}"
        )
    shutil.rmtree(out, ignore_errors=True)
    with one_thread():
        finish.tell("ensemble", "choosing the ensemble, calibration")
        members = assemble(material, folder, plan, results, elders)
        refitted = None
        if refit_until is not None:
            finish.tell("refit", f"{counted(len(members), 'network')}: learning the rows that were held out")
            refitted = refit(material, members, seed=plan.seed, until=refit_until)
        judged = members if refitted is None else refitted.rehearsed
        calibration = calibrate(material, judged, elders)
        facts = [(one.candidate.get("seed"), one.candidate.get("score")) for one in members]
        chosen = {one.number for one in results if (one.seed, one.score) in facts}
        validation = validated(material, members, calibration, elders)
        told = replace(
            finish,
            study=[_told(result, plan.rows) for result in promising(tried, plan)[:KEPT]],
            searched=account(
                study,
                plan,
                tried,
                chosen,
                None if validation is None else validation.value,
                sufficed=(folder / plans.ENOUGH).exists(),
            ),
            validation=validation,
        )
        if refitted is not None:
            said = answered(material, judged, calibration)
            until = material.newest(*vars(material.parts).values())
            told = replace(told, said=said, until=until, refitted=refitted.epochs)
            members = refitted.served
        return seal(material, members, calibration, out, told)


def why_none(trials: Sequence[FrozenTrial]) -> str:
    """Why no network has a result, where that was not for lack of time; empty elsewhere.

    >>> why_none([])
    ''
    """
    diverged = sum(DIVERGED in one.user_attrs for one in trials)
    if not diverged:
        return ""
    where = "see `search.choices`, and the data for values out of all proportion"
    return f": {counted(diverged, 'network')} had no finite loss or score after an epoch; {where}"


def start_of_workers(plan: Plan, trials: Sequence[FrozenTrial], seconds: float, now: datetime) -> str:
    """Half a sentence where the workers, with their libraries, took a third or more of a search's seconds to start;
    empty otherwise, and where trials of an earlier session began before."""
    if plan.ready is None:
        return ""
    begun = [one.datetime_start for one in trials if one.datetime_start is not None]
    waited = (min(begun, default=now) - plan.ready).total_seconds()
    if 3 * waited < seconds:
        return ""
    until = "" if begun else ", and none had begun one"
    return f" (the start of the workers and their libraries took {waited:.0f} of the {seconds:.0f} s{until})"


def ranked(results: Sequence[Result], *, greater_is_better: bool) -> list[Result]:
    """Completed trials, best first; pruned ones only when nothing else is there."""
    complete = [result for result in results if result.state == "complete"]
    return sorted(complete or results, key=lambda result: result.score, reverse=greater_is_better)


def standing(tried: Sequence[Result], plan: Plan) -> list[Result]:
    """The trials that may be in the ensemble, best first: quick enough, and of several objectives those that no other
    one dominates."""
    quick = [one for one in tried if plan.limits.allows_latency(one.row_ms)]
    found = ranked(quick, greater_is_better=plan.greater_is_better)
    if len(plan.objectives) == 1 or not found:
        return found
    kept = unbeaten(found, plan.objectives, greater_is_better=plan.greater_is_better)
    return [one for one, ahead in zip(found, kept, strict=True) if ahead]


def mixed(folder: Path, plan: Plan, results: Sequence[Result]) -> Array:
    """The plain mean of these trials' answers to the validation rows: probabilities (n, k), or values (n,)."""
    return np.asarray(np.mean([plan.answers(plans.read_outputs(folder, one.number)) for one in results], axis=0))


def require_feasible(tried: Sequence[Result], plan: Plan, study: optuna.Study) -> None:
    """Raise `TaskError` where it is a constraint that has left no network."""
    trials = study.get_trials(deepcopy=False)
    refused = [one.user_attrs[INFEASIBLE] for one in trials if INFEASIBLE in one.user_attrs]
    slow = [one.row_ms for one in tried if one.row_ms is not None]
    if refused or slow:
        raise TaskError(why_none_fits(plan.limits, plan.ensemble, refused, slow))


def promising(tried: Sequence[Result], plan: Plan) -> list[Result]:
    """All trials, those most worth trying again first: complete ones by score, then those stopped early by score."""
    by_score = sorted(tried, key=lambda result: result.score, reverse=plan.greater_is_better)
    return sorted(by_score, key=lambda result: result.state != "complete")


def assemble(material: Material, folder: Path, plan: Plan, results: Sequence[Result], elders: Elders) -> list[Member]:
    """The members of the ensemble, chosen on the validation rows among the best trials and a prior's members, of each
    at most `search.ensemble`; with a limit of size, no more than are that small together."""
    library, old = list(results[:LIBRARY]), elders.members
    rows = material.parts.validation
    unseen = material.after(elders.until, rows) if old else np.ones(len(rows), dtype=bool)
    outputs = [plans.read_outputs(folder, result.number)[unseen] for result in library]
    if old:
        outputs += list(member_outputs(old, material.conformed.iloc[rows[unseen]]))
    answers = np.stack([plan.answers(one) for one in outputs])
    weights = select(
        answers,
        material.labels[rows[unseen]],
        metrics_for(plan.problem)[plan.metric],
        size=material.task.search.ensemble,
        groups=[0] * len(library) + [1] * len(old),
        sizes=_sizes(library, plan, old),
        room=None if plan.limits.size_mb is None else plan.limits.size_mb * plan.ensemble,
    )
    fresh = [
        _member(material, folder, result, float(weight))
        for result, weight in zip(library, weights, strict=False)
        if weight > 0
    ]
    kept = zip(old, weights[len(library) :], strict=True)
    return [*lent(fresh, elders.known), *(replace(elder, weight=float(weight)) for elder, weight in kept if weight > 0)]


def _sizes(library: Sequence[Result], plan: Plan, old: Sequence[Member]) -> list[float]:
    """In MB: a new network counts as its share of the limit, whatever it leaves of it."""
    return [plan.limits.size_mb or 0.0] * len(library) + [megabytes_of(one.module) for one in old]


def _member(material: Material, folder: Path, result: Result, weight: float) -> Member:
    candidate, layout = result.candidate, material.layout
    network = build(candidate, len(layout.numeric), layout.cardinalities, material.d_out, layout.image)
    state = safetensors.torch.load_file(plans.trial_folder(folder, result.number) / plans.WEIGHTS)
    facts = {"seed": result.seed, "score": result.score, "epochs": result.best_epoch}
    return Member(
        module=load_state(network, state),
        preparation=material.preparations[candidate.text("scaling")],
        weight=weight,
        candidate={**candidate.model_dump(), **facts},
    )


def calibrate(material: Material, members: Sequence[Member], elders: Elders) -> Calibration:
    """Temperature and conformal radius, learnt on the calibration rows that no elder has seen."""
    rows = material.parts.calibration
    rows = rows[material.after(elders.until, rows)] if elders.members else rows
    outputs = member_outputs(members, material.conformed.iloc[rows])
    weights = np.array([member.weight for member in members])
    return Calibration.fit(
        outputs, weights, material.labels[rows], coverage=material.task.coverage, scale=material.scale
    )


def answered(material: Material, members: Sequence[Member], calibration: Calibration) -> Scores:
    """What the whole calibrated model answers to the test rows."""
    outputs = member_outputs(members, material.conformed.iloc[material.parts.test])
    return calibration.scores(outputs, np.array([member.weight for member in members]), material.target)


def validated(
    material: Material, members: Sequence[Member], calibration: Calibration, elders: Elders
) -> Estimate | None:
    """The metric of the whole calibrated model on the validation rows that no elder has seen; None without any, or
    where it is undefined."""
    rows = material.parts.validation
    rows = rows[material.after(elders.until, rows)] if elders.members else rows
    if not len(rows):
        return None
    weights = np.array([member.weight for member in members])
    outputs = member_outputs(members, material.conformed.iloc[rows])
    scores = calibration.scores(outputs, weights, material.target).scores
    metric = metrics_for(material.task.problem)[material.task.metric]
    known = material.labels[rows], np.asarray(scores, dtype=np.float64)
    value, error = metric.value(*known), metric.standard_error(*known)
    return Estimate(value=value, error=error, rows=len(rows)) if np.isfinite([value, error]).all() else None


def _told(result: Result, rows: int) -> dict[str, Any]:
    return {
        "candidate": result.candidate.model_dump(),
        "rows": rows,  # those of a bundle that is made from this one without a search are others
        "score": result.score,
        "epochs": result.best_epoch,
        "origin": result.origin,
        "inherited": result.inherited,
    }
