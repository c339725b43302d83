"""A supernet: a whole space in one network, every operation with one set of weights that all architectures with it
share (Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing")."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import TaskError
from retrain.families.base import Candidate, Network
from retrain.families.catalogue import FAMILIES, family_named
from retrain.families.embeddings import InputEncoder
from retrain.families.picture import Features, PictureNet, beside
from retrain.families.sharing import Decision, Mixture
from retrain.families.spaces import MODALITIES, ArchitectureSpace
from retrain.families.stack import BodyNet
from retrain.image_source import ImageInput

SHARED = tuple(
    one.name for one in FAMILIES if isinstance(one, ArchitectureSpace) and one.decisions(MODALITIES["table"])
)
"""The families that have a supernet."""


def shared_space(name: str) -> ArchitectureSpace:
    """The space of a name. Raises `TaskError` for one without a supernet."""
    space = family_named(name)
    if name not in SHARED or not isinstance(space, ArchitectureSpace):
        raise TaskError(f"family {name!r} has no network that holds all of it: expected one of {list(SHARED)}")
    return space


def supernet(
    candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int, image: ImageInput | None = None
) -> tuple[Network, Mixture]:
    """The untrained supernet under the template of a candidate, and the mixture that steers it. No operation has
    dropout: architectures that are trained for moments need none. Raises `TaskError` for a family without one."""
    space = shared_space(candidate.family)
    modality = MODALITIES["table" if image is None else "image"]
    mixture = Mixture(tuple(map(Decision.of, space.decisions(modality))))
    without = candidate.model_copy(update={"choices": {**candidate.choices, "dropout": 0.0}})
    if image is None:
        body = space.shared_body(mixture, without, modality)
        return BodyNet(InputEncoder.of(candidate.choices, d_numeric, cardinalities), body, d_out), mixture
    body = space.shared_body(mixture, without, modality, d_in=image.channels, side=image.size)
    return PictureNet(image, Features(body, body.d_out), beside(d_numeric, cardinalities), d_out), mixture
