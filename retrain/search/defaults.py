"""A value for every dimension of every space: what candidates take that lack one, as those of other tasks do."""

from __future__ import annotations

from retrain.families.parameters import KEPT, WEIGHT_TYPE, Choice

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
    "jitter": 0.0,
    "swap_noise": 0.0,
    "feature_dropout": 0.0,
    "augmented": 1.0,
    KEPT: 1.0,
    WEIGHT_TYPE.name: "float32",
}
"""A value for every dimension, for candidates that lack one."""
