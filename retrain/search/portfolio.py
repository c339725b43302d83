"""Defaults that work: the first trials of every cold search, small and cheap ones first, unlike one another.

Drawn from what is published for networks on tables: widths, dropout, label smoothing and robust scaling of RealMLP's
tuned defaults (Holzmueller et al. 2024), batch-normalised and ELU perceptrons of AutoGluon's portfolios, small ResNets
(Gorishniy et al. 2021), piecewise-linear and periodic embeddings of numbers (Gorishniy et al. 2022). A portfolio of
three is worth some dozens to hundreds of random evaluations on tables of the kind it was learnt on. The two perceptrons
with piecewise numbers were chosen on months of the demo's flights that its headline does not count, and on the first
part of five other tables (see `benchmarks/LOG.md`). Those for images shift them a little and flip them only once: what
faces left may be something else.

The spaces of architectures have one entry each: a small network of the kind that is known to work.
"""

from __future__ import annotations

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.space import SearchSpace

_CHAIN: dict[str, Choice] = {
    "length": 2,
    **{f"kind_{place}": "residual" for place in range(1, 7)},
    **{f"width_{place}": 128 for place in range(1, 7)},
    **{f"activation_{place}": "relu" for place in range(1, 7)},
}
"""Residual layers, which all modalities have."""

_CELL: dict[str, Choice] = {
    "edge_0_1": "wide",
    "edge_0_2": "none",
    "edge_1_2": "narrow",
    "edge_0_3": "skip",
    "edge_1_3": "skip",
    "edge_2_3": "skip",
}
"""Two operations with skip connections around them: near to the best of NAS-Bench-201."""

_DARTS: dict[str, Choice] = {
    f"{kind}_{name}": value
    for kind in ("normal", "reduction")
    for name, value in {
        "2_first": "skip",
        "2_second": "wide",
        "3_inputs": "0,2",
        "3_first": "narrow",
        "3_second": "skip",
        "4_inputs": "1,2",
        "4_first": "skip",
        "4_second": "narrow",
    }.items()
}

_GRAPH: dict[str, Choice] = {
    **{f"link_{i}_{j}": j == i + 1 or (i, j) in ((1, 3), (3, 5)) for j in range(2, 6) for i in range(1, j)},
    **{f"node_{node}": "wide" if node in (2, 4) else "narrow" for node in range(1, 6)},
}
"""A chain of five with a skip connection around every second node."""

_HIERARCHY: dict[str, Choice] = {
    **dict.fromkeys(("motif_a_0_1", "motif_b_0_1"), "wide"),
    **dict.fromkeys(("motif_a_1_2", "motif_b_0_2", "motif_c_0_2"), "skip"),
    **dict.fromkeys(("motif_a_0_2", "motif_b_1_2", "motif_c_0_1"), "narrow"),
    "motif_c_1_2": "none",
    "join_0_1": "a",
    "join_0_2": "none",
    "join_1_2": "b",
    "join_0_3": "skip",
    "join_1_3": "none",
    "join_2_3": "skip",
}

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
    "cells": 1,
    **_CHAIN,
    **_CELL,
    **_DARTS,
    **_GRAPH,
    **_HIERARCHY,
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
_SMALL: dict[str, Choice] = {"width": 64, "numeric_embedding": "piecewise", "dropout": 0.3}

_VARIATIONS: tuple[tuple[str, dict[str, Choice]], ...] = (
    ("mlp", {"depth": 2, "width": 128, "numeric_embedding": "piecewise", "dropout": 0.5}),
    ("mlp", {"depth": 2, "width": 128, "numeric_embedding": "periodic", "label_smoothing": 0.05}),
    ("mlp", {**_PLAIN, "numeric_embedding": "piecewise", "scaling": "quantile", "dropout": 0.3, "adamw_rate": 5e-3}),
    ("resnet", {"depth": 2, "width": 64, "adamw_rate": 1e-3, "dropout": 0.3}),
    ("mlp", {**_PLAIN, "dropout": 0.4, "weight_decay": 0.1}),
    ("mlp", {"depth": 3, "width": 128, "activation": "elu", "adamw_rate": 5e-3, "batch_size": _LARGE}),
    ("mlp", {"depth": 3, "width": 256, "adamw_rate": 1e-3, "dropout": 0.2, "epochs": _LONG}),
    ("resnet", {"numeric_embedding": "periodic", "normalisation": "layer", "scaling": "quantile", "epochs": _LONG}),
    ("chain", {"kind_1": "linear", "kind_2": "gated", **_SMALL}),
    ("cell", {"cells": 2, **_SMALL}),
    *((family, _SMALL) for family in ("darts", "graph", "hierarchical")),
    ("convnet", {"crop": 0.125, "adamw_rate": 5e-3, "batch_size": _LARGE}),
    ("convnet", {"stem_width": 32, "crop": 0.06, "adamw_rate": 5e-3, "batch_size": _LARGE, "epochs": _LONG}),
    ("convnet", {"flip": 0.5, "crop": 0.125, "adamw_rate": 5e-3, "batch_size": _LARGE, "epochs": _LONG}),
    (
        "convnet",
        {"stem_width": 24, "coarse": False, "squeeze": True, "crop": 0.125, "cutout": 0.25, "batch_size": _LARGE},
    ),
)


def portfolio(space: SearchSpace) -> list[Candidate]:
    """The defaults that fit a space, in the order to try them. What the user's choices rule out of one is replaced;
    defaults that become alike by it are one."""
    fitted = (space.adapt(Candidate(family=family, choices=own), DEFAULTS) for family, own in _VARIATIONS)
    return list({candidate.key: candidate for candidate in fitted if candidate is not None}.values())
