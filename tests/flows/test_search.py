"""The search flow: the first model is the champion, later ones are challengers, and a broken-off search goes on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.intents import Intents
from flows.search import _question, cost_lines, former_studies, search
from flows.workplace import Workplace, register_task
from registry.bundle import ModelBundle
from registry.errors import BusyError, DataError, TaskError
from registry.locks import exclusive
from registry.settings import Settings
from retrain.search.space import SearchSpace
from tests.flows.conftest import TINY_SEARCH
from tests.handmade import make_bundle, make_frame, make_task


def test_the_first_model_found_is_the_champion(make_place: Callable[..., Workplace]) -> None:
    place = make_place(search={**TINY_SEARCH, "trials": 1})
    place.versions.unset("handmade", "champion")
    version = search.fn("handmade")
    assert version == "2"
    assert place.versions.get("handmade", "champion") == version
    intent, promotion, found = place.ledger.read()
    assert (intent.kind, promotion.kind, found.kind, found.outcome) == ("intent", "promotion", "search", "registered")
    assert promotion.at == place.versions.fetch("handmade", version).manifest.lineage.known_until
    assert found.details["metrics"]["boosted"].keys() == found.details["metrics"]["champion"].keys()
    assert sum(found.details["ended"].values()) == 1
    assert found.details["cpu"] > 0
    trials, *_, took = cost_lines(found.details)
    (left,) = cost_lines({"trials": 24, "left": 130})
    assert left.startswith("the budget's trials (24) are used up, 130 of its seconds are left: more trials (--trials, ")
    assert trials == "1 candidate trained to the end, 0 stopped early"
    ended = {"complete": 3, "pruned": 1, "diverged": 2, "interrupted": 1}
    (said,) = cost_lines({"ended": ended})
    assert said == "3 candidates trained to the end, 1 stopped early, 2 diverged, 1 interrupted"
    assert re.fullmatch(r"\d+ s, \d+ CPU-seconds in all processes, about 0\.\d+ Wh \(estimated at 12 W a core\)", took)
    assert list(cost_lines({"trials": 3})) == []
    hurried = {"ended": {"complete": 1, "pruned": 2, "unbegun": 37}}
    assert list(cost_lines(hurried))[1] == (
        "Only 1 network was trained to the end in the time there was. "
        "More seconds (--seconds, or search.seconds) find a better model."
    )
    limited = {"ended": {"complete": 3, "pruned": 0, "failed": 0, "refused": 7, "slow": 1}}
    assert list(cost_lines(limited))[1] == "by the task's constraints 7 too large and 1 too slow for the model"


def test_a_search_killed_before_its_end_is_completed_once(place: Workplace, tmp_path: Path) -> None:
    """The bundle was sealed when the kill came: it is registered, as the challenger, and nothing is searched again."""
    intent = Intents(place.ledger, "handmade").begin("search", place.now(), question=_question(place))
    shutil.copytree(tmp_path / "bundle", place.study / intent.id / "bundle")
    assert search.fn("handmade") == "2"
    aliases = [place.versions.get("handmade", alias) for alias in ("champion", "challenger")]
    assert aliases == ["1", "2"]
    (end,) = place.ledger.read(kinds={"search"})
    assert end.details["intent"] == intent.id


def test_a_task_that_changed_is_not_answered_with_the_old_search(place: Workplace, tmp_path: Path) -> None:
    intents = Intents(place.ledger, "handmade")
    intent = intents.begin("search", place.now(), question="another")
    shutil.copytree(tmp_path / "bundle", place.study / intent.id / "bundle")
    make_frame(300).assign(late="yes").to_parquet(tmp_path / "source.parquet")
    with pytest.raises(DataError, match="only one class, yes"):
        search.fn("handmade")
    assert [entry.outcome for entry in place.ledger.read(kinds={"search"})] == ["failed", "failed"]
    assert intents.open("search") is None
    assert len(place.versions.list("handmade")) == 1


def test_a_mistake_in_the_task_is_no_search_that_failed(make_place: Callable[..., Workplace]) -> None:
    place = make_place(columns={"exclude": ["carier"]})
    with pytest.raises(TaskError, match=r"^columns\.exclude: the data have no column 'carier' .did you mean 'carrier'"):
        search.fn("handmade")
    assert list(place.ledger.read()) == []


def test_strategy_families_and_stopping_of_one_run(make_place: Callable[..., Workplace]) -> None:
    place = make_place(search={**TINY_SEARCH, "trials": 1})
    version = search.fn("handmade", strategy="random", families=["resnet"], stopping="median")
    bundle = place.versions.fetch("handmade", version)
    made = bundle.manifest.task.search
    assert (made.strategy, made.families, made.stopping) == ("random", ("resnet",), "median")
    assert {one["candidate"]["family"] for one in bundle.candidates["members"]} == {"resnet"}
    assert place.task.search.families != ("resnet",)
    with pytest.raises(TaskError, match="unknown family 'resnt'"):
        search.fn("handmade", families=["resnt"])
    with pytest.raises(TaskError, match="unknown stopping policy 'medain'"):
        search.fn("handmade", stopping="medain")


def test_two_searches_at_once(place: Workplace) -> None:
    register_task(place.settings, place.task)
    with (
        exclusive(place.lock, "a search"),
        pytest.raises(BusyError, match="a search or an improvement of task handmade"),
    ):
        search.fn("handmade")


def test_the_studies_of_other_tasks_are_found(place: Workplace, settings: Settings, tmp_path: Path) -> None:
    assert former_studies(place) == []
    task = make_task(name="other", source={"kind": "file", "path": str(tmp_path / "source.parquet")})
    register_task(settings, task)
    assert former_studies(place) == []  # it has no champion yet
    bundle, space = make_bundle(tmp_path / "other", name="other"), SearchSpace.of(("mlp",), 1_000, 9, "binary")
    drawn = [space.sample(np.random.default_rng(seed)) for seed in range(10)]
    study = [{"candidate": one.model_dump(), "score": 0.5} for one in drawn]
    (bundle.folder / "candidates.json").write_text(json.dumps({"members": [], "study": study}))
    place.versions.promote("other", place.versions.publish(ModelBundle.seal(bundle.folder, bundle.manifest)))
    (former,) = former_studies(place)
    assert former_studies(place, ModelBundle.load(bundle.folder)) == [former, former]  # a former model's own study, too
    random = place.task.model_copy(update={"search": place.task.search.model_copy(update={"strategy": "random"})})
    assert former_studies(replace(place, task=random)) == []  # it would not listen
    assert former.candidates == tuple(drawn)
    known = bundle.manifest.lineage.known_until
    assert known is not None
    assert former_studies(place, as_of=known) == [former]
    assert former_studies(place, as_of=known - timedelta(days=1)) == []  # a replay learns nothing from its future
    assert former.facts.rows == 1_000
    for path in settings.folder.rglob("candidates.json"):
        path.write_text("{}")
    assert former_studies(place) == []  # a bundle of another task that is not sound ends no search
    for path in list(settings.folder.rglob("candidates.json")):
        shutil.rmtree(path.parent)
    assert former_studies(place) == []  # nor does one that is gone
