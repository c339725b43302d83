"""What networks that hold a whole space are made of: decisions, a mixture that says which of their values are on, and
graphs with every operation on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from retrain.families.parameters import Choice, Option, Parameter
from retrain.families.stack import Make
from retrain.families.wiring import NONE, SKIP

Weight: TypeAlias = Tensor | float
Path: TypeAlias = tuple[Choice, ...]
"""A value for each decision, in their order: one architecture of the space."""
Brought: TypeAlias = Mapping[tuple[str, str], Weight]
"""What comes into a node: how much of which operation on which earlier node."""


@dataclass(frozen=True)
class Decision:
    """A dimension in which the paths of a supernet differ, by its name, and its values."""

    name: str
    values: tuple[Choice, ...]

    @classmethod
    def of(cls, parameter: Parameter) -> Decision:
        """All values of a dimension, or the levels of a number."""
        return cls(parameter.name, parameter.values if isinstance(parameter, Option) else parameter.grid())


@dataclass
class Mixture:
    """How much of each value of each decision is on; those that are not named are off, and cost nothing."""

    decisions: tuple[Decision, ...]
    weights: Mapping[str, Mapping[Choice, Weight]] = field(default_factory=dict)

    def one(self, path: Path) -> None:
        """One value a decision: an ordinary network."""
        self.weights = {each.name: {value: 1.0} for each, value in zip(self.decisions, path, strict=True)}

    def steer(self, shares: Sequence[Tensor], *, least: float = 1e-4) -> None:
        """Shares (values,) of each decision; those that are not greater than `least` are off."""
        self.weights = {
            each.name: {value: share[place] for place, value in enumerate(each.values) if share[place] > least}
            for each, share in zip(self.decisions, shares, strict=True)
        }

    def on(self, name: str) -> Mapping[Choice, Weight]:
        """The values of a decision that are on."""
        return self.weights.get(name, {})


@dataclass(frozen=True)
class SharedGraph:
    """A graph with all edges it may have: the earlier nodes that may lead into each node, in topological order, the
    operations they may do so by, and what of it is on."""

    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    into: Mapping[str, tuple[str, ...]]
    operations: tuple[str, ...]
    brought: Callable[[Mixture, str], Brought]


class SharedWired(nn.Module):
    """A graph with a module for every operation on every edge, called as those of an ordinary graph are (see
    `stack.Wired`): one path computes what the ordinary one does."""

    def __init__(self, graph: SharedGraph, mixture: Mixture, make: Make) -> None:
        super().__init__()
        self.graph, self.mixture = graph, mixture
        learnt = [one for one in graph.operations if one not in (NONE, SKIP)]
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}": nn.ModuleDict({operation: make(operation) for operation in learnt})
                for node, sources in graph.into.items()
                for source in sources
            }
        )

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """The sinks' values, given the sources', all of one shape; zeros where nothing leads to one."""
        values: dict[str, Tensor] = dict(zip(self.graph.sources, inputs, strict=True))
        for node in self.graph.into:
            for (source, operation), weight in self.graph.brought(self.mixture, node).items():
                if operation == NONE or source not in values:
                    continue
                brought = weight * self._run(f"{source}_{node}", operation, values[source])
                values[node] = values[node] + brought if node in values else brought
        return [values[sink] if sink in values else torch.zeros_like(inputs[-1]) for sink in self.graph.sinks]

    def _run(self, edge: str, operation: str, x: Tensor) -> Tensor:
        if operation == SKIP:
            return x
        operations = self.edges[edge]
        assert isinstance(operations, nn.ModuleDict)
        out: Tensor = operations[operation](x)
        return out
