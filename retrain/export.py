"""Trained members to what is served: one ONNX graph from raw columns to calibrated answers, proven equal to torch.

    columns -> preparation (written by hand) -> members (exported from torch) -> mixture (by hand) -> answers

`write_model` is the door: it writes the four files of a bundle that come from the members.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from registry.bundle import CANDIDATES, LABEL, MODEL, NETWORKS, REFERENCE, SERVING, TIME, WEIGHTS
from registry.conforming import as_strings, conform
from registry.golden import GOLDEN_ROWS
from registry.images import COMPONENTS
from registry.metrics import Array
from registry.schema import Schema
from registry.scoring import REPRESENTATION, Graph, Scores, differences, input_shape, outputs_of, require_small
from registry.target import Target
from retrain.batches import rows_at_once, rows_of
from retrain.calibration import Calibration
from retrain.families.base import OF_TRAINING
from retrain.families.catalogue import FAMILIES
from retrain.families.cost import flops, parameters
from retrain.families.hidden import kept_share
from retrain.families.picture import PictureNet
from retrain.lean_graph import lean
from retrain.mixture_graph import Mixture, add_answers, add_mixture
from retrain.network_graph import (
    CATEGORIES,
    FEATURES,
    IMAGES,
    NUMERIC,
    OUTPUTS,
    embed,
    exported,
    features_name,
    member_name,
    without_weights,
)
from retrain.preparation import Preparation, Prepared
from retrain.preparation_graph import ML_DOMAIN, PREFIX, GraphBuilder, add_preparation, model_of, refuse_names
from retrain.representation import ROWS, Representation, heaviest
from retrain.serving_builder import UNSERVED, ServingBuilder, layout_of, leave_out_unlike

PARITY_ROWS = 1_000
REFERENCE_ROWS = 2_000
_BATCH = 4_096
SCALE = "scale"
"""Key of `candidates.json` with a regression target's scale."""
PARITY = "parity"
"""Key of `candidates.json` with the differences between graph and torch, by output."""


@dataclass(frozen=True)
class Member:
    """A trained network of the ensemble: `module(numeric, categories)` gives (n, d_out), see `calibration.py`.
    `candidate` is the JSON of what it was built from, kept for warm starts; `graph` its nodes, if they are known."""

    module: nn.Module
    preparation: Preparation
    weight: float
    candidate: Mapping[str, Any] = field(default_factory=dict)
    graph: onnx.GraphProto | None = field(default=None, repr=False, compare=False)


def write_model(
    folder: Path,
    members: Sequence[Member],
    calibration: Calibration,
    schema: Schema,
    target: Target,
    *,
    test: pd.DataFrame,
    labels: pd.Series[Any],
    times: pd.Series[Any] | None = None,
    study: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    training: pd.DataFrame | None = None,
    said: Scores | None = None,
) -> Scores:
    """Write graph, weights, candidates and reference into `folder`; give the answers to all test rows: the graph's, or
    those that were `said` to them before, in which case the graph's own stand in the reference's golden rows alone.

    `test` are raw rows of the test part, `labels` their target, `times` their event times; at most `REFERENCE_ROWS` of
    them, drawn at random, become the reference. `study` are the best candidates for warm starts, `training` conformed
    training rows, from which the representation of images is learnt: needed where there are any. What is left to write
    are the card, the figures and the manifest. Raises `BundleError` when graph and torch differ on the test rows,
    `DataError` when a column bears a name that the graph needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen = None if schema.image is None or training is None else represent(members, training)
    export(members, calibration, schema, target, folder / MODEL, seen)
    graph = Graph.open(folder / MODEL, schema, target.problem)
    rows = conform(test, schema)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    checked = rows.iloc[drawn[:PARITY_ROWS]]
    own = graph.predict(checked, conformed=True)
    parity = check_parity(own, members, calibration, target, checked, seen)
    left_out = None
    if schema.image is None:
        left_out = leave_out_unlike(folder, own, schema, target, calibration.radius, checked)
    state = {
        f"member{index}.{name}": value.detach().clone().contiguous()
        for index, member in enumerate(members)
        for name, value in member.module.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    told = {**_candidates(members, study, calibration, rows.iloc[:1]), PARITY: parity}
    told |= {UNSERVED: left_out} if left_out else {}
    (folder / CANDIDATES).write_text(json.dumps(told, indent=1), encoding="utf-8")
    drawn = drawn[:REFERENCE_ROWS]  # in this order, so that the golden rows, which come first, are a random sample too
    answers = graph.predict(rows, conformed=True) if said is None else said
    shown = answers.take(drawn)
    if said is not None:
        if seen is not None:
            shown = replace(shown, representation=graph.predict(rows.iloc[drawn], conformed=True).representation)
        shown = Scores.join([own.take(slice(GOLDEN_ROWS)), shown.take(slice(GOLDEN_ROWS, None))])
    truth = (as_strings(labels) if target.classes else pd.to_numeric(labels)).to_numpy()
    known = rows.iloc[drawn].reset_index(drop=True).assign(**{LABEL: truth[drawn]}, **shown.columns())
    if times is not None:
        known[TIME] = times.to_numpy()[drawn]
    known.to_parquet(folder / REFERENCE)
    return answers


def export(
    members: Sequence[Member],
    calibration: Calibration,
    schema: Schema,
    target: Target,
    path: Path,
    seen: Representation | None = None,
) -> None:
    """Write the ONNX graph: inputs and outputs as `registry/bundle.py` describes them, constants folded. Beside it goes
    what a later export takes the members' nodes from. Puts modules in eval mode."""
    refuse_names(schema)
    if not math.isclose(total := sum(member.weight for member in members), 1, abs_tol=1e-6):
        raise ValueError(f"expected weights that sum to 1, got {total:g} of {len(members)} members")
    builder = GraphBuilder()
    members, mixture = _mixed(builder, members, calibration, target)
    answers = add_answers(builder, mixture, calibration)
    if target.classes:
        answers["prediction"] = builder.add(
            "LabelEncoder",
            answers["prediction"],
            domain=ML_DOMAIN,
            keys_int64s=range(len(target.classes)),
            values_strings=target.classes,
        )
    if seen is not None:
        answers[REPRESENTATION] = seen.add_to(builder, features_name(seen.place))
    for name in outputs_of(target.problem, images=seen is not None):
        builder.name(answers[name], name)
    model = model_of(builder, *_columns(schema, target))
    names = {name for member in members for name in member.module.state_dict()}
    onnx.save(without_weights(model, names), path.with_name(NETWORKS))
    _save_lean(model, path)
    if schema.image is None:
        serving = ServingBuilder(layout_of(_distinct(members), schema))
        _, mixture = _mixed(serving, members, calibration, target)
        _save_lean(serving.model(mixture, target), path.with_name(SERVING))


