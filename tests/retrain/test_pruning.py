"""Networks that lose hidden units: which ones, what is left of their answers, and whole searches that ask for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import optuna
import pytest
import torch
from torch import nn

from registry.bundle import MODEL
from registry.choices import Preference
from registry.errors import TaskError
from retrain.batches import Rows
from retrain.export import write_model
from retrain.families.base import Candidate, Network, Reads
from retrain.families.catalogue import FAMILIES, build
from retrain.families.cost import flops, parameters
from retrain.families.hidden import hidden_units, kept_share, prune, unpruned
from retrain.families.parameters import KEPT
from retrain.image_source import ImageInput
from retrain.losses import make_loss
from retrain.pruning import importances, train_and_prune
from retrain.search import plan as plans
from retrain.search.asking import PARENT
from retrain.search.budget import Budget
from retrain.search.closing import assemble, calibrate
from retrain.search.heritage import Elders
from retrain.search.inputs import Layout
from retrain.search.material import gather
from retrain.search.morphism import akin, distance
from retrain.search.portfolio import portfolio
from retrain.search.progress import silent
from retrain.search.session import Session, require_means
from retrain.search.space import SearchSpace
from retrain.search.warm import inherit
from retrain.search.worker import Worker
from retrain.training import Recipe, evaluate
from tests.handmade import make_frame, make_task

IMAGES = ImageInput(size=8, channels=1, mean=(100.0,), std=(50.0,))
ASKED = {KEPT: Preference(only=(1.0, 0.5))}
LOSS = make_loss("multiclass", torch.zeros(1), label_smoothing=0.0, balanced=False)
KINDS: tuple[tuple[str, Reads], ...] = tuple(
    (family.name, reads) for family in FAMILIES for reads in sorted(family.reads) if family.hidden
)


def rows(reads: Reads, n: int = 96) -> Rows:
    generator = torch.Generator().manual_seed(0)
    numeric, labels = torch.randn(n, 5, generator=generator), torch.arange(n) % 3
    numeric[:, 0] += labels
    if reads == "table":
        return Rows(numeric, torch.randint(0, 4, (n, 2), generator=generator), labels)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Rows(torch.zeros(n, 0), torch.zeros(n, 0, dtype=torch.int64), labels, pixels)


def network_of(candidate: Candidate, reads: Reads) -> Network:
    torch.manual_seed(0)
    columns = (5, (4, 6)) if reads == "table" else (0, ())
    return build(candidate, *columns, 3, IMAGES if reads == "image" else None)


def drawn(family: str, reads: Reads, kept: float, **fixed: str) -> Candidate:
    wishes = {**ASKED, **{name: Preference(fixed=value) for name, value in fixed.items()}}
    space = SearchSpace.of((family,), 96, 3, "multiclass", reads, wishes)
    candidate = space.sample(np.random.default_rng(1))
    return candidate.model_copy(update={"choices": {**candidate.choices, KEPT: kept}})


def silence(network: nn.Module) -> None:
    """Every second hidden unit dies: what makes it and what carries it give nothing."""
    with torch.no_grad():
        for hidden in hidden_units(network):
            dead = torch.arange(0, hidden.count, 2)
            for part in range(len(hidden.maker.weight) // hidden.count):
                for one in (hidden.maker.weight, hidden.maker.bias):
                    if one is not None:
                        one[dead + part * hidden.count] = 0.0
            for carrier in hidden.carriers:
                for one in carrier.parameters():
                    one[dead] = 0.0


@pytest.mark.parametrize(("family", "reads"), KINDS)
def test_half_of_the_units_is_a_smaller_network_of_the_same_answers_where_the_others_are_dead(
    family: str, reads: Reads
) -> None:
    kinds = {"kind_1": "gated", "kind_2": "separable" if reads == "image" else "residual"} if family == "chain" else {}
    norm = {} if family == "convnet" else {"normalisation": "batch"}
    candidate = drawn(family, reads, 0.5, **kinds, **norm)
    shown = rows(reads)
    whole, narrow = network_of(unpruned(candidate), reads), network_of(candidate, reads)
    assert parameters(narrow) < 0.8 * parameters(whole)
    assert flops(narrow, *shown.inputs) < 0.8 * flops(whole, *shown.inputs)

    silence(whole)
    before = evaluate(whole, shown)
    prune(whole, 0.5, importances(whole, shown, LOSS, 32, seed=0))
    np.testing.assert_allclose(evaluate(whole, shown), before, atol=1e-5)
    narrow.load_state_dict(whole.state_dict())
    np.testing.assert_array_equal(evaluate(narrow, shown), evaluate(whole, shown))


def test_the_least_important_units_are_those_that_the_loss_does_not_miss() -> None:
    shown, network = rows("table"), network_of(drawn("mlp", "table", 1.0, normalisation="none"), "table")

    silence(network)
    for worth in importances(network, shown, LOSS, 32, seed=0):
        assert bool((worth[::2] == 0).all())
        assert float(worth[1::2].mean()) > 0


def test_a_pruned_network_is_trained_on_within_the_same_epochs() -> None:
    shown, candidate = rows("table", 300), drawn("mlp", "table", 0.25, normalisation="batch")
    network, looks = network_of(unpruned(candidate), "table"), []
    found = train_and_prune(
        network, 0.25, shown, shown, Recipe(epochs=9, batch_size=32, rate=5e-3),
        problem="multiclass", score=lambda out: float((out.argmax(axis=1) == shown.labels.numpy()).mean()),
        greater_is_better=True, seed=0, report=lambda epoch, _: bool(looks.append(epoch)),
    )  # fmt: skip
    assert looks == [1, 2, 3, 4, 5, 6]
    assert (len(found.history), found.best_epoch > 6) == (9, True)
    assert found.score > 0.5
    narrow = network_of(candidate, "table")
    narrow.load_state_dict(found.state)
    np.testing.assert_array_equal(evaluate(narrow, shown), found.outputs)
    stopped = train_and_prune(
        network_of(unpruned(candidate), "table"), 0.25, shown, shown, Recipe(epochs=9, batch_size=32),
        problem="multiclass", score=lambda out: float(len(out)), greater_is_better=True, seed=0, pausing=True,
        report=lambda epoch, _: epoch == 2,
    )  # fmt: skip
    narrow.load_state_dict(stopped.state)
    assert (stopped.ending, len(stopped.history), stopped.score) == ("stopped", 2, 300.0)
    assert stopped.paused is not None
    network_of(unpruned(candidate), "table").load_state_dict(stopped.paused.part("network"))


def test_each_training_has_an_epoch_or_a_step_of_it_however_short_the_time() -> None:
    shown, candidate = rows("table"), drawn("mlp", "table", 0.5)
    for deadline, recipe in (
        (time.monotonic() + 60, Recipe(epochs=1, batch_size=32)),
        (time.monotonic(), Recipe(epochs=9, batch_size=32)),
    ):
        found = train_and_prune(
            network_of(unpruned(candidate), "table"), 0.5, shown, shown, recipe, problem="multiclass",
            score=lambda out: float(len(out)), greater_is_better=True, seed=0, deadline=deadline,
        )  # fmt: skip
        assert len(found.history) == 2
        network_of(candidate, "table").load_state_dict(found.state)


def test_weights_go_both_ways_between_a_pruned_network_and_a_whole_one() -> None:
    layout = Layout(numeric=("a", "b", "c", "d", "e"), categorical=(("f", ("0", "1")), ("g", tuple("0123"))))
    small = drawn("resnet", "table", 0.5)
    large = unpruned(small)
    assert akin(small, large)
    assert distance(small, large) > 0
    for one, other in ((small, large), (large, small)):
        state = inherit(network_of(one, "table"), network_of(other, "table").state_dict(), layout, layout, keep=1.0)
        assert state is not None
        network_of(one, "table").load_state_dict(state)


def test_only_who_asks_has_it_in_the_space() -> None:
    plain = SearchSpace.of(("mlp", "cell"), 96, 3, "binary")
    assert all(one.name != KEPT for family in plain.names for _, one in plain.parameters(family))
    asked = SearchSpace.of(("mlp", "cell"), 96, 3, "binary", choices={KEPT: Preference(fixed=0.5)})
    assert {kept_share(one.choices) for one in portfolio(asked) if one.family == "mlp"} == {0.5}
    assert {kept_share(one.choices) for one in portfolio(asked) if one.family == "cell"} == {1.0}
    one = SearchSpace.of(("mlp", "resnet"), 96, 3, "binary", choices={f"mlp.{KEPT}": Preference(fixed=0.5)})
    assert [family for family in one.names if any(own.name == KEPT for _, own in one.parameters(family))] == ["mlp"]
    whole = portfolio(SearchSpace.of(("mlp",), 96, 3, "binary", choices=ASKED))[0]
    assert asked.canonical(unpruned(whole)) != asked.canonical(portfolio(asked)[0])
    with pytest.raises(TaskError, match=r"kept_units: a dimension of mlp, resnet, chain, convnet, not of what is"):
        SearchSpace.of(("cell",), 96, 3, "binary", choices=ASKED)
    with pytest.raises(TaskError, match=r"is one of 1\.0, 0\.75, 0\.5, 0\.25"):
        require_means(make_task("binary", search={"families": ["mlp"], "choices": {KEPT: {"fixed": 0.3}}}))


def test_a_search_that_prunes_goes_on_after_a_kill_and_serves_the_smaller_graph(tmp_path: Path) -> None:
    """`write_model` holds the graph's answers to the test rows against torch's. A child of a pruned network begins with
    all of its units, and with the weights of those that its parent has left."""
    wishes = {KEPT: {"fixed": 0.5}, "mlp.width": {"fixed": 128}, "mlp.depth": {"fixed": 2}}
    means = {"families": ["mlp"], "max_epochs": 3, "ensemble": 1, "stopping": "none", "choices": wishes}
    task, frame = make_task("binary", search=means), make_frame(300)

    def begun() -> Worker:
        session = Session(task, tmp_path, Budget(time.monotonic(), 3, 600.0, 0), None, silent)
        session._ready(material)
        return Worker(tmp_path, 0)

    material = gather(task, frame, ())
    killed = begun()
    first, parent = _asked(killed)
    killed._try(first, parent, time.monotonic())
    trial, candidate = _asked(killed)  # which never ends
    worker = begun()
    child = {**worker.space.params(parent), "weight_decay": 0.25}
    worker.study.enqueue_trial(child, user_attrs={PARENT: first.number})
    worker.plan = worker.plan.model_copy(update={"trials": len(worker.study.trials) - 1})
    worker.run()
    results = plans.read_results(tmp_path)
    assert candidate.key in {one.candidate.key for one in results if one.number != trial.number}
    assert [one.inherited for one in results if one.candidate.number("weight_decay") == 0.25] == [True]

    members = assemble(material, tmp_path, worker.plan, results, Elders())
    calibration = calibrate(material, members, Elders())
    test = frame.iloc[material.parts.test]
    write_model(
        tmp_path / "bundle", members, calibration, material.schema, material.target, test=test, labels=test[task.target]
    )
    graph = onnx.load(tmp_path / "bundle" / MODEL).graph
    sizes = {size for one in graph.initializer for size in one.dims}
    assert sizes & {64, 128} == {64}


def _asked(worker: Worker) -> tuple[optuna.Trial, Candidate]:
    asked = worker._ask()
    assert asked is not None
    return asked
