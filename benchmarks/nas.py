"""Every strategy on tables of finished trainings, beside what the papers found with theirs.

    EVERFIT_DATA=FOLDER python -m benchmarks.nas [--parts nasbench201 macro hpobench cost] [--seeds 100] [--workers 2]

NAS-Bench-201: a search on CIFAR-10 by the validation accuracy after 12 epochs, until 12,000 simulated seconds are used
up; told is the test accuracy on CIFAR-10 and CIFAR-100 of the cell with the best of those validations. The published
protocol trains a cell again when it comes up again; isomorphic cells are others to it. `--strategies synflow-local`:
local search begun by synflow alone, which `auto` is held to. `--first` is the first seed.
NAS-Bench-Macro and hpobench: the final score (of other trainings than those a search sees) after 25, 50, 100 trainings,
as normalised regret: 0 is the table's best, 1 its median. Cost: milliseconds of CPU a suggestion after 500 trials.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna

from benchmarks import nas_tables
from benchmarks.nas_plain import SynflowLocal
from benchmarks.nas_tables import Found, TableSpace
from retrain.search.asking import propose
from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTellSampler
from retrain.search.strategies.catalogue import STRATEGIES, strategy_named
from retrain.search.strategies.evolution import RegularizedEvolution
from retrain.search.strategies.weight_sharing import WeightSharing

SECONDS = 12_000.0
MARKS = (25, 50, 100)
PUBLISHED = {
    "random": "93.70 +/- .36   71.04 +/- 1.07",
    "reinforce": "93.85 +/- .37   71.71 +/- 1.09",
    "evolution": "93.92 +/- .30   71.84 +/- .99 (10, 3)",
    "local": "94.16          72.52 (measured elsewhere)",
    "tpe": "94.11 +/- .29   72.47 +/- 1.00 (measured elsewhere)",
    "gp": "94.21 +/- .37   72.77 +/- .97 (measured elsewhere)",
    "synflow-local": "94.33          72.98 (measured elsewhere)",
}
"""Dong & Yang 2020, table 5, mean and spread over 500 runs; the others were measured before on the same table:
Optuna's samplers, White et al.'s search, and that begun by synflow."""


AGAIN = ("random", "reinforce", "evolution-10-3")
"""Those whose published rows let a cell be trained again."""


@dataclass(frozen=True)
class Run:
    """A search on a table: the finals of its best candidate after each training, and each suggestion's CPU-seconds."""

    finals: tuple[tuple[float, ...], ...]
    asked: tuple[float, ...]


def run(space: TableSpace, sampler: optuna.samplers.BaseSampler, *, seconds: float, trials: int, again: bool) -> Run:
    """One search. `again`: candidates that come up again are trained again, as the published protocol does."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    taken: set[str] = set()
    best: Found | None = None
    finals, asked, spent = [], [], 0.0
    while spent < seconds and len(finals) < trials:
        start = time.process_time()
        trial, candidate = propose(study, space, () if again else taken)
        asked.append(time.process_time() - start)
        found = space.train(candidate)
        study.tell(trial, found.score)
        taken.add(space.canonical(candidate))
        spent += found.seconds
        if best is None or found.score > best.score:
            best = found
        finals.append(best.finals)
    return Run(tuple(finals), tuple(asked))


@cache
def table(name: str) -> TableSpace:
    """A table by name, read once a process."""
    folder = Path(os.environ["EVERFIT_DATA"]) / "search"
    if name == "nasbench201":
        return nas_tables.nasbench201(folder)
    if name == "macro":
        return nas_tables.nasbench_macro(folder)
    reader = {"hpobench": nas_tables.hpobench, "lcbench": nas_tables.lcbench, "taskset": nas_tables.taskset}
    return next(one for one in reader[name.split()[0]](folder) if one.name == name)


def sampler_of(name: str, space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """A strategy's sampler by name; `evolution-10-3` is the published setting."""
    if name == SynflowLocal.name:
        return SynflowLocal.sampler(space, seed)
    if name == "evolution-10-3":
        rng = np.random.default_rng(seed)
        return AskTellSampler(RegularizedEvolution(space, rng, population=10, tournament=3))
    return strategy_named(name).sampler(space, seed)


