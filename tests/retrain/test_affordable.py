"""Networks for images in sizes that there is time to train."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from PIL import Image

from registry.choices import Preference
from retrain.batches import Rows
from retrain.families.base import Candidate
from retrain.families.catalogue import FAMILIES
from retrain.image_checks import load_images
from retrain.image_source import ImageInput
from retrain.search.asking import INHERIT, ORIGIN, PARENT, SKIPPED, propose
from retrain.search.budget import Budget
from retrain.search.inputs import Layout
from retrain.search.material import gather
from retrain.search.portfolio import portfolio
from retrain.search.progress import silent
from retrain.search.session import Session
from retrain.search.space import SHRUNK, SearchSpace, lengths
from retrain.search.strategies.base import Seen
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.strategies.one_shot import OneShot
from retrain.search.strategies.screening import Screen
from retrain.search.worker import Worker
from retrain.search.workshop import Workshop
from tests.pictures import digit_pixels, encoded, make_task

EPOCHS = 9
IMAGES = ImageInput(size=8, channels=1, mean=(100.0,), std=(50.0,))
PICTURES = tuple(one.name for one in FAMILIES if "image" in one.reads)


def images(_: str) -> Rows:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Rows(torch.zeros(64, 0), torch.zeros(64, 0, dtype=torch.int64), torch.arange(64) % 2, pixels)


def space_of(families: tuple[str, ...], at_most: float, choices: dict[str, Preference] | None = None) -> SearchSpace:
    """A space of images in which a training may take so many seconds."""
    layout = Layout(numeric=(), image=IMAGES)
    workshop = Workshop("binary", layout, 2, images, lambda: 1.0, at_most=at_most)
    space = SearchSpace.of(families, 64, EPOCHS, "binary", "image", choices)
    return replace(space, workshop=workshop)


def large(space: SearchSpace) -> Candidate:
    """A cell of its widest and longest template."""
    (first,) = portfolio(space)
    return first.model_copy(update={"choices": {**first.choices, "cells": 4, "width": 64}})


def test_an_epoch_of_a_large_network_takes_longer_and_is_looked_at_once() -> None:
    space = space_of(("cell",), math.inf)
    shop = space.workshop
    assert shop is not None
    small, wide = portfolio(space)[0], large(space)
    assert shop.epoch_seconds(wide) > 3 * shop.epoch_seconds(small) > 0
    assert shop.epoch_seconds(wide) == shop.epoch_seconds(wide)


def test_sizes_come_down_as_far_as_the_time_asks_for_and_nothing_else_changes() -> None:
    free = space_of(("cell",), math.inf)
    assert free.affordable(large(free)) == large(free)
    hurried = space_of(("cell",), 1e-9)
    made = hurried.affordable(large(hurried))
    assert (made.choices["cells"], made.choices["width"]) == (1, 16)
    assert hurried.affordable(made) == made
    sizes = {"cells", "width"}
    assert {name: one for name, one in made.choices.items() if name not in sizes} == {
        name: one for name, one in large(hurried).choices.items() if name not in sizes
    }


def test_the_largest_of_a_few_sizes_that_fits_is_taken() -> None:
    """The time of a training is that of the middle one of them."""
    space = space_of(("cell",), 1.0)
    shop, wanted = space.workshop, large(space)
    assert shop is not None
    sizes = [space.smaller(wanted, share) for share in SHRUNK]
    shop._paces.update({one.key: 4.0 - place for place, one in enumerate(sizes)})
    space = replace(space, workshop=replace(shop, at_most=lengths(EPOCHS)[0] * 2.0))
    assert space.affordable(wanted) == sizes[2]
    assert sizes[2].choices["width"] == 32 + 16 * (sizes[2].choices["width"] == 48)
    assert space.affordable(sizes[2]) == sizes[2]


def test_what_a_user_fixed_stays() -> None:
    space = space_of(("cell",), 1e-9, {"cell.width": Preference(low=32), "cell.cells": Preference(fixed=3)})
    made = space.affordable(space.sample(np.random.default_rng(0)))
    assert (made.choices["cells"], made.choices["width"]) == (3, 32)


def test_networks_for_tables_are_as_they_were() -> None:
    table = SearchSpace.of(("mlp",), 1_000, EPOCHS, "binary")
    layout = Layout(numeric=("a", "b"))
    table = replace(table, workshop=Workshop("binary", layout, 2, images, lambda: 1.0, at_most=1e-9))
    drawn = table.sample(np.random.default_rng(0))
    assert table.affordable(drawn) == drawn


def test_what_the_short_training_of_an_image_takes_is_told_and_of_a_table_nothing() -> None:
    space = space_of(("cell",), 1e-9)
    assert space.workshop is not None
    least = space.affordable(large(space))
    assert space.short_seconds(least) == lengths(EPOCHS)[0] * space.workshop.epoch_seconds(least) > 0
    assert SearchSpace.of(("mlp",), 1_000, EPOCHS, "binary").short_seconds(least) == 0


def test_a_worker_gives_the_smallest_network_the_time_that_it_needs(tmp_path: Path) -> None:
    """And no other: what it asks for has a size for which its share is enough, or the least."""
    frame = pd.DataFrame({"photo": [encoded(Image.fromarray(one)) for one in digit_pixels()[:300]]})
    task = make_task(search={"workers": 1, "max_epochs": 27, "families": ["cell"], "strategy": "random"})
    frame, _ = load_images(frame.assign(even=["yes", "no"] * 150), task)
    session = Session(task, tmp_path / "study", Budget(time.monotonic(), 40, 60.0, 0), None, silent)
    session.folder.mkdir()
    session._ready(gather(task, frame, ()))
    worker = Worker(session.folder, 0)
    worker.workshop = replace(worker.workshop, at_most=0.05)
    worker.space = replace(worker.plan.space, workshop=worker.workshop)
    for _ in range(3):
        asked = worker._ask()
        assert asked is not None
        assert is_least(asked[1])
        share = worker.share * (worker.deadline - worker.begin)
        assert worker.limit(asked[1]) - time.monotonic() == pytest.approx(share, abs=0.1)
    needed = 3 * (worker.deadline - worker.begin) / 4
    worker.workshop._paces[asked[1].key] = needed / 9
    assert worker.limit(asked[1]) - time.monotonic() == pytest.approx(needed, abs=0.1)


def is_least(candidate: Candidate) -> bool:
    return (candidate.choices["cells"], candidate.choices["width"]) == (1, 16)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "local", "gp", "auto", "one-shot", "reinforce"])
def test_every_trial_has_a_size_that_there_is_time_for(name: str) -> None:
    """A strategy's candidates come smaller at once, with their parents."""
    space, taken = space_of(("cell",), 1e-9), set[str]()
    study = optuna.create_study(direction="maximize", sampler=strategy_named(name).sampler(space, 0))
    for _ in range(14):
        trial, candidate = propose(study, space, taken)
        assert is_least(candidate)
        assert space.suggest(trial) == candidate
        taken.add(space.canonical(candidate))
        study.tell(trial, candidate.number("weight_decay"))
    assert len(taken) == 14
    assert not [one for one in study.trials if SKIPPED in one.user_attrs]
    if name == "local":
        assert PARENT in study.trials[-1].user_attrs


