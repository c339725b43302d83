"""How much sooner a warm start finds what a cold search ends with, on streams. (On tables: `warm_tables.py`.)

    EVERFIT_DATA=FOLDER python -m benchmarks.warm_start [--streams elec2 ...] [--places .4 ...] [--seeds 0 ...]

At two, three and four fifths of each stream, where a champion searched on the first fifth is old: a cold search of 12
trials on all rows so far, and a second one with another seed, the control; the remedy `fine_tune` on the champion; a
re-search of 6 trials at most that starts from it, which ends when it has found enough; and the champion after it has
followed block by block (a hundredth of the stream) from its own rows to here. Each ends in a sealed bundle, which
answers the next tenth of the stream. Told is by how many times sooner, in CPU-seconds and in networks trained, one is
there that is as good as the cold search's: of the remedies in their order, of the control, of the follower. What has
failed is paid for, and whoever has nothing as good at last pays the cold search too: twice as much is a ratio of .5.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from retrain.search.session import search

NEARLY = 0.002
"""As good but for this share: about what the seed of a training is worth."""
PLACES, AHEAD = (0.4, 0.6, 0.8), 0.1
BLOCK = 0.01
PATHS = {"warm": ("fine_tune", "research"), "control": ("control",), "follower": ("follow",)}
"""Who is tried in which order before the cold search."""
OTHER = 100
"""Added to the control's seed."""
LONG = 3_600.0
STREAMS = ("elec2", "gas_sensor", "keystroke", "noaa_weather", "chicago", "bike_sharing")


@dataclass(frozen=True)
class Made:
    """A model, its score on the rows that follow (accuracy or R2), the CPU-seconds until it was sealed, and how many
    networks were trained for it."""

    score: float
    cpu: float
    trained: int


def streams(home: Path, names: Sequence[str], places: Sequence[float], seeds: Sequence[int]) -> None:
    """Cold and warm at the places of each stream."""
    found = list[dict[str, Made]]()
    for name in names:
        data = read(home, name)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                for place, made in _places(data, Path(folder), places, seed):
                    found.append(made)
                    told = ", ".join(
                        f"{what} {one.score:.4f} ({one.cpu:.1f} CPU-s, {one.trained})" for what, one in made.items()
                    )
                    print(f"    {name}, seed {seed}, at {place:.0%}: {told}", flush=True)
    for path, remedies in PATHS.items():
        for margin in (0.0, NEARLY):
            _tell(f"{path}{', nearly' if margin else ''}", [sooner(one, remedies, margin) for one in found])
        ahead = [max(one[each].score for each in remedies) - one["cold"].score for one in found]
        print(f"    its best is ahead of the cold search by {np.mean(ahead):+.4f} ({np.std(ahead):.4f})")


def sooner(made: dict[str, Made], remedies: Sequence[str], margin: float) -> tuple[float, float, bool]:
    """The cold search's CPU-seconds and networks as multiples of those until a remedy is as good but for a share of its
    score, or, at last, that search itself has ended; and whether a remedy was."""
    cold, cpu, trained = made["cold"], 0.0, 0
    goal = cold.score - margin * abs(cold.score)
    for remedy in remedies:
        cpu, trained = cpu + made[remedy].cpu, trained + made[remedy].trained
        if made[remedy].score >= goal:
            return cold.cpu / cpu, cold.trained / max(1, trained), True
    return cold.cpu / (cpu + cold.cpu), cold.trained / (trained + cold.trained), False


def _tell(path: str, ratios: Sequence[tuple[float, float, bool]]) -> None:
    for what, column in (("CPU-seconds", 0), ("networks", 1)):
        worst, low, middle, high = np.quantile([one[column] for one in ratios], [0, 0.25, 0.5, 0.75])
        print(f"{path}, {what}: {middle:.2f} times fewer ({low:.2f} to {high:.2f}, worst {worst:.2f})")
    print(f"    as good as the cold search in {sum(one[2] for one in ratios)} of {len(ratios)}")


def _places(
    data: StreamData, folder: Path, places: Sequence[float], seed: int
) -> Iterator[tuple[float, dict[str, Made]]]:
    """At each place what was made."""
    moments = START + np.timedelta64(1, "m") * np.arange(len(data.target))
    rows = data.inputs.assign(**{TARGET: data.target, MOMENT: moments})
    task = task_of(data, folder / "none.parquet", seed)
    champion = _search(task, rows.iloc[: data.begin], folder / "champion", None, task.search.trials)
    now = task.model_copy(update={"splits": task.research.splits})
    other = now.model_copy(update={"search": now.search.model_copy(update={"seed": seed + OTHER})})
    for place in places:
        known, ahead = (slice(round(share * len(rows))) for share in (place, place + AHEAD))
        past, here = rows.iloc[known].reset_index(drop=True), folder / f"{place}"
        future = rows.iloc[known.stop : ahead.stop].reset_index(drop=True)

        def cold(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            return _search(now, past, here / "cold", None, task.search.trials)

        def control(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            return _search(other, past, here / "control", None, task.search.trials)

        def warm(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            return _search(now, past, here / "research", champion, task.research.trials, task.research.enough)

        def tune(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            return fine_tune(Request(task, champion, "1", past, here / "tuned", seconds=LONG, seed=seed))

        def learn_on(past: pd.DataFrame = past, here: Path = here) -> ModelBundle:
            newer = past.iloc[data.begin :].reset_index(drop=True)
            asked = Request(task, champion, "1", newer, here / "followed", seed=seed)
            return follow(asked, _steps(newer[MOMENT].to_numpy(), round(BLOCK * len(rows)))).seal(pictures=False)

        made = {"frozen": Made(_score(champion, future), 0.0, 0)}
        makers = {"cold": cold, "control": control, "fine_tune": tune, "research": warm, "follow": learn_on}
        for name, make in makers.items():
            began = cpu_seconds()
            bundle = make()
            made[name] = Made(_score(bundle, future), cpu_seconds() - began, _trained(bundle))
        yield place, made


def _trained(bundle: ModelBundle) -> int:
    """How many networks were trained for a bundle: a search's trials, or the champion's that a remedy has trained."""
    told = bundle.candidates.get("heritage", {})
    return bundle.manifest.lineage.trials or int(told.get("trained", len(bundle.candidates["members"])))


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
    enough: int = 0,
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
        enough=enough,
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
    asked.add_argument("--places", nargs="*", type=float, default=list(PLACES))
    asked.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    given = asked.parse_args()
    for home in _each(os.environ.get("EVERFIT_DATA")):
        streams(home, given.streams, given.places, given.seeds)


if __name__ == "__main__":
    main()
