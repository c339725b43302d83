"""Columns in, columns out: Arrow, Parquet and JSON columns mean what rows mean, are logged alike, and are bounded."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.scoring import Scorer
from serving.tables import FILE, PARQUET, STREAM
from tests.handmade import make_frame
from tests.serving.conftest import ROW, endpoint_of, wait_for

MAX_BYTES, MAX_ROWS = 200_000, 500


@pytest.fixture(scope="module")
def client(home: Path, bundles: dict[str, ModelBundle]) -> Iterator[httpx.Client]:
    with endpoint_of(bundles["good"], home, max_body_bytes=MAX_BYTES, max_rows=MAX_ROWS) as one:
        yield one


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """With missing values in each column, and columns that nobody reads."""
    found = make_frame(200, seed=3).drop(columns="late")
    for place, name in enumerate(found.columns):
        found[name] = found[name].where(np.arange(len(found)) % 11 != place)
    return found.assign(other=range(len(found)), nested=[[1, 2]] * len(found))


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def lists(table: pa.Table) -> bytes:
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "__id__"}
    more = {"ids": table["__id__"].to_pylist()} if "__id__" in table.column_names else {}
    return orjson.dumps({"columns": columns, **more})


FORMS: dict[str, Callable[[pa.Table], bytes]] = {
    "stream": stream,
    "several batches": lambda table: stream(pa.concat_tables([table.slice(0, 50), table.slice(50)])),
    "file": file,
    "parquet": parquet,
    "lists": lists,
    "dictionaries": lambda table: stream(
        table.set_column(table.column_names.index("carrier"), "carrier", table["carrier"].dictionary_encode())
    ),
}


def asked(client: httpx.Client, body: bytes, query: str = "", **headers: str) -> httpx.Response:
    return client.post(f"/predict{query}", content=body, headers=headers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_each_form_is_answered_as_the_scorer_does(
    client: httpx.Client, bundles: dict[str, ModelBundle], frame: pd.DataFrame, form: str, rows: int
) -> None:
    part = frame.head(rows)
    response = asked(client, FORMS[form](pa.Table.from_pandas(part, preserve_index=False)), accept="application/json")
    assert response.status_code == 200, response.text
    found = response.json()["columns"]
    expected = Scorer.load(bundles["good"]).predict(part)
    shares = np.array([found["probabilities"][name] for name in ("no", "yes")]).T
    np.testing.assert_allclose(shares, expected.scores, atol=1e-6)
    inside = np.array([found["set"][name] for name in ("no", "yes")]).T
    assert expected.sets is not None
    np.testing.assert_array_equal(inside, expected.sets)
    assert found["prediction"] == list(expected.prediction)


@pytest.mark.parametrize("form", ["stream", "parquet"])
def test_decimals_are_the_numbers_that_they_are_in_training(
    client: httpx.Client, bundles: dict[str, ModelBundle], form: str
) -> None:
    part = make_frame(4).drop(columns="late").assign(weight=[0.5, 1.25, None, 2.0])
    table = pa.Table.from_pandas(part, preserve_index=False)
    decimals = pa.array([None if one != one else Decimal(str(one)) for one in part["weight"]], pa.decimal128(9, 2))
    table = table.set_column(table.column_names.index("weight"), "weight", decimals)
    response = asked(client, FORMS[form](table), accept="application/json")
    assert response.status_code == 200, response.text
    shares = response.json()["columns"]["probabilities"]["yes"]
    np.testing.assert_allclose(shares, Scorer.load(bundles["good"]).predict(part).scores[:, 1], atol=1e-6)


@pytest.mark.parametrize("form", ["stream", "parquet", "lists"])
def test_a_table_without_any_column_of_the_model_is_a_misfit(client: httpx.Client, form: str) -> None:
    response = asked(client, FORMS[form](pa.table({"wieght": [1.0, 2.0], "other": [1, 2]})))
    assert response.status_code == 422, response.text
    assert response.json()["detail"].startswith("row 0, column 'when': the row lacks it")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_told_the_same_of_what_is_odd_and_what_is_misnamed(
    client: httpx.Client, frame: pd.DataFrame, form: str
) -> None:
    part = frame.drop(columns="nested").head(3)
    part.loc[1, ["carrier", "amount"]] = None
    part.loc[2, "weight"] = 99.0
    answer = asked(client, FORMS[form](pa.Table.from_pandas(part, preserve_index=False)), accept="application/json")
    said = answer.json()["warnings"]
    assert said == client.post("/predict", content=part.to_json(orient="records", date_format="iso")).json()["warnings"]
    assert [one.split()[0] for one in said] == ["amount:", "weight:", "carrier:", "when:", "other:"]
    assert said[-1] == "other: is no column of the model, and was ignored"
    wrong = pa.Table.from_pandas(part.rename(columns={"weight": "wieght", "carrier": "Carrier"}), preserve_index=False)
    if form != "dictionaries":
        detail = asked(client, FORMS[form](wrong)).json()["detail"]
        assert "column 'weight': the row lacks it ('wieght' was sent, which is no column of the model)" in detail


@pytest.mark.parametrize("form", FORMS)
def test_what_is_logged_is_what_rows_would_be(client: httpx.Client, home: Path, frame: pd.DataFrame, form: str) -> None:
    """The same frame as rows and in this form: the log holds the same of both."""
    part = frame.drop(columns="nested").head(20)
    ids = [f"{form}-{number}" for number in range(len(part))]
    table = pa.Table.from_pandas(part, preserve_index=False).append_column("__id__", [ids])
    answer = asked(client, FORMS[form](table), accept="application/json").json()
    assert answer["columns"]["id"] == ids
    rows = orjson.loads(part.to_json(orient="records", date_format="iso"))
    twins = [f"{form}-twin-{number}" for number in range(len(part))]
    client.post("/predict", json={"rows": rows, "ids": twins})
    log = InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade")
    wait_for(lambda: {*ids, *twins} <= set(log.frame()["__id__"]))
    logged = log.frame().set_index("__id__").drop(columns=["__received__"])
    logged["when"] = pd.to_datetime(logged["when"], format="ISO8601")  # it is logged as it is written
    untimed = part["when"].isna().to_numpy()
    mine, theirs = logged.loc[ids].reset_index(drop=True), logged.loc[twins].reset_index(drop=True)
    mine.loc[untimed, "__time__"] = theirs.loc[untimed, "__time__"]  # those of the moment they came
    pd.testing.assert_frame_equal(mine, theirs, check_exact=False, rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize("form", ["stream", "parquet"])
@pytest.mark.parametrize(("moments", "row"), [(["2024-05-01", "10000-01-01"], 1), (["-0001-01-01"], 0)])
def test_moments_that_nobody_can_write_are_refused(
    client: httpx.Client, form: str, moments: list[str], row: int
) -> None:
    """Arrow has years that ISO 8601 and the log have not."""
    columns = {name: [value] * len(moments) for name, value in ROW.items()}
    found = np.array(moments, dtype="datetime64[us]")
    answer = asked(client, FORMS[form](pa.table(columns | {"when": pa.array(found)})))
    assert answer.status_code == 422
    told = answer.json()
    assert (told["row"], told["column"]) == (row, "when")


def test_moments_that_do_not_fit_are_not_wrapped_around(client: httpx.Client) -> None:
    """Seconds since 1970 of so many digits are no microseconds; nanoseconds are, cut off."""
    far = pa.array([2**60]).cast(pa.timestamp("s"), safe=False)
    answer = asked(client, stream(pa.table({name: [value] for name, value in ROW.items()} | {"when": far})))
    assert (answer.status_code, answer.json()["column"]) == (422, "when")
    fine = pa.array([1_714_521_600_000_000_001]).cast(pa.timestamp("ns"))
    assert asked(client, stream(pa.table({name: [value] for name, value in ROW.items()} | {"when": fine}))).is_success


@pytest.mark.parametrize(("form", "accept"), [("stream", ""), ("file", ""), ("parquet", ""), ("lists", STREAM)])
def test_the_answer_has_the_form_of_the_question_or_the_one_asked_for(
    client: httpx.Client, frame: pd.DataFrame, form: str, accept: str
) -> None:
    table = pa.Table.from_pandas(frame.head(70), preserve_index=False)
    response = asked(client, FORMS[form](table), **({"accept": accept} if accept else {}))
    told = response.headers["content-type"]
    assert told == {"stream": STREAM, "file": FILE, "parquet": PARQUET, "lists": STREAM}[form]
    if told == PARQUET:
        found = pq.read_table(io.BytesIO(response.content))
    else:
        found = (pa.ipc.open_file if told == FILE else pa.ipc.open_stream)(response.content).read_all()
    assert found.column_names == ["id", "prediction", "probabilities", "set", "uncertainty", "disagreement"]
    assert found.num_rows == 70
    assert orjson.loads(found.schema.metadata[b"everfit"])["version"] == "1"
    shares = pd.DataFrame(found["probabilities"].to_pylist())
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_a_client_asks_for_the_fields_it_wants(client: httpx.Client) -> None:
    answer = client.post("/predict?fields=prediction,id", json=[ROW, ROW]).json()
    assert [list(one) for one in answer["predictions"]] == [["prediction", "id"]] * 2
    whole = client.post("/predict?fields=probabilities,set", json=ROW).json()["predictions"][0]
    plain = client.post("/predict", json=ROW).json()["predictions"][0]
    assert whole["set"] == plain["set"]
    assert whole["probabilities"] == pytest.approx(plain["probabilities"], rel=1e-6)
    body = {"columns": {name: [value] for name, value in ROW.items()}}
    assert list(client.post("/predict?fields=set", json=body).json()["columns"]) == ["set"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?fields=predicton", "did you mean 'prediction'"),
        ("?fields=", "got none"),
        ("?field=id", "but fields"),
        ("?" + "&".join(f"a{number}=1" for number in range(50)), "but fields"),
    ],
)
def test_fields_that_do_not_exist(client: httpx.Client, home: Path, query: str, named: str) -> None:
    """They are refused, and what is refused is not logged."""
    response = client.post(f"/predict{query}", json={"rows": [ROW], "ids": ["refused"]})
    assert response.status_code == 422
    assert named in response.json()["detail"]
    client.post("/predict", json={"rows": [ROW], "ids": ["taken"]})
    log = InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade")
    wait_for(lambda: "taken" in set(log.frame()["__id__"]))
    assert "refused" not in set(log.frame()["__id__"])


def test_rows_unlike_those_of_training_are_told(client: httpx.Client, bundles: dict[str, ModelBundle]) -> None:
    rows = [ROW, {**ROW, "amount": 1e6}, {**ROW, "carrier": "never seen"}, {**ROW, "carrier": None, "amount": None}]
    answer = client.post("/predict?fields=out_of_distribution", json=rows).json()
    assert [one["out_of_distribution"] for one in answer["predictions"]] == [False, True, True, False]
    reference = bundles["good"].reference()
    names = bundles["good"].manifest.data_schema.names
    table = stream(pa.Table.from_pandas(reference[list(names)], preserve_index=False))
    found = asked(client, table, "?fields=out_of_distribution", accept="application/json").json()
    assert np.mean(found["columns"]["out_of_distribution"]) <= 0.05


def wrong_bodies() -> dict[str, tuple[bytes, int, str]]:
    good = pa.table({name: [value] for name, value in ROW.items()})
    long = pa.array(["x" * 50_000]).dictionary_encode()
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), long.dictionary)
    wide = pa.table({**{name: [value] * 400 for name, value in ROW.items() if name != "when"}, "when": many})
    return {
        "cut": (stream(good)[:-200], 400, "that can be read"),
        "cut file": (parquet(good)[:-30], 400, "that can be read"),
        "noise": (b"\xff\xff\xff\xff" + bytes(range(200)), 400, "that can be read"),
        "compressed": (stream(good, compression="zstd"), 400, "compressed"),
        "no rows": (stream(good.slice(0, 0)), 422, "at least one row"),
        "too many rows": (stream(pa.concat_tables([good] * (MAX_ROWS + 1)).combine_chunks()), 413, "at most 500 rows"),
        "a column is absent": (stream(good.drop_columns(["amount"])), 422, "column 'amount': the row lacks it"),
        "text for a number": (
            stream(good.set_column(good.column_names.index("amount"), "amount", [["a"]])),
            422,
            "row 0, column 'amount': expected a number",
        ),
        "a list for a number": (
            stream(good.set_column(good.column_names.index("amount"), "amount", [[[1.0]]])),
            422,
            "expected single values",
        ),
        "a number too large": (
            stream(good.set_column(good.column_names.index("amount"), "amount", [[1e300]])),
            422,
            "expected a number between",
        ),
        **{
            f"{name} of {moment.type}": (
                stream((good.drop_columns([name]) if name in ROW else good).append_column(name, moment)),
                422,
                "expected values that can be read, got timestamp",
            )
            for name in ("amount", "carrier", "__id__")
            for moment in (pa.array([2**60], pa.timestamp("s")), pa.array([1], pa.timestamp("us", "No/Where")))
        },
        "a column twice": (stream(good.append_column("amount", [[1.0]])), 422, "is there twice"),
        "a dictionary that grows": (stream(wide), 413, "unpacks to 20000000 bytes"),
        "ids twice": (
            stream(pa.concat_tables([good] * 2).append_column("__id__", [["a", "a"]])),
            422,
            "expected unique ids",
        ),
        "lists of two lengths": (
            orjson.dumps({"columns": {"amount": [1, 2], "when": [None]}}),
            422,
            "expected 1 values",
        ),
        "no list": (orjson.dumps({"columns": {"amount": 1}}), 422, "expected a list of values"),
        "no columns": (orjson.dumps({"columns": {}}), 422, "expected an object of lists"),
    }


@pytest.mark.parametrize("name", wrong_bodies())
def test_wrong_bodies(client: httpx.Client, name: str) -> None:
    body, status, named = wrong_bodies()[name]
    response = asked(client, body)
    assert (response.status_code, named in response.json()["detail"]) == (status, True), response.text


def test_a_parquet_file_that_unpacks_to_too_much(client: httpx.Client) -> None:
    rows = {name: [value] * 400 for name, value in ROW.items()} | {
        "carrier": ["x" * 10_000 + str(n) for n in range(400)]
    }
    response = asked(client, parquet(pa.table(rows), compression="zstd", use_dictionary=False))
    assert response.status_code == 413, response.text


def test_damaged_bodies_never_break_the_endpoint(client: httpx.Client, frame: pd.DataFrame) -> None:
    """Bytes flipped at random: an answer or a refusal, never a fault of the server's."""
    rng = np.random.default_rng(0)
    table = pa.Table.from_pandas(frame.head(30), preserve_index=False)
    for form in (stream, file, parquet):
        whole = np.frombuffer(form(table), dtype=np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            places = rng.integers(8, len(whole), size=int(rng.integers(1, 6)))
            damaged[places] = rng.integers(0, 256, size=len(places))
            assert asked(client, damaged.tobytes()).status_code < 500
    assert client.post("/predict", json=ROW).status_code == 200


@pytest.mark.parametrize("kind", ["application/xml", "text/csv; charset=utf-8", "multipart/form-data; boundary=x", "a"])
def test_a_body_that_says_it_is_something_else(client: httpx.Client, kind: str) -> None:
    """Whatever it holds; on both routes."""
    for path, body in (("/predict", ROW), ("/feedback", {"id": "a", "label": "yes"})):
        for _ in range(2):  # the second one by its known head, were it known
            answer = client.post(path, content=orjson.dumps(body), headers={"content-type": kind})
            assert answer.status_code == 415
            assert answer.json()["detail"] == (
                "Content-Type: expected one of application/json, application/vnd.apache.arrow.stream, "
                "application/vnd.apache.arrow.file, application/vnd.apache.parquet, "
                f"got '{kind.partition(';')[0]}'"
            )


@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", "application/vnd.api+json; charset=utf-8", "TEXT/PLAIN"]
)
def test_a_body_that_does_not_quite_say_what_it_is(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert client.post("/predict", content=orjson.dumps(ROW), headers=headers).status_code == 200


@pytest.mark.parametrize("form", [STREAM, FILE, PARQUET])
def test_what_is_called_a_table_and_is_none(client: httpx.Client, form: str) -> None:
    answer = client.post("/predict", content=b"no such thing", headers={"content-type": form})
    assert answer.status_code == 400
    assert answer.json()["detail"] == f"the body is no {form} that can be read: it does not begin as one"
