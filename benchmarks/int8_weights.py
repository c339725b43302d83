"""What weights as int8 (`weight_type`) cost and gain: networks at random, trained once, as float32 and on the grid.

    EVERFIT_DATA=FOLDER python -m benchmarks.int8_weights [--sets keystroke covtype digits] [--networks 10] [--seeds 3]
        [--first 0] [--rows 3000] [--graphs 4] [--keep FILE.json]

So many rows of a table, or the digits of scikit-learn, are cut into training, validation and test rows as in
`benchmarks.pruned_width`. Networks drawn at random from several families, those for images three quarters of the way to
their least size, are trained for a third of the longest training as float32, which keeps the best epoch on the
validation rows; the same weights are then brought to the grid, and both are told on validation and test rows: accuracy
and log loss. A second training, of the same seed, keeps the epoch that is best on the grid, which is what a search
does. Of the first networks of the first seed graphs are made of both: bytes, and in turn CPU-milliseconds to load and
microseconds for a row in ONNX Runtime on one thread, tenth percentiles. Searches under a limit of size are
`benchmarks.nas_search --size-mb`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from benchmarks.kept import Kept
from benchmarks.pruned_width import EPOCHS, Ground, ground_of, readable
from registry.scoring import session_options
from retrain.batches import Rows
from retrain.families.base import Candidate, Network
from retrain.families.grid import snapped
from retrain.lean_graph import lean
from retrain.network_graph import CATEGORIES, IMAGES, NUMERIC, OUTPUTS, embed, exported
from retrain.preparation_graph import GraphBuilder, model_of
from retrain.search.space import SearchSpace
from retrain.training import Outputs, Trained, evaluate, load_state, train

TABLES, PICTURES = ("mlp", "resnet", "chain", "cell"), ("convnet", "chain", "cell")
SMALLER = 0.75
LOADS, ASKS, TURNS = 5, 100, 4
Facts = dict[str, float]


def space_of(ground: Ground, name: str) -> SearchSpace:
    """Several families, at their short training."""
    known = ground.space
    families = PICTURES if name == "digits" else TABLES
    return SearchSpace.of(families, known.rows, max(1, EPOCHS // 3), known.problem, known.reads)


def told(outputs: Outputs, rows: Rows) -> tuple[float, float]:
    """Accuracy and log loss."""
    logits, labels = torch.from_numpy(outputs).double(), rows.labels
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    return accuracy, float(torch.nn.functional.cross_entropy(logits, labels))


def compared(name: str, networks: int, rows: int, graphs: int, seed: int) -> list[dict[str, Any]]:
    """Each network, as float32, on the grid, and chosen on the grid."""
    ground = ground_of(name, rows, seed)
    space, rng = space_of(ground, name), np.random.default_rng(seed)
    drawn = [space.smaller(space.sample(rng), SMALLER if name == "digits" else 0.0) for _ in range(networks)]
    return [both(ground, space, one, seed, graph=place < graphs) for place, one in enumerate(drawn)]


def both(ground: Ground, space: SearchSpace, candidate: Candidate, seed: int, *, graph: bool) -> dict[str, Any]:
    """One network's figures."""
    training, validation, test = ground.rows(candidate.text("scaling"))

    def trained(int8: bool) -> tuple[Network, Trained]:
        network = ground.network(candidate, seed)
        network.int8 = int8
        found = train(
            network, training, validation, space.recipe(candidate), problem=space.problem,
            score=lambda outputs: -told(outputs, validation)[1], greater_is_better=True, seed=seed,
        )  # fmt: skip
        load_state(network, found.state)
        return network, found

    plain, first = trained(False)
    plain.int8 = True
    grid = snapped(plain)
    chosen, second = trained(True)
    facts: dict[str, Any] = {"family": candidate.family, "epochs": [first.best_epoch, second.best_epoch]}
    for part, shown in (("validation", validation), ("test", test)):
        for way, network in (("float32", plain), ("int8", grid), ("chosen", chosen)):
            facts[f"{way} {part}"] = told(evaluate(network, shown), shown)
    answers = [torch.softmax(torch.from_numpy(evaluate(one, test)), dim=1) for one in (plain, grid)]
    facts["moved"] = [float((answers[0] - answers[1]).abs().max()), float((answers[0] - answers[1]).abs().mean())]
    if graph:
        plain.int8 = False
        facts["graphs"] = asked(ground, {"float32": plain, "int8": grid}, test)
    return facts


