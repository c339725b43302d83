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

from collections.abc import Callable, Sequence

import numpy as np

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.defaults import DEFAULTS
from retrain.search.plan import Origin
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import Strategy
from retrain.search.taught import Taught, first
from retrain.search.warm import ENOUGH, interleave

_LONG = 1_000_000
_LARGE = 1_000_000
_PLAIN: dict[str, Choice] = {"depth": 1, "width": 256, "normalisation": "none"}
_SMALL: dict[str, Choice] = {"width": 64, "numeric_embedding": "piecewise", "dropout": 0.3}
_OF_IMAGES: dict[str, Choice] = {
    "cells": 1,
    "width": 16,
    "kind_1": "residual",
    "kind_2": "residual",
    **{f"width_{place}": 16 for place in range(1, 7)},
}
"""What the entries of architectures have for images: a width that is small for columns is their largest."""

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
    small = _OF_IMAGES if space.reads == "image" else {}
    fitted = (space.adapt(Candidate(family=family, choices={**own, **small}), DEFAULTS) for family, own in _VARIATIONS)
    return list({candidate.key: candidate for candidate in fitted if candidate is not None}.values())


def opening(
    defaults: Sequence[Candidate], taught: Taught | None, draw: Callable[[], Candidate]
) -> list[tuple[Candidate, Origin]]:
    """What a cold search begins with, and where that comes from: the defaults. Where former studies teach something,
    the candidates that they would try first, in turn with the defaults, which are the guard, and with some at random
    where there are fewer defaults than a guard needs."""
    if taught is None:
        return [(one, "portfolio") for one in defaults]
    handed = first(taught, ENOUGH)
    fresh = [one for one in defaults if one not in handed]
    fresh += [draw() for _ in range(ENOUGH - len(fresh))]
    marked: list[tuple[Candidate, Origin]] = [(one, "prior") for one in handed]
    own: list[tuple[Candidate, Origin]] = [(one, "fresh") for one in fresh]
    return [*marked[:1], *interleave(marked[1:], own)]


def weighted_draws(space: SearchSpace, strategy: type[Strategy], seed: int) -> list[Candidate]:
    """The candidates by a user's weights that a strategy begins with after the portfolio; none without weights."""
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(strategy.drawn_by_weight if space.weighted else 0)]
