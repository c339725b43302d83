"""The exported graph answers as torch does, and a bundle made from it holds together."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnxscript.optimizer import optimize
from safetensors.numpy import load_file
from torch import Tensor, nn

from registry.bundle import CANDIDATES, LABEL, MODEL, NETWORKS, REFERENCE, WEIGHTS, Manifest, ModelBundle
from registry.conforming import conform
from registry.errors import BundleError, DataError
from registry.golden import GOLDEN_ROWS
from registry.metrics import Problem
from registry.schema import CategoricalColumn, ImageColumn, NumericColumn, Schema
from registry.scoring import Graph, Scorer, Scores, differences, require_small
from registry.target import Target
from retrain.calibration import Calibration, TargetScale
from retrain.export import Member, check_parity, export, lent, member_outputs, write_model
from retrain.families.base import Candidate
from retrain.families.catalogue import build
from retrain.families.parameters import Choice
from retrain.lean_graph import lean
from retrain.network_graph import exported, extract
from retrain.preparation import Preparation, ScalingName
from retrain.preparation_graph import refuse_names
from retrain.search.defaults import DEFAULTS
from retrain.search.space import SearchSpace
from tests.handmade import make_bundle, make_frame, make_schema

SCHEMA = make_schema()
PROBLEMS: tuple[Problem, ...] = ("binary", "multiclass", "regression")


class Net(nn.Module):
    """A small network with what families use: embeddings by Gather, batch norm, dropout, a residual."""

    def __init__(self, preparation: Preparation, d_out: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(codes, 3) for codes in preparation.cardinalities)
        self.first = nn.Linear(preparation.d_numeric + 3 * len(self.tables), 16)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.5), nn.LayerNorm(16))
        self.head = nn.Linear(16, d_out)

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        embedded = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        hidden = self.first(torch.cat([numeric, *embedded], dim=1))
        out: Tensor = self.head(hidden + self.body(hidden))
        return out


def make_member(conformed: pd.DataFrame, schema: Schema, d_out: int, scaling: ScalingName, weight: float) -> Member:
    """A network that has never learnt, but whose batch norms have seen the rows."""
    preparation = Preparation.fit(conformed, schema, scaling)
    net = Net(preparation, d_out)
    prepared = preparation.apply(conformed)
    with torch.no_grad():
        net.train()(torch.from_numpy(prepared.numeric), torch.from_numpy(prepared.categories))
    return Member(net, preparation, weight, {"family": "net", "choices": {"width": 16, "scaling": scaling}})


@dataclass(frozen=True)
class Made:
    """A written folder and all it was written from."""

    folder: Path
    problem: Problem
    members: tuple[Member, ...]
    calibration: Calibration
    target: Target
    test: pd.DataFrame
    answers: Scores

    @property
    def weights(self) -> np.ndarray:
        return np.array([member.weight for member in self.members])


def history(rows: int, problem: Problem, seed: int) -> pd.DataFrame:
    frame = make_frame(rows, seed=seed, problem=problem, every="1h").astype({"carrier": object, "member": object})
    for column, step in (("when", 11), ("weight", 7), ("member", 5), ("carrier", 13)):
        frame.loc[::step, column] = None
    return frame


@pytest.fixture(scope="module", params=PROBLEMS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    problem: Problem = request.param
    torch.manual_seed(0)
    training, test = history(600, problem, 0), history(2_500, problem, 1)
    target = Target.learn(training["late"], problem)
    conformed = conform(training, SCHEMA)
    plan: tuple[tuple[ScalingName, float], ...] = (("robust", 0.5), ("quantile", 0.3), ("robust", 0.2))
    members = tuple(
        make_member(conformed, SCHEMA, len(target.classes) or 2, scaling, weight) for scaling, weight in plan
    )
    labels = target.encode(training["late"])
    scale = TargetScale.fit(labels) if problem == "regression" else None
    weights = np.array([member.weight for member in members])
    calibration = Calibration.fit(member_outputs(members, conformed), weights, labels, coverage=0.9, scale=scale)
    folder = tmp_path_factory.mktemp(problem) / "bundle"
    answers = write_model(
        folder, members, calibration, SCHEMA, target, test=test, labels=test["late"], study=[{"value": 0.7}]
    )
    return Made(folder, problem, members, calibration, target, test, answers)


def nasty() -> pd.DataFrame:
    """Rows that nobody would send on purpose."""
    return pd.DataFrame(
        {
            "when": [None, "1815-06-18T11:35", "2150-12-31T23:59:59.999999", "0001-01-02", "9999-12-30", "1970-01-01"],
            "amount": [None, np.inf, -np.inf, 1e300, -1e-300, 5e-324],
            "weight": [1e12, 0.0, None, -1e12, 1e38, 1.7e308],
            "member": [None, True, False, "yes", 0, None],
            "carrier": [None, "", "ZZ", "AA ", "é\n", "BB"],
        }
    )


def test_the_graph_answers_as_torch_does(made: Made) -> None:
    """All outputs, on a thousand real rows and on nasty ones, within 1e-4 of torch and numpy."""
    graph = Graph.open(made.folder / MODEL, SCHEMA, made.problem)
    for frame in (made.test.tail(1_000), nasty()):
        conformed = conform(frame, SCHEMA)
        expected = made.calibration.scores(member_outputs(made.members, conformed), made.weights, made.target)
        found = graph.predict(frame)
        assert np.isfinite(found.scores).all()
        assert len(found) == len(frame)
        require_small(differences(found, expected, radius=made.calibration.radius), made.problem)


def test_graphs_are_as_lean_as_by_all_rules(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule that is left out would have made them smaller: the same nodes and constants, to the bit."""
    kept, seen = onnx.load(made.folder / NETWORKS), list[tuple[onnx.ModelProto, onnx.ModelProto]]()
    members = [replace(one, graph=extract(kept, place)) for place, one in enumerate(made.members)]
    monkeypatch.setattr("retrain.export.lean", lambda model: seen.append((model, lean(model))) or seen[-1][1])
    export(members, made.calibration, SCHEMA, made.target, tmp_path / MODEL)
    for raw, found in seen:
        expected = optimize(raw).graph
        assert [(one.op_type, *one.input) for one in found.graph.node] == [
            (one.op_type, *one.input) for one in expected.node
        ]
        assert list(found.graph.initializer) == list(expected.initializer)
    assert len(seen) == 2


