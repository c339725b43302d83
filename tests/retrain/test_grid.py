"""Weights on an int8 grid: which ones, what is left of the answers, and whole searches whose networks stay on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from registry.bundle import MODEL, SERVING, ModelBundle
from registry.choices import Preference
from registry.conforming import conform
from registry.errors import TaskError
from registry.scoring import Graph, Scorer, differences, feed
from registry.serving_graph import ServingGraph, scores_of
from retrain.batches import Rows
from retrain.calibration import Calibration
from retrain.export import Member, check_parity, export
from retrain.families.base import Candidate, Network, Reads
from retrain.families.catalogue import FAMILIES, build
from retrain.families.grid import snapped, spared_by, whole_numbers
from retrain.families.parameters import INT8, WEIGHT_TYPE
from retrain.fine_tuning import fine_tune
from retrain.image_source import ImageInput
from retrain.lean_graph import packed
from retrain.members import read_members
from retrain.pruning import train_and_prune
from retrain.renewal import Request
from retrain.search.limits import INFEASIBLE, megabytes_of
from retrain.search.material import gather
from retrain.search.portfolio import portfolio
from retrain.search.session import require_means, search
from retrain.search.space import SearchSpace
from retrain.training import DivergedError, Outputs, Recipe, Trained, evaluate, load_state, train
from tests.handmade import make_frame, make_task
from tests.retrain.test_following import followed
from tests.retrain.test_objectives import results_in, searched

NAME = WEIGHT_TYPE.name
IMAGES = ImageInput(size=8, channels=1, mean=(100.0,), std=(50.0,))
KINDS: tuple[tuple[str, Reads], ...] = tuple((one.name, reads) for one in FAMILIES for reads in sorted(one.reads))
FIXED = {NAME: Preference(fixed=INT8)}


def network_of(family: str, reads: Reads, seed: int = 0, **wishes: Any) -> Network:
    choices = {**FIXED, **{name: Preference(fixed=value) for name, value in wishes.items()}}
    candidate = SearchSpace.of((family,), 96, 3, "multiclass", reads, choices).sample(np.random.default_rng(seed))
    torch.manual_seed(seed)
    columns = (5, (4, 60)) if reads == "table" else (0, ())
    return build(candidate, *columns, 3, IMAGES if reads == "image" else None)


def rows(n: int = 300) -> Rows:
    generator = torch.Generator().manual_seed(0)
    numeric, labels = torch.randn(n, 5, generator=generator), torch.arange(n) % 3
    numeric[:, 0] += labels
    return Rows(numeric, torch.randint(0, 4, (n, 2), generator=generator), labels)


def gridded(network: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            yield f"{name}.weight", module.weight.detach(), int(isinstance(module, nn.Embedding))


def off_grid(network: nn.Module) -> float:
    """By how many steps, at most, a weight is away from the nearest point."""
    apart = [0.0]
    for _, weights, axis in gridded(network):
        whole, scales = whole_numbers(weights, axis)
        apart.append(float((weights / scales - whole).abs().max()))
    return max(apart)


def in_int8(model: Path) -> int:
    """How many numbers a graph holds as int8."""
    kept = onnx.load(model).graph.initializer
    return sum(int(np.prod(one.dims)) for one in kept if one.data_type == TensorProto.INT8)


@pytest.mark.parametrize(("family", "reads"), KINDS)
def test_every_family_has_it_where_it_is_asked_for_and_a_grid_for_all_its_matrices(family: str, reads: Reads) -> None:
    network = network_of(family, reads)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grid = snapped(network)
    names = {name for name, _, _ in gridded(network)}
    assert off_grid(network) > 0.1
    assert off_grid(grid) < 1e-3
    for name, value in grid.state_dict().items():
        assert torch.equal(network.state_dict()[name], before[name])
        assert torch.equal(value, before[name]) or name in names
    for _, weights, axis in gridded(grid):
        assert len(whole_numbers(weights, axis)[0].unique()) <= 255
    again = snapped(grid).state_dict()
    assert all(torch.allclose(again[name], value, rtol=1e-6, atol=0) for name, value in grid.state_dict().items())
    matrices = sum(value.numel() for name, value in before.items() if name in names)
    assert 2 * matrices < spared_by(network) < 3 * matrices
    whole = megabytes_of(network)
    network.int8 = False
    assert snapped(network) is network
    assert megabytes_of(network) - whole == pytest.approx(spared_by(grid) / 1e6)


def test_only_who_asks_has_it_in_the_space() -> None:
    def values(choices: Mapping[str, Preference], family: str = "cell") -> tuple[object, ...]:
        space = SearchSpace.of(("mlp", "cell"), 96, 3, "binary", choices=choices)
        found = [one for _, one in space.parameters(family) if one.name == NAME]
        assert len(found) == len(space.sample(np.random.default_rng(0)).choices.keys() & {NAME}) or family == "mlp"
        return tuple(one.values for one in found)  # type: ignore[union-attr]

    assert values({}) == ()
    assert values(FIXED) == ((INT8,),)
    assert values({NAME: Preference(only=("float32", INT8))}) == (("float32", INT8),)
    assert values({NAME: Preference(never=("float32",))}) == ((INT8,),)
    assert values({f"mlp.{NAME}": Preference(fixed=INT8)}) == ()
    assert values({f"mlp.{NAME}": Preference(fixed=INT8)}, "mlp") == ((INT8,),)
    drawn = SearchSpace.of(("mlp",), 96, 3, "binary", choices={NAME: Preference(weights={INT8: 9.0})})
    rng = np.random.default_rng(0)
    assert 70 < sum(drawn.sample(rng).choices[NAME] == INT8 for _ in range(100)) < 100
    fixed = SearchSpace.of(("mlp",), 96, 3, "binary", choices=FIXED)
    assert {one.choices[NAME] for one in portfolio(fixed)} == {INT8}
    assert {one.choices[NAME] for one in portfolio(drawn)} == {"float32"}
    with pytest.raises(TaskError, match=r"unknown value of weight_type 'int4'.*float32.*int8"):
        require_means(make_task("binary", search={"families": ["mlp"], "choices": {NAME: {"fixed": "int4"}}}))
    with pytest.raises(TaskError, match=r"unknown dimension 'weight_typ'.*did you mean 'weight_type'"):
        require_means(make_task("binary", search={"families": ["mlp"], "choices": {"weight_typ": {"fixed": "int8"}}}))


def trained(network: Network, epochs: int = 5, **more: Any) -> Trained:
    shown = rows()

    def score(outputs: Outputs) -> float:
        return float(torch.nn.functional.cross_entropy(torch.from_numpy(outputs), shown.labels))

    return train(
        network, shown, shown, Recipe(epochs=epochs, batch_size=32, rate=5e-3),
        problem="multiclass", score=score, greater_is_better=False, seed=0, **more,
    )  # fmt: skip


def test_what_a_training_tells_is_of_the_grid_also_after_a_pause() -> None:
    shown, network = rows(), network_of("mlp", "table", numeric_embedding="periodic")
    found = trained(network)
    assert off_grid(network) > 0.1, "training itself goes on with floats"
    kept = load_state(network_of("mlp", "table", numeric_embedding="periodic"), found.state)
    assert off_grid(kept) < 1e-3
    np.testing.assert_array_equal(evaluate(kept, shown), found.outputs)
    assert found.score == min(found.history)

    first = trained(
        network_of("mlp", "table", numeric_embedding="periodic"), report=lambda epoch, _: epoch == 2, pausing=True
    )
    assert first.paused is not None
    second = trained(network_of("mlp", "table", numeric_embedding="periodic"), paused=first.paused)
    assert second.history == found.history
    assert all(torch.equal(second.state[name], value) for name, value in found.state.items())
    early = trained(network_of("mlp", "table", numeric_embedding="periodic"), 2, paused=first.paused)
    assert early.best_epoch == 2, "the state comes from what was paused"
    assert all(torch.equal(early.state[name], value) for name, value in first.state.items())


@pytest.mark.parametrize("stop", [2, 99])
def test_a_network_may_be_pruned_and_int8(stop: int) -> None:
    shown, network = rows(), network_of("mlp", "table", kept_units=1.0)
    found = train_and_prune(
        network, 0.5, shown, shown, Recipe(epochs=6, batch_size=32), problem="multiclass",
        score=lambda out: float((out.argmax(axis=1) == shown.labels.numpy()).mean()), greater_is_better=True, seed=0,
        report=lambda epoch, _: epoch == stop,
    )  # fmt: skip
    kept = load_state(network_of("mlp", "table", kept_units=0.5), found.state)
    assert off_grid(kept) < 1e-3
    np.testing.assert_array_equal(evaluate(kept, shown), found.outputs)


def test_weights_that_are_not_finite_stay_so() -> None:
    """Else a network that has diverged would be taken for a sound one."""
    for bad in (float("inf"), float("nan")):
        network = network_of("mlp", "table")
        with torch.no_grad():
            network.last.weight[0, 0] = bad
        assert not bool(snapped(network).last.weight.isfinite().all())  # type: ignore[union-attr,operator]
        with pytest.raises(DivergedError):
            trained(network)
    dead = network_of("mlp", "table")
    torch.nn.init.zeros_(dead.last.weight)
    assert bool((snapped(dead).last.weight == 0).all())  # type: ignore[union-attr]


def test_a_graph_holds_int8_where_weights_lie_on_a_grid_and_floats_elsewhere() -> None:
    rng = np.random.default_rng(0)
    whole, scales = rng.integers(-127, 128, (64, 32)), rng.uniform(-1, 1, (64, 1)).astype(np.float32)
    whole[:, 3] = 127
    turned = np.ascontiguousarray((whole * scales).astype(np.float32).T)
    given = {
        "rows": (whole * scales).astype(np.float32),
        "columns": turned,
        "kernel": (whole * scales).astype(np.float32).reshape(64, 8, 2, 2),
        "small": (whole * scales)[:4, :4].astype(np.float32),
        "plain": rng.normal(size=(64, 32)).astype(np.float32),
        "narrow": rng.normal(size=(512, 1)).astype(np.float32),
    }
    weights = [numpy_helper.from_array(value, name) for name, value in given.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_", TensorProto.FLOAT, one.shape) for name, one in given.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in given]
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(
        helper.make_graph(nodes, "weights", [], outputs, weights), opset_imports=opsets, ir_version=10
    )
    before = model.ByteSize()
    made = packed(model)
    onnx.checker.check_model(made)
    floats = [node.output[0] for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert floats == ["rows", "columns", "kernel"]
    assert made.ByteSize() < before - 3 * 2.7 * 64 * 32
    run = ReferenceEvaluator(made).run(None, {})
    for value, said in zip(given.values(), run, strict=True):
        np.testing.assert_allclose(said, value, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("family", "wishes"),
    [
        ("mlp", {"numeric_embedding": "periodic", "normalisation": "batch"}),
        ("chain", {"kind_1": "attention", "normalisation": "layer"}),
        ("chain", {"kind_1": "gated", "numeric_embedding": "piecewise"}),
    ],
)
def test_an_ensemble_of_both_types_answers_as_torch_does(family: str, wishes: dict[str, str], tmp_path: Path) -> None:
    """Networks of one architecture share the nodes, whatever their types; normalisation is folded into the grid."""
    material = gather(make_task("binary"), make_frame(500))
    layout, preparation = material.layout, material.preparations["robust"]
    members = []
    for place, kind in enumerate(("float32", INT8)):
        choices = {**{name: Preference(fixed=one) for name, one in wishes.items()}, NAME: Preference(fixed=kind)}
        candidate = SearchSpace.of((family,), 500, 3, "binary", choices=choices).sample(np.random.default_rng(1))
        torch.manual_seed(place)
        network = build(candidate, len(layout.numeric), layout.cardinalities, 2)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                for one in (module.weight, module.bias, module.running_mean):
                    torch.nn.init.normal_(one)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        members.append(Member(snapped(network.eval()), preparation, 0.5, candidate.model_dump()))
    calibration = Calibration(radius=0.5)
    export(members, calibration, material.schema, material.target, tmp_path / MODEL)
    graph, shown = Graph.open(tmp_path / MODEL, material.schema, "binary"), material.conformed
    found = check_parity(graph.predict(shown), members, calibration, material.target, shown)
    assert max(found.values()) < 1e-5
    matrices = sum(one.numel() for _, one, _ in gridded(members[1].module))
    for name in (MODEL, SERVING):
        assert 0.6 * matrices < in_int8(tmp_path / name) <= matrices
    plain = [members[0], Member(members[0].module, preparation, 0.5, members[0].candidate)]
    export([plain[0], plain[1]], calibration, material.schema, material.target, tmp_path / MODEL)
    assert in_int8(tmp_path / MODEL) == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """A champion of int8 networks, by a search that refits and levels: of classes."""
    means = {"families": ["mlp"], "workers": 1, "max_epochs": 3, "choices": {NAME: {"fixed": INT8}}}
    task, home = make_task("binary", search=means, metric="log_loss"), tmp_path_factory.mktemp("small")
    frame = make_frame(2_000, seed=1, start="2024-01-01")
    return search(task, frame, folder=home / "study", out=home / "bundle", trials=2, seconds=90, seed=0)


def require_grid(bundle: ModelBundle, rows: pd.DataFrame) -> None:
    """Weights on the grid, graphs of int8, and the same answers by both and by the stored rows."""
    for member in read_members(bundle):
        assert member.candidate["choices"][NAME] == INT8
        assert off_grid(member.module) < 1e-3
    scorer = Scorer.load(bundle)
    scorer.self_test()
    matrices = sum(one.numel() for member in read_members(bundle) for _, one, _ in gridded(member.module))
    for name in (MODEL, SERVING):
        assert in_int8(bundle.folder / name) > 0.8 * matrices
        assert (bundle.folder / name).stat().st_size < 1.3 * matrices + 30_000
    manifest, said = bundle.manifest, scorer.predict(rows)
    schema, target, radius = manifest.data_schema, manifest.target, manifest.conformal_radius
    served = ServingGraph.open(bundle.folder / SERVING, schema).run(feed(conform(rows, schema), schema))
    found = differences(scores_of(served, target.classes, radius), said, radius=radius)
    assert max(found.values()) < 1e-4


def test_a_search_serves_what_lies_on_the_grid(small: ModelBundle) -> None:
    require_grid(small, make_frame(200, seed=5))
    assert small.manifest.lineage.trials == 2
    assert small.graph_bytes > 2.5 * small.model.stat().st_size  # loaded, it is of floats
    assert "| mlp, int8 |" in (small.folder / "card.md").read_text(encoding="utf-8")


def test_remedies_stay_on_the_grid_and_ask_no_exporter(
    small: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("torch was asked to export")

    monkeypatch.setattr("retrain.export.exported", refuse)
    task = small.manifest.task
    newer = make_frame(600, seed=4, problem=task.problem, start="2024-02-01", flip=1.0)
    frame = pd.concat([make_frame(2_000, seed=1, problem=task.problem), newer], ignore_index=True)
    asked = Request(task=task, bundle=small, version="1", frame=frame, out=tmp_path / "tuned", seconds=30)
    tuned = fine_tune(asked)
    require_grid(tuned, newer)
    before = [member.module.state_dict()["first.weight"] for member in read_members(small)]
    after = [member.module.state_dict()["first.weight"] for member in read_members(tuned)]
    assert not any(torch.equal(one, other) for one in before for other in after)
    days = make_frame(6 * 144, seed=4, problem=task.problem, start="2024-01-15", flip=1.0)
    require_grid(followed(small, days, tmp_path).seal(), days)


def test_a_search_with_a_prior_trains_on_from_the_grid_and_ends_on_it(small: ModelBundle, tmp_path: Path) -> None:
    task = small.manifest.task
    frame = make_frame(4_500, seed=1, problem=task.problem, start="2024-01-01")
    given = {"folder": tmp_path / "study", "out": tmp_path / "bundle", "trials": 2, "seconds": 60.0, "seed": 1}
    made = search(task, frame, prior=small, **given)  # type: ignore[arg-type]
    assert any(one["inherited"] for one in made.candidates["study"])
    require_grid(made, frame.tail(200))


def test_where_there_is_little_room_networks_of_four_times_the_weights_are_trained(tmp_path: Path) -> None:
    """What is too large as float32 is refused untrained, and tried as int8."""
    torch.set_num_threads(1)
    wishes = {NAME: {"only": ["float32", INT8]}, "width": {"fixed": 128}, "depth": {"fixed": 2}}
    bundle = searched(tmp_path, trials=3, constraints={"size_mb": 0.15}, strategy="random", choices=wishes)
    results, trials = results_in(tmp_path)
    assert {one.candidate.choices[NAME] for one in results} == {INT8}
    assert all(4e-6 * one.parameters > 0.9 * 0.15 / 4 for one in results)
    refused = [one.user_attrs[INFEASIBLE]["key"] for one in trials if INFEASIBLE in one.user_attrs]
    assert any('"weight_type":"float32"' in one for one in refused)
    assert bundle.model.stat().st_size / 1e6 <= 0.15


def test_a_candidate_of_before_is_float32() -> None:
    plain = SearchSpace.of(("mlp",), 96, 3, "binary").sample(np.random.default_rng(0))
    assert not build(Candidate(family="mlp", choices=plain.choices), 5, (), 2).int8
