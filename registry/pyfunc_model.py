"""The file MLflow stores beside a bundle, so that plain `mlflow.pyfunc.load_model(...).predict(frame)` works in a
process that has MLflow and ONNX Runtime, but not Everfit.

Self-contained on purpose. It repeats, in a few lines, the conversions of `registry/schema.py`: to ship those modules
with each model (MLflow's `code_paths`) would put a package named `registry`, in the version of that day, in front of
`sys.path` wherever a model is loaded, where two versions of a model or an installed Everfit would get the wrong one.
A test holds that both give identical results.

Log it with a signature whose input columns are of `mlflow.types.schema.AnyType`: typed ones make MLflow refuse integers
for doubles and ISO strings for moments before this file sees them.

An image is bytes of a file, {"bytes": ...} as data sets have it, base64 text or an array; no path. Only a model of
images needs Pillow.

A row's answer, in columns: `prediction`; for classes `probability_CLASS` and `set_CLASS` (whether the class is in the
conformal set); for numbers `low` and `high`; `uncertainty` and `disagreement`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime as ort
import pandas as pd

MAX_CATEGORY_LENGTH = 256
MAX_TEXT_LENGTH = 10_000
CHUNK_ROWS = 8192
CHUNK_BYTES = 2**21
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
MAX_BYTES, MAX_PIXELS = 20_000_000, 40_000_000
FAULTS = (ValueError, TypeError, ArithmeticError, LookupError, OSError, SyntaxError, EOFError, MemoryError)
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "1": 1.0, "0": 0.0}


class EverfitModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A bundle's graph behind MLflow's interface. The artifact `bundle` is the bundle's folder."""

    def load_context(self, context: Any) -> None:
        """Open the graph; executes no code of the model."""
        folder = Path(context.artifacts["bundle"])
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # int8 becomes floats once, as it loads
        self.columns = manifest["data_schema"]["columns"]
        self.classes = manifest["target"]["classes"]
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The answers, one a row. Raises `ValueError` naming a missing column or one whose values do not fit."""
        inputs = {column["name"]: to_input(model_input, column) for column in self.columns}
        names = [output.name for output in self.session.get_outputs()]
        pixels = max((values[0].size for values in inputs.values() if values.ndim == 4 and len(values)), default=1)
        size = min(CHUNK_ROWS, max(16, CHUNK_BYTES // pixels)) if pixels > 1 else CHUNK_ROWS
        parts = [
            self.session.run(names, {name: values[at : at + size] for name, values in inputs.items()})
            for at in range(0, max(len(model_input), 1), size)
        ]
        whole = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        return to_frame(dict(zip(names, whole, strict=True)), self.classes)


def to_input(frame: pd.DataFrame, column: dict[str, Any]) -> np.ndarray[Any, Any]:
    """One column of a user's frame as the graph's input, (n, 1); of a text as many as it has numbers, of an image
    (n, channels, size, size)."""
    name, kind = column["name"], column["kind"]
    if name not in frame.columns:
        raise ValueError(f"column {name!r} is missing; the frame has {list(frame.columns)}")
    try:
        values = frame[name]
        if kind == "image":
            return pictures(values, column)
        return prose(values, column["words"]) if kind == "text" else CONVERSIONS[kind](values)[:, None]
    except (*FAULTS, struct.error, zlib.error) as error:
        raise ValueError(f"column {name!r}: expected {kind} values ({error})") from error


def numbers(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Numbers as float64; missing values and infinities as NaN."""
    return pd.to_numeric(values).astype("float64").replace([np.inf, -np.inf], np.nan).to_numpy()