def _mixed(
    builder: GraphBuilder, members: Sequence[Member], calibration: Calibration, target: Target
) -> tuple[list[Member], Mixture]:
    """The members, each with its graph, and their mixture, added to a graph."""
    preparations, outputs, known = _distinct(members), list[str](), list[Member]()
    arrays = [_named(builder, index, preparation) for index, preparation in enumerate(preparations)]
    for place, member in enumerate(members):
        (member,) = lent([member], [*members, *known])
        graph, found = _embedded(builder, member, arrays[preparations.index(member.preparation)])
        known.append(replace(member, graph=graph))
        builder.name(found[OUTPUTS], member_name(place))
        if FEATURES in found:
            builder.name(found[FEATURES], features_name(place))
        outputs.append(member_name(place))
    d_out = 2 if calibration.scale is not None else len(target.classes)
    return known, add_mixture(builder, outputs, [member.weight for member in members], d_out, calibration)


def _save_lean(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(made := lean(model))
    onnx.save(made, path)


def _named(builder: GraphBuilder, index: int, preparation: Preparation) -> dict[str, str]:
    """A preparation's arrays, under the names by which a member's graph is found again; by their names in the graph."""
    found = add_preparation(builder, preparation)
    sources = {} if found is None else dict(zip((NUMERIC, CATEGORIES), found, strict=True))
    if preparation.image is not None:
        sources[IMAGES] = preparation.image.name
    names = {name: f"{PREFIX}{name}_{index}" for name in sources}
    for name, source in sources.items():
        builder.name(source, names[name])
    return names


def _embedded(
    builder: GraphBuilder, member: Member, inputs: Mapping[str, str]
) -> tuple[onnx.GraphProto, dict[str, str]]:
    """A member's graph, the one it came with or by torch's exporter, and the names of its outputs, its nodes added."""
    state = {name: value.detach().numpy() for name, value in member.module.state_dict().items()}
    if member.graph is not None and (found := embed(builder, member.graph, inputs, state)) is not None:
        return member.graph, found
    preparation = member.preparation
    image = None if preparation.image is None else preparation.image.input
    graph = exported(member.module, preparation.d_numeric, len(preparation.cardinalities), image)
    found = embed(builder, graph, inputs, state)
    if found is None:
        raise ValueError("the exporter left out some of the weights' names")
    return graph, found


def lent(members: Sequence[Member], others: Sequence[Member]) -> list[Member]:
    """The members, those without a graph with that of another network which differs from theirs in weights alone, if
    there is one: torch's exporter takes longer than a short training."""
    known = [(_architecture(one), one.graph) for one in others if one.graph is not None]

    def found(member: Member) -> onnx.GraphProto | None:
        return next((graph for architecture, graph in known if architecture == _architecture(member)), None)

    return [one if one.graph is not None else replace(one, graph=found(one)) for one in members]


def _architecture(member: Member) -> object:
    """What members share whose graphs differ in weights alone; of one of no known family, itself."""
    family = next((one for one in FAMILIES if one.name == member.candidate.get("family")), None)
    if family is None:
        return member
    names = {one.name for one in family.parameters_for("table" if member.preparation.image is None else "image")}
    told, preparation = member.candidate.get("choices", {}), member.preparation
    reads = preparation.d_numeric, preparation.cardinalities, preparation.image and preparation.image.input
    return family.name, kept_share(told), {name: told.get(name) for name in names.difference(OF_TRAINING)}, reads


def represent(members: Sequence[Member], training: pd.DataFrame) -> Representation:
    """The representation of images that the heaviest member's features give, learnt on conformed training rows."""
    place = heaviest([member.weight for member in members])
    rows = training.iloc[:: -(-len(training) // ROWS)]
    return Representation.fit(place, image_features(members[place], rows))


@torch.inference_mode()
def image_features(member: Member, conformed: pd.DataFrame) -> Array:
    """A member's features (n, width) of the rows' images."""
    module, source = member.module.eval(), member.preparation.image
    if source is None or not isinstance(module, PictureNet):
        raise TypeError(f"expected a network that reads images, got {type(module).__name__}")
    images = torch.from_numpy(source.apply(conformed[source.name]))
    size = rows_at_once(images)
    parts = [module.features(images[at : at + size]) for at in range(0, len(images), size)]
    return torch.cat(parts).numpy().astype(np.float64)


def member_outputs(members: Sequence[Member], conformed: pd.DataFrame) -> Array:
    """Each member's outputs by torch and numpy alone, (m, n, d_out): what calibration and parity start from."""
    prepared = {id(p): p.apply(conformed) for p in _distinct(members)}
    chosen = [prepared[id(next(p for p in _distinct(members) if p == member.preparation))] for member in members]
    return np.stack([_forward(member.module, rows) for member, rows in zip(members, chosen, strict=True)])


def check_parity(
    answers: Scores,
    members: Sequence[Member],
    calibration: Calibration,
    target: Target,
    conformed: pd.DataFrame,
    seen: Representation | None = None,
) -> dict[str, float]:
    """The largest difference of each output between a graph's answers and those of torch, numpy preparation and numpy
    calibration. Raises `BundleError` when one is too large."""
    weights = np.array([member.weight for member in members])
    expected = calibration.scores(member_outputs(members, conformed), weights, target)
    if seen is not None:
        features = image_features(members[seen.place], conformed)
        expected = replace(expected, representation=seen.apply(features))
    found = differences(answers, expected, radius=calibration.radius)
    require_small(found, f"graph against torch on {len(conformed)} rows")
    return found


def _distinct(members: Sequence[Member]) -> list[Preparation]:
    found: list[Preparation] = []
    for member in members:
        if member.preparation not in found:
            found.append(member.preparation)
    return found


def _columns(schema: Schema, target: Target) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Inputs and outputs as `registry/bundle.py` describes them."""
    info, k = helper.make_tensor_value_info, len(target.classes)
    kinds = {"datetime": TensorProto.INT64, "categorical": TensorProto.STRING, "image": TensorProto.UINT8}
    inputs = []
    for column in schema.columns:
        shape: list[str | int | None] = ["n", *input_shape(column)]
        inputs.append(info(column.name, kinds.get(column.kind, TensorProto.DOUBLE), shape))
    word = TensorProto.STRING if target.classes else TensorProto.FLOAT
    types = {"prediction": (word, []), "set": (TensorProto.BOOL, [k])}
    widths = {"probabilities": [k], "interval": [2], REPRESENTATION: [COMPONENTS]}
    names = outputs_of(target.problem, images=schema.image is not None)
    shapes = {name: types.get(name, (TensorProto.FLOAT, widths.get(name, []))) for name in names}
    return inputs, [info(name, kind, ["n", *rest]) for name, (kind, rest) in shapes.items()]


@torch.inference_mode()
def _forward(module: nn.Module, rows: Prepared) -> Array:
    module.eval()
    held = rows_of(rows, torch.zeros(len(rows)))
    size = min(_BATCH, held.at_once)
    parts = [module(*(one[at : at + size] for one in held.inputs)) for at in range(0, max(len(rows), 1), size)]
    return torch.cat(parts).numpy().astype(np.float64)


def _costs(member: Member, row: pd.DataFrame) -> dict[str, int]:
    """Parameters and operations; a former network's were told before, and the counter takes a second to load."""
    if member.graph is not None:
        return {}
    inputs = rows_of(member.preparation.apply(row), torch.zeros(len(row))).inputs
    return {"parameters": parameters(member.module), "flops": flops(member.module, *inputs)}


def _candidates(
    members: Sequence[Member], study: Sequence[Mapping[str, Any]], calibration: Calibration, row: pd.DataFrame
) -> dict[str, Any]:
    made = [
        {
            "candidate": {**member.candidate, **_costs(member, row)},
            "weight": member.weight,
            "preparation": member.preparation.model_dump(mode="json"),
        }
        for member in members
    ]
    scale = None if calibration.scale is None else calibration.scale.model_dump()
    return {"members": made, "study": [dict(one) for one in study], SCALE: scale}
