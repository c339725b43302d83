"""The families there are: one tuple, names derived. A new family is one file and one entry here."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import TaskError, unknown
from registry.task import IMAGE_FAMILIES, Search
from retrain.families.base import Candidate, Family, Network, Reads
from retrain.families.cell import Cells
from retrain.families.chain import Chains
from retrain.families.convnet import ConvNets
from retrain.families.darts import Darts
from retrain.families.graph import Graphs
from retrain.families.hidden import kept_share, prune
from retrain.families.hierarchical import Hierarchies
from retrain.families.mlp import Mlp
from retrain.families.parameters import is_int8
from retrain.families.picture import PictureFamily
from retrain.families.resnet import ResNets
from retrain.image_source import ImageInput

FAMILIES: tuple[Family, ...] = (
    Mlp(),
    ResNets(),
    Chains(),
    Cells(),
    Darts(),
    Graphs(),
    Hierarchies(),
    ConvNets(),
)


def family_named(name: str) -> Family:
    """The family of a name. Raises `TaskError` that names the known ones."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise TaskError(unknown("family", name, [family.name for family in FAMILIES]))


def families_for(names: Sequence[str], reads: Reads) -> tuple[str, ...]:
    """The families to search for a task that reads columns, or an image. The defaults, which are for columns, give way
    to those for images. Raises `TaskError` for one that does not fit."""
    if reads == "image" and tuple(names) == Search().families:
        return IMAGE_FAMILIES
    for name in names:
        if reads not in family_named(name).reads:
            fitting = ", ".join(one.name for one in FAMILIES if reads in one.reads)
            wrong = "reads no images, and the task has a column of them"
            if reads == "table":
                wrong = "reads images, and the task has no column of them"
            raise TaskError(f"search.families: {name!r} {wrong}; expected some of {fitting}")
    return tuple(names)


def build(
    candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int, image: ImageInput | None = None
) -> Network:
    """The untrained network of a candidate, for these columns and such images, with the share of its hidden units that
    it keeps, and the type of weights."""
    family = family_named(candidate.family)
    if image is None:
        network: Network = family.build(candidate, d_numeric, cardinalities, d_out)
    elif isinstance(family, PictureFamily):
        network = family.build_for(candidate, image, d_numeric, cardinalities, d_out)
    else:
        raise TaskError(f"family {family.name!r} reads columns alone, and the task has a column of images")
    if (share := kept_share(candidate.choices)) < 1:
        prune(network, share)
    network.int8 = is_int8(candidate.choices)
    return network