def moments(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Moments, naive ones in UTC, as int64 microseconds since 1970; the smallest int64 where missing."""
    parsed = pd.to_datetime(values, utc=True, format=None if values.dtype.kind in "Mm" else "ISO8601")
    return parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").view(np.int64)


def texts(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Categories as strings, "" where missing."""
    return plain(values, MAX_CATEGORY_LENGTH)


def plain(values: pd.Series[Any], longest: int) -> np.ndarray[Any, Any]:
    """Strings of at most so many characters, "" where missing."""
    objects = values.astype(object)
    table = {value: category(value)[:longest] for value in pd.unique(objects.dropna())}
    return objects.map(table).fillna("").to_numpy(dtype=object)


def prose(values: pd.Series[Any], words: list[str]) -> np.ndarray[Any, Any]:
    """Texts as (n, 2 + words): characters, words, and which of the learnt words there are; NaN where missing."""
    out = np.zeros((len(values), 2 + len(words)))
    places = {word: place for place, word in enumerate(words, 2)}
    for row, text in enumerate(plain(values, MAX_TEXT_LENGTH)):
        found = re.findall(r"\w+", text.lower())
        out[row, :2] = len(text), len(found)
        out[row, [places[word] for word in found if word in places]] = 1.0
        if not text:
            out[row] = np.nan
    return out


def pictures(values: pd.Series[Any], column: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Images as (n, channels, size, size) bytes; a missing one has one colour."""
    size, channels = column["size"], column["channels"]
    out = np.empty((len(values), channels, size, size), dtype=np.uint8)
    for row, value in enumerate(values):
        missing = pd.api.types.is_scalar(value) and pd.isna(value)
        out[row] = np.reshape(column["fill"], (channels, 1, 1)) if missing else picture(value, size, channels)
    return out


def picture(value: Any, size: int, channels: int) -> np.ndarray[Any, Any]:
    """One image, decoded, upright, opaque, in 8 bits, and stretched to a square."""
    from PIL import Image, ImageOps

    if isinstance(value, (list, np.ndarray)):
        image: Any = Image.fromarray(bitmap(value))
    else:
        try:
            image = Image.open(io.BytesIO(file_of(value)), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"an image has at most {MAX_PIXELS:,} pixels") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"an image has at most {MAX_PIXELS:,} pixels")
    mode = "L" if channels == 1 else "RGB"
    image.draft(mode, (size, size))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert(mode)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels).transpose(2, 0, 1)


def file_of(value: Any) -> bytes:
    """The bytes of an image's file."""
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes")
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:image/") else value
        value = base64.b64decode(text, validate=True)
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("an image is bytes of a file, base64 text of them or an array")
    if len(value) > MAX_BYTES:
        raise ValueError(f"an image has at most {MAX_BYTES:,} bytes")
    return bytes(value)


def bitmap(value: Any) -> np.ndarray[Any, Any]:
    """Pixels as (height, width) or (height, width, 3 or 4) bytes."""
    array = np.array(listed(value))
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() > 255:
        raise ValueError("pixels are whole numbers from 0 to 255")
    return (array.squeeze(2) if array.shape[2:] == (1,) else array).astype(np.uint8)


def listed(value: Any) -> Any:
    """Nested arrays as lists of lists."""
    return [listed(one) for one in value] if isinstance(value, (list, np.ndarray)) else value


def truths(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Truth values as 1.0 and 0.0; NaN where missing."""
    return np.array([TRUTH[text.strip().lower()] if text else np.nan for text in texts(values)], dtype=np.float64)


def category(value: object) -> str:
    """The string a category is known by: alike for 1, 1.0 and "1"."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


CONVERSIONS = {"numeric": numbers, "boolean": truths, "datetime": moments, "categorical": texts}


def to_frame(outputs: dict[str, np.ndarray[Any, Any]], classes: list[str]) -> pd.DataFrame:
    """The graph's outputs as scalar columns."""
    columns = {"prediction": outputs["prediction"]}
    for index, name in enumerate(classes):
        columns[f"probability_{name}"] = outputs["probabilities"][:, index]
        columns[f"set_{name}"] = outputs["set"][:, index]
    if not classes:
        columns["low"], columns["high"] = outputs["interval"].T
    return pd.DataFrame(columns | {name: outputs[name] for name in ("uncertainty", "disagreement")})


mlflow.models.set_model(EverfitModel())
