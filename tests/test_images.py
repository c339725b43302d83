"""A column of images: from files to a search, a bundle, answers over HTTP, the log and monitoring."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from flows.commands_task import init
from flows.offline import Offline
from flows.rows import from_source, known_rows, with_images
from flows.stream import open_stream
from flows.workplace import Workplace
from monitor.watching import WatchReport, watch
from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import DataError
from registry.image_store import ImageStore
from registry.images import (
    COMPONENTS,
    decode,
    decode_sent,
    digest_of,
    to_png,
    to_pnm,
)
from registry.inference_log import InferenceLog
from registry.ledger import Ledger
from registry.schema import ImageColumn, Schema
from registry.scoring import Scorer
from registry.settings import Settings
from registry.sources import read
from registry.task import FileSource, load
from registry.watched import watched
from retrain.checks import require
from retrain.image_checks import load_images
from retrain.members import read_members
from retrain.representation import Representation
from retrain.search.material import hash_frame
from retrain.search.session import search
from serving.app import create_app
from tests.flows.shelf import Shelf
from tests.pictures import SEARCHED, WINDOW, bomb, digit_labels, digit_pixels, encoded, make_task, painted
from tests.serving.conftest import FakeVersions, serve, wait_for


def test_unreadable_images_are_left_out_and_many_are_fatal(tmp_path: Path) -> None:
    images: list[object] = [encoded(painted(12, 12, row)) for row in range(40)]
    images[3], images[7] = b"broken", None
    images[9] = encoded(painted(12, 12).convert("L"))
    frame = pd.DataFrame({"photo": images, "even": ["yes", "no"] * 20})
    loaded, found = load_images(frame, make_task())
    assert len(loaded) == 39
    assert loaded["photo"].isna().sum() == 1
    assert [str(one) for one in found] == [
        "column 'photo': 1 of 40 images cannot be read, such as b'broken' in row 3: expected an image "
        "(PNG, JPEG, WEBP, BMP or PNM); their rows are left out",
        "column 'photo': 1 of 40 images are grey, the others have colours; they are converted to colours",
    ]
    again, nothing = load_images(loaded, make_task())
    pd.testing.assert_frame_equal(again, loaded)
    assert [one.rows for one in nothing] == [1]
    frame.loc[:9, "photo"] = b"broken"
    with pytest.raises(DataError, match="10 of 40 images cannot be read"):
        require(load_images(frame, make_task())[1])
    plain = frame.drop(columns="photo")
    assert load_images(plain, make_task()) == (plain, ())
    with pytest.raises(DataError, match="none of the values is one that can be read"):
        require(load_images(frame.assign(photo=b"x"), make_task(columns={"kinds": {"photo": "image"}}))[1])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A table of paths with a number beside them: is the digit even?"""
    folder = tmp_path_factory.mktemp("digits")
    pixels, labels = digit_pixels(), digit_labels()
    rng = np.random.default_rng(0)
    rows = []
    for row in range(SEARCHED):
        Image.fromarray(pixels[row]).save(folder / f"{row}.png")
        rows.append({"photo": f"{row}.png", "ink": rng.normal(), "even": "yes" if labels[row] % 2 == 0 else "no"})
    rows[5]["photo"] = "gone.png"
    pd.DataFrame(rows).to_csv(folder / "digits.csv", index=False)
    return read(FileSource(path=str(folder / "digits.csv")))


