"""A column of images: from files to a search, a bundle, answers over HTTP, the log and monitoring."""

from __future__ import annotations

import base64
import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from monitor.watching import WatchReport, watch
from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import DataError, RowError, SourceError, TaskError
from registry.image_store import ImageStore
from registry.images import (
    COMPONENTS,
    MAX_BYTES,
    ImageError,
    common_form,
    decode,
    decode_sent,
    digest_of,
    looks_like_images,
    to_base64,
    to_png,
    to_pnm,
)
from registry.inference import infer_kinds, kind_of, learn_schema
from registry.inference_log import InferenceLog
from registry.ledger import Ledger
from registry.proposal import propose
from registry.schema import ImageColumn, Schema
from registry.scoring import Scorer, feed
from registry.settings import Settings
from registry.sources import read
from registry.task import Columns, FileSource, TaskSpec
from registry.watched import watched
from retrain.augmentation import Augmentation, blotted, flipped, mixed, shifted
from retrain.batches import Rows
from retrain.checks import require
from retrain.families.base import Candidate
from retrain.families.catalogue import build, families_for
from retrain.families.convnet import ConvNets
from retrain.image_checks import load_images
from retrain.image_source import ImageInput
from retrain.members import read_members
from retrain.representation import Representation
from retrain.search.session import search
from serving.app import create_app
from serving.openapi import example_row, row_schema
from serving.rows import MisfitError, RowReader
from tests.serving.conftest import FakeVersions, serve, wait_for

GREY = ImageColumn(name="photo", size=8, channels=1, fill=(100,))
COLOURS = ImageColumn(name="photo", size=12, channels=3, fill=(10, 20, 30))
SEARCHED = 1_100
WINDOW = 150


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def painted(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def digit_pixels() -> np.ndarray:
    """(1797, 8, 8) digits, shuffled: neighbours in the file are of one writer."""
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)
    return images[np.random.default_rng(0).permutation(len(images))]


def digit_labels() -> np.ndarray:
    return load_digits().target[np.random.default_rng(0).permutation(len(load_digits().target))]


# --- decoding


def test_an_image_is_read_from_path_bytes_base64_and_arrays_alike(tmp_path: Path) -> None:
    image = painted(12, 12)
    (tmp_path / "a.png").write_bytes(encoded(image))
    pixels = np.asarray(image)
    expected = pixels.transpose(2, 0, 1)
    forms = [
        str(tmp_path / "a.png"),
        encoded(image),
        encoded(image, "BMP"),
        base64.b64encode(encoded(image)).decode(),
        "data:image/png;base64," + base64.b64encode(encoded(image)).decode(),
        pixels,
        pixels.tolist(),
        {"bytes": encoded(image), "path": None},
        to_pnm(expected),
        to_png(expected),
    ]
    for form in forms:
        np.testing.assert_array_equal(decode(form, 12, 3), expected)
    assert decode(encoded(image), 8, 1).shape == (1, 8, 8)
    assert to_base64(str(tmp_path / "a.png")) == base64.b64encode(encoded(image)).decode()


def test_many_kinds_of_images_become_eight_bits() -> None:
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1_000)
    np.testing.assert_array_equal(decode(encoded(deep), 8, 1)[0], np.asarray(deep) >> 8)
    palette = painted(8, 8).quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette), 8, 3), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(encoded(clear), 8, 3) == 255).all()
    solid = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    assert decode(encoded(solid), 8, 3)[:, 0, 0].tolist() == [255, 0, 0]
    black = Image.new("1", (8, 8))
    assert (decode(encoded(black), 8, 1) == 0).all()


def test_a_photograph_is_turned_upright() -> None:
    """A camera that is held upright stores the picture lying, and how to turn it."""
    lying = Image.new("L", (16, 8))
    lying.paste(255, (0, 0, 8, 8))
    tags = Image.Exif()
    tags[0x0112] = 6  # turn by 90 degrees clockwise
    upright = decode(encoded(lying, "JPEG", exif=tags), 8, 1)[0]
    assert upright[:3].min() > 200
    assert upright[5:].max() < 50


