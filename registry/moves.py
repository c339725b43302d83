"""Aliases on their way from one version to another: a move is written down in the registry first, so that whoever comes
after a kill can finish it. `registry/versions.py` makes promotions and roll-backs of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from registry.publication import tolerating

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

_MOVE = "everfit.move"  # tag of a registered model: aliases that are on their way

Step: TypeAlias = Callable[[str], object]


@dataclass(frozen=True)
class Move:
    """Aliases on their way: written down in the registry first, so that whoever comes next can finish it."""

    champion: str
    previous: str | None
    rollback: bool = False


def aliases_of(client: MlflowClient, task: str) -> dict[str, str]:
    """The version that bears each alias; none for a task that has published nothing."""
    found = tolerating("RESOURCE_DOES_NOT_EXIST", lambda: client.get_registered_model(task))
    return {} if found is None else {alias: str(version) for alias, version in found.aliases.items()}


def begin(client: MlflowClient, task: str, move: Move, step: Step) -> None:
    """Note a move, then make it."""
    client.set_registered_model_tag(task, _MOVE, json.dumps(asdict(move)))
    step("noted")
    make(client, task, move, step)


def finish(client: MlflowClient, task: str) -> Move | None:
    """Complete the move that was cut short, if there is one."""
    if (note := client.get_registered_model(task).tags.get(_MOVE)) is None:
        return None
    move = Move(**json.loads(note))
    make(client, task, move, lambda name: None)
    return move


def make(client: MlflowClient, task: str, move: Move, step: Step) -> None:
    """The old champion becomes `previous` before there is a new one: at no moment is it lost. May be made again."""
    if move.previous is not None:
        client.set_registered_model_alias(task, PREVIOUS, move.previous)
        step(PREVIOUS)
    client.set_registered_model_alias(task, CHAMPION, move.champion)
    step(CHAMPION)
    if aliases_of(client, task).get(CHALLENGER) == move.champion:
        client.delete_registered_model_alias(task, CHALLENGER)
        step(CHALLENGER)
    client.delete_registered_model_tag(task, _MOVE)
