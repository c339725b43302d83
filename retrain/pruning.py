"""Networks that are trained with all of their hidden units, lose the least important, and are trained on for a while.

A unit's importance is by how much the loss would change without it, to first order: the square of the gradient's
component along the weights that read it, on average over batches of training rows (Molchanov et al. 2019, "Importance
Estimation for Neural Network Pruning", eq. 8, with a gate on each unit). Every layer loses the same share, so that the
shapes of a pruned network follow from its candidate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from registry.metrics import Problem
from retrain.batches import Rows, batches
from retrain.families.grid import snapped
from retrain.families.hidden import hidden_units, prune
from retrain.losses import Loss, make_loss
from retrain.pausing import Paused
from retrain.training import Outputs, Recipe, Trained, copied, evaluate, load_state, train

TUNED = 1 / 3
"""The share of the epochs, and of the time, that follows the pruning."""
RATE = 0.5
"""The learning rate then, beside that of before."""
MOST_BATCHES = 16


def train_and_prune(
    network: nn.Module,
    share: float,
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    *,
    problem: Problem,
    score: Callable[[Outputs], float],
    greater_is_better: bool,
    seed: int,
    deadline: float = math.inf,
    report: Callable[[int, float], bool] = lambda epoch, score: False,
    pausing: bool = False,
    paused: Paused | None = None,
) -> Trained:
    """As `training.train`, of a network that keeps `share` of its hidden units: it is pruned in place, and what is
    given back is the pruned one's. The recipe's epochs are those of both trainings together, of which each has one at
    least: of a recipe of one epoch they take two. Only the first can be stopped, and what is stopped is pruned and not
    trained on. The first is to leave a third of the time; the pruning is not interrupted, and where it has met the
    deadline the second ends, past it, after a step and a judgement."""
    tuned = max(1, round(TUNED * recipe.epochs))
    wide = replace(recipe, epochs=max(1, recipe.epochs - tuned))
    now = time.monotonic()
    first = train(
        network,
        training,
        validation,
        wide,
        problem=problem,
        score=score,
        greater_is_better=greater_is_better,
        seed=seed,
        deadline=now + (1 - TUNED) * (deadline - now),
        report=report,
        pausing=pausing,
        paused=paused,
    )
    load_state(network, first.state)
    loss = make_loss(problem, training.labels, label_smoothing=recipe.label_smoothing, balanced=recipe.balanced)
    prune(network, share, importances(network, training, loss, recipe.batch_size, seed))
    if first.ending == "stopped":
        kept = snapped(network)
        outputs = evaluate(kept, validation)
        return replace(first, state=copied(kept), outputs=outputs, score=score(outputs))
    second = train(
        network,
        training,
        validation,
        replace(recipe, epochs=tuned, patience=tuned, rate=RATE * recipe.rate),
        problem=problem,
        score=score,
        greater_is_better=greater_is_better,
        seed=seed,
        deadline=deadline,
    )
    epochs = len(first.history)
    return replace(second, best_epoch=epochs + second.best_epoch, history=first.history + second.history)


def importances(network: nn.Module, rows: Rows, loss: Loss, batch_size: int, seed: int) -> list[Tensor]:
    """The importance (units,) of the hidden units of each layer, over at most `MOST_BATCHES` batches of the rows."""
    found = hidden_units(network.eval())
    totals = [torch.zeros(one.count) for one in found]
    generator = torch.Generator().manual_seed(seed)
    for _, index in zip(range(MOST_BATCHES), batches(len(rows), batch_size, generator), strict=False):
        drawn = rows.take(index)
        gradients = torch.autograd.grad(
            loss(network(*drawn.inputs), drawn.labels), [one.reader.weight for one in found], allow_unused=True
        )
        for total, one, gradient in zip(totals, found, gradients, strict=True):
            if gradient is not None:
                total += (gradient * one.reader.weight.detach()).transpose(0, 1).flatten(1).sum(dim=1).square()
    return totals
