"""The names of strategies, stopping policies and families without their classes, whose import takes seconds: a slip is
told at once.

A name stands in its class as `name: ClassVar[str] = "tpe"`; that is read here. `tests/flows/test_cli.py` holds it
against the catalogues.
"""

from __future__ import annotations

import re
from importlib.resources import files

import click

from registry.errors import TaskError, unknown

_NAME = re.compile(r'^    name: ClassVar\[str\] = "([^"]+)"$', re.MULTILINE)


def offered(package: str) -> tuple[str, ...]:
    """The names that the classes in the files of a package bear, sorted.

    >>> offered("retrain.search.stopping")
    ('asha', 'curve', 'halving', 'hyperband', 'median', 'none', 'screen')
    """
    texts = (one.read_text(encoding="utf-8") for one in files(package).iterdir() if one.name.endswith(".py"))
    return tuple(sorted(name for text in texts for name in _NAME.findall(text)))


def require_strategy(_context: click.Context, _option: click.Parameter, strategy: str | None) -> str | None:
    """The option's strategy. Raises `TaskError` that names the known ones."""
    if strategy is not None and strategy not in (known := offered("retrain.search.strategies")):
        raise TaskError(unknown("strategy", strategy, known))
    return strategy


def require_stopping(_context: click.Context, _option: click.Parameter, stopping: str | None) -> str | None:
    """The option's policy of early stopping. Raises `TaskError` that names the known ones."""
    if stopping is not None and stopping not in (known := offered("retrain.search.stopping")):
        raise TaskError(unknown("stopping policy", stopping, known))
    return stopping


def require_families(_context: click.Context, _option: click.Parameter, space: str | None) -> list[str] | None:
    """The option's families, with commas between them. Raises `TaskError` that names the known ones."""
    if space is None:
        return None
    names = [name.strip() for name in space.split(",")]
    known = offered("retrain.families")
    if wrong := [name for name in names if name not in known]:
        raise TaskError(unknown("family", wrong[0], known))
    return names
