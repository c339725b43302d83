"""The training loop: it learns, is repeatable, keeps the best epoch and ends in good order."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from registry.metrics import Problem, auc
from retrain.augmentation import Augmentation
from retrain.families.base import Candidate, TabularNet
from retrain.families.catalogue import family_named
from retrain.losses import class_weights, regression_loss
from retrain.pausing import Paused
from retrain.search.defaults import DEFAULTS
from retrain.search.space import SearchSpace
from retrain.training import (
    DivergedError,
    Loop,
    Outputs,
    Recipe,
    Rows,
    Trained,
    batches,
    evaluate,
    load_state,
    rate_factor,
    train,
)

RECIPE = Recipe(epochs=6, batch_size=32, rate=5e-3)


def make_rows(n: int, problem: Problem, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    numeric = torch.randn(n, 3, generator=generator)
    categories = torch.randint(2, 5, (n, 1), generator=generator)
    signal = numeric[:, 0] + (categories[:, 0] == 3).float() + 0.3 * torch.randn(n, generator=generator)
    labels = {
        "binary": (signal > 0.3).long(),
        "multiclass": torch.bucketize(signal, torch.tensor([-0.3, 0.8])),
        "regression": (signal - signal.mean()) / signal.std(),
    }
    return Rows(numeric, categories, labels[problem])


def make_network(d_out: int, seed: int = 0, **more: object) -> TabularNet:
    space = SearchSpace.of(("mlp",), 300, 9, "binary")
    candidate = space.fit(Candidate(family="mlp", choices={"width": 64, "depth": 2, "dropout": 0.1, **more}), DEFAULTS)
    assert candidate is not None
    torch.manual_seed(seed)
    return family_named("mlp").build(candidate, 3, (5,), d_out)


def scored(problem: Problem, rows: Rows) -> tuple[Callable[[Outputs], float], bool]:
    labels = rows.labels.numpy()
    if problem == "regression":
        return lambda outputs: float(np.sqrt(np.mean((outputs[:, 0] - labels) ** 2))), False
    return lambda outputs: auc(labels, torch.softmax(torch.from_numpy(outputs).double(), 1).numpy()), True


def run(
    problem: Problem = "binary", recipe: Recipe = RECIPE, seed: int = 0, normalisation: str = "batch", **more: object
) -> Trained:
    d_out = {"binary": 2, "multiclass": 3, "regression": 2}[problem]
    validation = make_rows(200, problem, 1)
    score, greater = scored(problem, validation)
    given = {"score": score, "greater_is_better": greater, "seed": seed, **more}
    network = make_network(d_out, normalisation=normalisation)
    return train(network, make_rows(600, problem), validation, recipe, problem=problem, **given)


@pytest.mark.parametrize(("problem", "good"), [("binary", 0.95), ("multiclass", 0.9), ("regression", 0.6)])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_learns(problem: Problem, good: float, optimizer: str) -> None:
    recipe = replace(RECIPE, epochs=12, optimizer=optimizer, rate=0.05 if optimizer == "sgd" else 5e-3)
    trained = run(problem, recipe)
    assert trained.score < good if problem == "regression" else trained.score > good


def test_is_the_same_by_seed() -> None:
    one, two, other = run(seed=1), run(seed=1), run(seed=2)
    assert one.history == two.history != other.history
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_gives_back_the_best_epoch() -> None:
    scores = iter([0.5, 0.9, 0.6, 0.7])
    trained = run(recipe=replace(RECIPE, epochs=4), score=lambda outputs: next(scores))
    assert (trained.score, trained.best_epoch, trained.ending) == (0.9, 2, "finished")
    network = load_state(make_network(2, seed=5), trained.state)
    np.testing.assert_array_equal(evaluate(network, make_rows(200, "binary", 1)), trained.outputs)


def test_stops_when_nothing_improves() -> None:
    trained = run(recipe=replace(RECIPE, epochs=20, patience=2), score=lambda outputs: 0.5)
    assert (trained.ending, len(trained.history)) == ("patience", 3)


def test_stops_when_told() -> None:
    seen: list[tuple[int, float]] = []
    trained = run(report=lambda epoch, score: bool(seen.append((epoch, score))) or epoch == 2)
    assert (trained.ending, [epoch for epoch, _ in seen]) == ("stopped", [1, 2])


@pytest.mark.parametrize("problem", ["multiclass", "regression"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("mixup", "normalisation"), [(0.0, "layer"), (0.4, "batch")])
def test_what_paused_goes_on_as_if_it_never_had(
    problem: Problem, optimizer: str, mixup: float, normalisation: str, tmp_path: Path
) -> None:
    """To the last bit, though twice put on disk: order of batches, draws of dropout and mixup, the falling rate."""
    recipe = replace(RECIPE, optimizer=optimizer, augmentation=Augmentation(mixup=mixup))
    given = {"problem": problem, "recipe": recipe, "normalisation": normalisation, "seed": 3}
    whole = run(**given)
    file, trained = tmp_path / "paused.safetensors", None
    for stop in (2, 3, 6):
        torch.manual_seed(stop)  # another process, which has drawn other numbers
        paused = Paused.read(str(file)) if trained else None
        trained = run(**given, report=lambda epoch, _, stop=stop: epoch == stop, pausing=True, paused=paused)
        assert (trained.ending, len(trained.history)) == ("stopped", stop)
        file.write_bytes(trained.paused.bytes())
    assert (trained.history, trained.score, trained.best_epoch) == (whole.history, whole.score, whole.best_epoch)
    np.testing.assert_array_equal(trained.outputs, whole.outputs)
    assert all(torch.equal(trained.state[name], value) for name, value in whole.state.items())


def test_a_pause_after_the_best_epoch_remembers_it() -> None:
    """And its patience runs on: the best was the first, of three that pass without a better one."""
    scores = iter([0.9, 0.5, 0.6, 0.7, 0.8])
    recipe, given = replace(RECIPE, patience=3), {"score": lambda outputs: next(scores)}
    first = run(recipe=recipe, report=lambda epoch, _: epoch == 2, pausing=True, **given)
    last = run(recipe=recipe, paused=first.paused, **given)
    assert (last.score, last.best_epoch, last.ending, len(last.history)) == (0.9, 1, "patience", 4)
    assert all(torch.equal(first.state[name], value) for name, value in last.state.items())


def test_only_a_stopped_training_pauses_and_only_if_asked() -> None:
    assert run(pausing=True).paused is None
    assert run(report=lambda epoch, _: epoch == 2).paused is None


def test_keeps_what_it_has_at_the_deadline() -> None:
    begin = time.monotonic()
    trained = run(recipe=replace(RECIPE, epochs=100_000, patience=100_000), deadline=begin + 1.0)
    assert trained.ending == "deadline"
    assert time.monotonic() - begin < 3.0
    assert len(trained.history) >= 1


def test_the_rate_has_fallen_when_a_deadline_cuts_the_first_epoch_short() -> None:
    """Two million rows and half a second: the last steps are small ones all the same."""
    rates: list[float] = []
    many = make_rows(200, "binary").take(torch.arange(200).repeat(10_000))
    loop = Loop(make_network(2), many, RECIPE, "binary", 0)
    loop.optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    complete, finite = loop.epoch(time.monotonic() + 0.5)
    assert (complete, finite) == (False, True)
    assert loop.step < loop.planned / 10
    assert rates[-1] < 0.1 * max(rates)


def test_a_deadline_within_the_first_epoch_still_gives_a_model() -> None:
    trained = run(deadline=time.monotonic())
    assert (trained.ending, trained.best_epoch) == ("deadline", 1)


def test_divergence_is_an_error_of_its_own() -> None:
    with pytest.raises(DivergedError, match="no epoch"):
        run(recipe=replace(RECIPE, optimizer="sgd", rate=1e12, momentum=0.9))


def test_a_late_divergence_keeps_the_best_epoch() -> None:
    scores = iter([0.5, math.nan])
    trained = run(score=lambda outputs: next(scores))
    assert (trained.ending, trained.best_epoch) == ("diverged", 1)


def test_batches_cover_each_row_once() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat(list(batches(100, 25, generator)))
    assert sorted(seen.tolist()) == list(range(100))
    assert [len(batch) for batch in batches(100, 30, generator)] == [30, 30, 30]
    assert [len(batch) for batch in batches(10, 30, generator)] == [10]


@pytest.mark.parametrize("schedule", ["cosine", "flat-cosine", "constant"])
def test_schedules_warm_up_and_stay_within_bounds(schedule: str) -> None:
    factors = [rate_factor(schedule, step / 200) for step in range(220)]
    assert factors[0] < 0.1
    assert max(factors) <= 1.0
    assert min(factors) >= 0.0
    assert factors[199] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-3)


def test_class_weights_make_classes_weigh_alike() -> None:
    labels = torch.tensor([0] * 9 + [1])
    weights = class_weights(labels)
    assert weights[0] * 9 == pytest.approx(float(weights[1]))


def test_class_weights_leave_probabilities_true() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(4_000, generator=generator) < 0.1).long()
    rows = Rows(torch.randn(4_000, 3, generator=generator), torch.full((4_000, 1), 2), labels)
    recipe = Recipe(epochs=2, batch_size=100, rate=5e-3, balanced=True)
    score, greater = scored("binary", rows)
    trained = train(
        make_network(2), rows, rows, recipe, problem="binary", score=score, greater_is_better=greater, seed=0
    )
    positive = torch.softmax(torch.from_numpy(trained.outputs), 1)[:, 1]
    assert float(positive.mean()) == pytest.approx(float(labels.float().mean()), abs=0.03)


def test_the_scale_learns_from_the_residual_and_not_the_mean() -> None:
    outputs = nn.Parameter(torch.tensor([[0.0, 0.0]]))
    regression_loss(outputs, torch.tensor([2.0])).backward()
    assert outputs.grad is not None
    assert outputs.grad[0].tolist() == pytest.approx([-4.0, 1.0 - 4.0])


def test_a_worker_starts_without_libraries_that_it_does_not_use() -> None:
    """Fabric would load torchmetrics, and with it SciPy's statistics and matplotlib, to compare a version."""
    code = (
        "import sys, importlib.util\n"
        "import retrain.search.worker\n"
        "from retrain.training import make_fabric\n"
        "make_fabric()\n"
        "heavy = {'torchmetrics', 'scipy.stats', 'scipy.signal', 'matplotlib', 'sklearn', 'mlflow', 'prefect'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert importlib.util.find_spec('torchmetrics')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
