"""The families there are: one tuple, names derived. A new family is one file and one entry here."""

from __future__ import annotations

from registry.errors import TaskError, unknown
from retrain.families.base import Family
from retrain.families.cell import Cells
from retrain.families.chain import Chains
from retrain.families.darts import Darts
from retrain.families.graph import Graphs
from retrain.families.hierarchical import Hierarchies
from retrain.families.mlp import Mlp
from retrain.families.resnet import ResNets

FAMILIES: tuple[Family, ...] = (Mlp(), ResNets(), Chains(), Cells(), Darts(), Graphs(), Hierarchies())


def family_named(name: str) -> Family:
    """The family of a name. Raises `TaskError` that names the known ones."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise TaskError(unknown("family", name, [family.name for family in FAMILIES]))
