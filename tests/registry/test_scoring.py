"""Scoring a bundle's graph: from frames, from arrays, and through MLflow without Everfit."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pandas as pd
import pytest

from registry import scoring
from registry.bundle import MODEL, ModelBundle
from registry.conforming import conform
from registry.errors import BundleError, RowError
from registry.metrics import Problem
from registry.schema import NumericColumn, Schema
from registry.scoring import TOLERANCE, Graph, Scorer, Scores, differences, feed, require_small
from tests.handmade import make_bundle, make_frame, make_schema

ROOT = Path(__file__).parents[2]
PROBLEMS: tuple[Problem, ...] = ("binary", "multiclass", "regression")


@pytest.fixture(scope="module", params=PROBLEMS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_bundle(tmp_path_factory.mktemp("scoring") / "bundle", problem=request.param)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_bundle(tmp_path_factory.mktemp("binary") / "bundle")


def test_a_bundle_gives_its_stored_answers(bundle: ModelBundle) -> None:
    """The self-test passes, and the whole reference is reproduced."""
    scorer = Scorer.load(bundle, threads=2)
    scorer.self_test()
    reference = bundle.reference()
    found = scorer.predict(reference)
    require_small(differences(found, Scores.read(reference), radius=bundle.manifest.conformal_radius), "reference")
    assert len(found) == len(reference)
    assert found.scores.dtype == np.float64


def test_chunks_and_parts_are_the_whole(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are scored alike in one call, in chunks, one by one, and not at all."""
    scorer, frame = Scorer.load(bundle), make_frame(100, problem=bundle.manifest.task.problem)
    whole = scorer.predict(frame)
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 7)
    assert (scorer.predict(frame).scores == whole.scores).all()
    assert scorer.predict(frame.iloc[[41]]).scores == pytest.approx(whole.take(slice(41, 42)).scores, abs=1e-6)
    assert len(scorer.predict(frame.head(0))) == 0
    assert (whole.take(whole.uncertainty > 0).prediction == whole.prediction[whole.uncertainty > 0]).all()


def test_scores_survive_a_frame(bundle: ModelBundle, tmp_path: Path) -> None:
    """`columns` and `read` are inverse, through Parquet too."""
    scores = Scorer.load(bundle).predict(make_frame(20, problem=bundle.manifest.task.problem))
    pd.DataFrame(scores.columns()).to_parquet(tmp_path / "scores.parquet")
    found = differences(Scores.read(pd.read_parquet(tmp_path / "scores.parquet")), scores, radius=0.8)
    assert set(found.values()) == {0.0}


def test_an_entropy_is_as_exact_as_it_is_steep() -> None:
    """Of a row that is nearly sure, a probability's rounding shows nine times in it; of a row of doubt not."""
    for sure, allowed in ((1 - 3e-5, True), (0.6, False)):
        p = np.array([[sure, 1 - sure]])
        told = Scores(np.array(["a"], dtype=object), np.array([0.5]), np.array([0.1]), p, np.array([[True, False]]))
        found = replace(told, uncertainty=told.uncertainty + 3e-4)
        assert (differences(found, told, radius=0.3)["uncertainty"] <= TOLERANCE) is allowed


def test_missing_and_unknown_values_are_served(binary: ModelBundle) -> None:
    """Every column may be missing and a category never seen before; answers stay finite."""
    frame = pd.DataFrame(
        {
            "when": ["2024-05-01T10:00:00+02:00", None, "1931-01-01"],
            "amount": [1, None, np.inf],
            "weight": ["2.5", "1", "3"],
            "member": [None, "yes", True],
            "carrier": ["ZZ", None, ""],
            "unused": 0,
        }
    )
    found = Scorer.load(binary).predict(frame)
    assert np.isfinite(found.scores).all()
    assert set(found.prediction) <= {"yes", "no"}


