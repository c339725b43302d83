"""A Gaussian process that begins with what former studies teach."""

from __future__ import annotations

from typing import ClassVar

from retrain.search.strategies.guided import GaussianGuided


class Tapas(GaussianGuided):
    """Chooses as `gp` does, and what the registry's studies of other tasks teach is the process's prior; without such
    studies it is `gp`."""

    name: ClassVar[str] = "tapas"
    paper: ClassVar[str] = "after Istrate et al. 2019 and Wang et al. 2021"
    learns_from_others: ClassVar[bool] = True
