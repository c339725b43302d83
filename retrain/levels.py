"""The level of a classifier's answers: how probable it says each class is on average, against how frequent it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from registry.metrics import Array, Labels
from retrain.batches import Rows
from retrain.training import Outputs, Trained, copied, evaluate, load_state

if TYPE_CHECKING:
    from retrain.families.base import Network

ROWS = 8_192
"""Rows that level a network at most, evenly spread: a temperature and a bias need no more."""
STEPS = 8
TINY = 1e-12


def class_shares(labels: Labels, k: int) -> Array:
    """The classes' shares (k,); half a row for one that is not there."""
    counts = np.maximum(np.bincount(labels.astype(np.int64), minlength=k), 0.5)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def fit_biases(outputs: Array, labels: Labels) -> Array:
    """The biases (k,) with which one network's mean probabilities, over rows (n, k), are the classes' shares there: the
    maximum of the likelihood over biases alone (King & Zeng 2001). A fixed point, approached from one side."""
    shares, bias = class_shares(labels, outputs.shape[1]), np.zeros(outputs.shape[1])
    for _ in range(STEPS):
        moved = outputs + bias
        each = np.exp(moved - moved.max(axis=1, keepdims=True))
        each /= each.sum(axis=1, keepdims=True)
        bias += np.log(shares / np.maximum(each.mean(axis=0), TINY))
    return bias


def levelled(trained: Trained, network: Network, training: Rows, score: Callable[[Outputs], float]) -> Trained:
    """A training with its outputs at the level of its training rows. An epoch chosen for its order of the rows (by AUC,
    say) may be an early one, whose probabilities are anywhere; in a converged network nothing moves."""
    drawn = training.take(torch.arange(0, len(training), math.ceil(len(training) / ROWS)))
    load_state(network, trained.state)
    biases = fit_biases(evaluate(network, drawn).astype(np.float64), drawn.labels.numpy())
    network.level(1.0, torch.from_numpy(biases))
    outputs = (trained.outputs + biases).astype(np.float32)
    return replace(trained, state=copied(network), outputs=outputs, score=score(outputs))
