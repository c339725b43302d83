"""A bundle's members as networks again: to be compared, levelled or trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import safetensors.torch
import torch

from registry.bundle import NETWORKS, WEIGHTS, ModelBundle
from registry.metrics import Labels
from retrain.calibration import TargetScale, fit_level
from retrain.export import SCALE, Member, member_outputs
from retrain.families.base import Network, read_candidate
from retrain.families.catalogue import FAMILIES, build
from retrain.network_graph import extract
from retrain.preparation import Preparation
from retrain.search.material import layout_of
from retrain.training import load_state

TRAINED_UNTIL = "trained_until"


def told_of(bundle: ModelBundle) -> dict[str, dict[str, Any]]:
    """What a bundle tells of its members, by the prefix of their weights."""
    return {f"member{place}.": told for place, told in enumerate(bundle.candidates.get("members", []))}


def read_members(bundle: ModelBundle) -> Iterator[Member]:
    """A bundle's members that can be built today, with their weights, in evaluation mode."""
    weights, graphs = safetensors.torch.load_file(bundle.folder / WEIGHTS), bundle.folder / NETWORKS
    whole = onnx.load(graphs) if graphs.is_file() else None
    d_out = 2 if bundle.manifest.target.problem == "regression" else len(bundle.manifest.target.classes)
    for place, (prefix, told) in enumerate(told_of(bundle).items()):
        candidate = read_candidate(told["candidate"])
        if candidate is None or candidate.family not in {family.name for family in FAMILIES}:
            continue
        preparation = Preparation.model_validate(told["preparation"])
        layout = layout_of(preparation)
        network = build(candidate, len(layout.numeric), layout.cardinalities, d_out, layout.image)
        state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        weight, graph = told.get("weight", 0.0), None if whole is None else extract(whole, place)
        yield Member(load_state(network, state), preparation, weight, told["candidate"], graph)


def read_scale(bundle: ModelBundle) -> TargetScale | None:
    """The scale of a regression's target that a bundle's members were trained under; None for classes, and for a bundle
    that does not tell."""
    told = bundle.candidates.get(SCALE)
    return None if told is None else TargetScale.model_validate(told)


def level(member: Member, conformed: pd.DataFrame, labels: Labels) -> None:
    """Bring a classifier to the level of n rows of another time than its training: its temperature and biases are
    fitted to them, and become part of its last layer."""
    temperature, biases = fit_level(member_outputs([member], conformed)[0], labels)
    network = member.module
    assert isinstance(network, Network)
    network.level(temperature, torch.from_numpy(biases))


def trained_until(bundle: ModelBundle) -> datetime | None:
    """The newest event time of a row that a bundle's weights were fitted to; of any row it has seen, if untold."""
    told = bundle.candidates.get(TRAINED_UNTIL)
    return datetime.fromisoformat(told) if told else bundle.manifest.lineage.known_until


def annotate(path: Path, **more: Any) -> None:
    """Add entries to a bundle's `candidates.json`."""
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, **more}, indent=1), encoding="utf-8")
