"""MLflow's scoring protocol over real HTTP: by MLflow's own client, and beside what MLflow's own server answers."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from tests.handmade import make_frame
from tests.serving.conftest import ROW, FakeVersions, endpoint, endpoint_of

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(home: Path, bundles: dict[str, ModelBundle]) -> Iterator[httpx.Client]:
    with endpoint_of(bundles["good"], home, max_body_bytes=200_000, max_rows=500) as one:
        yield one


def imported(name: str) -> Any:
    """A module that imports MLflow, which warns of its own types."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)
        return importlib.import_module(name)


def invoke(client: httpx.Client, frame: pd.DataFrame) -> Any:
    """What MLflow's client gets for a frame."""
    theirs = imported("mlflow.pyfunc.scoring_server.client").ScoringServerClient
    return theirs(client.base_url.host, client.base_url.port).invoke(frame, params={"any": 1})


def offline(bundle: ModelBundle, frame: pd.DataFrame) -> pd.DataFrame:
    """The answers of the model that MLflow stores of a bundle."""

    class Context:
        artifacts = {"bundle": str(bundle.folder)}  # noqa: RUF012

    model = imported("registry.pyfunc_model").EverfitModel()
    model.load_context(Context())
    answers: pd.DataFrame = model.predict(Context(), frame)
    return answers


def test_mlflow_s_client_gets_what_mlflow_s_model_answers(
    client: httpx.Client, bundles: dict[str, ModelBundle]
) -> None:
    """A frame with moments, truth values and missing cells, which Python writes as NaN."""
    frame = make_frame(20, seed=3).drop(columns="late").astype({"carrier": object})
    frame.loc[[1, 4], "amount"] = np.nan
    frame.loc[2, "carrier"] = np.nan
    answer = invoke(client, frame)
    found, expected = answer.get_predictions(), offline(bundles["good"], frame)
    assert list(found.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-6)
    assert len(set(answer["ids"])) == 20
    assert answer["model"] == {"task": "handmade", "version": "1"}


def test_ping_and_version_as_mlflow_s_client_reads_them(client: httpx.Client) -> None:
    theirs = imported("mlflow.pyfunc.scoring_server.client").ScoringServerClient
    server = theirs(client.base_url.host, client.base_url.port)
    server.wait_server_ready(timeout=10)
    assert server.get_version() == version_of("mlflow")
    assert client.get("/ping").text == "\n"


def test_every_form_means_the_same(client: httpx.Client) -> None:
    second = {**ROW, "amount": None, "member": False, "carrier": None}
    rows = [ROW, second]
    names, lists = list(ROW), [list(row.values()) for row in rows]
    csv = b"when,amount,weight,member,carrier\n2024-03-01T10:00:00,0.5,2,True,AA\n2024-03-01T10:00:00,,2.0,False,NaN\n"
    forms: list[tuple[bytes, str]] = [
        (orjson.dumps(content), "application/json; charset=utf-8")
        for content in (
            {"dataframe_split": {"columns": names, "data": lists, "index": [7, 8]}},
            {"dataframe_records": rows},
            {"instances": rows, "params": {}},
            {"instances": lists},
            {"inputs": rows},
            {"inputs": lists},
            {"inputs": {name: [row[name] for row in rows] for name in names}},
        )
    ]
    answers = [client.post("/invocations", content=body, headers={"Content-Type": kind}) for body, kind in forms]
    answers.append(client.post("/models/handmade/invocations", content=csv, headers={"Content-Type": "text/csv"}))
    (first, *others) = [answer.json()["predictions"] for answer in answers]
    assert len(first) == 2
    assert first[0] != first[1]
    assert all(other == first for other in others)


def test_a_single_value_a_column_is_one_row(client: httpx.Client) -> None:
    assert len(client.post("/invocations", json={"inputs": ROW}).json()["predictions"]) == 1


