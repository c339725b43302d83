"""Rows changed at random, and what a network tells of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from registry.errors import TaskError
from registry.images import (
    COMPONENTS,
)
from retrain.augmentation import Augmentation, blotted, flipped, mixed, shifted, swapped
from retrain.batches import Rows
from retrain.families.base import Candidate
from retrain.families.catalogue import build, families_for
from retrain.families.convnet import ConvBody, ConvNets
from retrain.image_source import ImageInput
from retrain.representation import Representation


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (60, 3), (224, 3)])
def test_convnets_read_all_sizes(size: int, channels: int) -> None:
    image = ImageInput(size=size, channels=channels, mean=(100.0,) * channels, std=(50.0,) * channels)
    images = torch.randint(0, 255, (2, channels, size, size), dtype=torch.uint8)
    for coarse in (True, False):
        choices = {"stem_width": 16, "blocks": 1, "coarse": coarse, "squeeze": coarse, "dropout": 0.1}
        network = build(Candidate(family="convnet", choices=choices), 3, (4,), 5, image).eval()
        out = network(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64), images)
        assert out.shape == (2, 5)
        body = ConvNets().features(Candidate(family="convnet", choices=choices), image).module.eval()
        assert isinstance(body, ConvBody)
        assert 4 <= torch.nn.Sequential(body.stem, *body.stages)(images.float()).shape[-1] <= 14


def test_families_read_what_a_task_has() -> None:
    assert families_for(("mlp", "resnet"), "image") == ("convnet",)
    assert families_for(("mlp",), "table") == ("mlp",)
    with pytest.raises(TaskError, match="'mlp' reads no images, and the task has a column of them; expected some of"):
        families_for(("convnet", "mlp"), "image")
    with pytest.raises(
        TaskError, match="'convnet' reads images, and the task has no column of them; expected some of mlp"
    ):
        families_for(("convnet",), "table")
    with pytest.raises(TaskError, match="the task has no column of them"):
        build(Candidate(family="convnet", choices={}), 2, (), 2)


def test_augmentation_changes_batches_and_leaves_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(2 * 64).reshape(2, 1, 8, 8).to(torch.uint8)
    assert (flipped(images, 1.0, generator) == images.flip(3)).all()
    assert (flipped(images, 0.0, generator) == images).all()
    moved = shifted(images, 2, generator)
    assert moved.shape == images.shape
    assert set(moved.flatten().tolist()) <= set(images.flatten().tolist())
    assert (blotted(images, 4, generator) != images).any()
    rows = Rows(torch.ones(2, 3), torch.ones(2, 1, dtype=torch.int64), torch.tensor([0, 1]), images)
    before = images.clone()
    columns = {"jitter": 0.1, "swap_noise": 0.1, "feature_dropout": 0.1}
    batch = Augmentation(flip=0.5, crop=0.125, cutout=0.25, noise=0.05, mixup=0.4, **columns).apply(rows, generator)
    assert (images == before).all()
    assert batch.rows.images is not None
    assert batch.rows.images.shape == images.shape
    assert batch.others is not None
    assert 0 <= batch.share <= 1
    state = generator.get_state()
    assert Augmentation().apply(rows, generator).rows is not None
    assert (generator.get_state() == state).all()


@pytest.mark.parametrize("chance", [0.25, 0.75])
def test_rows_are_augmented_with_their_probability(chance: float) -> None:
    n, generator = 4_000, torch.Generator().manual_seed(0)
    images = torch.full((n, 1, 8, 8), 100, dtype=torch.uint8)
    rows = Rows(torch.ones(n, 40), torch.ones(n, 1, dtype=torch.int64), torch.zeros(n, dtype=torch.int64), images)
    changed = Augmentation(noise=0.05, feature_dropout=0.5, augmented=chance).apply(rows, generator).rows
    assert changed.images is not None
    touched = (changed.images != 100).flatten(1).any(1)
    assert abs(touched.double().mean() - chance) < 0.03
    assert ((changed.numeric != 1).any(1) == touched).all()  # what is spared is spared all of it
    few = rows.take(torch.arange(2))
    mixes = [Augmentation(mixup=0.4, augmented=chance).apply(few, generator).others is not None for _ in range(400)]
    assert abs(sum(mixes) / 400 - chance) < 0.08


def test_jitter_is_of_the_strength_asked_for_and_leaves_categories() -> None:
    rows = Rows(torch.zeros(2_000, 5), torch.ones(2_000, 2, dtype=torch.int64), torch.zeros(2_000, dtype=torch.int64))
    changed = Augmentation(jitter=0.2).apply(rows, torch.Generator().manual_seed(0)).rows
    assert changed.numeric.std() == pytest.approx(0.2, rel=0.03)
    assert changed.numeric.mean() == pytest.approx(0, abs=0.01)
    assert (changed.categories == 1).all()
    assert (rows.numeric == 0).all()
    again = Augmentation(jitter=0.2).apply(rows, torch.Generator().manual_seed(0)).rows
    assert (again.numeric == changed.numeric).all()


def test_swapped_values_are_of_their_own_column_as_often_as_it_has_them() -> None:
    n, generator = 4_000, torch.Generator().manual_seed(0)
    numeric = torch.stack([torch.arange(n) % 4, 10 + torch.arange(n) % 2], dim=1).float()
    codes = torch.full((n, 1), 2)
    codes[: n // 4] = 3
    rows = Rows(numeric, codes, torch.zeros(n, dtype=torch.int64))
    changed = Augmentation(swap_noise=0.5).apply(rows, generator).rows
    assert (changed.numeric[:, 0] != numeric[:, 0]).double().mean() == pytest.approx(0.5 * 3 / 4, abs=0.03)
    assert (changed.numeric[:, 1] != numeric[:, 1]).double().mean() == pytest.approx(0.5 / 2, abs=0.03)
    assert set(changed.numeric[:, 1].tolist()) == {10.0, 11.0}
    assert (changed.categories == 3).double().mean() == pytest.approx(0.25, abs=0.03)
    assert changed.categories[: n // 4].eq(2).double().mean() == pytest.approx(0.5 * 3 / 4, abs=0.04)
    everything = swapped(numeric, 1.0, generator)
    assert everything[:, 0].mean() == pytest.approx(1.5, abs=0.08)


def test_mixing_rows_mixes_labels_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0])
    rows = Rows(values[:, None], torch.zeros(4, 0, dtype=torch.int64), values)
    batch = mixed(rows, 0.4, generator)
    assert batch.others is None
    torch.testing.assert_close(batch.rows.numeric[:, 0], batch.rows.labels)


def test_a_representation_is_of_unit_variance_and_pads() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 20))
    found = Representation.fit(0, features).apply(features)
    assert found.shape == (400, COMPONENTS)
    np.testing.assert_allclose(found[:, :3].std(axis=0), 1, atol=1e-3)
    assert (found[:, 3:] == 0).all()
