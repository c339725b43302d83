"""Early stopping on tables of learning curves: what is found in the epochs of 20 full trainings.

    EVERFIT_DATA=FOLDER python -m benchmarks.nas_fidelity [--stopping none asha ...] [--strategies random auto ...]
        [--part develop judge] [--benchmarks lcbench taskset] [--seeds 20] [--workers 1]

LCBench (17 tasks, 52 epochs) and TaskSet (6 tasks, 51 moments, minus the validation loss), through the search's own
`propose` and stopping policies. A trial reports the best score so far, as training does; what is found is the best of
the trials that were not stopped (the last one counts as far as it got). Told is the normalised regret
(best - found) / (best - mean), where best and mean are of all curves' best scores: 1 is what one training at random is
worth. Policies were developed on the first half of each benchmark's tasks by name (`develop`); the other half judges.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna

from benchmarks import nas_tables
from benchmarks.nas_tables import TableSpace
from retrain.search.asking import propose
from retrain.search.stopping.base import Allowance, Stopping, passed, report
from retrain.search.stopping.catalogue import STOPPING, stopping_named
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import go_on

TRAININGS = 20
FIRST = 3
"""The first epoch after which a trial may be stopped, as on small tables."""
BENCHMARKS = {"lcbench": nas_tables.lcbench, "taskset": nas_tables.taskset}


class Search:
    """One study on a table until its epochs are spent."""

    def __init__(self, space: TableSpace, strategy: str, policy: type[Stopping], seed: int) -> None:
        assert space.curves is not None
        self.space, self.curves = space, np.maximum.accumulate(space.curves, axis=1)
        longest = self.curves.shape[1]
        self.left = TRAININGS * longest
        self.policy = policy(Allowance(FIRST, longest, epochs=self.left))
        sampler = strategy_named(strategy).sampler(space, seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.taken: set[str] = set()
        self.ended: list[float] = []
        self.trials = 0

    def found(self) -> float:
        """The best score of a trial that was not stopped."""
        while self.left > 0:
            self._try()
        return max(self.ended)

    def _try(self) -> None:
        due = self.policy.due(self.study)
        if due is None:
            trial, candidate = propose(self.study, self.space, self.taken)
            self.taken.add(self.space.canonical(candidate))
            self.trials += 1
        else:
            trial = go_on(self.study, due)
            candidate = self.space.suggest(trial)
        trials = self.study.get_trials(deepcopy=False)
        done = passed(trials, trials[trial.number])
        score, stopped = self._train(trial, self.curves[self.space.look(candidate)], done)
        if stopped:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        self.ended.append(score)
        self.study.tell(trial, score)

    def _train(self, trial: optuna.Trial, curve: npt.NDArray[np.float64], done: int) -> tuple[float, bool]:
        """The last score, and whether the trial was stopped. So many epochs were trained before it paused."""
        score = math.nan
        for epoch, score in enumerate(curve[done : done + self.left].tolist(), start=done + 1):
            self.left -= 1
            if self.policy.watches(epoch):
                report(self.study, trial, epoch, score)
                if self.policy.should_stop(self.study, trial, epoch):
                    return score, True
        return score, False


@cache
def tables(benchmark: str) -> list[TableSpace]:
    """A benchmark's tasks by name, read once a process."""
    return BENCHMARKS[benchmark](Path(os.environ["EVERFIT_DATA"]) / "search")


def chosen(benchmark: str, part: str) -> list[int]:
    """The places of the tasks of a part: those to develop on, or those that judge."""
    count = len(tables(benchmark))
    half = (count + 1) // 2
    return list(range(half) if part == "develop" else range(half, count))


def regrets(benchmark: str, part: str, strategy: str, policy: str, seed: int) -> tuple[float, float]:
    """(mean normalised regret, mean trials) of one seed over the tasks of a part."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lost, trials = [], []
    for place in chosen(benchmark, part):
        search = Search(tables(benchmark)[place], strategy, stopping_named(policy), seed)
        ends = search.curves[:, -1]
        lost.append((ends.max() - search.found()) / (ends.max() - ends.mean()))
        trials.append(search.trials)
    return float(np.mean(lost)), float(np.mean(trials))


def summary(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    return f"{statistics.mean(values):.3f} +/- {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"


def main() -> None:
    """Every policy under every strategy, on every part."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--stopping", nargs="*", default=[policy.name for policy in STOPPING])
    asked.add_argument("--strategies", nargs="*", default=["random"])
    asked.add_argument("--part", nargs="*", default=["develop", "judge"])
    asked.add_argument("--benchmarks", nargs="*", default=list(BENCHMARKS))
    asked.add_argument("--seeds", type=int, default=20)
    asked.add_argument("--workers", type=int, default=1)
    options = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("skipped: set EVERFIT_DATA to the folder of the tables")
        return
    columns = "   ".join(f"{part} {benchmark}" for part, benchmark in product(options.part, options.benchmarks))
    print(f"normalised regret in the epochs of {TRAININGS} trainings, {options.seeds} seeds (trials in brackets)")
    print(f"{'':19}{columns}")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("fork")) as pool:
        for strategy in options.strategies:
            for policy in options.stopping:
                told = []
                for part, benchmark in product(options.part, options.benchmarks):
                    found = list(pool.map(partial(regrets, benchmark, part, strategy, policy), range(options.seeds)))
                    lost, trials = zip(*found, strict=True)
                    told.append(f"{summary(lost)} ({statistics.mean(trials):.0f})")
                print(f"{strategy:8}{policy:11}{'   '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