def _bomb() -> bytes:
    """A PNG file of some dozen bytes that claims to have 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (encoded(painted(40, 40))[:900], "that is whole"),
        (b"\x89PNG\r\n\x1a\n", "expected|an image"),
        (b"hello", "an image"),
        (_bomb(), "pixels"),
        (b"x" * (MAX_BYTES + 1), "bytes"),
        (encoded(painted(8, 8), "TIFF"), "an image"),
        ("no base64!", "base64"),
        ("/nowhere/a.png", "No such file"),
        (17, "path, its bytes or base64"),
        ([[1, 2], [3]], "equally long"),
        ([[1, 300]], "pixels from 0 to 255"),
        ([1, 2], "height x width"),
    ],
)
def test_what_is_no_image_is_refused(value: object, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        decode(value, 8, 3)


def test_nobody_who_sends_a_path_has_a_file_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(painted(8, 8)))
    for sent in (str(tmp_path / "a.png"), "a.png", encoded(painted(8, 8)), 17):
        with pytest.raises(ImageError, match="base64"):
            decode_sent(sent, 8, 3)


def test_a_column_has_the_size_of_most_of_its_images() -> None:
    many = [encoded(painted(30, 34)), encoded(painted(30, 34)), encoded(painted(64, 64)), b"broken"]
    assert common_form(many) == (32, 3)
    assert common_form([encoded(painted(900, 900).convert("L"))]) == (224, 1)
    assert common_form([encoded(painted(5, 5).convert("L").convert("RGB"))]) == (8, 1)
    with pytest.raises(ImageError, match="none of the values"):
        common_form([b"broken"])


# --- kinds, sources, checks


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file with paths as its folder sees them, in two columns, and a number."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for row in range(60):
        (tmp_path / "pictures" / f"{row}.png").write_bytes(encoded(painted(10, 10, row)))
        rows.append({"photo": f"pictures/{row}.png", "other": f"pictures/{59 - row}.png", "x": row % 7, "y": row % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_paths_start_at_the_folder_of_their_file(table: Path) -> None:
    frame = read(FileSource(path=str(table)))
    assert frame["photo"][3] == str(table.parent / "pictures" / "3.png")
    assert kind_of(frame["photo"]) == "image"
    kinds = infer_kinds(frame, Columns(), target="y")
    assert kinds.kinds == {"photo": "image", "x": "numeric"}
    assert "a task reads one column of images, and that is 'photo'" in kinds.left_out[0].reason
    assert infer_kinds(frame, Columns(kinds={"other": "image"}), target="y").kinds == {"other": "image", "x": "numeric"}
    with pytest.raises(TaskError, match="one column of images, got photo, other"):
        infer_kinds(frame, Columns(kinds={"photo": "image", "other": "image"}), target="y")


def test_names_of_files_that_are_not_there_are_no_images() -> None:
    assert not looks_like_images(pd.Series(["a.png", "b.png"]))
    assert not looks_like_images(pd.Series([b"bytes", b"more"]))
    assert not looks_like_images(pd.Series([None, None], dtype=object))
    assert not looks_like_images(pd.Series([1.0, 2.0]))


def test_a_folder_with_one_sub_folder_a_class_is_a_source(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for row in range(3):
            (tmp_path / name / f"{row}.png").write_bytes(encoded(painted(8, 8, row)))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    frame = read(FileSource(path=str(tmp_path)))
    assert frame["label"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert Path(frame["image"][0]).is_file()
    assert set(read(FileSource(path=str(tmp_path)), limit=2)["label"]) == {"cat", "dog"}
    assert propose(frame, FileSource(path=str(tmp_path)), target="label", name="pets").search.families == ("convnet",)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="nor sub-folders with"):
        read(FileSource(path=str(empty)))


def make_task(**changes: Any) -> TaskSpec:
    base: dict[str, Any] = {
        "name": "digits",
        "source": {"kind": "file", "path": "digits.csv"},
        "target": "even",
        "problem": "binary",
        "metric": "auc",
        "splits": {"validation": 0.12, "calibration": 0.1, "test": 0.25},
        "search": {"workers": 1, "max_epochs": 3, "ensemble": 1},
        "monitor": {"windows": {"kind": "rows", "rows": WINDOW}, "report": "never"},
    }
    return TaskSpec.model_validate({**base, **changes})


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


def test_a_schema_knows_the_form_and_the_mean_colour() -> None:
    frame = pd.DataFrame({"photo": [encoded(Image.new("L", (8, 8), level)) for level in (10, 30)] * 10 + [None]})
    frame["even"] = "yes"
    column = learn_schema(frame, frame, make_task()).image
    assert column == ImageColumn(name="photo", size=8, channels=1, fill=(20,), missing=round(1 / 21, 6))
    with pytest.raises(ValueError, match="at most one column of images"):
        Schema(columns=(GREY, GREY.model_copy(update={"name": "other"})))
    with pytest.raises(RowError, match="column 'photo', row 1: expected an image"):
        Schema(columns=(GREY,)).conform(pd.DataFrame({"photo": [encoded(painted(8, 8)), b"broken"]}))


def test_every_door_reads_an_image_alike() -> None:
    """Frame, request (one row and many), and the file for MLflow."""
    awkward = [
        encoded(painted(31, 17)),
        encoded(painted(300, 200), "JPEG"),
        encoded(painted(12, 12).quantize(8)),
        encoded(Image.new("RGBA", (9, 9), (200, 10, 10, 90))),
        encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1_000)),
        None,
    ]
    texts = [None if one is None else base64.b64encode(one).decode() for one in awkward]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)
        model = importlib.import_module("registry.pyfunc_model")
    for column in (GREY, COLOURS):
        schema = Schema(columns=(column,))
        expected = feed(schema.conform(pd.DataFrame({"photo": awkward})), schema)["photo"]
        assert expected.shape == (6, column.channels, column.size, column.size)
        assert (expected[5, :, 0, 0] == column.fill).all()
        reader, rows = RowReader(schema), [{"photo": text} for text in texts]
        np.testing.assert_array_equal(reader.many(rows)["photo"], expected)
        for row, pixels in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(reader.one(row)["photo"], pixels[None])
        for form in (awkward, texts):
            frame = pd.DataFrame({"photo": form})
            np.testing.assert_array_equal(model.to_input(frame, column.model_dump()), expected)
        assert RowReader(schema).one(example_row(schema))["photo"].shape == (1, *expected.shape[1:])
        assert row_schema(schema)["properties"]["photo"]["contentEncoding"] == "base64"
    with pytest.raises(MisfitError, match=r"row 0, column 'photo': expected an image .* as base64 text, got 'a.png'"):
        RowReader(Schema(columns=(GREY,))).one({"photo": "a.png"})
    with pytest.raises(ValueError, match="column 'photo'"):
        model.to_input(pd.DataFrame({"photo": ["a.png"]}), GREY.model_dump())


def test_kept_images_are_bounded(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, max_bytes=3_000)
    pixels = [decode(encoded(painted(16, 16, row)), 16, 3) for row in range(8)]
    for one in pixels:
        store.keep(digest_of(one), one)
    kept = [store.find(digest_of(one)) for one in pixels]
    assert kept[0] is None
    assert kept[-1] == to_png(pixels[-1])
    assert sum(len(one) for one in kept if one) <= 3_000
    assert store.find("../secret") is None
    assert store.find(None) is None


# --- networks and training


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (60, 3), (224, 3)])
def test_convnets_read_all_sizes(size: int, channels: int) -> None:
    image = ImageInput(size=size, channels=channels, mean=(100.0,) * channels, std=(50.0,) * channels)
    images = torch.randint(0, 255, (2, channels, size, size), dtype=torch.uint8)
    for coarse in (True, False):
        choices = {"stem_width": 16, "blocks": 1, "coarse": coarse, "squeeze": coarse, "dropout": 0.1}
        network = build(Candidate(family="convnet", choices=choices), 3, (4,), 5, image).eval()
        out = network(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64), images)
        assert out.shape == (2, 5)
        body = ConvNets().features(Candidate(family="convnet", choices=choices), image).module.eval()
        assert isinstance(body, torch.nn.Sequential)
        assert 4 <= body[:-1](images.float()).shape[-1] <= 14


def test_families_read_what_a_task_has() -> None:
    assert families_for(("mlp", "resnet"), "image") == ("convnet",)
    assert families_for(("mlp",), "table") == ("mlp",)
    with pytest.raises(TaskError, match="'mlp' reads no images, and the task has a column of them; expected some of"):
        families_for(("convnet", "mlp"), "image")
    with pytest.raises(
        TaskError, match="'convnet' reads images, and the task has no column of them; expected some of mlp"
    ):
        families_for(("convnet",), "table")
    with pytest.raises(TaskError, match="the task has no column of them"):
        build(Candidate(family="convnet", choices={}), 2, (), 2)


def test_augmentation_changes_batches_and_leaves_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(2 * 64).reshape(2, 1, 8, 8).to(torch.uint8)
    assert (flipped(images, 1.0, generator) == images.flip(3)).all()
    assert (flipped(images, 0.0, generator) == images).all()
    moved = shifted(images, 2, generator)
    assert moved.shape == images.shape
    assert set(moved.flatten().tolist()) <= set(images.flatten().tolist())
    assert (blotted(images, 4, generator) != images).any()
    rows = Rows(torch.ones(2, 3), torch.ones(2, 1, dtype=torch.int64), torch.tensor([0, 1]), images)
    before = images.clone()
    batch = Augmentation(flip=0.5, crop=0.125, cutout=0.25, noise=0.05, mixup=0.4, feature_dropout=0.1).apply(
        rows, generator
    )
    assert (images == before).all()
    assert batch.rows.images is not None
    assert batch.rows.images.shape == images.shape
    assert batch.others is not None
    assert 0 <= batch.share <= 1
    state = generator.get_state()
    assert Augmentation().apply(rows, generator).rows is not None
    assert (generator.get_state() == state).all()


def test_mixing_rows_mixes_labels_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0])
    rows = Rows(values[:, None], torch.zeros(4, 0, dtype=torch.int64), values)
    batch = mixed(rows, 0.4, generator)
    assert batch.others is None
    torch.testing.assert_close(batch.rows.numeric[:, 0], batch.rows.labels)


def test_a_representation_is_of_unit_variance_and_pads() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 20))
    found = Representation.fit(0, features).apply(features)
    assert found.shape == (400, COMPONENTS)
    np.testing.assert_allclose(found[:, :3].std(axis=0), 1, atol=1e-3)
    assert (found[:, 3:] == 0).all()


# --- from files to monitoring


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
    with serve(create_app(settings, "digits", versions)) as one:
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
    assert judged.decision.severity == "shifted", judged.decision.reasons
    (record,) = judged.records
    moved = {one.subject: one.p_value for one in record.named("shift") if one.p_value is not None}
    assert min(value for name, value in moved.items() if name and name.startswith("photo")) < 1e-9
    assert moved["ink"] is not None
    (together,) = record.named("domain_shift")
    assert together.p_value is not None
    assert together.p_value < 1e-9


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


def test_one_image_is_answered_and_a_bad_one_refused(client: httpx.Client, tmp_path: Path) -> None:
    row = sent(digit_pixels()[:1])[0]
    assert client.post("/predict", json=row).status_code == 200
    assert client.post("/predict", json={**row, "photo": None}).status_code == 200
    large = {**row, "photo": base64.b64encode(encoded(painted(150, 150))).decode()}
    assert client.post("/predict", json=large).status_code == 200
    (tmp_path / "a.png").write_bytes(encoded(painted(8, 8)))
    for bad in (str(tmp_path / "a.png"), "aGVsbG8=", 17, base64.b64encode(_bomb()).decode()):
        answer = client.post("/predict", json=[row, {**row, "photo": bad}])
        assert answer.status_code == 422
        assert answer.json()["column"] == "photo"
        assert answer.json()["row"] == 1
    assert client.post("/predict", json={**row, "photo": "A" * 400_000}).status_code == 413
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    assert client.post("/predict", json=example).status_code == 200


def test_what_is_watched_are_numbers(bundle: ModelBundle) -> None:
    schema = watched(bundle.manifest.data_schema)
    assert len(schema.of("numeric")) == COMPONENTS + 1
    assert schema.image is None
    assert watched(schema) is schema
