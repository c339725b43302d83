"""The graph for serving answers as the bundle's own, and is not used where it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pandas as pd
import pytest
from onnx import helper, numpy_helper

from registry.bundle import CANDIDATES, MODEL, SERVING, Manifest, ModelBundle
from registry.conforming import conform
from registry.errors import BundleError
from registry.schema import Schema, TextColumn
from registry.scoring import Graph, Scorer, Scores, differences, feed, require_small
from registry.serving_graph import (
    LAYOUT,
    Coded,
    Layout,
    ServingGraph,
    ServingScorer,
    open_for_serving,
    scores_of,
)
from registry.target import Target
from retrain.calibration import Calibration
from retrain.export import export
from retrain.serving_builder import UNSERVED, layout_of, leave_out_unlike
from serving.champion import Served
from tests.handmade import make_bundle
from tests.retrain.test_export import SCHEMA, Made, history, made, make_member, nasty

__all__ = ["made"]


@pytest.fixture(scope="module")
def bundle(made: Made, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("sealed") / "bundle"
    shutil.copytree(made.folder, folder)
    (folder / "card.md").write_text("# card\n")
    return sealed(folder, made)


def sealed(folder: Path, made: Made) -> ModelBundle:
    pattern = make_bundle(folder.parent / "pattern", problem=made.problem).manifest
    changes = {"target": made.target, "conformal_radius": made.calibration.radius, "data_schema": SCHEMA}
    return ModelBundle.seal(folder, Manifest.model_validate({**pattern.model_dump(), **changes}))


def test_it_answers_as_the_bundles_own(made: Made, bundle: ModelBundle) -> None:
    """Real rows and nasty ones, many at once."""
    told: list[str] = []
    quick, own = open_for_serving(bundle, tell=told.append), Scorer.load(bundle)
    assert told == []
    assert isinstance(quick, ServingScorer)
    for frame in (made.test.tail(500), nasty()):
        found, expected = quick.predict(frame), own.predict(frame)
        require_small(differences(found, expected, radius=made.calibration.radius), made.problem)


def test_rows_alone_are_answered_as_in_a_batch(made: Made, bundle: ModelBundle) -> None:
    """Values in the schema's order, one row or four, with another radius than the bundle's."""
    served = Served.load(bundle, "1", bundle.manifest.task.name)
    served.scorer.radius = 0.3
    conformed = conform(pd.concat([made.test.head(6), nasty()]), SCHEMA)
    inputs = feed(conformed, SCHEMA)
    values = [[inputs[name][row, 0] for name in SCHEMA.names] for row in range(len(conformed))]
    expected = served.scorer.run(inputs)
    assert isinstance(served.scorer, ServingScorer)
    together, each = served.score(values), [answer for one in values for answer in served.score([one])]
    for found in (together, each):
        scores = Scores.join([served.scores(answer) for answer in found])
        require_small(differences(scores, expected, radius=0.3), made.problem)
    ids = [str(row) for row in range(len(values))]
    columns = json.loads(served.answers.write_columns(served.answers.columns(ids, expected)))["columns"]
    assert columns["uncertainty"] == pytest.approx(expected.uncertainty.tolist())
    for number, answer in enumerate(together):
        assert isinstance(answer, list)
        quick = json.loads(served.answers.write_one("a", answer, 0.3))
        assert quick == json.loads(served.answers.write(["a"], served.scores(answer)))
        assert quick["predictions"][0]["uncertainty"] == pytest.approx(float(expected.uncertainty[number]), rel=1e-4)


def test_it_has_fewer_nodes_and_no_strings(made: Made) -> None:
    whole, lean = onnx.load(made.folder / MODEL).graph, onnx.load(made.folder / SERVING).graph
    assert len(lean.node) < len(whole.node)
    assert "LabelEncoder" not in {node.op_type for node in lean.node}
    assert [one.name for one in lean.output] == ["answers"]


@pytest.mark.parametrize("fault", ["other", "no graph", "no layout", "strange columns", "strange input"])
def test_one_that_answers_otherwise_is_not_used(
    made: Made, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Other weights, a file that is no graph, a layout that is missing or of another schema, a matrix that nobody
    knows: the bundle's own graph answers, and the operator is told."""
    folder = tmp_path / "bundle"
    shutil.copytree(made.folder, folder)
    (folder / "card.md").write_text("# card\n")
    path = folder / SERVING
    model = onnx.load(path)
    if fault == "other":
        for one in model.graph.initializer:
            if one.name.endswith("head.weight"):
                one.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(one), one.name))
        onnx.save(model, path)
    elif fault == "no graph":
        path.write_bytes(b"no graph")
    elif fault == "no layout":
        del model.metadata_props[:]
        onnx.save(model, path)
    elif fault == "strange input":
        model.graph.input.append(helper.make_tensor_value_info("sounds", onnx.TensorProto.FLOAT, ["n", 1]))
        onnx.save(model, path)
    else:
        helper.set_model_props(model, {LAYOUT: Layout({"height": 1}, (), ()).to_json()})
        onnx.save(model, path)
    if fault != "other":
        with pytest.raises(BundleError, match=r"does not load|no layout|that the schema lacks: height|other inputs"):
            ServingGraph.open(path, SCHEMA)
    told: list[str] = []
    assert type(open_for_serving(sealed(folder, made), tell=told.append)) is Scorer
    assert len(told) == 1
    assert told[0].startswith("serving.onnx is not used, model.onnx answers")
    with caplog.at_level("WARNING", "uvicorn.error"):
        Served.load(ModelBundle.load(folder), "7", ModelBundle.load(folder).manifest.task.name)
    assert f"version 7: {told[0]}" in caplog.messages


