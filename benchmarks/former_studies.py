"""What studies of other tasks tell of a new task's candidates (`retrain/search/taught.py`): leave one table out.

    EVERFIT_DATA=FOLDER python -m benchmarks.former_studies [--tables flights chicago gas_sensor keystroke]
        [--rows 1500] [--trials 45] [--seed 0] [--keep FILE.json] [--search 0]

Of each table so many rows are searched by random draws after the portfolio, all trained to their ends by one worker in
this process. Each table is then ranked by what the other tables' studies teach. Told are the rank correlation with the
scores that were reached, and mean scores as normal quantiles of their ranks among the table's own: of the fifth of the
random candidates that the prediction likes best, of all random ones, of the portfolio, and of the first eight of all.
`--search 20` adds whole searches of so many trials by `auto`, without the other tables' studies and with them: the best
validation score after some trials, as a share of the way from the median of the cold search's to the best of both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy.stats import spearmanr

from benchmarks.kept import Kept
from benchmarks.nas_search import task_on
from benchmarks.streams_data import TARGET, read
from retrain.families.base import Candidate
from retrain.search import plan as plans
from retrain.search.budget import Budget
from retrain.search.experience import Experience, Facts, Former, scores_of_ranks
from retrain.search.material import gather
from retrain.search.progress import silent
from retrain.search.session import Session
from retrain.search.space import SearchSpace
from retrain.search.worker import Worker

FAMILIES = ("mlp", "resnet")
EIGHT = 8


def studied(
    table: str, rows: int, trials: int, seed: int, strategy: str = "random", formers: Sequence[Former] = ()
) -> dict[str, Any]:
    """A table's facts, and its candidates with their origins, the best first; all scores, greater being better, in the
    order of the trials."""
    stream = read(Path(os.environ["EVERFIT_DATA"]), table)
    frame = stream.inputs.assign(**{TARGET: stream.target})
    shown = frame.iloc[np.random.default_rng(seed).permutation(len(frame))[:rows]].reset_index(drop=True)
    task = task_on(stream, shown, strategy=strategy, stopping="none", trials=trials, workers=1, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        material = gather(task, shown)
        session = Session(task, Path(folder), Budget(time.monotonic(), trials, 1e6, seed), None, silent, formers)
        session._ready(material)
        Worker(session.folder, 0).run()
        sign = 1 if session.plan.greater_is_better else -1
        tried = plans.read_results(session.folder)
    results = sorted(tried, key=lambda one: -sign * one.score)
    facts = Facts.of(len(material.parts.train), material.schema, material.target)
    told = [[one.candidate.model_dump(), one.origin == "portfolio"] for one in results]
    return {
        "facts": facts.model_dump(),
        "problem": task.problem,
        "told": told,
        "scores": [sign * one.score for one in tried],
    }


def others(name: str, known: dict[str, dict[str, Any]]) -> tuple[Former, ...]:
    """The studies of the other tables."""
    return tuple(
        Former(facts=Facts(**other["facts"]), candidates=tuple(Candidate(**one) for one, _ in other["told"]))
        for each, other in known.items()
        if each.split()[0] != name.split()[0]
    )


def left_out(name: str, known: dict[str, dict[str, Any]]) -> tuple[float, ...]:
    """What the docstring above promises, of one table by the others' studies."""
    own, formers = known[name], others(name, known)
    candidates = [Candidate(**one) for one, _ in own["told"]]
    facts, reached = Facts(**own["facts"]), scores_of_ranks(len(candidates))
    space = SearchSpace.of(FAMILIES, facts.rows, 27, own["problem"])
    taught = Experience(facts=facts, formers=formers).taught(space)
    assert taught is not None
    expected = taught.expect(np.stack([space.encode(one) for one in candidates]))
    drawn = ~np.array([default for _, default in own["told"]])
    likeliest = np.argsort(-expected[drawn])[: max(4, drawn.sum() // 5)]
    first = np.argsort(-expected)[:EIGHT]
    correlation = float(spearmanr(expected[drawn], reached[drawn]).statistic)
    parts = (reached[drawn][likeliest], reached[drawn], reached[~drawn], reached[first])
    return (correlation, *(float(one.mean()) for one in parts))


def main() -> None:
    """Search what is missing, and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--tables", nargs="*", default=["flights", "chicago", "gas_sensor", "keystroke"])
    asked.add_argument("--rows", type=int, default=1500)
    asked.add_argument("--trials", type=int, default=45)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--search", type=int, default=0)
    asked.add_argument("--keep", type=Path)
    options = asked.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        print("skipped: set EVERFIT_DATA to the folder of the tables")
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    kept = Kept(options.keep)
    for table in options.tables:
        name = f"{table} {options.rows} {options.seed}"
        kept.run(name, partial(studied, table, options.rows, options.trials, options.seed))
    print(
        f"{'table':22}{'candidates':>11}{'rank corr.':>12}{'likeliest':>11}{'random':>8}{'portfolio':>11}{'first 8':>9}"
    )
    for name in kept.known:
        numbers = left_out(name, kept.known)
        told = "{:12.2f}{:11.2f}{:8.2f}{:11.2f}{:9.2f}".format(*numbers)
        print(f"{name:22}{len(kept[name]['told']):11}{told}")
    if options.search:
        whole_searches(kept, options)


def whole_searches(kept: Kept, options: argparse.Namespace) -> None:
    """Searches by `auto`, without the other tables' studies and with them, of the tables that were asked for."""
    counts = [count for count in (1, 2, 3, 6, 10, 15, 20, 30, 40) if count <= options.search]
    print(f"{'best after':30}" + "".join(f"{count:>7}" for count in counts))
    for table in options.tables:
        name = f"{table} {options.rows} {options.seed}"
        known = {"cold": (), "taught": others(name, kept.known)}
        found = {
            how: studied(table, options.rows, options.search, options.seed, "auto", formers)["scores"]
            for how, formers in known.items()
        }
        low, high = float(np.median(found["cold"])), max(map(max, found.values()))
        for how, scores in found.items():
            reached = [(max(scores[:count]) - low) / (high - low) for count in counts]
            print(f"{name:22}{how:8}" + "".join(f"{one:7.2f}" for one in reached), flush=True)


if __name__ == "__main__":
    main()
