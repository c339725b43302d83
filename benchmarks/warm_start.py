"""How much sooner a warm search finds what a cold one ends with, on streams. (On tables: `warm_tables.py`.)

    EVERFIT_DATA=FOLDER python -m benchmarks.warm_start [--streams elec2 ...] [--seeds 3]

At two, three and four fifths of each stream, where a champion searched on the first fifth is old: a cold search of 12
trials on all rows so far; that champion after it has followed block by block (a hundredth of the stream) from its own
rows to here; the remedy `fine_tune` on it; and a re-search of 6 trials that starts from it, the same rows and splits.
Each ends in a sealed bundle, which answers the next tenth of the stream. Told are the CPU-seconds to a bundle as good
there as the cold search's, by the cheapest remedy first and the others after it, and the trials until the re-search has
a network as good on the validation rows as the cold search's best.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.streams import MOMENT, START, task_of
from benchmarks.streams_data import FILES, TARGET, StreamData, read, scores
from registry.bundle import ModelBundle
from registry.energy import cpu_seconds
from registry.scoring import Scorer
from registry.task import TaskSpec
from retrain.fine_tuning import fine_tune
from retrain.following import follow, lessons
from retrain.learners import Lesson
from retrain.renewal import Request
from retrain.search.progress import Progress, silent
from retrain.search.session import search

NEARLY = 0.002
"""As good but for this share: about what the seed of a training is worth."""
PLACES, AHEAD = (0.4, 0.6, 0.8), 0.1
BLOCK = 0.01
REMEDIES = ("follow", "fine_tune", "research")
"""Cheapest first."""
LONG = 3_600.0
STREAMS = ("elec2", "gas_sensor", "keystroke", "noaa_weather", "chicago", "bike_sharing")


@dataclass
class Clock:
    """Listens to a search: how many trials had ended when each best score was seen."""

    greater_is_better: bool
    looks: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """One look."""
        if progress.best is not None:
            self.looks.append((progress.finished, progress.best))

    def reached(self, goal: float) -> float:
        """Trials until a score as good; infinity if none was."""
        sign = 1 if self.greater_is_better else -1
        return next((float(trials) for trials, best in self.looks if sign * best >= sign * goal), float("inf"))


@dataclass(frozen=True)
class Made:
    """A model, its score on the rows that follow (accuracy or R2), and the CPU-seconds until it was sealed."""

    score: float
    cpu: float


def streams(home: Path, names: Sequence[str], seeds: int) -> None:
    """Cold and warm at the places of each stream."""
    cheaper: dict[str, list[float]] = {"": [], ", nearly": []}
    fewer, ahead = [], []
    for name in names:
        data = read(home, name)
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                for place, made, trials in _places(data, Path(folder), seed):
                    for margin, ratios in zip((0.0, NEARLY), cheaper.values(), strict=True):
                        ratios.append(_cheaper(made, margin))
                    ahead.append(max(made[one].score for one in REMEDIES) - made["cold"].score)
                    fewer.append(trials)
                    told = ", ".join(f"{what} {one.score:.4f} ({one.cpu:.0f} CPU-s)" for what, one in made.items())
                    print(
                        f"    {name}, seed {seed}, at {place:.0%}: {told}; {trials:.2f} times fewer trials", flush=True
                    )
    for what, found in (*((f"CPU-seconds{how}", one) for how, one in cheaper.items()), ("trials", fewer)):
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
        never = sum(one == 0 for one in found)
        print(f"streams, {what}: {middle:.2f} times fewer ({low:.2f} to {high:.2f}); never in {never} of {len(found)}")
    print(f"    the better remedy is ahead of the cold search by {np.mean(ahead):+.4f} ({np.std(ahead):.4f})")


def _cheaper(made: dict[str, Made], margin: float) -> float:
    """The cold search's CPU-seconds, as a multiple of those until a remedy is as good but for a share of its score."""
    goal, spent = made["cold"].score - margin * abs(made["cold"].score), 0.0
    for remedy in REMEDIES:
        spent += made[remedy].cpu
        if made[remedy].score >= goal:
            return made["cold"].cpu / spent
    return 0.0


