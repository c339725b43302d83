"""Defaults that work: the first trials of every cold search, small and cheap ones first, unlike one another.

Drawn from what is published for networks on tables: widths, dropout, label smoothing and robust scaling of RealMLP's
tuned defaults (Holzmueller et al. 2024), batch-normalised and ELU perceptrons of AutoGluon's portfolios, small ResNets
(Gorishniy et al. 2021), piecewise-linear and periodic embeddings of numbers (Gorishniy et al. 2022). A portfolio of
three is worth some dozens to hundreds of random evaluations on tables of the kind it was learnt on. The two perceptrons
with piecewise numbers were chosen on months of the demo's flights that its headline does not count, and on the first
part of five other tables (see `benchmarks/LOG.md`). Those for images shift them a little and flip them only once: what
faces left may be something else.
"""

from __future__ import annotations

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.space import SearchSpace

DEFAULTS: dict[str, Choice] = {
    "scaling": "robust",
    "optimizer": "adamw",
    "adamw_rate": 2e-3,
    "sgd_rate": 0.05,
    "momentum": 0.9,
    "schedule": "cosine",
    "weight_decay": 1e-2,
    "batch_size": 0,  # snapped to the smallest of the space
    "epochs": 1,  # snapped to the shortest of the space
    "label_smoothing": 0.0,
    "class_weights": "none",
    "depth": 2,
    "width": 128,
    "expansion": 1.5,
    "activation": "relu",
    "normalisation": "batch",
    "dropout": 0.15,
    "residual_dropout": 0.0,
    "category_cap": 8,
    "numeric_embedding": "none",
    "frequencies": 16,
    "sigma": 0.1,
    "pieces": 16,
    "stem_width": 16,
    "blocks": 1,
    "coarse": True,
    "squeeze": False,
    "flip": 0.0,
    "crop": 0.0,
    "cutout": 0.0,
    "noise": 0.0,
    "mixup": 0.0,
    "feature_dropout": 0.0,
}
"""A value for every dimension, for candidates that lack one."""

_LONG = 1_000_000
_LARGE = 1_000_000
_PLAIN: dict[str, Choice] = {"depth": 1, "width": 256, "normalisation": "none"}

_VARIATIONS: tuple[tuple[str, dict[str, Choice]], ...] = (
    ("mlp", {"depth": 2, "width": 128, "numeric_embedding": "piecewise", "dropout": 0.5}),
    ("mlp", {"depth": 2, "width": 128, "numeric_embedding": "periodic", "label_smoothing": 0.05}),
    ("mlp", {**_PLAIN, "numeric_embedding": "piecewise", "scaling": "quantile", "dropout": 0.3, "adamw_rate": 5e-3}),
    ("resnet", {"depth": 2, "width": 64, "adamw_rate": 1e-3, "dropout": 0.3}),
    ("mlp", {**_PLAIN, "dropout": 0.4, "weight_decay": 0.1}),
    ("mlp", {"depth": 3, "width": 128, "activation": "elu", "adamw_rate": 5e-3, "batch_size": _LARGE}),
    ("mlp", {"depth": 3, "width": 256, "adamw_rate": 1e-3, "dropout": 0.2, "epochs": _LONG}),
    ("resnet", {"numeric_embedding": "periodic", "normalisation": "layer", "scaling": "quantile", "epochs": _LONG}),
    ("convnet", {"crop": 0.125, "adamw_rate": 5e-3, "batch_size": _LARGE}),
    ("convnet", {"stem_width": 32, "crop": 0.06, "adamw_rate": 5e-3, "batch_size": _LARGE, "epochs": _LONG}),
    ("convnet", {"flip": 0.5, "crop": 0.125, "adamw_rate": 5e-3, "batch_size": _LARGE, "epochs": _LONG}),
    (
        "convnet",
        {"stem_width": 24, "coarse": False, "squeeze": True, "crop": 0.125, "cutout": 0.25, "batch_size": _LARGE},
    ),
)


def portfolio(space: SearchSpace) -> list[Candidate]:
    """The defaults that fit a space, in the order to try them."""
    fitted = (space.fit(Candidate(family=family, choices=own), DEFAULTS) for family, own in _VARIATIONS)
    return [candidate for candidate in fitted if candidate is not None]
