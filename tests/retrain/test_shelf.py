"""Paused trainings on disk: what is put there comes back, and no more is kept than may be."""

from __future__ import annotations

from pathlib import Path

import torch

from retrain.pausing import Facts, Paused, named
from retrain.search.shelf import PAUSED, put, take, tidy


def make_paused(size: int = 8) -> Paused:
    facts = Facts(step=3, steps=9, seconds=1.5, best_epoch=1, best_score=0.1 + 0.2, history=(0.1 + 0.2,))
    return Paused(facts, named("network", {"a.weight": torch.arange(size).float(), "b": torch.tensor(7)}))


def on_shelf(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / PAUSED).iterdir())


def test_what_is_put_there_comes_back(tmp_path: Path) -> None:
    paused = make_paused()
    put(tmp_path, 3, make_paused(2))
    put(tmp_path, 3, paused)
    found = take(tmp_path, 3)
    assert found.facts == paused.facts
    assert found.part("network").keys() == {"a.weight", "b"}
    assert all(torch.equal(found.tensors[name], one) for name, one in paused.tensors.items())
    assert on_shelf(tmp_path) == [3]


def test_what_is_lost_or_spoilt_is_none(tmp_path: Path) -> None:
    assert take(tmp_path, 1) is None
    put(tmp_path, 1, make_paused())
    place = tmp_path / PAUSED / "1.safetensors"
    for spoilt in (b"", b"torn", place.read_bytes()[:-4], place.read_bytes().replace(b"history", b"mystery")):
        place.write_bytes(spoilt)
        assert take(tmp_path, 1) is None


def test_no_more_is_kept_than_may_be(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path, number, make_paused(1_000))
    size = (tmp_path / PAUSED / "0.safetensors").stat().st_size
    tidy(tmp_path, [4, 2, 0, 1])
    assert on_shelf(tmp_path) == [0, 1, 2, 4]
    tidy(tmp_path, [4, 9, 2, 0, 1], 2 * size)
    assert on_shelf(tmp_path) == [2, 4]
    tidy(tmp_path, [])
    assert on_shelf(tmp_path) == []


def test_a_shelf_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / PAUSED).write_bytes(b"no folder")
    put(tmp_path, 1, make_paused())
    assert take(tmp_path, 1) is None
    assert [path.name for path in tmp_path.iterdir()] == [PAUSED]
