"""A training that paused after an epoch, and all that it needs to go on as if it never had: weights, their running
average, the optimizer's state, the states of the random generators, how far it came, and its best epoch.

As bytes it is a safetensors file with the numbers as JSON in its header; reading one executes no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from registry.schema import Frozen

State: TypeAlias = dict[str, Tensor]

FACTS = "facts"


class Facts(Frozen):
    """How far a training came: its steps, those over which its learning rate falls, its seconds; the best epoch and its
    score, and the score after every epoch."""

    step: int
    steps: int
    seconds: float
    best_epoch: int
    best_score: float
    history: tuple[float, ...]


@dataclass(frozen=True)
class Paused:
    """A paused training: its facts, and its tensors under names of the form `part.name`."""

    facts: Facts
    tensors: State

    def part(self, name: str) -> State:
        """The tensors of a part by their own names."""
        start = f"{name}."
        return {key.removeprefix(start): one for key, one in self.tensors.items() if key.startswith(start)}

    def bytes(self) -> bytes:
        """As a safetensors file."""
        return safetensors.torch.save(self.tensors, {FACTS: self.facts.model_dump_json()})

    @classmethod
    def read(cls, path: str) -> Paused:
        """From a file. Raises `OSError`, `SafetensorError` or `ValueError` where it is none."""
        with safe_open(path, framework="pt") as file:
            facts = Facts.model_validate_json((file.metadata() or {}).get(FACTS, ""))
            # copies: the file lies mapped into memory, and may be written anew
            return cls(facts, {name: file.get_tensor(name).clone() for name in file.keys()})  # noqa: SIM118 - it is no dict


def named(part: str, tensors: Mapping[str, Tensor]) -> State:
    """Copies of a part's tensors, under names of the form `part.name`."""
    return {f"{part}.{name}": one.detach().clone().contiguous() for name, one in tensors.items()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """What an optimizer knows of its parameters, under names of the form `parameter.name`. Its learning rate and other
    options follow from the recipe."""
    kept: dict[int, dict[str, Tensor | None]] = optimizer.state_dict()["state"]
    return {f"{number}.{name}": one for number, each in kept.items() for name, one in each.items() if one is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give a fresh optimizer of the same recipe what `optimizer_state` told of another."""
    known: dict[int, dict[str, Tensor]] = {}
    for label, one in state.items():
        number, name = label.split(".", 1)
        known.setdefault(int(number), {})[name] = one
    optimizer.load_state_dict({**optimizer.state_dict(), "state": known})
