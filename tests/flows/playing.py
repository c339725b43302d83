"""A policy of a back-test, or an order of rows, that is played in the process of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.backtest import Tell, play, settings_of
from flows.services import everfit_environment


def played_here(folder: Path, number: int, name: str, tell: Tell) -> None:
    """What the process of a policy does, but for its imports, which take longer; `test_backtest` has real ones."""
    settings = settings_of(folder, number)
    settings.folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in everfit_environment(settings).items():
            patch.setenv(key, value)
        play(folder, number, lambda judged: tell(name, judged))
