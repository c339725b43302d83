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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from benchmarks.streams import MOMENT, START, task_of
from benchmarks.streams_data import FILES, TARGET, StreamData, read
from registry.bundle import ModelBundle
from registry.task import TaskSpec
from retrain.search.asking import propose
from retrain.search.progress import Progress
from retrain.search.session import search
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import REFUSED, RUN, enqueue, guard, origin_of
from retrain.search.warm import interleave

BUDGET, HANDED = 40, 8
NEARLY = 0.002
STREAMS = ("elec2", "gas_sensor", "keystroke", "noaa_weather", "chicago", "bike_sharing")


@dataclass(frozen=True)
class Point:
    """A setting of a table."""

    choices: tuple[int, ...]

    @property
    def key(self) -> str:
        """Equal for equal settings."""
        return repr(self.choices)


@dataclass(frozen=True)
class Table:
    """A task: a grid of `sizes`, or settings by number with places (m, d) in a unit cube; and the score of each."""

    name: str
    names: tuple[str, ...]
    score: Callable[[Point], float]
    sizes: tuple[int, ...] = ()
    places: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def suggest(self, trial: optuna.Trial) -> Point:
        """The setting that a sampler chooses; the nearest known one in a cube."""
        if self.sizes:
            asked = zip(self.names, self.sizes, strict=True)
            return Point(tuple(trial.suggest_int(name, 0, size - 1) for name, size in asked))
        place = [trial.suggest_float(name, 0.0, 1.0) for name in self.names]
        return Point((int(((self.places - place) ** 2).sum(axis=1).argmin()),))

    def params(self, point: Point) -> dict[str, float]:
        """A setting as Optuna's parameters."""
        values = point.choices if self.sizes else self.places[point.choices[0]].tolist()
        return dict(zip(self.names, values, strict=True))

    def sample(self, rng: np.random.Generator) -> Point:
        """A setting at random."""
        return Point(tuple(int(rng.integers(size)) for size in self.sizes or (len(self.places),)))


def hpobench(folder: Path) -> list[Table]:
    """Four sets, the mean of five seeds' validation accuracy."""
    rows = pd.read_parquet(folder / "hpobench_nn.parquet")
    names = tuple(name for name in rows if name.endswith("_idx"))
    made = []
    for name, part in rows.groupby("dataset", sort=True):
        mean = part[[column for column in part if column.startswith("val_acc")]].mean(axis=1)
        known = dict(zip(map(tuple, part[list(names)].to_numpy().tolist()), mean, strict=True))
        made.append(_grid(f"hpobench {name}", names, known, tuple(int(part[one].max()) + 1 for one in names)))
    return made


def _grid(name: str, names: tuple[str, ...], known: Mapping[tuple[int, ...], float], sizes: tuple[int, ...]) -> Table:
    return Table(name, names, lambda point: known[point.choices], sizes)


def lcbench(folder: Path) -> list[Table]:
    """Seventeen tasks, validation accuracy after 52 epochs; rates, sizes and decays by their logarithm."""
    configs = pd.read_parquet(folder / "lcbench_surrogate_configs.parquet").sort_values("config")
    numbers = configs.drop(columns="config").astype(float)
    for name in ("batch_size", "learning_rate", "weight_decay", "max_units"):
        numbers[name] = np.log(numbers[name])
    places = ((numbers - numbers.min()) / (numbers.max() - numbers.min())).to_numpy()
    curves = pd.read_parquet(folder / "lcbench_surrogate_curves.parquet")
    made = []
    for task, part in curves.groupby("task", sort=True):
        ends = part.sort_values("config")["val_accuracy_curve"].map(lambda curve: float(curve[-1])).to_numpy()
        made.append(_cube(f"lcbench {task}", tuple(numbers), ends, places))
    return made


def _cube(name: str, names: tuple[str, ...], ends: np.ndarray, places: np.ndarray) -> Table:
    return Table(name, names, lambda point: float(ends[point.choices[0]]), places=places)


def play(table: Table, seed: int, handed: Sequence[Point] = ()) -> list[tuple[Point, float]]:
    """A search of `BUDGET` trials on a table: settings in their order, with their scores."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=strategy_named("tpe").sampler(seed))
    space: Any = table
    rng = np.random.default_rng(seed)
    for one in interleave(handed, [table.sample(rng) for _ in handed]):
        enqueue(study, space, one, "prior" if one in handed else "fresh")  # type: ignore[arg-type]
    tried: list[tuple[Point, float]] = []
    while len(tried) < BUDGET:
        trial, found = propose(study, space, {point.key for point, _ in tried})
        point: Any = found
        if origin_of(trial) == "prior" and guard(study.get_trials(deepcopy=False), greater_is_better=True):
            trial.set_user_attr(REFUSED, True)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_user_attr(RUN, {"pid": 0, "key": point.key})
        tried.append((point, table.score(point)))
        study.tell(trial, tried[-1][1])
    return tried


def first(scores: Sequence[float], goal: float) -> float:
    """The first trial, from 1, at which a score is reached; infinity if none is."""
    return next((float(place) for place, score in enumerate(scores, 1) if score >= goal), float("inf"))


def tables(home: Path, seeds: int) -> None:
    """Both tables, from every task to the next two."""
    for tasks in (hpobench(home / "search"), lcbench(home / "search")):
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
