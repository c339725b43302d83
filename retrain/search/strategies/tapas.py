"""A Gaussian process that begins with what former studies teach."""

from __future__ import annotations

from typing import ClassVar

from retrain.search.strategies.guided import GaussianGuided


class Tapas(GaussianGuided):
    """Chooses as `gp` does; what the registry's studies of other tasks teach, where there are any, is the prior."""

    name: ClassVar[str] = "tapas"
    paper: ClassVar[str] = "after Istrate et al. 2019 and Wang et al. 2024"
    learns_from_others: ClassVar[bool] = True
