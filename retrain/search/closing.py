"""From a finished study to a sealed bundle: ensemble, calibration, graph, the boosted reference, card and manifest.

The test rows are looked at once, at the very end, by the finished graph and by the boosted reference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from registry.bundle import CANDIDATES, CARD, FIGURES, Estimate, Lineage, Manifest, ModelBundle
from registry.errors import StateError
from registry.metrics import Array, Labels, Metric, metrics_for
from registry.schema import as_datetimes
from registry.scoring import Scores
from retrain.boosted import Boosted, evaluate, fit_boosted
from retrain.calibration import Calibration
from retrain.card import Story, card
from retrain.ensemble import select
from retrain.export import Member, member_outputs, write_model
from retrain.families.catalogue import family_named
from retrain.figures import Tried, draw
from retrain.search import plan as plans
from retrain.search.heritage import TRAINED_UNTIL, Elders, annotate
from retrain.search.material import Material
from retrain.search.plan import Plan, Result
from retrain.training import load_state

LIBRARY = 20
"""The best trials from which the ensemble is chosen."""
KEPT = 50
"""The best trials whose candidates a bundle keeps."""


@dataclass(frozen=True)
class Finish:
    """What the closing of a study knows beside its trials."""

    data_hash: str
    seed: int
    parent_version: str | None
    heritage: Mapping[str, Any]
    elders: Elders
    seconds: Callable[[], float]
    tell: Callable[[str, str], None]


def close(material: Material, folder: Path, plan: Plan, out: Path, finish: Finish) -> ModelBundle:
    """Make and seal the bundle in `out`, replacing what is there. Raises `StateError` when no trial has a result."""
    tried = plans.read_results(folder)
    results = ranked(tried, greater_is_better=plan.greater_is_better)
    if not results:
        raise StateError(f"no trial has finished in {folder}: give the search more time, or look at its workers' logs")
    shutil.rmtree(out, ignore_errors=True)
    with one_thread():
        finish.tell("ensemble", "choosing the ensemble, calibration")
        members = assemble(material, folder, plan, results, finish.elders)
        calibration = calibrate(material, members, finish.elders)
        finish.tell("export", f"one graph of {len(members)} networks, compared with torch")
        answers = _write(material, out, members, calibration, promising(tried, plan), finish)
    finish.tell("card", "boosted reference, metrics on the test part, figures and card")
    boosted = _boosted(material, finish.seed)
    manifest = _manifest(material, calibration, answers, boosted, len(tried), finish)
    _present(material, manifest, answers, boosted, tried, out)
    return ModelBundle.seal(out, manifest)


def ranked(results: Sequence[Result], *, greater_is_better: bool) -> list[Result]:
    """Completed trials, best first; pruned ones only when nothing else is there."""
    complete = [result for result in results if result.state == "complete"]
    return sorted(complete or results, key=lambda result: result.score, reverse=greater_is_better)


def promising(tried: Sequence[Result], plan: Plan) -> list[Result]:
    """All trials, those most worth trying again first: complete ones by score, then those stopped early by score."""
    by_score = sorted(tried, key=lambda result: result.score, reverse=plan.greater_is_better)
    return sorted(by_score, key=lambda result: result.state != "complete")


def assemble(material: Material, folder: Path, plan: Plan, results: Sequence[Result], elders: Elders) -> list[Member]:
    """The members of the ensemble, chosen on the validation rows among the best trials and a prior's members, of each
    at most `search.ensemble`."""
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
    )
    fresh = [
        _member(material, folder, result, float(weight))
        for result, weight in zip(library, weights, strict=False)
        if weight > 0
    ]
    kept = zip(old, weights[len(library) :], strict=True)
    return [*fresh, *(replace(elder, weight=float(weight)) for elder, weight in kept if weight > 0)]


def _member(material: Material, folder: Path, result: Result, weight: float) -> Member:
    candidate, layout = result.candidate, material.layout
    network = family_named(candidate.family).build(candidate, len(layout.numeric), layout.cardinalities, material.d_out)
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


def _write(
    material: Material,
    out: Path,
    members: Sequence[Member],
    calibration: Calibration,
    results: Sequence[Result],
    finish: Finish,
) -> Scores:
    test = material.frame.iloc[material.parts.test]
    answers = write_model(
        out,
        members,
        calibration,
        material.schema,
        material.target,
        test=test,
        labels=test[material.task.target],
        study=[_told(result) for result in results[:KEPT]],
        seed=finish.seed,
    )
    until = material.newest(material.parts.train)
    annotate(
        out / CANDIDATES,
        **{TRAINED_UNTIL: until.isoformat() if until is not None else None, "heritage": dict(finish.heritage)},
    )
    return answers


def _told(result: Result) -> dict[str, Any]:
    return {
        "candidate": result.candidate.model_dump(),
        "score": result.score,
        "epochs": result.best_epoch,
        "origin": result.origin,
        "inherited": result.inherited,
    }


def _boosted(material: Material, seed: int) -> Boosted:
    task = material.task
    return fit_boosted(material.frame, material.schema, material.target, task.target, material.parts, seed=seed)


def _manifest(
    material: Material, calibration: Calibration, answers: Scores, boosted: Boosted, trials: int, finish: Finish
) -> Manifest:
    task, parts = material.task, material.parts
    labels = material.labels[parts.test]
    metric = metrics_for(task.problem)[task.metric]
    scores = np.asarray(answers.scores, dtype=np.float64)
    return Manifest(
        task=task,
        data_schema=material.schema,
        target=material.target,
        reference=Estimate(
            value=metric.value(labels, scores), error=metric.standard_error(labels, scores), rows=len(labels)
        ),
        headroom=headroom(metric, labels, scores, boosted.scores),
        metrics={"champion": evaluate(labels, scores, task.problem), "boosted": boosted.metrics},
        conformal_radius=calibration.radius,
        temperature=calibration.temperature,
        lineage=Lineage(
            data_hash=finish.data_hash,
            rows=parts.counts(),
            known_until=material.newest(*vars(parts).values()),
            code_version=version("everfit"),
            seed=finish.seed,
            parent_version=finish.parent_version,
            seconds=finish.seconds(),
            trials=trials,
        ),
    )


def headroom(metric: Metric, labels: Labels, scores: Array, boosted: Array) -> Estimate | None:
    """By how much the boosted reference improves the champion when both are averaged; None where it is undefined."""
    mixed = (scores + boosted) / 2
    value = metric.gain(metric.value(labels, mixed), metric.value(labels, scores))
    error = metric.paired_error(labels, scores, mixed)
    return Estimate(value=value, error=error, rows=len(labels)) if np.isfinite([value, error]).all() else None


def _present(
    material: Material, manifest: Manifest, answers: Scores, boosted: Boosted, results: Sequence[Result], out: Path
) -> None:
    """Write the figures and the card."""
    task, rows = material.task, material.parts.test
    labels = material.labels[rows]
    tried = [Tried(one.number, one.score, one.origin, one.state == "complete") for one in results]
    pictures = draw(out / FIGURES, task, material.target, labels, np.asarray(answers.scores), tried)
    story = Story(
        scores=answers,
        labels=labels,
        times=None if task.time is None else as_datetimes(material.frame[task.time], task.time).to_numpy()[rows],
        boosted=boosted,
        told=json.loads((out / CANDIDATES).read_text(encoding="utf-8")),
        findings=material.findings,
        figures=[path.name for path in pictures],
    )
    (out / CARD).write_text(card(manifest, story), encoding="utf-8")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: many small operations are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
