"""Networks that processes train side by side are, bit for bit, those that one process trains, whoever dies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from registry.bundle import ModelBundle
from registry.energy import cpu_seconds
from registry.metrics import Problem
from retrain import apprentices as module
from retrain.apprentices import SERVERS, Crew, apprentices
from retrain.batches import Rows
from retrain.exercises import Exercise, Terms, one_by_one
from retrain.following import follow
from retrain.image_source import ImageInput
from retrain.renewal import Request
from retrain.search.forkserver import MODULE
from retrain.search.sealing import one_thread
from retrain.search.space import SearchSpace
from tests.processes import children
from tests.retrain.test_crew import ROOT, gone, until
from tests.retrain.test_race import DAYS, keys_of, steps_until, world

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="apprentices are forked on Linux only")

ROWS, NUMBERS, CATEGORIES = 800, 6, (5, 9)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Apprentices are begun at once, and none is left by a test."""
    monkeypatch.setattr(module, "WORTH", 0.0)
    monkeypatch.setattr(module, "SMALL", 0.0)
    monkeypatch.setattr(module, "_past", module._Past())
    monkeypatch.setattr(module, "_kept", module._Kept())
    with one_thread():
        yield
    if module._kept.alive:
        module._kept.get().close()
    assert not children(MODULE)


def rows_of(count: int, problem: Problem = "binary", image: ImageInput | None = None) -> Rows:
    rng = np.random.default_rng(7)
    labels = rng.normal(size=count).astype(np.float32) if problem == "regression" else rng.integers(0, 2, count)
    images = None if image is None else rng.integers(0, 256, (count, image.channels, image.size, image.size))
    return Rows(
        torch.from_numpy(rng.normal(size=(count, NUMBERS)).astype(np.float32)),
        torch.from_numpy(np.column_stack([rng.integers(0, size, count) for size in CATEGORIES])),
        torch.from_numpy(labels),
        None if images is None else torch.from_numpy(images.astype(np.uint8)),
    )


def exercise(
    rows: Rows,
    family: str,
    seed: int = 0,
    *,
    epochs: int = 2,
    problem: Problem = "binary",
    image: ImageInput | None = None,
) -> Exercise:
    """A random network of a family, untrained, and not large."""
    space = SearchSpace.of((family,), len(rows), 1, problem, "table" if image is None else "image")
    drawn = space.sample(np.random.default_rng(seed))
    small = {name: 16 for name in ("width", "stem_width") if name in drawn.choices}
    terms = Terms(
        candidate=drawn.model_copy(update={"choices": {**drawn.choices, **small}}),
        d_numeric=NUMBERS,
        cardinalities=CATEGORIES,
        image=image,
        d_out=2,
        problem=problem,
        epochs=epochs,
        seed=seed,
    )
    torch.manual_seed(seed)
    return Exercise(terms, terms.untrained().eval(), rows)


def lesson(count: int = 6, *, epochs: int = 4) -> list[Exercise]:
    """Networks of two families, as the paces of a race have them: of some the rows are others."""
    two = rows_of(ROWS), rows_of(ROWS // 2)
    return [exercise(two[n % 2], ("mlp", "resnet")[n % 2], n, epochs=epochs) for n in range(count)]


def known(crew: Crew, exercises: Sequence[Exercise]) -> Crew:
    """A crew that knows how long trainings take, and whose apprentices are there."""
    crew.train(exercises[:1])
    crew.train(exercises[:2])
    until(lambda: all(one.is_ready(0) for one in crew._apprentices))
    return crew


def pid_of(crew: Crew) -> int:
    """The process of its first apprentice."""
    (process,) = [one._process for one in crew._apprentices]
    until(lambda: process.poll() is None and process.pid is not None)
    return int(process.pid or 0)


def same(one: nn.Module | None, other: nn.Module | None) -> bool:
    if one is None or other is None:
        return one is other
    mine, yours = one.state_dict(), other.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(value, yours[name]) for name, value in mine.items())


