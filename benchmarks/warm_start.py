"""How much sooner a warm search finds what a cold one ends with.

    EVERFIT_DATA=FOLDER python -m benchmarks.warm_start [--streams elec2 ...] [--seeds 5] [--stream-seeds 3]

Tables of finished trainings, between their tasks (hpobench: an MLP's five hyper-parameters on four sets; LCBench: seven
on seventeen): a cold search of 40 trials on one task; then, on another one, a cold search and a warm one, which gets
the first task's best eight as a re-search does (every second trial is fresh, the guard may drop the rest). Both are
Everfit's own sampler, queue and guard. Told is the trial at which each is as good as the cold search's end, and as good
but for two thousandths of it, which is about what the seed of a training is worth.

Streams, at a place where the world has moved: a champion searched on the first 20 % of the rows, then, on all rows up
to half of the stream, a cold search of 12 trials and a re-search that starts from the champion, the same rows, splits
and workers. Told are seconds and trials until each has a network as good on the validation rows as the cold search's
best.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from benchmarks import nas_tables
from benchmarks.nas_tables import TableSpace
from benchmarks.streams import MOMENT, START, task_of
from benchmarks.streams_data import FILES, TARGET, StreamData, read
from registry.bundle import ModelBundle
from registry.task import TaskSpec
from retrain.families.base import Candidate
from retrain.search.asking import propose
from retrain.search.progress import Progress
from retrain.search.session import search
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import REFUSED, RUN, enqueue, guard, origin_of
from retrain.search.warm import interleave

BUDGET, HANDED = 40, 8
NEARLY = 0.002
STREAMS = ("elec2", "gas_sensor", "keystroke", "noaa_weather", "chicago", "bike_sharing")


def play(table: TableSpace, seed: int, handed: Sequence[Candidate] = ()) -> list[tuple[Candidate, float]]:
    """A search of `BUDGET` trials on a table: settings in their order, with their scores."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=strategy_named("tpe").sampler(table, seed))
    rng = np.random.default_rng(seed)
    for one in interleave(handed, [table.sample(rng) for _ in handed]):
        enqueue(study, table, one, "prior" if one in handed else "fresh")
    tried: list[tuple[Candidate, float]] = []
    while len(tried) < BUDGET:
        trial, point = propose(study, table, {table.canonical(one) for one, _ in tried})
        if origin_of(trial) == "prior" and guard(study.get_trials(deepcopy=False), greater_is_better=True):
            trial.set_user_attr(REFUSED, True)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_user_attr(RUN, {"pid": 0, "key": table.canonical(point)})
        tried.append((point, table.train(point).score))
        study.tell(trial, tried[-1][1])
    return tried


def first(scores: Sequence[float], goal: float) -> float:
    """The first trial, from 1, at which a score is reached; infinity if none is."""
    return next((float(place) for place, score in enumerate(scores, 1) if score >= goal), float("inf"))


def tables(home: Path, seeds: int) -> None:
    """Both tables, from every task to the next two."""
    for tasks in (nas_tables.hpobench(home / "search"), nas_tables.lcbench(home / "search")):
        ratios: dict[str, list[float]] = {"": [], ", nearly": []}
        against_all: dict[str, list[float]] = {name: [] for name in ratios}
        ends = []
        for place, source in enumerate(tasks):
            for target in (tasks[(place + 1) % len(tasks)], tasks[(place + 2) % len(tasks)]):
                for seed in range(seeds):
                    known = sorted(play(source, seed), key=lambda one: -one[1])
                    handed = [point for point, _ in known[:HANDED]]
                    cold = [score for _, score in play(target, 1_000 + seed)]
                    warm = [score for _, score in play(target, 1_000 + seed, handed)]
                    for name, goal in (("", max(cold)), (", nearly", (1 - NEARLY) * max(cold))):
                        needed, mine = first(cold, goal), first(warm, goal)
                        ratios[name].append(needed / mine)
                        against_all[name].append(BUDGET / mine)
                    ends.append(max(warm) - max(cold))
        for name, found in ratios.items():
            what = f"{tasks[0].name.split()[0]}: {len(ends)} pairs and seeds, trials{name}"
            show(what, found, against_all[name])
        better, worse = (float(np.mean([sign * one > 0 for one in ends])) for sign in (1, -1))
        print(f"    after {BUDGET} trials the warm one is ahead in {better:.0%}, behind in {worse:.0%}", flush=True)


