"""nsga2 and nsga3 on tables of finished trainings, beside Optuna's samplers: accuracy, parameters and a third cost.

    EVERFIT_DATA=FOLDER python -m benchmarks.nas_objectives [--tables nasbench201 macro] [--trials 100] [--seeds 30]
        [--samplers random nsga2 nsga3 optuna-nsga2 optuna-nsga3] [--costs 1 2] [--first 0]

A search sees the accuracy (of 12 epochs in NAS-Bench-201, of the first of three trainings in NAS-Bench-Macro) and the
parameters, with two costs the latency or the FLOPs, too. Told is which share of the volume that the table's front
dominates the search's front does not, by quarters of its trials: between the best of all there is and the median
accuracy and the greatest costs of the table, and the milliseconds of CPU a suggestion took in the last tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd

from benchmarks import nas_tables
from benchmarks.nas_tables import TableSpace
from retrain.search.asking import propose
from retrain.search.strategies.catalogue import strategy_named
from retrain.trials import nondominated

Points = npt.NDArray[np.float64]
POPULATION = 16
COLUMNS = {
    "nasbench201": ("cifar10_val_12ep", "params_M_exact", "cifar10_latency_s"),
    "macro": ("test_acc_0", "params", "flops"),
}
READERS = {"nasbench201": nas_tables.nasbench201, "macro": nas_tables.nasbench_macro}
FILES = {"nasbench201": "nasbench201", "macro": "nasbench_macro"}


@cache
def table(name: str, costs: int) -> tuple[TableSpace, Points, Points, float]:
    """A space; what its candidates reach, less being better (n, 1 + costs); the same with 0 for the best there is and 1
    for what the volume begins at; and the volume of the whole table."""
    folder = Path(os.environ["EVERFIT_DATA"]) / "search"
    rows = pd.read_parquet(folder / f"{FILES[name]}.parquet")[list(COLUMNS[name][: 1 + costs])].to_numpy(
        dtype=np.float64
    )
    values = rows * np.array([-1.0] + [1.0] * costs)
    worst = np.array([np.median(values[:, 0]), *values[:, 1:].max(axis=0)])
    scaled = (values - values.min(axis=0)) / (worst - values.min(axis=0))
    return READERS[name](folder), values, scaled, volume(scaled)


def volume(points: Points) -> float:
    """What points (n, m) with two or three costs dominate of the unit cube, less being better."""
    points = points[(points < 1).all(axis=1)]
    points = points[nondominated(points)] if len(points) else points
    if points.shape[1] == 2:
        order = points[np.argsort(points[:, 0])]
        return float(((np.append(order[1:, 0], 1.0) - order[:, 0]) * (1 - order[:, 1])).sum()) if len(order) else 0.0
    order = points[np.argsort(points[:, 2])]
    heights = np.append(order[1:, 2], 1.0) - order[:, 2] if len(order) else []
    return float(sum(height * volume(order[: place + 1, :2]) for place, height in enumerate(heights)))


def optuna_own(kind: type[optuna.samplers.BaseSampler], seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler with generations as large as Everfit's."""
    return kind(population_size=POPULATION, seed=seed)  # type: ignore[call-arg]


OWN: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna-nsga2": lambda seed: optuna_own(optuna.samplers.NSGAIISampler, seed),
    "optuna-nsga3": lambda seed: optuna_own(optuna.samplers.NSGAIIISampler, seed),
}


def searched(name: str, costs: int, sampler: str, trials: int, seed: int) -> tuple[list[float], float]:
    """One search: the share of the volume that is missing after each quarter, and a suggestion's CPU-milliseconds."""
    space, values, scaled, whole = table(name, costs)
    chosen = OWN[sampler](seed) if sampler in OWN else strategy_named(sampler).sampler(space, seed)
    study = optuna.create_study(directions=["minimize"] * (1 + costs), sampler=chosen)
    taken, rows, asked = set[str](), [], []
    for _ in range(trials):
        begin = time.process_time()
        trial, candidate = propose(study, space, taken)
        asked.append(time.process_time() - begin)
        row = space.look(candidate)
        taken.add(space.canonical(candidate))
        rows.append(row)
        study.tell(trial, values[row].tolist())
    marks = [trials * quarter // 4 for quarter in range(1, 5)]
    return [1 - volume(scaled[rows[:mark]]) / whole for mark in marks], 1_000 * statistics.median(
        asked[-trials // 10 :]
    )


def main() -> None:
    """Run the searches asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--tables", nargs="*", default=list(COLUMNS), choices=list(COLUMNS))
    asked.add_argument("--samplers", nargs="*", default=["random", "nsga2", "nsga3", *OWN])
    asked.add_argument("--costs", nargs="*", type=int, default=[1, 2], choices=[1, 2])
    asked.add_argument("--trials", type=int, default=100)
    asked.add_argument("--seeds", type=int, default=30)
    asked.add_argument("--first", type=int, default=0)
    options = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("skipped: set EVERFIT_DATA to the folder of the tables")
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for name in options.tables:
        for costs in options.costs:
            print(f"{name}, {', '.join(COLUMNS[name][: 1 + costs])}: missing by quarters of {options.trials} trials")
            for sampler in options.samplers:
                seeds = range(options.first, options.first + options.seeds)
                runs = [searched(name, costs, sampler, options.trials, seed) for seed in seeds]
                missing = np.array([missed for missed, _ in runs])
                spread = missing.std(axis=0, ddof=1 if len(runs) > 1 else 0)
                told = "".join(
                    f"{mean:9.4f} +/- {each:.4f}" for mean, each in zip(missing.mean(axis=0), spread, strict=True)
                )
                print(f"{sampler:14}{told}   {statistics.mean(each for _, each in runs):6.2f} ms", flush=True)


if __name__ == "__main__":
    main()
