"""How much sooner a search that learns from the studies of other tasks finds what a cold one ends with, on tables of
finished trainings (hpobench: an MLP's five hyper-parameters on four sets; LCBench: seven on seventeen; TaskSet: six).

    EVERFIT_DATA=FOLDER python -m benchmarks.warm_tables [--part develop judge] [--tables hpobench lcbench taskset]
        [--seeds 10] [--first 0] [--keep FILE.json]

Each table is a new task in a registry that holds a search of 40 trials of each of the others: their candidates in their
order, not the truth. Everfit's own strategy, opening, prior and guard. The arms: a cold search; a warm one; one that is
taught by the others turned upside down, the worst first, which is the guard's test; and another cold one, the control:
as the cold search's end is the luckiest of its 40 trials, another of the same kind is seldom there as soon.

`develop` are the first half of each benchmark's tables by name, which the method was chosen on, with one another's
studies; `judge` are the others, with the studies of all. A trial is a training to the end: trials are simulated time.
Told are the trials until as good as the cold search's end, and as good but for .002 of it, which is about what the seed
of a training is worth: in times sooner than the cold search found it, and than its whole budget. Then the mean
normalised regret (0: the table's best, 1: its median) after some trials.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import optuna

from benchmarks import nas_tables
from benchmarks.kept import Kept
from benchmarks.nas_tables import TableSpace
from retrain.families.base import Candidate
from retrain.search.asking import propose
from retrain.search.experience import Experience, Facts, Former
from retrain.search.portfolio import opening
from retrain.search.strategies.base import AskTellSampler
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import RUN, enqueue, guard

BENCHMARKS = {"hpobench": nas_tables.hpobench, "lcbench": nas_tables.lcbench, "taskset": nas_tables.taskset}
STRATEGY, BUDGET = "auto", 40
NEARLY = 0.002
GUARD = 1.2
"""So many times the cold search's time are too many."""
ALIKE = Facts(rows=1, numeric=1, other=0, classes=2)
"""Of the tables' data nothing is known: all count alike."""
ARMS = ("cold", "warm", "upside down", "control")
AFTER = (1, 2, 3, 5, 8, 12, 20, 30, 40)
Tried = list[tuple[Candidate, float]]


def play(table: TableSpace, seed: int) -> Tried:
    """A search of `BUDGET` trials on a table: settings in their order, with their scores. It begins as a session does
    and goes on as a worker does; where the table is taught anything, the fresh candidates are random ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = strategy_named(STRATEGY).sampler(table, seed)
    assert isinstance(sampler, AskTellSampler)
    study, rng = optuna.create_study(direction="maximize", sampler=sampler), np.random.default_rng(seed)
    if table.taught is not None:
        for one, origin in opening((), table.taught, lambda: table.sample(rng)):
            enqueue(study, table, one, origin)
    tried: Tried = []
    while len(tried) < BUDGET:
        if guard(study.get_trials(deepcopy=False), greater_is_better=True):
            sampler.strategy.forget()
        trial, point = propose(study, table, {table.canonical(one) for one, _ in tried})
        trial.set_user_attr(RUN, {"pid": 0, "key": table.canonical(point)})
        tried.append((point, table.train(point).score))
        study.tell(trial, tried[-1][1])
    return tried


def taught(table: TableSpace, others: Sequence[Tried], *, reverse: bool = False) -> TableSpace:
    """A table that learns from searches of others, as bundles keep them: candidates, the best first."""
    ordered = [sorted(one, key=lambda each: each[1], reverse=not reverse) for one in others]
    formers = tuple(Former(facts=ALIKE, candidates=tuple(point for point, _ in one)) for one in ordered)
    return replace(table, experience=Experience(facts=ALIKE, formers=formers))


@cache
def tables(home: Path, benchmark: str) -> list[TableSpace]:
    """A benchmark's tables by name."""
    return BENCHMARKS[benchmark](home)


