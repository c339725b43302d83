"""What training makes small: the losses of the problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from registry.metrics import Problem

LOG_SCALE = (-5.0, 5.0)
"""Bounds of a member's log-scale: training, calibration and the graph clip it alike."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def make_loss(problem: Problem, labels: Tensor, *, label_smoothing: float, balanced: bool) -> Loss:
    """The loss of (outputs (n, d_out), labels (n,)) for a problem; `balanced` lets all classes weigh alike.

    Under class weights 1 / prior, cross-entropy is least at the logits of p / prior. The prior is taken off the outputs
    before it, so that they themselves stay logits of p (King & Zeng 2001; Menon et al. 2021).
    """
    if problem == "regression":
        return regression_loss
    if not balanced:
        return lambda outputs, target: functional.cross_entropy(outputs, target, label_smoothing=label_smoothing)
    weight = class_weights(labels)
    return lambda outputs, target: functional.cross_entropy(
        outputs + weight.log(), target, weight=weight, label_smoothing=label_smoothing
    )


def class_weights(labels: Tensor) -> Tensor:
    """n / (k count), the weights under which all k classes weigh alike. Classes without rows count as one row."""
    counts = torch.bincount(labels).clamp(min=1).float()
    return len(labels) / (len(counts) * counts)


def regression_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Squared error of the mean, plus the Gaussian negative log-likelihood of the log-scale given the residual.

    The residual is detached in the second part, so that the scale learns the noise and never trades the mean for it
    (compare Seitzer et al. 2022, "On the Pitfalls of Heteroscedastic Uncertainty Estimation").
    """
    mean, log_scale = outputs.unbind(1)
    residual = labels - mean
    bounded = log_scale.clamp(*LOG_SCALE)
    return residual.square().mean() + (bounded + 0.5 * (residual.detach() * torch.exp(-bounded)).square()).mean()
