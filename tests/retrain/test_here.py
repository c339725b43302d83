"""A small re-search trains in its own process, and workers take over what does not work there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from registry.bundle import ModelBundle
from retrain.batches import Rows
from retrain.families.base import Candidate
from retrain.search import here
from retrain.search import plan as plans
from retrain.search.budget import Budget, read_spent
from retrain.search.forkserver import MODULE
from retrain.search.inputs import Layout
from retrain.search.plan import Result
from retrain.search.portfolio import portfolio
from retrain.search.progress import Progress
from retrain.search.session import Session, search
from retrain.search.space import SearchSpace
from retrain.search.worker import Worker
from retrain.search.workshop import Workshop
from tests.handmade import make_frame
from tests.processes import children
from tests.retrain.test_session import ROWS, small_task

TRIALS = 3


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("champion")
    return search(
        small_task(max_epochs=2), make_frame(ROWS), folder=folder / "study", out=folder / "bundle", trials=2,
        seconds=90, seed=0,
    )  # fmt: skip


def re_search(champion: ModelBundle, folder: Path) -> tuple[list[Result], bool]:
    """The trials of a re-search, and whether it had workers."""
    served = []

    def look(progress: Progress) -> None:
        served.append(bool(children(MODULE)))

    task, budget = small_task(max_epochs=2), Budget(time.monotonic(), TRIALS, 90.0, 1)
    Session(task, folder, budget, champion, look).run(make_frame(ROWS, seed=1))
    assert children(MODULE) == []
    return plans.read_results(folder), any(served)


def test_a_small_re_search_starts_no_process_and_is_the_same_each_time(champion: ModelBundle, tmp_path: Path) -> None:
    first, second = (re_search(champion, tmp_path / name) for name in "ab")
    assert not first[1]
    assert not second[1]
    assert len(first[0]) == TRIALS
    assert {"prior", "fresh"} <= {one.origin for one in first[0]}
    assert [(one.candidate, one.history) for one in first[0]] == [(one.candidate, one.history) for one in second[0]]
    trained = plans.trained_cpu(tmp_path / "a")
    assert trained > 0
    assert read_spent(tmp_path / "a")[0] > trained  # the trials' CPU-seconds are told with them, and not here again


def test_workers_take_over_where_a_trial_fails(
    champion: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("not here")

    monkeypatch.setattr(Worker, "_train", fail)  # in this process alone
    results, served = re_search(champion, tmp_path / "study")
    assert served
    assert len(results) == TRIALS
    assert "workers go on" in caplog.text


def test_workers_take_over_what_takes_longer_than_expected(
    champion: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "LONGEST", 0.0)
    results, served = re_search(champion, tmp_path / "study")
    assert served
    assert len(results) == TRIALS


def test_what_will_take_long_is_not_small() -> None:
    rows = Rows(torch.randn(1_000, 2), torch.zeros(1_000, 0, dtype=torch.int64), torch.zeros(1_000, dtype=torch.int64))
    threads, before = set[int](), torch.get_num_threads()
    torch.set_num_threads(2)

    def look(_scaling: str) -> Rows:
        threads.add(torch.get_num_threads())
        return rows

    workshop = Workshop("binary", Layout(numeric=("a", "b")), 2, look, lambda: 1.0)
    short, *_ = portfolio(SearchSpace.of(("mlp",), 1_000, 1, "binary"))
    long = Candidate(family=short.family, choices={**short.choices, "epochs": 1_000_000})
    assert here.is_small(workshop, [short], 2)
    assert not here.is_small(workshop, [short], 1_000_000)
    assert not here.is_small(workshop, [short, long], 2)
    assert not here.is_small(workshop, [], 2)
    assert threads == {1}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