def test_rows_are_logged_as_those_of_predict(client: httpx.Client, home: Path) -> None:
    """Under the ids that the client got, with what it sent, so that labels find them."""
    columns = {name: [value, None] for name, value in ROW.items()}
    answer = client.post("/invocations", json={"inputs": columns}).json()
    client.post("/feedback", json=[{"id": one, "label": "yes"} for one in answer["ids"]])
    frame = InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade").frame().set_index("__id__")
    found = frame.loc[answer["ids"]]
    assert list(found["__label__"]) == ["yes", "yes"]
    assert found.iloc[0]["amount"] == 0.5
    assert found.iloc[1][list(ROW)].isna().all()


def test_regression_has_the_columns_of_mlflow_s_model(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["regression"])
    versions.champion = "1"
    frame = make_frame(5, seed=3, problem="regression").drop(columns="late")
    with endpoint(tmp_path, versions) as client:
        found = invoke(client, frame).get_predictions()
    pd.testing.assert_frame_equal(found, offline(bundles["regression"], frame), check_dtype=False, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"", JSON, 400, "not JSON"),
        (b"[]", JSON, 400, "exactly one of dataframe_split"),
        (b'{"inputs": [{"more": ' + b"[" * 900 + b"NaN" + b"]" * 900 + b"}]}", JSON, 400, "the body"),
        (b'{"rows": []}', JSON, 400, "exactly one of dataframe_split"),
        (b'{"inputs": [], "instances": []}', JSON, 400, "got an object with instances, inputs"),
        (b'{"inputs": []}', JSON, 400, "expected at least one row"),
        (b'{"inputs": {}}', JSON, 400, "expected columns of one length, got none"),
        (b'{"inputs": {"a": [1], "b": [1, 2]}}', JSON, 400, "expected columns of one length, got 1, 2"),
        (b'{"inputs": 3}', JSON, 400, "inputs: expected a list of rows, got 3"),
        (b'{"inputs": [1]}', JSON, 400, "expected rows as objects or lists"),
        (b'{"inputs": [[1, 2]]}', JSON, 400, "row 0: expected 5 values, one a column, got 2"),
        (b'{"dataframe_split": {"data": []}}', JSON, 400, "expected an object with columns and data"),
        (b'{"dataframe_split": {"columns": ["a", "a"], "data": []}}', JSON, 400, "expected unique names"),
        (b'{"dataframe_split": {"columns": ["a"], "data": 3}}', JSON, 400, "expected data as a list of rows"),
        (b'{"dataframe_records": [3]}', JSON, 400, "row 0: expected an object of columns, got 3"),
        (b'{"dataframe_records": [{"amount": Infinity}]}', JSON, 400, "not JSON"),
        (orjson.dumps({"dataframe_records": [ROW | {"amount": "x"}]}), JSON, 400, "column 'amount': expected a number"),
        (orjson.dumps({"inputs": [ROW] * 501}), JSON, 413, "at most 500 rows"),
        (orjson.dumps({"inputs": {"amount": [0.5] * 501}}), JSON, 413, "at most 500 rows"),
        (b"a,b\n1\n", {"Content-Type": "text/csv"}, 400, "row 0: expected 2 values, one a column, got 1"),
        (b"a,a\n1,2\n", {"Content-Type": "text/csv"}, 400, "a header of unique names"),
        (b'a\n"1\n', {"Content-Type": "text/csv"}, 400, "not CSV"),
        (b"\xff", {"Content-Type": "text/csv"}, 400, "not CSV"),
        (b"a\n" + b"1\n" * 600, {"Content-Type": "text/csv"}, 413, "at most 500 rows"),
        (b"", {"Content-Type": "text/xml"}, 415, "expected application/json or text/csv, got 'text/xml'"),
        (b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415, "expected UTF-8"),
    ],
)
def test_what_is_wrong_is_said_in_mlflow_s_form(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    response = client.post("/invocations", content=content, headers=headers)
    answer: dict[str, Any] = response.json()
    assert (response.status_code, list(answer)) == (status, ["error_code", "message"])
    assert message in answer["message"]
    assert len(response.content) < 1_000
