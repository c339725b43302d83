"""The contract of spaces that have a supernet: one path of it is the ordinary network of that path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from registry.errors import TaskError
from retrain.families.base import Candidate
from retrain.families.catalogue import FAMILIES
from retrain.families.image_operations import IMAGE
from retrain.families.modality import Modality
from retrain.families.parameters import Choice
from retrain.families.sharing import Decision, Mixture, Path
from retrain.families.spaces import ArchitectureSpace
from retrain.families.stack import Body
from retrain.families.supernet import SHARED, shared_space, supernet
from retrain.families.table_operations import TABLE
from retrain.families.wiring import NONE
from retrain.image_source import ImageInput
from retrain.search.defaults import DEFAULTS

SMALL: dict[str, Choice] = {"width": 16, **{f"width_{place}": 16 for place in range(1, 7)}, "dropout": 0.0}
SIDE = 6
every_shared = pytest.mark.parametrize("family", SHARED)
every_modality = pytest.mark.parametrize("modality", [TABLE, IMAGE], ids=lambda modality: modality.name)


def rows(modality: Modality) -> Tensor:
    shape = (8, 16) if modality is TABLE else (8, 3, SIDE, SIDE)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def shared(family: str, modality: Modality) -> tuple[ArchitectureSpace, Mixture, Body]:
    torch.manual_seed(0)
    space = shared_space(family)
    mixture = Mixture(tuple(map(Decision.of, space.decisions(modality))))
    template = Candidate(family=family, choices={**DEFAULTS, **SMALL})
    wide = {} if modality is TABLE else {"d_in": 3, "side": SIDE}
    return space, mixture, space.shared_body(mixture, template, modality, **wide)


def paths(mixture: Mixture, count: int) -> list[Path]:
    rng = np.random.default_rng(1)
    return [tuple(one.values[int(rng.integers(len(one.values)))] for one in mixture.decisions) for _ in range(count)]


def ordinary(space: ArchitectureSpace, mixture: Mixture, path: Path, modality: Modality) -> Body:
    chosen = {one.name: value for one, value in zip(mixture.decisions, path, strict=True)}
    candidate = Candidate(family=space.name, choices={**DEFAULTS, **SMALL, **chosen})
    wide = {} if modality is TABLE else {"d_in": 3, "side": SIDE}
    return space.body(candidate, modality, **wide)


@every_shared
@every_modality
def test_a_path_is_the_ordinary_network_with_the_shared_weights(family: str, modality: Modality) -> None:
    space, mixture, body = shared(family, modality)
    for path in paths(mixture, 3):
        network = ordinary(space, mixture, path, modality)
        network.load_state_dict({name: body.state_dict()[name] for name in network.state_dict()})
        mixture.one(path)
        torch.testing.assert_close(body.eval()(rows(modality)), network.eval()(rows(modality)))


def test_a_cell_that_leads_nowhere_gives_zeros() -> None:
    _, mixture, body = shared("cell", TABLE)
    mixture.one((NONE,) * 6)
    assert torch.equal(body.eval()(torch.zeros(3, 16)), body(torch.randn(3, 16)))


@every_shared
@every_modality
def test_shares_learn_by_what_they_bring(family: str, modality: Modality) -> None:
    """All values of all decisions at once: features are finite, and each decision that has a say gets a gradient."""
    _, mixture, body = shared(family, modality)
    logits = [torch.zeros(len(one.values), requires_grad=True) for one in mixture.decisions]
    mixture.steer([torch.softmax(one, dim=0) for one in logits])
    body.train()(rows(modality)).square().sum().backward()
    moved = [one.grad is not None and bool(one.grad.isfinite().all() and one.grad.abs().max() > 0) for one in logits]
    assert all(moved)


@every_shared
def test_what_is_off_learns_nothing_and_costs_nothing(family: str) -> None:
    _, mixture, body = shared(family, TABLE)
    mixture.one(paths(mixture, 1)[0])
    body.train()(rows(TABLE)).square().sum().backward()
    without = [name for name, one in body.named_parameters() if one.grad is None]
    assert len(without) > sum(1 for _ in body.parameters()) / 2


@every_shared
def test_reads_images_and_the_columns_beside_them(family: str) -> None:
    image = ImageInput(size=SIDE, channels=1, mean=(100.0,), std=(50.0,))
    template = Candidate(family=family, choices={**DEFAULTS, **SMALL})
    network, mixture = supernet(template, 2, (4,), 3, image)
    mixture.one(paths(mixture, 1)[0])
    pixels = torch.randint(0, 256, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    outputs = network(torch.randn(5, 2), torch.ones(5, 1, dtype=torch.int64), pixels)
    assert outputs.shape == (5, 3)
    assert outputs.isfinite().all()


def test_other_families_have_none() -> None:
    assert SHARED == ("chain", "cell", "darts")
    for family in (one for one in FAMILIES if one.name not in SHARED):
        with pytest.raises(TaskError, match=r"has no network that holds all of it: expected one of \['chain', 'cell'"):
            supernet(Candidate(family=family.name, choices=DEFAULTS), 3, (), 2)
