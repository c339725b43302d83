"""What pruned width (`kept_units`) gains: the portfolio's networks whole, narrow from the beginning, and pruned.

    EVERFIT_DATA=FOLDER python -m benchmarks.pruned_width [--sets keystroke covtype digits] [--kept 0.5 0.25]
        [--seeds 3] [--first 0] [--rows 3000] [--most 6] [--served] [--keep FILE.json]

So many rows of a table, at most half of it, drawn by the seed, or the digits of scikit-learn, are cut into training,
validation and test rows as a search cuts them. Of the set's portfolio the first `--most` are trained for their own
epochs: as they are (whole), with a share of their hidden units (narrow), and with all of them until they are pruned to
that share (pruned). Each keeps its best epoch on the validation rows and is told on up to 10,000 test rows: accuracy,
parameters, operations and milliseconds for a row (torch's, with `--served` ONNX Runtime's), CPU-seconds; means over the
portfolio, and over seeds with their spread; the pairs are of the same candidate and seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import Kept
from benchmarks.nas_real import parts_of
from benchmarks.nas_search import MOST_TEST, task_on
from benchmarks.streams_data import TARGET, read
from registry.conforming import conform
from retrain.batches import Rows, rows_of
from retrain.families.base import Candidate, Network
from retrain.families.catalogue import build
from retrain.families.cost import flops, parameters
from retrain.families.hidden import unpruned
from retrain.families.parameters import KEPT
from retrain.pruning import train_and_prune
from retrain.search.footprint import served_row_ms, single_row_ms
from retrain.search.inputs import Layout
from retrain.search.material import gather
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.training import Outputs, evaluate, load_state, train

EPOCHS = 27
TABLES, IMAGES = ("mlp", "resnet", "chain"), ("convnet", "chain")
FACTS = ("accuracy", "parameters", "flops", "ms", "cpu")


@dataclass(frozen=True)
class Ground:
    """A set, cut; `rows` gives training, validation and test rows under a scaling."""

    space: SearchSpace
    layout: Layout
    d_out: int
    rows: Callable[[str], tuple[Rows, Rows, Rows]]

    def network(self, candidate: Candidate, seed: int) -> Network:
        """The untrained network of a candidate."""
        torch.manual_seed(seed)
        return build(candidate, len(self.layout.numeric), self.layout.cardinalities, self.d_out, self.layout.image)


def ground_of(name: str, rows: int, seed: int) -> Ground:
    """A table by name, or the digits."""
    if name == "digits":
        parts = parts_of(name, seed)
        space = SearchSpace.of(IMAGES, len(parts.training), EPOCHS, "multiclass", "image")
        return Ground(space, parts.layout, 10, lambda _: (parts.training, parts.validation, parts.test))
    stream = read(Path(os.environ["EVERFIT_DATA"]), name)
    frame = stream.inputs.assign(**{TARGET: stream.target})
    rows = min(rows, len(frame) // 2)
    drawn = frame.iloc[np.random.default_rng(seed).permutation(len(frame))[: rows + MOST_TEST]].reset_index(drop=True)
    shown, other = drawn.iloc[:rows], drawn.iloc[rows:]
    other = other[other[TARGET].isin(shown[TARGET].unique())]
    task = task_on(stream, shown, workers=1, seed=seed)
    material = gather(task, shown)
    space = SearchSpace.of(TABLES, len(material.parts.train), EPOCHS, task.problem)
    foreign, told = conform(other, material.schema), material.target.encode(other[TARGET])

    def cut(scaling: str) -> tuple[Rows, Rows, Rows]:
        preparation, parts = material.preparations[scaling], material.parts
        own = [
            rows_of(preparation.apply(material.conformed.iloc[part]), torch.from_numpy(material.labels[part]))
            for part in (parts.train, parts.validation)
        ]
        return own[0], own[1], rows_of(preparation.apply(foreign), torch.from_numpy(told))

    return Ground(space, material.layout, material.d_out, cut)


def trained(ground: Ground, candidate: Candidate, way: str, share: float, seed: int, served: bool) -> dict[str, float]:
    """One network, trained in one of the three ways, on the test rows, and what it costs."""
    training, validation, test = ground.rows(candidate.text("scaling"))
    narrow = candidate.model_copy(update={"choices": {**candidate.choices, KEPT: share}})
    network = ground.network(narrow if way == "narrow" else unpruned(candidate), seed)

    def score(outputs: Outputs) -> float:
        return float((outputs.argmax(axis=1) == validation.labels.numpy()).mean())

    begin = time.process_time()
    found = (partial(train_and_prune, share=share) if way == "pruned" else train)(
        network,
        training=training,
        validation=validation,
        recipe=ground.space.recipe(candidate),
        problem=ground.space.problem,
        score=score,
        greater_is_better=True,
        seed=seed,
    )
    cpu = time.process_time() - begin
    load_state(network, found.state)
    accuracy = float((evaluate(network, test).argmax(axis=1) == test.labels.numpy()).mean())
    one = test.take(torch.zeros(1, dtype=torch.int64)).inputs
    ms = served_row_ms(network, test, ground.layout.image) if served else single_row_ms(network, test)
    return dict(
        zip(FACTS, (accuracy, float(parameters(network)), float(flops(network, *one)), ms or 0.0, cpu), strict=True)
    )


def compared(name: str, shares: Sequence[float], rows: int, most: int, seed: int, served: bool) -> dict[str, Any]:
    """Each way of each candidate, by "way share", candidates in their order."""
    ground = ground_of(name, rows, seed)
    ways = [("whole", 1.0), *((way, share) for share in shares for way in ("narrow", "pruned"))]
    return {
        f"{way} {share:g}": [
            trained(ground, candidate, way, share, seed, served) for candidate in portfolio(ground.space)[:most]
        ]
        for way, share in ways
    }


def summary(values: Sequence[float], digits: int) -> str:
    """Mean and spread."""
    return f"{statistics.mean(values):.{digits}f} +/- {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}"


def told(runs: Sequence[dict[str, Any]]) -> None:
    """Means over candidates; over seeds with their spread; differences of pairs with their standard error."""
    for way in runs[0]:
        by_seed = {fact: [statistics.mean(one[fact] for one in run[way]) for run in runs] for fact in FACTS}
        numbers = {fact: statistics.mean(values) for fact, values in by_seed.items()}
        pairs = [
            100 * (one["accuracy"] - other["accuracy"])
            for run in runs
            for one, other in zip(run[way], run[way.replace("pruned", "narrow")], strict=True)
        ]
        ahead = ""
        if way.startswith("pruned"):
            error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
            ahead = f"   beside narrow {statistics.mean(pairs):+.2f} +/- {error:.2f} points of {len(pairs)} pairs"
        print(
            f"{way:12}{summary(by_seed['accuracy'], 4):>20}{numbers['parameters']:12,.0f}{numbers['flops']:14,.0f}"
            f"{numbers['ms']:8.3f} ms{numbers['cpu']:7.1f} CPU-s{ahead}"
        )


def readable(sets: Sequence[str]) -> list[str]:
    """The sets that are there; says where tables are not."""
    found = [one for one in sets if one == "digits" or "EVERFIT_DATA" in os.environ]
    if len(found) < len(sets):
        print("tables skipped: set EVERFIT_DATA to the folder of the tables")
    return found


def main() -> None:
    """Train what is missing, and print the tables."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--sets", nargs="*", default=["keystroke", "covtype", "digits"])
    asked.add_argument("--kept", nargs="*", type=float, default=[0.5, 0.25])
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--first", type=int, default=0, help="the first seed")
    asked.add_argument("--rows", type=int, default=3000)
    asked.add_argument("--most", type=int, default=6)
    asked.add_argument("--served", action="store_true")
    asked.add_argument("--keep", type=Path)
    options = asked.parse_args()
    names = readable(options.sets)
    torch.set_num_threads(1)
    kept, seeds = Kept(options.keep), range(options.first, options.first + options.seeds)
    for name in names:
        key = f"{name} {options.kept} {options.rows} {options.most} {options.served}"
        for seed in seeds:
            asked_for = (name, options.kept, options.rows, options.most, seed, options.served)
            kept.run(f"{key} {seed}", partial(compared, *asked_for))
        print(f"{name}, {options.seeds} seeds: accuracy, parameters, operations, a row, CPU")
        told([kept[f"{key} {seed}"] for seed in seeds])


if __name__ == "__main__":
    main()
