"""Everfit's own searches on small tables: strategies and early stopping at equal trials, or equal CPU-seconds.

    EVERFIT_DATA=FOLDER python -m benchmarks.nas_search [--tables covtype elec2 bike_sharing]
        [--strategies random tpe auto] [--stopping asha] [--trials 24] [--seconds INF] [--seeds 3] [--first 0]
        [--rows 3000] [--keep FILE.json] [--formers FILE.json]
        [--choices JSON] [--size-mb INF]

So many rows of a table, drawn by the seed, are searched as `everfit search` does, portfolio first, by one worker in
this process; the ensemble, chosen and calibrated, is told on as many as 10,000 other rows. The CPU-seconds are those of
the worker: strategy, training and whatever it keeps on disk. `--seconds` is a budget of those: what the worker takes
for the clock is the CPU-time of this process (not under `screen` and `halving`, which look at the journal's clock).
Searches that are in the file are not run again. `--formers` names the studies that `benchmarks.former_studies` kept:
strategies that learn from studies of other tasks (`tapas`) are given those of other tables. `--choices` is what the
task says as `search.choices`, `--size-mb` its `constraints.size_mb`; the megabytes told are those of the networks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch

from benchmarks.kept import Kept
from benchmarks.streams_data import TARGET, StreamData, read
from registry.conforming import conform
from registry.metrics import metrics_for
from registry.task import FileSource, TaskSpec
from retrain.export import member_outputs
from retrain.families.base import Candidate
from retrain.families.cost import parameters
from retrain.search import plan as plans
from retrain.search.budget import Budget
from retrain.search.closing import assemble, calibrate, standing
from retrain.search.experience import Facts, Former
from retrain.search.heritage import Elders
from retrain.search.limits import megabytes_of
from retrain.search.material import gather
from retrain.search.progress import silent
from retrain.search.session import Session
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.worker import Worker

TABLES = ("covtype", "elec2", "bike_sharing")
METRICS = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
MOST_TEST = 10_000
LONG = 1e6


def task_on(stream: StreamData, shown: pd.DataFrame, **means: object) -> TaskSpec:
    """A task on rows of a stream, searched for by these means."""
    kinds = {True: "regression", False: "binary" if shown[TARGET].nunique() == 2 else "multiclass"}
    problem = kinds[stream.regression]
    asked = {"name": "table", "target": TARGET, "problem": problem, "metric": METRICS[problem], "search": means}
    return TaskSpec.model_validate({**asked, "source": FileSource(path="none")})


def searched(
    table: str,
    strategy: str,
    stopping: str,
    trials: int,
    seconds: float,
    rows: int,
    seed: int,
    formers: Path | None = None,
    choices: str = "{}",
    size_mb: float = math.inf,
) -> dict[str, float]:
    """One search: the champion's metric on other rows, its size, and what it took."""
    stream = read(Path(os.environ["EVERFIT_DATA"]), table)
    frame = stream.inputs.assign(**{TARGET: stream.target})
    drawn = frame.iloc[np.random.default_rng(seed).permutation(len(frame))[: rows + MOST_TEST]].reset_index(drop=True)
    shown, other = drawn.iloc[:rows], drawn.iloc[rows:].reset_index(drop=True)
    other = other[other[TARGET].isin(shown[TARGET].unique()) | stream.regression]
    means = {"strategy": strategy, "stopping": stopping, "trials": trials, "choices": json.loads(choices)}
    task = task_on(stream, shown, workers=1, seed=seed, **means)
    if math.isfinite(size_mb):
        task = task.model_copy(update={"constraints": task.constraints.model_copy(update={"size_mb": size_mb})})
    with tempfile.TemporaryDirectory() as folder:
        material = gather(task, shown)
        budget = Budget(time.monotonic(), trials, seconds, seed)
        known = of_others(formers, table) if strategy_named(strategy).learns_from_others else ()
        session = Session(task, Path(folder), budget, None, silent, known)
        session._ready(material)
        begin = time.process_time()
        worker = Worker(session.folder, 0)
        worker.run()
        cpu = time.process_time() - begin
        results = plans.read_results(session.folder)
        if not results:  # none is small enough
            return {"value": math.nan, "cpu": cpu, "complete": 0, "trials": 0, "parameters": 0, "epochs": 0}
        members = assemble(material, session.folder, session.plan, standing(results, session.plan), Elders())
        calibration = calibrate(material, members, Elders())
        outputs = member_outputs(members, conform(other, material.schema))
        weights = np.array([one.weight for one in members])
        said = np.asarray(calibration.scores(outputs, weights, material.target).scores, dtype=np.float64)
        value = metrics_for(task.problem)[task.metric].value(material.target.encode(other[TARGET]), said)
    ended = sum(one.state == "complete" for one in results)
    epochs: dict[int, int] = {}
    for one in results:  # what went on after a pause tells of its first epochs, too
        epochs[one.seed] = max(epochs.get(one.seed, 0), len(one.history))
    size = sum(parameters(one.module) for one in members)
    facts = {"value": value, "cpu": cpu, "complete": ended, "trials": len(epochs), "parameters": size}
    return {**facts, "epochs": sum(epochs.values()), "megabytes": sum(megabytes_of(one.module) for one in members)}


