"""Images as arrays, and columns of them: what is read, what is refused, and alike at every door."""

from __future__ import annotations

import base64
import importlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from registry.conforming import conform
from registry.errors import RowError, SourceError, TaskError
from registry.image_store import ImageStore
from registry.images import (
    MAX_BYTES,
    ImageError,
    channels_of,
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
from registry.proposal import propose
from registry.schema import ImageColumn, Schema
from registry.scoring import feed
from registry.sources import read
from registry.task import Columns, FileSource
from serving.openapi import example_row, row_schema
from serving.rows import MisfitError, RowReader
from tests.pictures import bomb, encoded, make_task, painted

GREY = ImageColumn(name="photo", size=8, channels=1, fill=(100,))
COLOURS = ImageColumn(name="photo", size=12, channels=3, fill=(10, 20, 30))


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (encoded(painted(40, 40))[:900], "that is whole"),
        (b"\x89PNG\r\n\x1a\n", "expected|an image"),
        (b"hello", "an image"),
        (bomb(), "pixels"),
        (b"x" * (MAX_BYTES + 1), "bytes"),
        (encoded(painted(8, 8), "TIFF"), "an image"),
        ("no base64!", "base64"),
        ("/nowhere/a.png", "No such file"),
        ("x" * 5_000 + ".png", "File name too long"),
        ("a\0b.png", "null byte"),
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


def test_where_no_two_images_are_alike_the_middle_one_gives_the_size() -> None:
    sides = [*range(120, 180), 25]
    assert common_form([encoded(Image.new("L", (side, side))) for side in sides]) == (148, 1)


def test_a_file_that_breaks_off_is_refused_wherever_it_is_decoded() -> None:
    broken = encoded(painted(40, 40))[:900]
    with pytest.raises(ImageError, match="that is whole"):
        channels_of(broken)
    assert common_form([broken, encoded(painted(8, 8))]) == (8, 3)


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


def test_arrays_of_pixels_are_images_and_other_tables_in_cells_are_not() -> None:
    grey, colours = np.asarray(painted(9, 12).convert("L")), np.asarray(painted(9, 12))
    nested = np.array([*grey, None], dtype=object)[:-1]  # as Parquet gives lists of lists
    for form in (grey, colours, grey.tolist(), nested):
        assert looks_like_images(pd.Series([None, form, form]))
        assert kind_of(pd.Series([form, form])) == "image"
    wide, flat, shares = np.ones((4, 40), dtype=np.uint8), grey.ravel(), grey / 255
    for other in (wide, flat, shares, grey.astype(np.int64) - 256, [[1], [2, 3]], []):
        assert not looks_like_images(pd.Series([grey, other]))


def test_names_of_files_that_are_not_there_are_no_images() -> None:
    assert not looks_like_images(pd.Series(["a.png", "b.png"]))
    assert not looks_like_images(pd.Series(["x" * 5_000 + ".png", "a\0b.png"]))
    assert not looks_like_images(pd.Series([b"bytes", b"more"]))
    assert not looks_like_images(pd.Series([None, None], dtype=object))
    assert not looks_like_images(pd.Series([1.0, 2.0]))


def test_text_too_long_for_a_path_is_read_from_a_file_as_text(tmp_path: Path) -> None:
    pd.DataFrame({"photo": ["x" * 5_000 + ".png"]}).to_csv(tmp_path / "table.csv", index=False)
    assert read(FileSource(path=str(tmp_path / "table.csv")))["photo"][0] == "x" * 5_000 + ".png"


def test_a_folder_with_one_sub_folder_a_class_is_a_source(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for row in range(3):
            (tmp_path / name / f"{row}.png").write_bytes(encoded(painted(8, 8, row)))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._0.png").write_bytes(b"what macOS puts beside a file")
    frame = read(FileSource(path=str(tmp_path)))
    assert frame["label"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert Path(frame["image"][0]).is_file()
    assert set(read(FileSource(path=str(tmp_path)), limit=2)["label"]) == {"cat", "dog"}
    assert propose(frame, FileSource(path=str(tmp_path)), target="label", name="pets").search.families == ("convnet",)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="nor sub-folders with"):
        read(FileSource(path=str(empty)))


def test_sub_folders_named_by_numbers_are_classes() -> None:
    names = [str(number) for number in range(30) for _ in range(10)]
    frame = pd.DataFrame({"image": [f"/scans/{name}/a.png" for name in names], "label": names})
    assert propose(frame, FileSource(path="/scans"), target="label").problem == "multiclass"
    measured = frame.assign(label=frame["label"].astype(int))
    assert propose(measured, FileSource(path="/scans.csv"), target="label").problem == "regression"


def test_a_schema_knows_the_form_and_the_mean_colour() -> None:
    frame = pd.DataFrame({"photo": [encoded(Image.new("L", (8, 8), level)) for level in (10, 30)] * 10 + [None]})
    frame["even"] = "yes"
    column = learn_schema(frame, frame, make_task()).image
    assert column == ImageColumn(name="photo", size=8, channels=1, fill=(20,), missing=round(1 / 21, 6))
    with pytest.raises(ValueError, match="at most one column of images"):
        Schema(columns=(GREY, GREY.model_copy(update={"name": "other"})))
    with pytest.raises(RowError, match="column 'photo', row 1: expected an image"):
        conform(pd.DataFrame({"photo": [encoded(painted(8, 8)), b"broken"]}), Schema(columns=(GREY,)))


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
    held = [pd.NA if one is None else {"bytes": one, "path": "a.png"} for one in awkward]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)
        model = importlib.import_module("registry.pyfunc_model")
    for column in (GREY, COLOURS):
        schema = Schema(columns=(column,))
        expected = feed(conform(pd.DataFrame({"photo": awkward}), schema), schema)["photo"]
        assert expected.shape == (6, column.channels, column.size, column.size)
        assert (expected[5, :, 0, 0] == column.fill).all()
        reader, rows = RowReader(schema), [{"photo": text} for text in texts]
        np.testing.assert_array_equal(reader.many(rows)["photo"], expected)
        for row, pixels in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(reader.one(row)["photo"], pixels[None])
        for form in (awkward, texts, held):
            frame = pd.DataFrame({"photo": form})
            np.testing.assert_array_equal(model.to_input(frame, column.model_dump()), expected)
            np.testing.assert_array_equal(feed(conform(frame, schema), schema)["photo"], expected)
        for pixels in (np.asarray(painted(9, 9)), np.asarray(painted(9, 9).convert("L"))[:, :, None]):
            frame = pd.DataFrame({"photo": [pixels.tolist()]})
            alike = feed(conform(frame, schema), schema)["photo"]
            np.testing.assert_array_equal(model.to_input(frame, column.model_dump()), alike)
        assert RowReader(schema).one(example_row(schema))["photo"].shape == (1, *expected.shape[1:])
        assert row_schema(schema)["properties"]["photo"]["contentEncoding"] == "base64"
    with pytest.raises(MisfitError, match=r"row 0, column 'photo': expected an image .* as base64 text, got 'a.png'"):
        RowReader(Schema(columns=(GREY,))).one({"photo": "a.png"})
    for wrong in ("a.png", 17, [[0.5]], [[300]], {"bytes": None, "path": "a.png"}, bomb(), b"P5\n8 8\n255\n"):
        with pytest.raises(ValueError, match="column 'photo'"):
            model.to_input(pd.DataFrame({"photo": [wrong]}), GREY.model_dump())


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