def run(home: Path, benchmark: str, part: str, seed: int) -> dict[str, list[list[float]]]:
    """The scores of each arm's trials on each table of a part."""
    known = tables(home, benchmark)
    half = len(known) // 2
    known = known[:half] if part == "develop" else known
    studies = [play(one, 2_000 + seed) for one in known]
    told: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for place, table in enumerate(known):
        if part == "judge" and place < half:
            continue
        others = studies[:place] + studies[place + 1 :]
        searches = {
            "cold": play(table, 1_000 + seed),
            "warm": play(taught(table, others), 1_000 + seed),
            "upside down": play(taught(table, others, reverse=True), 1_000 + seed),
            "control": play(table, 3_000 + seed),
        }
        for arm, tried in searches.items():
            told[arm].append([score for _, score in tried])
    return told


def first(scores: Sequence[float], goal: float) -> float:
    """The first trial, from 1, at which a score is reached; infinity if none is."""
    return next((float(place) for place, score in enumerate(scores, 1) if score >= goal), float("inf"))


def show(arm: str, cold: Sequence[Sequence[float]], other: Sequence[Sequence[float]], margin: float) -> None:
    """How many times sooner, by quartiles; 0 where never."""
    goals = [max(one) - margin * abs(max(one)) for one in cold]
    needed = np.array([first(one, goal) for one, goal in zip(cold, goals, strict=True)])
    mine = np.array([first(one, goal) for one, goal in zip(other, goals, strict=True)])
    low, middle, high = np.quantile(needed / mine, [0.25, 0.5, 0.75])
    whole = np.quantile(BUDGET / mine, [0.25, 0.5, 0.75])
    late, never = np.mean(mine > GUARD * needed), np.mean(np.isinf(mine))
    print(
        f"  {arm:12}{f'but for {margin}' if margin else 'as good':>14}: {middle:5.2f} ({low:.2f} to {high:.2f}) times "
        f"sooner; than the budget {whole[1]:5.2f} ({whole[0]:.2f} to {whole[2]:.2f}); later than {GUARD} times in "
        f"{late:.0%}, never in {never:.0%}"
    )


def regrets(place: int, table: TableSpace, searches: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """The normalised regret after some trials, of each seed on one table."""
    best = [[max(one[place][:count]) for count in AFTER] for one in searches]
    return [[table.regret(value) for value in one] for one in best]


def report(home: Path, benchmark: str, part: str, told: Sequence[dict[str, list[list[float]]]]) -> None:
    """One benchmark's figures over seeds and tables."""
    known = tables(home, benchmark)
    judged = known[: len(known) // 2] if part == "develop" else known[len(known) // 2 :]
    flat = {arm: [scores for one in told for scores in one[arm]] for arm in ARMS}
    print(f"{benchmark}, {part}: {len(judged)} tables, {len(told)} seeds")
    for arm in ARMS[1:]:
        for margin in (0.0, NEARLY):
            show(arm, flat["cold"], flat[arm], margin)
        ends = np.array([max(one) - max(other) for one, other in zip(flat[arm], flat["cold"], strict=True)])
        print(f"  {arm:12} after {BUDGET} trials ahead in {np.mean(ends > 0):.0%}, behind in {np.mean(ends < 0):.0%}")
    print(f"  regret after {'':8}" + "".join(f"{count:>8}" for count in AFTER))
    for arm in ARMS:
        each = [regrets(place, table, [one[arm] for one in told]) for place, table in enumerate(judged)]
        means = np.mean(each, axis=(0, 1))
        print(f"  {arm:21}" + "".join(f"{one:8.3f}" for one in means), flush=True)


def main() -> None:
    """Run what is missing, and tell."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--part", nargs="*", choices=("develop", "judge"), default=["judge"])
    asked.add_argument("--tables", nargs="*", choices=tuple(BENCHMARKS), default=list(BENCHMARKS))
    asked.add_argument("--seeds", type=int, default=10)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--keep", type=Path)
    given = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("warm_tables: skipped, EVERFIT_DATA names no folder of data")
        return
    home, kept = Path(os.environ["EVERFIT_DATA"]) / "search", Kept(given.keep)
    for part in given.part:
        for benchmark in given.tables:
            numbers = range(given.first, given.first + given.seeds)
            told = [
                kept.run(f"{benchmark} {part} {seed}", partial(run, home, benchmark, part, seed)) for seed in numbers
            ]
            report(home, benchmark, part, told)


if __name__ == "__main__":
    main()
