"""What a family of networks is, and a point of the search space.

Every network a family builds takes `numeric` (n, d_numeric) float32 and `categories` (n, c) int64 and gives
(n, d_out) float32: logits for classification; mean and log-scale of the standardised target for regression. Its
operations are plain enough for `torch.onnx.export`, and it names two parts alike in all families, so that weights can
be handed down when columns or categories changed: `inputs` (an `InputEncoder`) and `first`, the linear layer on it. Its
`last` layer is linear too, so that its outputs can be brought to another level.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from registry.errors import TaskError
from registry.schema import Frozen
from retrain.families.drawing import Drawing
from retrain.families.embeddings import InputEncoder
from retrain.families.parameters import KEPT_UNITS, WEIGHT_TYPE, Choice, Parameter

Reads: TypeAlias = Literal["table", "image"]
"""What a family's networks read: columns alone, or an image and whatever columns there are beside it."""

OF_TRAINING = ("dropout", "residual_dropout", "sigma")
"""The dimensions of families that regularise or initialise: they make no other architecture."""


class Candidate(Frozen):
    """One point of the search space: a family and the choices of its network and its training. JSON-able.

    >>> Candidate(family="mlp", choices={"width": 64, "depth": 2}).key
    '{"choices":{"depth":2,"width":64},"family":"mlp"}'
    """

    family: str
    choices: dict[str, Choice]

    @property
    def key(self) -> str:
        """Canonical JSON: equal for equal candidates, whatever the order of the choices."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    def text(self, name: str) -> str:
        """A choice that is a word."""
        return str(self._choice(name))

    def number(self, name: str) -> float:
        """A choice that is a number."""
        return float(self._choice(name))

    def count(self, name: str) -> int:
        """A choice that is a whole number."""
        return int(self._choice(name))

    def _choice(self, name: str) -> Choice:
        if name not in self.choices:
            raise TaskError(f"candidate of family {self.family!r} lacks {name!r}: it has {sorted(self.choices)}")
        return self.choices[name]


def read_candidate(told: dict[str, Any]) -> Candidate | None:
    """A candidate from what was told of it; None when it cannot be read."""
    try:
        return Candidate(family=told["family"], choices=told["choices"])
    except (KeyError, ValidationError):
        return None


class Network(nn.Module, ABC):
    """Base of all families' networks: what a search asks of one, whatever it reads."""

    int8: bool = False
    """Whether its weights are kept and served as int8 (see `grid.py`)."""

    def level_of(self, name: str) -> int | None:
        """Which of the repeated layers behind the first one a parameter of this name is in, in a network of any depth;
        None for all others. They are what tells deep networks from shallow ones of the kind."""
        return None

    def is_part(self, name: str) -> bool:
        """Whether a parameter or buffer of this name belongs to a part (see `Family.parts`) that an akin network may
        have not, or in another shape."""
        return False

    @torch.no_grad()
    def pass_on(self, level: int) -> None:
        """Make that repeated layer give what it gets, as nearly as it can."""

    @property
    @abstractmethod
    def last(self) -> nn.Linear:
        """The linear layer that gives the outputs."""

    @torch.no_grad()
    def level(self, temperature: float, biases: Tensor) -> None:
        """Divide the outputs by a temperature, then add biases (d_out,): for good, in the last layer's weights."""
        self.last.weight /= temperature
        self.last.bias.copy_(self.last.bias / temperature + biases)


class TabularNet(Network):
    """Base of the networks that read columns: the shared input encoder and the first linear layer on it."""

    def __init__(self, inputs: InputEncoder, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.inputs = inputs
        self.first = nn.Linear(inputs.d_out, width, bias=bias)

    def embed(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric) and (n, c) -> (n, width)."""
        hidden: Tensor = self.first(self.inputs(numeric, categories))
        return hidden


class Family(ABC):
    """Builds a network from a candidate and owns the dimensions that describe it.

    A subclass's docstring begins with the sentence that lists of families show; `paper` is where it comes from.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    reads: ClassVar[frozenset[Reads]] = frozenset({"table"})
    hidden: ClassVar[bool] = False
    """Whether its networks have hidden units that can be pruned (see `hidden.py`)."""

    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The dimensions of its architectures."""

    def on_demand(self) -> tuple[Parameter, ...]:
        """The dimensions that a space has only where the user asks for them: networks that are pruned after a while,
        or kept as int8, take the place of others, and are smaller rather than better."""
        return (KEPT_UNITS, WEIGHT_TYPE) if self.hidden else (WEIGHT_TYPE,)

    def parameters_for(self, reads: Reads) -> tuple[Parameter, ...]:
        """The dimensions of its architectures for tasks of this kind; most families read one kind only."""
        return self.parameters()

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """The same network in the one way it is written: equal for choices that describe isomorphic networks. Choices
        of dimensions that do not exist beside the others are left out."""
        conditions = {one.name: one.when for one in self.parameters()}
        return {
            name: one for name, one in choices.items() if (when := conditions.get(name)) is None or when.holds(choices)
        }

    def parts(self, choices: Mapping[str, Choice]) -> dict[str, str]:
        """What a network is put together from, by place: the operations that may differ between akin networks, whose
        weights are inherited place by place. Empty for families whose networks differ in sizes."""
        return {}

    def path_encoding(self, choices: Mapping[str, Choice], reads: Reads = "table") -> tuple[int, ...] | None:
        """Which paths of operations lead from input to output, as zeros and ones of one length for the family (White,
        Neiswanger & Savani 2019, arXiv 1910.11858); None for a family without a graph."""
        return None

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """The network as a graph, by the choices that describe it."""
        return Drawing.chain("inputs", self.name, "output")

    @abstractmethod
    def build(self, candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int) -> Network:
        """The untrained network. `cardinalities` are the numbers of codes of each categorical column."""


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}
NORMALISATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
