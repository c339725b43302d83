"""What the training loop costs over a bare torch loop: a 3 x 256 perceptron, the same batches, one thread, interleaved.

    python -m benchmarks.training_overhead [--rows 10000] [--columns 20] [--batch 256] [--epochs 3] [--repeats 9]

Prints the ratio of wall-clock, Everfit's loop by the bare one: median, smallest and largest of the repeats. The bare
loop does what a notebook does: forward, loss, backward, step; Everfit's sets the learning rate at each step, watches
the clock and the loss, and goes through Lightning Fabric.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional

from retrain.families.base import Candidate
from retrain.families.catalogue import family_named
from retrain.families.mlp import MlpNet
from retrain.training import Loop, Recipe, Rows, batches, make_optimizer

CANDIDATE = Candidate(
    family="mlp",
    choices={
        "depth": 3,
        "width": 256,
        "activation": "relu",
        "normalisation": "none",
        "dropout": 0.1,
        "category_cap": 8,
        "numeric_embedding": "none",
    },
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 10_000), ("columns", 20), ("batch", 256), ("epochs", 3), ("repeats", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(epochs=given.epochs, batch_size=given.batch)
    rows = make_rows(given.rows, given.columns)
    ratios = []
    for repeat in range(given.repeats + 1):
        pair = (
            (ours(rows, recipe), bare(rows, recipe)) if repeat % 2 else (bare(rows, recipe), ours(rows, recipe))[::-1]
        )
        if repeat:  # the first pair warms up
            ratios.append(pair[0] / pair[1])
            print(f"everfit {pair[0]:.3f} s, bare {pair[1]:.3f} s, ratio {ratios[-1]:.3f}")
    print(f"ratio median {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


def make_rows(n: int, columns: int) -> Rows:
    """Rows whose label depends on two columns."""
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(n, columns, generator=generator)
    labels = (numeric[:, 0] * numeric[:, 1] > 0).long()
    return Rows(numeric, torch.zeros(n, 0, dtype=torch.int64), labels)


def ours(rows: Rows, recipe: Recipe) -> float:
    """Seconds of Everfit's loop."""
    loop = Loop(_network(rows), rows, recipe, "binary", seed=0)
    start = time.perf_counter()
    for _ in range(recipe.epochs):
        loop.epoch()
    return time.perf_counter() - start


def bare(rows: Rows, recipe: Recipe) -> float:
    """Seconds of a bare torch loop over the same batches with the same optimizer."""
    network = _network(rows)
    optimizer = make_optimizer(network, recipe)
    generator = torch.Generator().manual_seed(0)
    network.train()
    start = time.perf_counter()
    for _ in range(recipe.epochs):
        for index in batches(len(rows), recipe.batch_size, generator):
            loss = functional.cross_entropy(network(rows.numeric[index], rows.categories[index]), rows.labels[index])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def _network(rows: Rows) -> MlpNet:
    torch.manual_seed(0)
    network = family_named("mlp").build(CANDIDATE, rows.numeric.shape[1], [], 2)
    assert isinstance(network, MlpNet)
    return network


if __name__ == "__main__":
    main()