def test_a_value_of_a_wrong_type_names_its_row(binary: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row position is that of the whole frame, though it is read in parts."""
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 7)
    frame = make_frame(30).assign(amount=[*range(29), "many"])
    with pytest.raises(RowError, match=r"'amount', row 29: expected a number, got 'many'"):
        Scorer.load(binary).predict(frame)


def test_feed_is_what_the_graph_reads() -> None:
    """Shapes, types and the three ways to be missing."""
    frame = make_frame(3).assign(when=pd.NaT, amount=np.nan, carrier=None)
    inputs = feed(conform(frame, make_schema()), make_schema())
    assert {name: values.shape for name, values in inputs.items()} == dict.fromkeys(make_schema().names, (3, 1))
    assert inputs["when"].dtype == np.int64
    assert (inputs["when"] == scoring.MISSING_TIME).all()
    assert np.isnan(inputs["amount"]).all()
    assert inputs["carrier"].ravel().tolist() == ["", "", ""]


def test_golden_rows_catch_a_graph_that_answers_otherwise(binary: ModelBundle, tmp_path: Path) -> None:
    """A bundle sealed with another model's graph is refused, and the error names what differs."""
    other = make_bundle(tmp_path / "other", quality=-1)
    folder = Path(shutil.copytree(binary.folder, tmp_path / "mixed"))
    shutil.copy(other.model, folder / MODEL)
    mixed = ModelBundle.seal(folder, binary.manifest)
    with pytest.raises(BundleError, match=r"golden rows: expected outputs equal within 0\.0001.*probabilities by"):
        Scorer.load(mixed).self_test()


def test_a_graph_that_does_not_load_is_a_bundle_error(binary: ModelBundle, tmp_path: Path) -> None:
    """Bytes that are no graph, a graph cut short, no file."""
    whole = binary.model.read_bytes()
    for name, content in {"noise": b"\x00noise" * 50, "short": whole[: len(whole) // 2], "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BundleError, match=name):
            Graph.open(tmp_path / name, make_schema(), "binary")
    with pytest.raises(BundleError, match="absent"):
        Graph.open(tmp_path / "absent", make_schema(), "binary")


def test_a_graph_of_another_schema_is_refused(binary: ModelBundle, tmp_path: Path) -> None:
    """Inputs and outputs are compared with schema and problem; the error names them."""
    schema = Schema(columns=(*make_schema().columns[:-1], NumericColumn(name="carrier")))
    with pytest.raises(BundleError, match="inputs differ from the schema in carrier"):
        Graph.open(binary.model, schema, "binary")
    with pytest.raises(BundleError, match="lacks the outputs interval"):
        Graph.open(binary.model, make_schema(), "regression")
    model = onnx.load(binary.model)
    model.graph.output.pop()
    onnx.save(model, tmp_path / "fewer.onnx")
    with pytest.raises(BundleError, match="lacks the outputs disagreement"):
        Graph.open(tmp_path / "fewer.onnx", make_schema(), "binary")


def scores(p: list[list[float]], *, radius: float = 0.8) -> Scores:
    values = np.array(p)
    top = np.array(["no", "yes"], dtype=object)[values.argmax(axis=1)]
    sets = values >= np.minimum(1 - radius, values.max(axis=1, keepdims=True))
    return Scores(top, values[:, 0], values[:, 0], values, sets)


def test_differences_are_fair_at_the_boundaries() -> None:
    """A flip that rounding explains is none; one that it does not explain counts as 1."""
    found, expected = scores([[0.50001, 0.49999], [0.2, 0.8]]), scores([[0.49999, 0.50001], [0.19999, 0.80001]])
    assert (found.prediction != expected.prediction).any()
    assert found.sets is not None
    assert (found.sets != expected.sets).any()
    require_small(differences(found, expected, radius=0.8), "rounding")
    wrong = replace(found, prediction=found.prediction[::-1].copy(), sets=~found.sets)
    bad = differences(wrong, expected, radius=0.8)
    assert bad["prediction"] == bad["set"] == 1
    with pytest.raises(BundleError, match=r"prediction by 1, set by 1"):
        require_small(bad, "wrong")


def test_differences_of_numbers_are_relative_and_never_pass_nan() -> None:
    """1e6 and 1e6 + 10 agree; infinite bounds are equal; NaN and other shapes are not."""

    def numbers(prediction: float, bound: float) -> Scores:
        one = np.ones(1)
        return Scores(np.array([prediction]), one, one, interval=np.array([[-bound, bound]]))

    assert differences(numbers(1e6 + 10, np.inf), numbers(1e6, np.inf), radius=1)["prediction"] == pytest.approx(1e-5)
    assert differences(numbers(0, np.inf), numbers(0, np.inf), radius=1)["interval"] == 0
    near_zero = Scores(np.array([300.0]), np.ones(1), np.ones(1), interval=np.array([[0.0, 600.0]]))
    rounded = replace(near_zero, interval=np.array([[3e-4, 600.0]]))
    assert differences(rounded, near_zero, radius=1)["interval"] == pytest.approx(5e-7), "300 - 300 is no more exact"
    assert differences(replace(near_zero, prediction=np.array([301.0])), near_zero, radius=1)["prediction"] > 1e-3
    apart = replace(near_zero, disagreement=np.full(1, 1 + 1e-3))
    assert differences(apart, near_zero, radius=1)["disagreement"] < 1e-4, "of means near 300 it has five digits"
    apart = replace(near_zero, disagreement=np.full(1, 1.1), uncertainty=np.full(1, 1.1))
    assert min(differences(apart, near_zero, radius=1)[name] for name in ("disagreement", "uncertainty")) > 1e-3
    with pytest.raises(BundleError, match="prediction by nan"):
        require_small(differences(numbers(np.nan, 1), numbers(0, 1), radius=1), "nan")
    shorter = numbers(0, 1).take(slice(0))
    assert differences(shorter, numbers(0, 1), radius=1)["prediction"] == np.inf


def run_python(code: str, *arguments: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=arguments[0] if arguments else ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scoring_imports_neither_torch_nor_mlflow() -> None:
    """What serving and monitoring stand on stays light."""
    assert run_python("import sys, registry.scoring; print({'torch', 'mlflow'} & set(sys.modules))").strip() == "set()"


AWKWARD = pd.DataFrame(
    {
        "when": ["2024-02-29", "1900-01-01T00:00:00.000001Z", None, "2500-12-31T23:59:59+05:30"],
        "amount": ["1e3", None, float("inf"), True],
        "weight": [2**53, -0.0, np.nan, np.int8(3)],
        "member": [1.0, " False", None, np.bool_(True)],
        "carrier": [1.0, True, "x" * 300, " padded "],
    }
)


@pytest.fixture(scope="module")
def pyfunc_model() -> ModuleType:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)  # MLflow's own types
        return importlib.import_module("registry.pyfunc_model")


@pytest.mark.parametrize("rows", [AWKWARD, AWKWARD.assign(carrier=[1, 2, 3, 4], member=True), make_frame(5)])
def test_the_file_for_mlflow_converts_as_the_schema_does(rows: pd.DataFrame, pyfunc_model: ModuleType) -> None:
    """Its few lines and `conform` with `feed` give the graph the very same arrays."""
    expected = feed(conform(rows, make_schema()), make_schema())
    for column in make_schema().columns:
        found = pyfunc_model.to_input(rows, column.model_dump())
        assert found.dtype == expected[column.name].dtype
        assert found.tobytes() == expected[column.name].tobytes() or (found == expected[column.name]).all()


def test_the_file_for_mlflow_names_the_column(pyfunc_model: ModuleType) -> None:
    """A vanished column and a wrong type are errors with the column's name."""
    amount = make_schema().columns[1].model_dump()
    with pytest.raises(ValueError, match="column 'amount' is missing"):
        pyfunc_model.to_input(make_frame(3).drop(columns="amount"), amount)
    with pytest.raises(ValueError, match="column 'amount': expected numeric values"):
        pyfunc_model.to_input(make_frame(3).assign(amount="many"), amount)
    with pytest.raises(ValueError, match="column 'member': expected boolean values"):
        pyfunc_model.to_input(make_frame(3).assign(member="perhaps"), {"name": "member", "kind": "boolean"})


WITHOUT_EVERFIT = """
import sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"registry", "retrain", "serving", "monitor", "flows", "torch"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import mlflow, pandas as pd
from pyarrow.fs import LocalFileSystem

home, code = map(Path, sys.argv[1:])
for folder in home.iterdir():
    artifacts = {"bundle": str(folder / "bundle")}
    mlflow.pyfunc.save_model(folder / "model", python_model=str(code), artifacts=artifacts, pip_requirements=["mlflow"])
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    for path in sorted(folder.glob("*.frame")):
        frame = pd.read_parquet(path, filesystem=LocalFileSystem())  # see registry/parquet.py
        model.predict(frame).to_parquet(path.with_suffix(".answer"))
assert "registry" not in sys.modules
"""


def frames(problem: Problem) -> dict[str, pd.DataFrame]:
    """What users send: plain columns, and the same facts written in other ways, with gaps."""
    plain = make_frame(40, problem=problem)
    gaps = plain.astype({"carrier": object, "member": object})
    gaps.loc[::3, ["when", "weight", "member", "carrier"]] = None
    return {
        "plain": plain,
        "gaps": gaps,
        "written": plain.assign(
            when=plain["when"].dt.tz_localize("Europe/Rome", nonexistent="NaT").astype(str).replace("NaT", None),
            amount=pd.array([None, *range(39)], dtype="Int64"),
            weight=plain["weight"].astype("float32"),
            member=["YES", "no", "t", "0"] * 10,
            carrier=pd.Categorical([1.0, 2.5, None, np.nan] * 10),
        ),
        "none": plain.head(0),
    }


def test_mlflow_gives_the_same_answers_without_everfit_and_without_pickle(tmp_path: Path) -> None:
    """In a process that cannot import Everfit and may not unpickle, plain MLflow equals `Scorer`."""
    for problem in PROBLEMS:
        make_bundle(tmp_path / problem / "bundle", problem=problem)
        for name, frame in frames(problem).items():
            frame.to_parquet(tmp_path / problem / f"{name}.frame")
    run_python(
        WITHOUT_EVERFIT, tmp_path, ROOT / "registry" / "pyfunc_model.py", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"
    )
    for problem in PROBLEMS:
        require_same_answers(tmp_path / problem)
    assert not list(tmp_path.rglob("*.pkl"))


def require_same_answers(folder: Path) -> None:
    bundle = ModelBundle.load(folder / "bundle")
    scorer, classes = Scorer.load(bundle), bundle.manifest.target.classes
    for path in folder.glob("*.frame"):
        expected, answer = scorer.predict(pd.read_parquet(path)), pd.read_parquet(path.with_suffix(".answer"))
        assert (answer["prediction"].to_numpy() == expected.prediction).all()
        assert (answer["uncertainty"].to_numpy() == expected.uncertainty).all()
        if expected.interval is not None:
            assert (answer[["low", "high"]].to_numpy() == expected.interval).all()
        for index, label in enumerate(classes):
            assert expected.probabilities is not None
            assert expected.sets is not None
            assert (answer[f"probability_{label}"].to_numpy() == expected.probabilities[:, index]).all()
            assert (answer[f"set_{label}"].to_numpy() == expected.sets[:, index]).all()