def of_others(file: Path | None, table: str) -> tuple[Former, ...]:
    """The studies in a file of `benchmarks.former_studies` that are of other tables; none without a file."""
    known: dict[str, dict[str, Any]] = {} if file is None else Kept(file).known
    return tuple(
        Former(facts=Facts(**one["facts"]), candidates=tuple(Candidate(**each) for each, _ in one["told"]))
        for name, one in known.items()
        if name.split()[0] != table
    )


def summary(values: Sequence[float], digits: int) -> str:
    """Mean and spread."""
    return f"{statistics.mean(values):.{digits}f} +/- {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}"


def main() -> None:
    """Run what is missing, and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--tables", nargs="*", default=list(TABLES))
    asked.add_argument("--strategies", nargs="*", default=["random", "tpe", "auto"])
    asked.add_argument("--stopping", nargs="*", default=["asha"])
    asked.add_argument("--trials", type=int, default=24)
    asked.add_argument("--seconds", type=float, default=LONG)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--first", type=int, default=0, help="the first seed")
    asked.add_argument("--rows", type=int, default=3000)
    asked.add_argument("--keep", type=Path)
    asked.add_argument("--formers", type=Path)
    asked.add_argument("--choices", default="{}")
    asked.add_argument("--size-mb", type=float, default=math.inf)
    options = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("skipped: set EVERFIT_DATA to the folder of the tables")
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    time.monotonic = time.process_time  # the clock of deadlines
    kept, seeds = Kept(options.keep), range(options.first, options.first + options.seeds)
    beside = "" if options.choices == "{}" else f" {options.choices}"
    beside += "" if math.isinf(options.size_mb) else f" {options.size_mb:g} MB"
    ways = list(product(options.strategies, options.stopping))
    for seed, table, (strategy, stopping) in product(seeds, options.tables, ways):
        name = f"{table} {strategy} {stopping} {options.trials} {options.seconds:g} {options.rows}{beside} {seed}"
        asked_for = (table, strategy, stopping, options.trials, options.seconds, options.rows, seed)
        kept.run(name, partial(searched, *asked_for, options.formers, options.choices, options.size_mb))
    print(f"{options.trials} trials or {options.seconds:g} CPU-s on {options.rows} rows, {options.seeds} seeds")
    for table, (strategy, stopping) in product(options.tables, ways):
        name = f"{table} {strategy} {stopping} {options.trials} {options.seconds:g} {options.rows}{beside}"
        runs = [kept[f"{name} {seed}"] for seed in seeds]
        value, cpu = (summary([run[one] for run in runs], digits) for one, digits in (("value", 4), ("cpu", 1)))
        counts = [
            statistics.mean(run.get(one, math.nan) for run in runs)
            for one in ("trials", "complete", "epochs", "parameters", "megabytes")
        ]
        told = f"{table:14}{strategy:8}{stopping:9}{value:>20}{cpu:>18} CPU-s"
        print("{}{:7.1f} trials{:7.1f} finished{:7.0f} epochs{:10,.0f} parameters{:8.3f} MB".format(told, *counts))


if __name__ == "__main__":
    main()