def test_one_that_answers_otherwise_is_left_out_of_a_bundle(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With another radius than the bundle's own its sets and intervals are others: it goes, the reason is kept, and
    what ends a search is a difference of the bundle's own graph alone."""
    shutil.copytree(made.folder, tmp_path, dirs_exist_ok=True)
    own, radius = Graph.open(tmp_path / MODEL, SCHEMA, made.problem), made.calibration.radius
    conformed = conform(made.test.head(300), SCHEMA)
    said = own.predict(conformed)
    assert leave_out_unlike(tmp_path, said, SCHEMA, made.target, radius, conformed) is None
    assert UNSERVED not in json.loads((tmp_path / CANDIDATES).read_text())
    with caplog.at_level("WARNING", "everfit"):
        why = leave_out_unlike(tmp_path, said, SCHEMA, made.target, 3 * radius + 1, conformed)
    assert why is not None
    assert "graph for serving on 300 rows" in why
    assert caplog.messages == [f"serving.onnx is left out, and model.onnx answers, which takes longer: {why}"]
    assert not (tmp_path / SERVING).exists()


def test_a_bundle_without_one_is_served_by_its_own_which_is_told(tmp_path: Path) -> None:
    """One made by hand, or before there was such a graph: whoever wonders why it is slower finds it in the log."""
    told: list[str] = []
    assert type(open_for_serving(make_bundle(tmp_path / "bundle"), tell=told.append)) is Scorer
    assert told == ["its bundle has no serving.onnx, model.onnx answers, which takes longer"]


def test_texts_are_wider_than_one_number(tmp_path: Path) -> None:
    """A text stands in the matrix as its numbers; rows of such are not taken one by one."""
    schema = Schema(columns=(*SCHEMA.columns, TextColumn(name="note", words=("late", "early"))))
    frame = history(200, "binary", 3).assign(note=["late again", "early", None, "who knows"] * 50)
    conformed, target = conform(frame, schema), Target(problem="binary", classes=("no", "yes"))
    member, calibration = make_member(conformed, schema, 2, "robust", 1.0), Calibration(radius=0.6)
    layout = layout_of([member.preparation], schema)
    assert layout.numbers["note"] > 1
    assert Layout.of_json(layout.to_json()) == layout
    assert Coded("carrier", member.preparation.categories[0].categories) in layout.codes
    export([member], calibration, schema, target, tmp_path / MODEL)
    found = ServingGraph.open(tmp_path / SERVING, schema)
    assert not found.takes_rows
    expected = Graph.open(tmp_path / MODEL, schema, "binary").predict(frame)
    answers = scores_of(found.run(feed(conformed, schema)), target.classes, 0.6)
    require_small(differences(answers, expected, radius=0.6), "texts")