def test_defaults_come_again_as_defaults_and_what_is_handed_down_stays() -> None:
    space = space_of(("cell",), 1e-9)
    study = optuna.create_study(sampler=strategy_named("tpe").sampler(space, 0))
    for marks in ({ORIGIN: "portfolio"}, {ORIGIN: "prior"}, {ORIGIN: "prior", INHERIT: "member0."}):
        study.enqueue_trial(space.params(large(space)), user_attrs=marks)
    first, *others = (propose(study, space, ()) for _ in range(3))
    assert (first[0].user_attrs[ORIGIN], first[1]) == ("prior", large(space))  # its weights have its size
    assert [one.user_attrs[ORIGIN] for one, _ in others] == ["portfolio", "prior"]
    assert all(is_least(one) for _, one in others)


def test_a_screen_ranks_what_there_is_time_for() -> None:
    screen = Screen.of(space_of(("cell",), 1e-9), np.random.default_rng(0))
    assert all(map(is_least, screen.ranked))


def test_what_is_known_in_its_smaller_size_is_in_no_pool_again() -> None:
    """The widest neighbour of the best would come back as the best itself, time after time."""
    space = space_of(("cell",), 1e-9)
    auto = strategy_named("auto").sampler(space, 0).strategy
    auto.tell(Seen(0, portfolio(space)[0], 1.0))
    wide = next(one.candidate for one in auto.pool() if one.candidate.choices["width"] != 16)
    auto.pass_over(wide)
    assert space.canonical(wide) not in {space.canonical(one.candidate) for one in auto.pool()}


def test_a_supernets_architectures_are_trained_as_the_best_was_in_turn() -> None:
    space = space_of(("cell",), math.inf)
    chosen = OneShot(space, np.random.default_rng(0))
    best = portfolio(space)[0]
    chosen.tell(Seen(0, best, 1.0))
    found = [chosen.ask().candidate for _ in range(6)]
    edges = {one.name for one in chosen.decisions}
    kept = [
        all(one.choices[name] == value for name, value in best.choices.items() if name not in edges) for one in found
    ]
    assert kept == [True, False] * 3


@pytest.mark.parametrize("family", PICTURES)
def test_the_first_network_of_every_family_for_images_is_one_of_the_smallest(family: str) -> None:
    space = space_of((family,), math.inf)
    first = portfolio(space)[0]
    sizes = [first.choices[name] for name in ("width", "width_1", "width_2", "stem_width") if name in first.choices]
    assert set(sizes) == {16}
