"""From members and their calibration to a sealed bundle: graph, the boosted reference, figures, card and manifest.

The test rows are looked at once, at the very end, by the finished graph and by the boosted reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from registry.bundle import CANDIDATES, CARD, FIGURES, MODEL, Estimate, Lineage, Manifest, ModelBundle
from registry.conforming import as_datetimes
from registry.errors import DataError
from registry.metrics import Array, Labels, Metric, metrics_for
from registry.naive import naive_scores
from registry.plurals import counted
from registry.scoring import REPRESENTATION, Graph, Scores
from registry.watched import watched, watched_rows
from retrain.boosted import Boosted, evaluate, fit_boosted
from retrain.calibration import Calibration
from retrain.card import card
from retrain.export import Member, write_model
from retrain.figures import draw
from retrain.members import TRAINED_UNTIL, annotate
from retrain.network_figure import draw_networks
from retrain.search.material import Material
from retrain.search_figures import draw_search
from retrain.story import Story
from retrain.trials import Searched


@dataclass(frozen=True)
class Finish:
    """What a bundle is told beside its members: where it comes from, what it cost, and what later searches begin with.

    `until` is the newest event time of a row that weights were fitted to, `study` the candidates worth trying again.
    `searched` is what the search did, None for a model that was not searched for; `cpu` the CPU-seconds so far.
    `parent` is a model of the same networks: its boosted reference is not fitted anew, and its headroom holds. Without
    `pictures` the card has none. `boosted` waits for the boosted reference where it was begun before. `beside` writes
    into the bundle's folder what else is to be sealed with it. `said` are the answers to the test rows (n) where models
    gave them before they learnt their labels; else the graph answers them. `refitted` is for how many epochs the
    networks have learnt the rows that were held out from them. `validation` is the task's metric on the rows that chose
    the members, where any did.
    """

    data_hash: str
    seed: int
    parent_version: str | None
    until: datetime | None
    seconds: Callable[[], float]
    tell: Callable[[str, str], None]
    heritage: Mapping[str, Any] = field(default_factory=dict)
    study: Sequence[Mapping[str, Any]] = ()
    searched: Searched | None = None
    cpu: Callable[[], float] | None = None
    parent: Manifest | None = None
    pictures: bool = True
    boosted: Callable[[], Boosted | None] | None = None
    beside: Callable[[Path], None] | None = None
    said: Scores | None = None
    refitted: int = 0
    validation: Estimate | None = None


def seal(
    material: Material, members: Sequence[Member], calibration: Calibration, out: Path, finish: Finish
) -> ModelBundle:
    """Write and seal the bundle in `out`, which must not be there yet. Raises `DataError` where the task's metric is
    not defined on the test rows."""
    finish.tell("export", f"one graph of {counted(len(members), 'network')}, compared with torch")
    answers = _write(material, out, members, calibration, finish)
    finish.tell("card", "boosted reference, metrics on the test part, figures and card")
    boosted = _boosted(material, finish, out) if finish.parent is None else None
    manifest = _manifest(material, calibration, answers, boosted, finish)
    _present(material, manifest, answers, boosted, finish, out)
    if finish.beside is not None:
        finish.beside(out)
    return ModelBundle.seal(out, manifest)


def _write(
    material: Material,
    out: Path,
    members: Sequence[Member],
    calibration: Calibration,
    finish: Finish,
) -> Scores:
    test, time = material.frame.iloc[material.parts.test], material.task.time
    answers = write_model(
        out,
        members,
        calibration,
        material.schema,
        material.target,
        test=test,
        labels=test[material.task.target],
        times=None if time is None else as_datetimes(test[time], time),
        study=finish.study,
        seed=finish.seed,
        training=material.conformed.iloc[material.parts.train],
        said=finish.said,
    )
    until = None if finish.until is None else finish.until.isoformat()
    counts = {} if finish.searched is None else {"search": finish.searched.counts()}
    annotate(out / CANDIDATES, **{TRAINED_UNTIL: until, "heritage": dict(finish.heritage)}, **counts)
    return answers


def _boosted(material: Material, finish: Finish, out: Path) -> Boosted:
    """The boosted reference, made by now or not. Of images it reads the numbers that the graph gives, as monitoring's
    does."""
    if finish.boosted is not None and (made := finish.boosted()) is not None:
        return made
    task, frame, schema = material.task, material.frame, material.schema
    if schema.image is not None:
        answers = Graph.open(out / MODEL, schema, material.target.problem).predict(frame)
        frame = watched_rows(frame.assign(**{REPRESENTATION: answers.columns()[REPRESENTATION]}), schema)
    return fit_boosted(frame, watched(schema), material.target, task.target, material.parts, seed=finish.seed)


def _manifest(
    material: Material, calibration: Calibration, answers: Scores, boosted: Boosted | None, finish: Finish
) -> Manifest:
    task, parts = material.task, material.parts
    labels = material.labels[parts.test]
    metric = metrics_for(task.problem)[task.metric]
    scores = np.asarray(answers.scores, dtype=np.float64)
    value, error = metric.value(labels, scores), metric.standard_error(labels, scores)
    if not np.isfinite([value, error]).all():
        raise DataError(f"{metric.name} is not defined on the {counted(len(labels), 'test row')}: too few of a class?")
    metrics = {"champion": evaluate(labels, scores, task.problem)}
    metrics |= {} if boosted is None else {"boosted": boosted.metrics}
    return Manifest(
        task=task,
        data_schema=material.schema,
        target=material.target,
        reference=Estimate(value=value, error=error, rows=len(labels)),
        headroom=_inherited(finish) if boosted is None else headroom(metric, labels, scores, boosted.scores),
        naive=naive(metric, material.labels[parts.train], labels, scores),
        validation=finish.validation,
        metrics=metrics,
        conformal_radius=calibration.radius,
        temperature=calibration.temperature,
        refitted=finish.refitted,
        lineage=Lineage(
            data_hash=finish.data_hash,
            rows=parts.counts(),
            known_until=material.newest(*vars(parts).values()),
            code_version=version("everfit"),
            seed=finish.seed,
            parent_version=finish.parent_version,
            seconds=finish.seconds(),
            cpu_seconds=None if finish.cpu is None else finish.cpu(),
            trials=0 if finish.searched is None else finish.searched.candidates,
        ),
    )


def _inherited(finish: Finish) -> Estimate | None:
    return None if finish.parent is None else finish.parent.headroom


def naive(metric: Metric, training: Labels, labels: Labels, scores: Array) -> Estimate | None:
    """What the training rows' mean or class shares reach on the test rows, with the error of the champion's difference
    to it; None where it is undefined."""
    if not len(training):
        return None
    answers = naive_scores(training, scores.shape[1] if scores.ndim > 1 else 0, len(labels))
    value, error = metric.value(labels, answers), metric.paired_error(labels, answers, scores)
    return Estimate(value=value, error=error, rows=len(labels)) if np.isfinite([value, error]).all() else None


def headroom(metric: Metric, labels: Labels, scores: Array, boosted: Array) -> Estimate | None:
    """By how much the boosted reference improves the champion when both are averaged; None where it is undefined."""
    mixed = (scores + boosted) / 2
    value = metric.gain(metric.value(labels, mixed), metric.value(labels, scores))
    error = metric.paired_error(labels, scores, mixed)
    return Estimate(value=value, error=error, rows=len(labels)) if np.isfinite([value, error]).all() else None


def _present(
    material: Material, manifest: Manifest, answers: Scores, boosted: Boosted | None, finish: Finish, out: Path
) -> None:
    """Write the figures and the card."""
    task, rows = material.task, material.parts.test
    labels = material.labels[rows]
    told = json.loads((out / CANDIDATES).read_text(encoding="utf-8"))
    pictures: list[Path] = []
    if finish.pictures:
        pictures += draw(out / FIGURES, task, material.target, labels, np.asarray(answers.scores))
        pictures += draw_networks(out / FIGURES, told["members"])
    if finish.searched is not None:
        pictures += draw_search(out / FIGURES, finish.searched, metrics_for(task.problem)[task.metric])
    story = Story(
        scores=answers,
        labels=labels,
        times=None if task.time is None else as_datetimes(material.frame[task.time], task.time).to_numpy()[rows],
        boosted=boosted,
        told=told,
        findings=material.findings,
        figures=[path.name for path in pictures],
        searched=finish.searched,
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
