"""What a network is given: the columns of a table, laid out as numbers and codes, and images beside them."""

from __future__ import annotations

from registry.schema import Frozen
from retrain.image_source import ImageInput


class Layout(Frozen):
    """What a network's inputs stand for: names of the numeric entries, name and categories of each categorical column
    (codes 2 onwards; 0 is unknown, 1 missing), and the images beside them, if there are any."""

    numeric: tuple[str, ...]
    categorical: tuple[tuple[str, tuple[str, ...]], ...] = ()
    image: ImageInput | None = None

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical column."""
        return tuple(len(categories) + 2 for _, categories in self.categorical)