def one(name: str, strategy: str, again: bool, seconds: float, trials: int, seed: int) -> Run:
    """One run, in a worker process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = table(name)
    return run(space, sampler_of(strategy, space, seed), seconds=seconds, trials=trials, again=again)


Pool = Callable[[Callable[[int], Run], Sequence[int]], list[Run]]


def summary(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    return f"{statistics.mean(values):7.3f} +/- {statistics.stdev(values) if len(values) > 1 else math.nan:.3f}"


def nasbench201(names: Sequence[str], seeds: Sequence[int], pool: Pool) -> Iterator[str]:
    """The table's rows, as a search is told and as it was published."""
    yield f"NAS-Bench-201, {len(seeds)} seeds, {SECONDS:,.0f} simulated seconds; best of the table 94.37 / 73.51"
    yield f"{'strategy':18}{'CIFAR-10':>20}{'CIFAR-100':>20}{'trainings':>10}{'ms':>7}   published"
    for name in names:
        for again in (True, False) if name in AGAIN else (False,):
            runs = pool(partial(one, "nasbench201", name, again, SECONDS, 1_000), seeds)
            ten, hundred = ([one.finals[-1][place] for one in runs] for place in (0, 1))
            counts = statistics.mean(len(one.finals) for one in runs)
            asked = 1_000 * statistics.mean(statistics.mean(one.asked) for one in runs)
            told = f"{name}{' (again)' if again else ''}"
            known = PUBLISHED.get(name.removesuffix("-10-3"), "")
            yield f"{told:18}{summary(ten):>20}{summary(hundred):>20}{counts:10.1f}{asked:7.1f}   {known}"


def marks(title: str, tables: Sequence[str], names: Sequence[str], seeds: Sequence[int], pool: Pool) -> Iterator[str]:
    """Normalised regret of the final score after so many trainings, mean over tables and seeds."""
    yield f"{title}: normalised regret after {', '.join(map(str, MARKS))} trainings, {len(seeds)} seeds"
    for name in names:
        lines = []
        for each in tables:
            runs = pool(partial(one, each, name, False, math.inf, max(MARKS)), seeds)
            lines.append([[table(each).regret(run.finals[mark - 1][0]) for mark in MARKS] for run in runs])
        by_seed = np.mean(np.asarray(lines), axis=0)
        told = "".join(f"{summary(by_seed[:, place].tolist()):>20}" for place in range(len(MARKS)))
        yield f"{name:18}{told}"


def cost(names: Sequence[str], pool: Pool) -> Iterator[str]:
    """Milliseconds of CPU a suggestion in the last 20 of 500 trials, on NAS-Bench-Macro."""
    yield "cost: milliseconds of CPU a suggestion (median) at 500 trials, Optuna's own share (in memory) included"
    for name in names:
        (found,) = pool(partial(one, "macro", name, False, math.inf, 500), [0])
        yield f"{name:18}{1_000 * statistics.median(found.asked[-20:]):8.2f}"


def main() -> None:
    """Run the parts asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--parts", nargs="*", default=["nasbench201", "macro", "hpobench", "cost"])
    known = [each.name for each in STRATEGIES if not issubclass(each, WeightSharing)]
    asked.add_argument("--strategies", nargs="*", default=[*known, "evolution-10-3"])
    asked.add_argument("--seeds", type=int, default=100)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--workers", type=int, default=2)
    options = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("skipped: set EVERFIT_DATA to the folder of the tables")
        return
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("fork")) as workers:

        def pool(job: Callable[[int], Run], given: Sequence[int]) -> list[Run]:
            return list(workers.map(job, given, chunksize=1))

        names, small = options.strategies, seeds[:30]
        parts = {
            "nasbench201": lambda: nasbench201(names, seeds, pool),
            "macro": lambda: marks("NAS-Bench-Macro", ["macro"], names, small, pool),
            "hpobench": lambda: chain(
                marks(f"hpobench, {' and '.join(JUDGING)}", [f"hpobench {one}" for one in JUDGING], names, small, pool),
                marks(f"hpobench, {' and '.join(SEEN)}", [f"hpobench {one}" for one in SEEN], names, small, pool),
            ),
            "cost": lambda: cost(names, pool),
        }
        for part in options.parts:
            for line in parts[part]():
                print(line, flush=True)


SEEN, JUDGING = ("australian", "car"), ("phoneme", "segment")
"""Sets of hpobench on which `auto` was developed, and those that nothing was."""

if __name__ == "__main__":
    main()