def show(name: str, ratios: Sequence[float], against_all: Sequence[float]) -> None:
    """How many times sooner, by quartiles; 0 where never."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    never = sum(one == 0 for one in ratios)
    print(
        f"{name}: {middle:.2f} times sooner ({low:.2f} to {high:.2f}) than the cold search found it, "
        f"{statistics.median(against_all):.2f} than its whole budget; never in {never} of {len(ratios)}",
        flush=True,
    )


@dataclass
class Clock:
    """Listens to a search: when each best score was first seen, and after how many trials."""

    greater_is_better: bool
    begun: float = field(default_factory=time.monotonic)
    looks: list[tuple[float, int, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """One look."""
        if progress.best is not None:
            self.looks.append((time.monotonic() - self.begun, progress.finished, progress.best))

    def reached(self, goal: float) -> tuple[float, float]:
        """Seconds and trials until a score as good; infinity if none was."""
        for seconds, trials, best in self.looks:
            if best >= goal if self.greater_is_better else best <= goal:
                return seconds, float(trials)
        return float("inf"), float("inf")


def streams(home: Path, names: Sequence[str], seeds: int) -> None:
    """Cold and warm at half of each stream."""
    sooner, fewer = [], []
    for name in names:
        data = read(home, name)
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as made:
                cold, warm, goal = _pair(data, Path(made), seed)
            (cold_seconds, cold_trials), (seconds, trials) = cold.reached(goal), warm.reached(goal)
            sooner.append(cold_seconds / seconds)
            fewer.append(cold_trials / trials)
            print(
                f"    {name}, seed {seed}: cold {cold_seconds:.1f} s, {cold_trials:.0f} trials; "
                f"warm {seconds:.1f} s, {trials:.0f} trials",
                flush=True,
            )
    for what, ratios in (("seconds", sooner), ("trials", fewer)):
        low, middle, high = np.quantile(ratios, [0.0, 0.5, 1.0])
        print(f"streams, {what}: {middle:.2f} times fewer, {low:.2f} to {high:.2f} ({len(ratios)} pairs)", flush=True)


def _pair(data: StreamData, folder: Path, seed: int) -> tuple[Clock, Clock, float]:
    moments = START + np.timedelta64(1, "m") * np.arange(len(data.target))
    rows = data.inputs.assign(**{TARGET: data.target, MOMENT: moments})
    task = task_of(data, folder / "none.parquet", seed)
    champion = _search(task, rows.iloc[: data.begin], folder / "champion", None, Clock(True))
    now = task.model_copy(update={"splits": task.research.splits})
    half, cold, warm = rows.iloc[: len(rows) // 2], Clock(True), Clock(True)
    _search(now, half, folder / "cold", None, cold)
    _search(now, half, folder / "warm", champion, warm)
    return cold, warm, max(best for _, _, best in cold.looks)


def _search(task: TaskSpec, rows: pd.DataFrame, folder: Path, prior: ModelBundle | None, clock: Clock) -> ModelBundle:
    clock.begun = time.monotonic()
    return search(
        task,
        rows.reset_index(drop=True),
        folder=folder / "study",
        out=folder / "bundle",
        prior=prior,
        trials=task.search.trials,
        seconds=task.search.seconds,
        seed=task.search.seed + (prior is not None),
        progress=clock,
    )


def _each(home: str | None) -> Iterator[Path]:
    if home:
        yield Path(home)
    else:
        print("warm_start: skipped, EVERFIT_DATA names no folder of data")


def main() -> None:
    """Tables, then streams."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--streams", nargs="*", choices=FILES, default=list(STREAMS))
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--stream-seeds", type=int, default=3)
    given = asked.parse_args()
    for home in _each(os.environ.get("EVERFIT_DATA")):
        if given.seeds:
            tables(home, given.seeds)
        if given.streams and given.stream_seeds:
            streams(home, given.streams, given.stream_seeds)


if __name__ == "__main__":
    main()