def taken_by_others(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What apprentices give back from now on, by the length of its exercise's rows."""
    found: list[int] = []
    train = module.Apprentice.train

    def noted(self: module.Apprentice, exercise: Exercise, rows: int) -> nn.Module | None:
        network = train(self, exercise, rows)
        found.append(len(exercise.rows))
        return network

    monkeypatch.setattr(module.Apprentice, "train", noted)
    return found


def test_networks_are_the_same_whoever_trains_them(monkeypatch: pytest.MonkeyPatch) -> None:
    exercises = lesson()
    with apprentices(1) as alone:
        alone.train(exercises)
    assert not children(MODULE)
    crew = known(Crew(2), exercises)
    theirs = taken_by_others(monkeypatch)
    found = crew.train(exercises)
    assert len(theirs) >= 2
    for one, expected, before in zip(found, one_by_one(exercises), exercises, strict=True):
        assert same(one, expected)
        assert not same(one, before.network)
        assert not any(each.training for each in one.modules())  # type: ignore[union-attr]
    crew.close()


@pytest.mark.parametrize("family", ["mlp", "resnet", "chain", "cell", "convnet"])
@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_an_apprentice_s_network_is_bit_for_bit_this_process_s(family: str, problem: Problem) -> None:
    image = ImageInput(size=8, channels=3, mean=(90.0,) * 3, std=(40.0,) * 3) if family == "convnet" else None
    rows = rows_of(120, problem, image)
    exercises = [exercise(rows, family, seed, problem=problem, image=image) for seed in range(3)]
    crew = known(Crew(1), exercises)
    (apprentice,) = crew._apprentices
    file = module._memory(module.rows_as_bytes(rows))
    found = [apprentice.train(one, file) for one in exercises]
    os.close(file)
    assert all(map(same, found, one_by_one(exercises)))
    crew.close()


def test_one_that_diverges_is_told_from_one_that_is_trained() -> None:
    rows = rows_of(200)
    broken = replace(rows, numeric=torch.full_like(rows.numeric, torch.inf))
    exercises = [exercise(broken, "mlp", 0), exercise(rows, "mlp", 1), exercise(broken, "mlp", 2)]
    crew = known(Crew(1), exercises)
    file = module._memory(module.rows_as_bytes(broken))
    assert crew._apprentices[0].train(exercises[0], file) is None
    os.close(file)
    assert [one is None for one in crew.train(exercises)] == [True, False, True]
    crew.close()


def test_what_an_apprentice_dies_of_is_trained_here(caplog: pytest.LogCaptureFixture) -> None:
    exercises = lesson(4)
    crew = known(Crew(1), exercises)
    victim = pid_of(crew)
    os.kill(victim, signal.SIGSTOP)  # so that it does not get done what it is given
    killer = threading.Timer(1.0, os.kill, (victim, signal.SIGKILL))
    killer.start()
    found = crew.train(exercises)
    killer.join()
    assert all(map(same, found, one_by_one(exercises)))
    assert "has gone" in caplog.text
    caplog.clear()
    again = crew.train(lesson(2))  # by another one
    assert pid_of(crew) != victim
    assert all(map(same, again, one_by_one(lesson(2))))
    assert not caplog.text
    crew.close()


def test_when_all_of_them_die_with_the_process_that_forks_them_it_is_begun_anew_but_not_for_ever() -> None:
    exercises = lesson(4)
    crew = known(Crew(1), exercises)
    expected = one_by_one(exercises)
    for _ in range(SERVERS):
        (server,) = children(MODULE)
        server.kill()
        until(lambda: not module._kept.alive)
        for _ in range(2):  # they are found to be gone, and others begun
            assert all(map(same, crew.train(exercises), expected))
    assert not children(MODULE)
    crew.close()


def test_they_go_at_the_end_of_the_block_and_what_they_took_is_counted() -> None:
    exercises = lesson(8)
    before = cpu_seconds()
    with apprentices(10) as crew:
        if crew._most < 1:
            pytest.skip("one core")
        known(crew, exercises)
        crew.train(exercises)
        assert len(crew._apprentices) <= len(os.sched_getaffinity(0)) - 1
        pids = [child.pid for server in children(MODULE) for child in server.children()]
        assert len(pids) == len(crew._apprentices)
    (server,) = children(MODULE)
    assert gone(*pids)
    assert server.is_running()  # for the next step
    own = time.process_time()
    taken = cpu_seconds() - before
    assert taken > 1.0
    module._kept.get().close()
    assert cpu_seconds() - before == pytest.approx(taken + time.process_time() - own, abs=0.2)  # none twice


def test_no_file_is_left_open() -> None:
    exercises = lesson(4)
    crew = known(Crew(1), exercises)
    open_files = os.listdir("/proc/self/fd")
    for _ in range(3):
        crew.train(exercises)
    assert len(os.listdir("/proc/self/fd")) == len(open_files)
    crew.close()


def test_what_is_short_is_trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    exercises = lesson(4)
    monkeypatch.undo()
    with one_thread(), apprentices(2) as crew:
        for _ in range(2):
            crew.train(exercises)
    assert not children(MODULE)


def test_rows_that_are_too_many_to_be_copied_are_trained_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    exercises = lesson(4)
    own = ROWS * (4 * NUMBERS + 8 * len(CATEGORIES) + 8) * 1.5
    monkeypatch.setattr(module, "MOST_BYTES", own - 1)
    crew = Crew(1)
    for _ in range(2):
        crew.train(exercises)
    assert not children(MODULE)
    monkeypatch.setattr(module, "MOST_BYTES", own)
    crew.train(exercises)
    assert children(MODULE)
    crew.close()


@pytest.mark.parametrize("champion", ["binary", "regression"], indirect=True)
def test_a_race_is_the_same_with_apprentices(
    champion: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, arrived = world(champion)
    keys, steps = keys_of(map(str, range(len(frame)))), steps_until(frame, arrived, DAYS - 1)
    monkeypatch.setattr(module, "cores", lambda: 2)
    known(Crew(1), lesson(2)).close()
    theirs, train = taken_by_others(monkeypatch), module._Past.train

    def slowly(self: module._Past, exercise: Exercise) -> nn.Module | None:
        time.sleep(0.1)  # networks this small were trained before an apprentice is forked
        return train(self, exercise)

    monkeypatch.setattr(module._Past, "train", slowly)
    found = []
    for workers in (1, 2):
        search = champion.manifest.task.search.model_copy(update={"workers": workers})
        task = champion.manifest.task.model_copy(update={"search": search})
        found.append(follow(Request(task, champion, "1", frame, tmp_path / "bundle"), steps, keys=keys))
        assert bool(theirs) == (workers > 1)
    one, other = found
    assert np.array_equal(one.outputs, other.outputs)
    for mine, yours in zip(one.race.learners, other.race.learners, strict=True):
        assert all(same(a.module, b.module) for a, b in zip(mine.members, yours.members, strict=True))


_A_STEP = """
import os
from retrain import apprentices
from retrain.search.sealing import one_thread
from tests.retrain.test_apprentices import known, lesson, pid_of
apprentices.WORTH = apprentices.SMALL = 0.0
with one_thread(), apprentices.apprentices(2) as crew:
    crew._most = 1
    known(crew, lesson(2))
    print(pid_of(crew), flush=True)
    crew.train(lesson(8, epochs=10_000))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_one_that_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches all of them, as it does from a terminal; the others this process alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", _A_STEP],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    apprentice = int(process.stdout.readline())
    (server,) = psutil.Process(process.pid).children()
    time.sleep(0.3)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    until(lambda: gone(server.pid, apprentice))
    assert not list(tmp_path.iterdir())