def test_renewed_members_need_no_exporter(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, other members, another order: the nodes come from the graph that was kept, which holds no weight;
    where they do not fit, torch is asked again."""
    kept = onnx.load(made.folder / NETWORKS)
    assert not any(one.raw_data for one in kept.graph.initializer if one.name.endswith(("head.weight", "first.weight")))
    renewed = []
    for place in (2, 0):
        module = copy.deepcopy(made.members[place].module)
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        renewed.append(replace(made.members[place], module=module, weight=0.5, graph=extract(kept, place)))

    def refuse(*_: object) -> None:
        raise AssertionError("torch was asked to export")

    with monkeypatch.context() as patch:
        patch.setattr("retrain.export.exported", refuse)
        export(renewed, made.calibration, SCHEMA, made.target, tmp_path / MODEL)
    graph = Graph.open(tmp_path / MODEL, SCHEMA, made.problem)
    conformed = conform(made.test.tail(500), SCHEMA)
    check_parity(graph.predict(conformed), renewed, made.calibration, made.target, conformed)
    assert extract(onnx.load(tmp_path / NETWORKS), 1) is not None
    assert extract(kept, 3) is None
    other = Net(made.members[0].preparation, made.members[0].module.head.out_features)  # type: ignore[union-attr,arg-type]
    other.head = torch.nn.Linear(16, 5)
    monkeypatch.setattr("retrain.export.exported", refuse)
    with pytest.raises(AssertionError, match="asked to export"):
        export([replace(renewed[0], module=other, weight=1.0)], made.calibration, SCHEMA, made.target, tmp_path / MODEL)


def test_networks_alike_are_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one architecture, under other weights, another rate of learning and another scaling of the columns."""
    conformed, asked = conform(history(300, "binary", 0), SCHEMA), []
    target = Target(problem="binary", classes=("no", "yes"))
    space, members = SearchSpace.of(("mlp",), 300, 9, "binary"), []
    plans: tuple[tuple[ScalingName, dict[str, Choice]], ...] = (
        ("robust", {"numeric_embedding": "piecewise"}),
        ("quantile", {"numeric_embedding": "piecewise", "adamw_rate": 1e-3, "dropout": 0.4}),
        ("robust", {"numeric_embedding": "piecewise", "activation": "elu"}),
    )
    for seed, (scaling, choices) in enumerate(plans):
        candidate = space.fit(Candidate(family="mlp", choices={**choices, "scaling": scaling}), DEFAULTS)
        assert candidate is not None
        torch.manual_seed(seed)
        preparation = Preparation.fit(conformed, SCHEMA, scaling)
        module = build(candidate, preparation.d_numeric, preparation.cardinalities, 2)
        members.append(Member(module, preparation, 1 / 3, candidate.model_dump()))

    def counted(module: torch.nn.Module, *more: Any) -> onnx.GraphProto:
        asked.append(module)
        return exported(module, *more)

    monkeypatch.setattr("retrain.export.exported", counted)
    export(members, Calibration(radius=0.5), SCHEMA, target, tmp_path / MODEL)
    assert asked == [members[0].module, members[2].module]
    graph = Graph.open(tmp_path / MODEL, SCHEMA, "binary")
    check_parity(graph.predict(conformed), members, Calibration(radius=0.5), target, conformed)
    elder = replace(members[0], weight=0.5, graph=extract(onnx.load(tmp_path / NETWORKS), 0))
    asked.clear()
    export([replace(members[1], weight=0.5), elder], Calibration(radius=0.5), SCHEMA, target, tmp_path / MODEL)
    assert not asked
    narrow = elder.preparation.model_copy(update={"numbers": elder.preparation.numbers[1:]})
    assert [one.graph is not None for one in lent([replace(elder, preparation=narrow, graph=None)], [elder])] == [False]


def test_one_row_is_answered_as_in_a_batch(made: Made) -> None:
    """The batch dimension is free: none, one, many."""
    graph = Graph.open(made.folder / MODEL, SCHEMA, made.problem)
    whole = made.answers.take(slice(3))
    single = Scores.join([graph.predict(made.test.iloc[[row]]) for row in range(3)])
    require_small(differences(single, whole, radius=made.calibration.radius), "one by one")
    assert len(graph.predict(made.test.head(0))) == 0


def test_the_graph_is_lean(made: Made) -> None:
    """Batch norms are folded, dropout is gone, and each categorical column is looked up once for all members."""
    nodes = [node.op_type for node in onnx.load(made.folder / MODEL).graph.node]
    assert not {"BatchNormalization", "Dropout", "If", "Loop"} & set(nodes)
    assert nodes.count("LabelEncoder") == 1 + bool(made.target.classes)


def test_a_sealed_bundle_passes_its_own_test(made: Made, tmp_path: Path) -> None:
    """With card and manifest added, the folder is a bundle; its reference is the graph's answers on test rows."""
    (made.folder / "card.md").write_text("# card\n")
    pattern = make_bundle(tmp_path / "pattern", problem=made.problem).manifest
    changes = {"target": made.target, "conformal_radius": made.calibration.radius, "data_schema": SCHEMA}
    bundle = ModelBundle.seal(made.folder, Manifest.model_validate({**pattern.model_dump(), **changes}))
    Scorer.load(bundle).self_test()
    reference = bundle.reference()
    assert len(reference) == 2_000
    assert list(reference.columns[: len(SCHEMA.names)]) == list(SCHEMA.names)
    again = Scorer.load(bundle).predict(reference)
    require_small(differences(again, Scores.read(reference), radius=made.calibration.radius), "reference")
    assert reference[LABEL].head(GOLDEN_ROWS).nunique() > 1


def test_labels_of_the_reference_are_those_of_its_rows(made: Made) -> None:
    """Rows and labels stay together though they are drawn at random."""
    reference = pd.read_parquet(made.folder / REFERENCE)
    known = reference["amount"].to_numpy()
    truth = made.test.set_index("amount")["late"].loc[known].to_numpy()
    assert (reference[LABEL].to_numpy() == truth).all()


def test_weights_and_candidates_are_kept_for_warm_starts(made: Made) -> None:
    """Tensors by member and parameter; candidates with weight and preparation, and the study's best."""
    weights = load_file(made.folder / WEIGHTS)
    for index, member in enumerate(made.members):
        for name, value in member.module.state_dict().items():
            assert (weights[f"member{index}.{name}"] == value.numpy()).all()
    kept = json.loads((made.folder / CANDIDATES).read_text())
    assert [one["weight"] for one in kept["members"]] == [0.5, 0.3, 0.2]
    assert kept["members"][1]["candidate"]["choices"]["scaling"] == "quantile"
    assert Preparation.model_validate(kept["members"][0]["preparation"]) == made.members[0].preparation
    assert kept["study"] == [{"value": 0.7}]


def test_a_graph_that_differs_from_torch_is_refused(made: Made) -> None:
    """Swapped weights of two members are enough; the error names the outputs."""
    graph = Graph.open(made.folder / MODEL, SCHEMA, made.problem)
    swapped = [replace(member, weight=weight) for member, weight in zip(made.members, (0.2, 0.3, 0.5), strict=True)]
    conformed = conform(made.test.head(200), SCHEMA)
    check_parity(graph.predict(conformed), made.members, made.calibration, made.target, conformed)
    with pytest.raises(BundleError, match=r"graph against torch on 200 rows: .*uncertainty by"):
        check_parity(graph.predict(conformed), swapped, made.calibration, made.target, conformed)


def alone(columns: tuple[str, ...], calibration: Calibration, path: Path) -> Scores:
    """One untrained member on few columns, exported and checked."""
    schema = Schema(columns=tuple(column for column in SCHEMA.columns if column.name in columns))
    conformed = conform(history(60, "binary", 2), schema)
    target = Target(problem="regression") if calibration.scale else Target(problem="binary", classes=("no", "yes"))
    members = [make_member(conformed, schema, 2, "robust", 1.0)]
    export(members, calibration, schema, target, path)
    graph = Graph.open(path, schema, target.problem)
    check_parity(graph.predict(conformed), members, calibration, target, conformed)
    return graph.predict(conformed)


def test_one_member_without_numbers_never_disagrees(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Categories alone make a model, and a single member has nothing to disagree with. What torch says of itself on
    every export does not reach the user."""
    with caplog.at_level(logging.WARNING):
        scores = alone(("carrier",), Calibration(radius=1.0), tmp_path / "model.onnx")
    assert caplog.records == []
    assert capfd.readouterr().err == ""
    assert scores.disagreement == pytest.approx(0, abs=1e-6)
    assert scores.sets is not None
    assert scores.sets.all()


def test_one_member_without_categories_may_have_an_unbounded_interval(tmp_path: Path) -> None:
    """Numbers alone make a model; too few calibration rows give infinite bounds, also in the graph."""
    calibration = Calibration(radius=np.inf, scale=TargetScale(centre=1e6, spread=1e5))
    scores = alone(("amount", "weight"), calibration, tmp_path / "model.onnx")
    assert scores.interval is not None
    assert np.isinf(scores.interval).all()
    assert np.isfinite(scores.prediction).all()


@pytest.mark.parametrize("name", ["set", "prediction", LABEL, "", "everfit:Concat_0"])
def test_names_the_graph_needs_are_refused(name: str) -> None:
    """A column cannot bear the name of an output, of the label, or of an inner value."""
    schema = Schema(columns=(NumericColumn(name=name), CategoricalColumn(name="fine")))
    with pytest.raises(DataError, match="rename or exclude"):
        refuse_names(schema)


def test_names_that_the_log_gives_to_what_is_seen_of_images_are_refused() -> None:
    schema = Schema(columns=(NumericColumn(name="photo [1]"), NumericColumn(name="photo [9]")))
    refuse_names(schema)
    with pytest.raises(DataError, match=r"columns \['photo \[1\]'\] bear names"):
        refuse_names(Schema(columns=(*schema.columns, ImageColumn(name="photo"))))


def test_weights_that_do_not_sum_to_one_are_refused(made: Made, tmp_path: Path) -> None:
    """A mixture of half a model is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"sum to 1, got 0\.5 of 1 members"):
        export(made.members[:1], made.calibration, SCHEMA, made.target, tmp_path / "model.onnx")