def asked(ground: Ground, networks: Mapping[str, torch.nn.Module], rows: Rows) -> dict[str, Facts]:
    """What the graphs of a network take, by the type of its weights."""
    one = rows.take(torch.zeros(1, dtype=torch.int64)).inputs
    known = dict(zip((NUMERIC, CATEGORIES, IMAGES), (each.numpy() for each in one), strict=False))
    graph = exported(networks["float32"], rows.numeric.shape[1], rows.categories.shape[1], ground.layout.image)
    data = {way: graph_of(ground, graph, one, rows).SerializeToString() for way, one in networks.items()}
    loads: dict[str, list[float]] = {way: [] for way in networks}
    asks: dict[str, list[float]] = {way: [] for way in networks}
    apart = {}
    for _ in range(TURNS):
        for way, network in networks.items():
            for _ in range(LOADS):
                session, seconds = timed(partial(opened, data[way]))
                loads[way].append(seconds)
            inputs = {each.name: known[each.name] for each in session.get_inputs()}
            for _ in range(ASKS):
                (said,), seconds = timed(partial(session.run, [OUTPUTS], inputs))
                asks[way].append(seconds)
            with torch.inference_mode():
                apart[way] = float(np.abs(said - network.eval()(*one).numpy()).max())
    return {
        way: {
            "bytes": float(len(data[way])),
            "load ms": 1e3 * float(np.quantile(loads[way], 0.1)),
            "row us": 1e6 * float(np.quantile(asks[way], 0.1)),
            "apart": apart[way],
        }
        for way in networks
    }


def opened(model: bytes) -> ort.InferenceSession:
    """As serving opens it."""
    return ort.InferenceSession(model, session_options(1), providers=["CPUExecutionProvider"])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and its CPU-seconds."""
    begun = time.process_time()
    found = work()
    return found, time.process_time() - begun


def graph_of(ground: Ground, graph: onnx.GraphProto, network: torch.nn.Module, rows: Rows) -> onnx.ModelProto:
    """A network's lean graph alone, fed with prepared rows; `graph` are its nodes."""
    builder, widths = GraphBuilder(), (rows.numeric.shape[1], rows.categories.shape[1])
    inputs = {name: name for name in (NUMERIC, CATEGORIES, IMAGES)}
    found = embed(builder, graph, inputs, {name: one.numpy() for name, one in network.state_dict().items()})
    assert found is not None
    builder.name(found[OUTPUTS], OUTPUTS)
    info = helper.make_tensor_value_info
    image = ground.layout.image
    shown = [info(NUMERIC, TensorProto.FLOAT, ["n", widths[0]]), info(CATEGORIES, TensorProto.INT64, ["n", widths[1]])]
    if image is not None:
        shown = [*shown, info(IMAGES, TensorProto.UINT8, ["n", image.channels, image.size, image.size])]
    return lean(model_of(builder, shown, [info(OUTPUTS, TensorProto.FLOAT, ["n", ground.d_out])]))


def report(runs: Sequence[Mapping[str, Any]]) -> None:
    """Means of accuracy, and of pairs of the same network the difference with its standard error; of log loss, which a
    network that has failed makes huge, the median difference and the quarter's ends."""
    for part in ("validation", "test"):
        for way in ("float32", "int8", "chosen"):
            pairs = np.array([np.array(run[f"{way} {part}"]) - np.array(run[f"float32 {part}"]) for run in runs])
            gained, error = 100 * pairs[:, 0], 100 * pairs[:, 0].std(ddof=1) / len(runs) ** 0.5
            low, middle, high = np.quantile(pairs[:, 1], (0.25, 0.5, 0.75))
            print(
                f"  {part:11}{way:9} accuracy {np.mean([run[f'{way} {part}'][0] for run in runs]):.4f}, beside float32 "
                f"{gained.mean():+.3f} +/- {error:.3f} points, {gained.min():+.2f} to {gained.max():+.2f}; "
                f"log loss {middle:+.5f} ({low:+.5f} to {high:+.5f})"
            )
    moved = np.array([run["moved"] for run in runs])
    other = sum(run["epochs"][0] != run["epochs"][1] for run in runs)
    print(
        f"  probabilities move by {moved[:, 1].mean():.4f} on average, {np.median(moved[:, 0]):.3f} at most (median of "
        f"networks); {other} times another epoch"
    )
    for run in runs:
        if "graphs" in run:
            float32, int8 = run["graphs"]["float32"], run["graphs"]["int8"]
            print(f"  {run['family']:8}" + "   ".join(f"{key} {float32[key]:,.4g} / {int8[key]:,.4g}" for key in int8))


def main() -> None:
    """Run what is missing, and print the figures."""
    asked_for = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked_for.add_argument("--sets", nargs="*", default=["keystroke", "covtype", "digits"])
    asked_for.add_argument("--networks", type=int, default=10)
    asked_for.add_argument("--seeds", type=int, default=3)
    asked_for.add_argument("--first", type=int, default=0, help="the first seed")
    asked_for.add_argument("--rows", type=int, default=3000)
    asked_for.add_argument("--graphs", type=int, default=4)
    asked_for.add_argument("--keep", type=Path)
    options = asked_for.parse_args()
    names = readable(options.sets)
    torch.set_num_threads(1)
    kept, seeds = Kept(options.keep), range(options.first, options.first + options.seeds)
    for name in names:
        runs = []
        for seed in seeds:
            graphs = options.graphs if seed == seeds[0] else 0
            work = partial(compared, name, options.networks, options.rows, graphs, seed)
            runs += kept.run(f"{name} {options.networks} {options.rows} {graphs} {seed}", work)
        print(f"{name}, {len(runs)} networks")
        report(runs)


if __name__ == "__main__":
    main()