def _places(data: StreamData, folder: Path, seed: int) -> Iterator[tuple[float, dict[str, Made], float]]:
    """At each place what was made, and how many times sooner, in trials, the re-search was as good as the cold one."""
    moments = START + np.timedelta64(1, "m") * np.arange(len(data.target))
    rows = data.inputs.assign(**{TARGET: data.target, MOMENT: moments})
    task = task_of(data, folder / "none.parquet", seed)
    champion = _search(task, rows.iloc[: data.begin], folder / "champion", None, task.search.trials)
    now = task.model_copy(update={"splits": task.research.splits})
    for place in PLACES:
        known, ahead = (slice(round(share * len(rows))) for share in (place, place + AHEAD))
        past, here = rows.iloc[known].reset_index(drop=True), folder / f"{place}"
        future = rows.iloc[known.stop : ahead.stop].reset_index(drop=True)
        looks = {name: Clock(True) for name in ("cold", "research")}  # both metrics here are better when greater

        def cold(past: pd.DataFrame = past, here: Path = here, clock: Clock = looks["cold"]) -> ModelBundle:
            return _search(now, past, here / "cold", None, task.search.trials, clock)

        def warm(past: pd.DataFrame = past, here: Path = here, clock: Clock = looks["research"]) -> ModelBundle:
            return _search(now, past, here / "research", champion, task.research.trials, clock)

        def tune(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            return fine_tune(Request(task, champion, "1", past, here / "tuned", seconds=LONG, seed=seed))

        def learn_on(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            newer = past.iloc[data.begin :].reset_index(drop=True)
            asked = Request(task, champion, "1", newer, here / "followed", seed=seed)
            return follow(asked, _steps(newer[MOMENT].to_numpy(), round(BLOCK * len(rows)))).seal(pictures=False)

        made = {"frozen": Made(_score(champion, future), 0.0)}
        for name, make in (("cold", cold), ("follow", learn_on), ("fine_tune", tune), ("research", warm)):
            began = cpu_seconds()
            bundle = make()
            made[name] = Made(_score(bundle, future), cpu_seconds() - began)
        goal = max(best for _, best in looks["cold"].looks)
        yield place, made, looks["cold"].reached(goal) / looks["research"].reached(goal)


def _steps(times: npt.NDArray[np.datetime64], block: int) -> list[Lesson]:
    """Those at the end of each block of rows, whose labels have come by then."""
    windows = np.arange(len(times)) // block
    ends = [times[min((number + 1) * block, len(times)) - 1] for number in range(int(windows[-1]) + 1)]
    return lessons(windows, np.array(ends)[windows], ends)


def _score(bundle: ModelBundle, rows: pd.DataFrame) -> float:
    """Accuracy, or R2, of a model's answers to rows with their labels."""
    said = Scorer.load(bundle).predict(rows.drop(columns=[TARGET])).prediction
    told = scores(rows[TARGET].to_numpy(), said, [slice(0, len(rows))], regression=rows[TARGET].dtype == "float64")
    return float(str(told["score"]))


def _search(
    task: TaskSpec,
    rows: pd.DataFrame,
    folder: Path,
    prior: ModelBundle | None,
    trials: int,
    clock: Callable[[Progress], None] = silent,
) -> ModelBundle:
    """A search that trials bound and no clock: another program on the machine costs it nothing."""
    return search(
        task,
        rows.reset_index(drop=True),
        folder=folder / "study",
        out=folder / "bundle",
        prior=prior,
        trials=trials,
        seconds=LONG,
        seed=task.search.seed + (prior is not None),
        progress=clock,
    )


def _each(home: str | None) -> Iterator[Path]:
    if home:
        yield Path(home)
    else:
        print("warm_start: skipped, EVERFIT_DATA names no folder of data")


def main() -> None:
    """Streams, those that are asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--streams", nargs="*", choices=FILES, default=list(STREAMS))
    asked.add_argument("--seeds", type=int, default=3)
    given = asked.parse_args()
    for home in _each(os.environ.get("EVERFIT_DATA")):
        streams(home, given.streams, given.seeds)


if __name__ == "__main__":
    main()