@pytest.fixture(scope="module")
def bundle(digits: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("search")
    return search(make_task(), digits, folder=folder / "study", out=folder / "bundle", trials=2, seconds=60, seed=0)


def test_a_search_finds_a_network_for_images(bundle: ModelBundle) -> None:
    manifest = bundle.manifest
    assert manifest.data_schema.image == ImageColumn(name="photo", size=8, channels=1, fill=(78,))
    assert manifest.data_schema.names == ("photo", "ink")
    assert sum(manifest.lineage.rows.values()) == SEARCHED - 1
    assert manifest.metrics["champion"]["auc"] > 0.9
    assert "1 of 1,100 images cannot be read" in (bundle.folder / "card.md").read_text()
    members = list(read_members(bundle))
    assert {member.candidate["family"] for member in members} == {"convnet"}
    assert all(member.graph is not None for member in members)
    Scorer.load(bundle).self_test()


def sent(pixels: np.ndarray) -> list[dict[str, Any]]:
    texts = [base64.b64encode(to_png(one[None])).decode() for one in pixels]
    inks = [np.random.default_rng(zlib.crc32(one.tobytes())).normal() for one in pixels]
    return [{"photo": text, "ink": ink} for text, ink in zip(texts, inks, strict=True)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(home: Path, bundle: ModelBundle) -> Iterator[httpx.Client]:
    versions = FakeVersions(v1=bundle)
    versions.champion = "1"
    settings = Settings.model_validate({"home": home, "poll_seconds": 0.05, "max_body_bytes": 300_000})
    with serve(create_app(settings, "digits", versions=versions)) as one:
        wait_for(lambda: one.get("/health/ready").status_code == 200)
        yield one


def log_of(home: Path) -> InferenceLog:
    return InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "digits")


def test_predictions_are_answered_logged_and_judged(client: httpx.Client, home: Path, bundle: ModelBundle) -> None:
    """Clean images raise nothing; inverted ones are a shift. The log holds digests and numbers, the folder images."""
    fresh, labels = digit_pixels()[SEARCHED:], digit_labels()[SEARCHED:]
    scorer = Scorer.load(bundle)
    clean = post(client, fresh[: 3 * WINDOW], "clean")
    expected = scorer.predict(pd.DataFrame(sent(fresh[:5]))).scores
    found = [list(one["probabilities"].values()) for one in clean[:5]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    truth = [{"id": one["id"], "label": "yes" if labels[row] % 2 == 0 else "no"} for row, one in enumerate(clean)]
    assert client.post("/feedback", json={"labels": truth}).json()["stored"] == 3 * WINDOW

    log = log_of(home)
    frame = log.frame()
    assert frame["photo"].str.fullmatch("[0-9a-f]{24}").all()
    assert frame[[f"photo [{place}]" for place in range(1, COMPONENTS + 1)]].notna().all(axis=None)
    assert frame["photo [1]"].std() == pytest.approx(1, abs=0.4)
    store = ImageStore(home / "images" / "digits", 10**9)
    kept = decode(store.find(frame["photo"][0]), 8, 1)
    assert digest_of(kept) == frame["photo"][0]
    assert sum(path.stat().st_size for path in home.glob("everfit.db*")) < 3_000_000

    judged = pass_over(home, bundle)
    assert len(judged.records) == 3
    assert judged.decision.severity == "ok", judged.decision.reasons
    post(client, 255 - fresh[3 * WINDOW : 4 * WINDOW], "turned")
    wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
    judged = pass_over(home, bundle)
    assert judged.decision.severity in ("shifted", "degraded"), judged.decision.reasons  # a weak network loses by it
    (record,) = judged.records
    moved = {one.subject: one.p_value for one in record.named("shift") if one.p_value is not None}
    assert min(value for name, value in moved.items() if name and name.startswith("photo")) < 1e-9
    assert moved["ink"] is not None
    notes = {one.subject: one.note for one in record.named("shift")}
    assert notes["photo [2]"].startswith("number 2 of what the model sees of photo: median ")
    (together,) = record.named("domain_shift")
    assert together.p_value is not None
    assert together.p_value < 1e-9
    for form in ({"ink": 0.0, "photo": None}, {"columns": {"ink": [0.0, 0.1], "photo": [None, None]}}):
        (said,) = client.post("/predict", json=form).json()["warnings"]
        assert said.startswith("photo: missing, which it never was in training")


def post(client: httpx.Client, pixels: np.ndarray, name: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for start in range(0, len(pixels), 50):
        rows = sent(pixels[start : start + 50])
        ids = [f"{name}-{start + place:04d}" for place in range(len(rows))]
        answer = client.post("/predict", json={"rows": rows, "ids": ids})
        assert answer.status_code == 200, answer.text
        out += answer.json()["predictions"]
    return out


def pass_over(home: Path, bundle: ModelBundle) -> WatchReport:
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    log, ledger = InferenceLog(engine, "digits"), Ledger(engine, "digits")
    as_of = datetime(2100, 1, 1) if log.span() is None else log.span()[1] + timedelta(seconds=1)  # type: ignore[index]
    return watch(bundle.manifest.task, bundle, "1", log, ledger, as_of=as_of)


def test_labelled_rows_of_the_log_come_back_with_their_images(
    client: httpx.Client, home: Path, bundle: ModelBundle, digits: pd.DataFrame, tmp_path: Path
) -> None:
    """What a remedy or a gate reads: rows of source and log, those whose image was not kept left out."""
    post(client, digit_pixels()[-20:], "late")
    truth = [{"id": f"late-{row:04d}", "label": "yes"} for row in range(20)]
    assert client.post("/feedback", json={"labels": truth}).status_code == 200
    digits.to_parquet(tmp_path / "digits.parquet")
    task = make_task(source={"kind": "file", "path": str(tmp_path / "digits.parquet")})
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    log, ledger = InferenceLog(engine, "digits"), Ledger(engine, "digits")
    place = Workplace(Settings.model_validate({"home": home}), task, log, ledger, FakeVersions())  # type: ignore[arg-type]
    schema = bundle.manifest.data_schema
    labelled = log.frame(labelled_only=True, columns=schema.names)
    rows = known_rows(place, schema, datetime(2100, 1, 1))
    assert len(rows) == SEARCHED - 1 + len(labelled)
    expected = digit_pixels()[-20:]
    found = {digest_of(decode(one, 8, 1)) for one in rows["photo"].tail(len(labelled))}
    assert {digest_of(one[None]) for one in expected} <= found
    gone = next((home / "images" / "digits").glob("*/*.png"))
    store = ImageStore(home / "images" / "digits", 10**9)
    assert store.find(gone.stem) == gone.read_bytes()
    gone.unlink()
    lost = int((labelled["photo"] == gone.stem).sum())
    assert len(with_images(place, labelled, schema)) == len(labelled) - lost


def test_a_replay_sends_images_as_text(digits: pd.DataFrame) -> None:
    """A row whose file is gone is left out, wherever requests begin; data sets' {"bytes": ...} are sent too."""
    frame = digits.head(11).assign(when=pd.date_range("2024-01-01", periods=11, freq="h"))
    stream = open_stream(frame, make_task(time="when"), name="one")
    assert len(stream) == 10
    texts = [one["photo"] for one in [*stream.records(0, 5), *stream.records(5, 10)]]
    np.testing.assert_array_equal(decode_sent(texts[0], 8, 1)[0], digit_pixels()[0])
    np.testing.assert_array_equal(decode_sent(texts[5], 8, 1)[0], digit_pixels()[6])
    held = [{"bytes": Path(one).read_bytes(), "path": one} for one in frame["photo"].drop(index=5)]
    packed = frame.drop(index=5).assign(photo=held, copy=held)
    again = open_stream(packed, make_task(time="when"), name="one")
    assert again.key == stream.key
    assert again.records(0, 10) == stream.records(0, 10)
    with pytest.raises(DataError, match="3 of 11 images cannot be read"):
        open_stream(
            frame.assign(photo=["gone.png"] * 2 + frame["photo"].tolist()[2:]), make_task(time="when"), name="a"
        )


@pytest.mark.parametrize("keep", [True, False])
def test_a_back_test_keeps_images_as_the_endpoint_does(bundle: ModelBundle, tmp_path: Path, keep: bool) -> None:
    task = make_task(time="when", monitor={"windows": {"kind": "rows", "rows": WINDOW}, "keep_images": keep})
    told = ModelBundle(bundle.folder, bundle.manifest.model_copy(update={"task": task}))
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    log, ledger = InferenceLog(engine, "digits"), Ledger(engine, "digits")
    place = Workplace(Settings.model_validate({"home": tmp_path}), task, log, ledger, Shelf([told]))  # type: ignore[arg-type]
    server, rows = Offline(place), [{**row, "when": "2024-01-01T00:00:00"} for row in sent(digit_pixels()[-20:])]
    rows[3]["photo"] = None
    for start in (0, 10):
        server.post("/predict", {"rows": rows[start : start + 10], "ids": [f"{start + row:02d}" for row in range(10)]})
    logged = log.frame().sort_values("__id__")["photo"].tolist()
    expected = [None if row == 3 else digest_of(one[None]) for row, one in enumerate(digit_pixels()[-20:])]
    assert [None if pd.isna(one) else one for one in logged] == expected
    kept = {path.stem for path in (tmp_path / "images").rglob("*.png")}
    assert kept == ({one for one in expected if one} if keep else set())


def test_requests_of_a_replay_hold_as_many_images_as_an_endpoint_takes() -> None:
    times = pd.date_range("2024-01-01", periods=20, freq="h")
    frame = pd.DataFrame(
        {"photo": [encoded(painted(224, 224, row)) for row in range(20)], "even": "yes", "when": times}
    )
    stream = open_stream(frame, make_task(time="when"), name="one")
    assert stream.at_once(5) == 5
    assert stream.at_once(200) == 13
    assert len(orjson.dumps(stream.records(0, 13))) < Settings().max_body_bytes


def test_a_remedy_is_not_trained_on_the_few_images_that_are_left(digits: pd.DataFrame) -> None:
    """And images are brought to the champion's form at once, not to the source's first."""
    schema = Schema(columns=(ImageColumn(name="photo", size=16, channels=1, fill=(0,)),))
    large = [encoded(painted(61, 61, row).convert("L")) for row in range(40)]
    frame = pd.DataFrame({"photo": large, "even": ["yes", "no"] * 20})
    rows = from_source(frame, make_task(), schema, datetime(2100, 1, 1))
    assert rows["photo"].tolist() == [to_pnm(decode(one, 16, 1)) for one in large]
    frame.loc[:29, "photo"] = b"broken"
    with pytest.raises(DataError, match="30 of 40 images cannot be read"):
        from_source(frame, make_task(), schema, datetime(2100, 1, 1))


def test_init_writes_a_task_for_a_folder_of_images(tmp_path: Path) -> None:
    pixels, labels = digit_pixels(), digit_labels()
    for row in range(300):
        folder = tmp_path / "scans" / ("even" if labels[row] % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row]).save(folder / f"{row}.png")
    (tmp_path / "scans" / "odd" / "broken.png").write_text("no image")
    done = CliRunner().invoke(
        init, [str(tmp_path / "scans"), "--target", "label", "--output", str(tmp_path / "scans.yaml")]
    )
    assert done.exit_code == 0, done.output
    assert "301" not in done.output.splitlines()[0]
    assert "1 of 301 images cannot be read" in done.output
    task = load(tmp_path / "scans.yaml")
    assert task.search.families == ("convnet",)
    assert task.target == "label"


def test_init_and_the_search_s_checks_read_arrays_in_parquet(tmp_path: Path) -> None:
    data, file = tmp_path / "digits.parquet", tmp_path / "digits.yaml"
    even = np.where(digit_labels()[:300] % 2 == 0, "yes", "no")
    pd.DataFrame({"photo": digit_pixels()[:300].tolist(), "even": even}).to_parquet(data)
    done = CliRunner().invoke(init, [str(data), "--target", "even", "--output", str(file)])
    assert done.exit_code == 0, done.output
    task = load(file)
    assert task.search.families == ("convnet",)
    loaded, found = load_images(read(task.source), task)
    assert not found
    assert loaded["photo"].tolist() == [to_pnm(one[None]) for one in digit_pixels()[:300]]


def test_one_image_is_answered_and_a_bad_one_refused(client: httpx.Client, tmp_path: Path) -> None:
    row = sent(digit_pixels()[:1])[0]
    assert client.post("/predict", json=row).status_code == 200
    assert client.post("/predict", json={**row, "photo": None}).status_code == 200
    large = {**row, "photo": base64.b64encode(encoded(painted(150, 150))).decode()}
    assert client.post("/predict", json=large).status_code == 200
    (tmp_path / "a.png").write_bytes(encoded(painted(8, 8)))
    for bad in (str(tmp_path / "a.png"), "aGVsbG8=", 17, base64.b64encode(bomb()).decode()):
        answer = client.post("/predict", json=[row, {**row, "photo": bad}])
        assert answer.status_code == 422
        assert answer.json()["column"] == "photo"
        assert answer.json()["row"] == 1
    assert 'everfit_refused_images_total{task="digits"} 4.0' in client.get("/metrics").text
    assert client.post("/predict", json={**row, "photo": "A" * 400_000}).status_code == 413
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    assert client.post("/predict", json=example).status_code == 200


def test_what_is_watched_are_numbers(bundle: ModelBundle) -> None:
    schema = watched(bundle.manifest.data_schema)
    assert len(schema.of("numeric")) == COMPONENTS + 1
    assert schema.image is None
    assert watched(schema) is schema


def test_hashing_images_takes_no_more_memory_than_they_do() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 20_000), dtype=np.uint8)
    frame = pd.DataFrame({"photo": [one.tobytes() for one in pixels]})
    tracemalloc.start()
    found = hash_frame(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes / 4
    assert hash_frame(frame.iloc[::-1]) != found
    assert hash_frame(frame.copy()) == found


def test_directions_that_hardly_vary_are_not_told() -> None:
    features = np.random.default_rng(0).normal(size=(500, 3)) * (1, 1e-2, 1e-3)
    told = Representation.fit(0, features).apply(features).std(axis=0)
    np.testing.assert_allclose(told[:2], 1, atol=1e-3)
    np.testing.assert_array_equal(told[2:], 0)
    large = Representation.fit(0, features + 1_000)  # of a network that has hardly learnt
    np.testing.assert_array_equal(large.apply(features + 1_000), 0)
