"""A bundle's graph at work: frames in, `Scores` out. What serving, monitoring and the gate have in common.

    conformed frame --feed--> arrays by column --Scorer.run--> Scores

Runs on ONNX Runtime alone. `registry/pyfunc_model.py` does the same for a process that has MLflow but not Everfit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from registry.bundle import ModelBundle
from registry.errors import BundleError, RowError
from registry.images import stack
from registry.metrics import Array, Problem
from registry.schema import Column, ImageColumn, Schema
from registry.texts import TextNumbers

if TYPE_CHECKING:
    import pandas as pd

MISSING_TIME = int(np.iinfo(np.int64).min)
"""A missing moment in the graph's inputs: also what numpy and pandas hold in NaT."""

CLASS_OUTPUTS = ("prediction", "probabilities", "set", "uncertainty", "disagreement")
NUMBER_OUTPUTS = ("prediction", "interval", "uncertainty", "disagreement")
REPRESENTATION = "__representation__"
"""The output of a graph that reads images: what monitoring sees of them, (n, `COMPONENTS`)."""

OUTPUTS = tuple(dict.fromkeys((*CLASS_OUTPUTS, *NUMBER_OUTPUTS)))
"""All output names: no column of a schema can bear one of them."""

TOLERANCE = 1e-4
"""How far two computations of one output may differ, relative to its size where that is above 1."""

CHUNK_ROWS = 1024
CHUNK_BYTES = 2**21
"""Of images that go through a graph at once: what is reckoned of them on the way is some dozen times as large."""

Feed: TypeAlias = dict[str, npt.NDArray[Any]]
Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Columns: TypeAlias = "pd.DataFrame | Mapping[str, npt.NDArray[Any]]"
"""Rows by columns: a frame, or the rows of `ModelBundle.golden`."""

GRAPH_ERRORS = (
    *(ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf),
    *(ort_errors.NoSuchFile, ort_errors.NotImplemented, ort_errors.RuntimeException),
)
"""What ONNX Runtime raises, which has no base of its own."""

_NONE = np.array(None)
_GRAPH_TYPES = {
    "numeric": "tensor(double)",
    "boolean": "tensor(double)",
    "datetime": "tensor(int64)",
    "categorical": "tensor(string)",
    "text": "tensor(double)",
    "image": "tensor(uint8)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The graph's outputs for n rows, as `registry/bundle.py` describes them (float32, as the graph gives them).

    `probabilities` and `sets` are (n, k) for classification, `interval` is (n, 2) for regression; else None.
    `representation` is (n, `COMPONENTS`) of a graph that reads images; else None.
    """

    prediction: npt.NDArray[Any]
    uncertainty: Floats
    disagreement: Floats
    probabilities: Floats | None = None
    sets: npt.NDArray[np.bool_] | None = None
    interval: Floats | None = None
    representation: Floats | None = None

    def __len__(self) -> int:
        return len(self.uncertainty)

    @property
    def scores(self) -> Array:
        """What metrics take: (n, k) probabilities, or (n,) predicted numbers; float64."""
        source = self.prediction if self.probabilities is None else self.probabilities
        return np.asarray(source, dtype=np.float64)

    def take(self, rows: npt.NDArray[Any] | slice) -> Scores:
        """These rows only: positions, a mask or a slice."""
        parts: Any = (None if value is None else value[rows] for value in self._parts())
        return Scores(*parts)

    def at(self, radius: float) -> Scores:
        """The same answers with sets and intervals of another conformal radius (see `registry/bundle.py`)."""
        if self.probabilities is None:
            reach = np.asarray(self.uncertainty * np.float32(radius))
            return replace(self, interval=np.stack([self.prediction - reach, self.prediction + reach], axis=1))
        cut = np.minimum(self.probabilities.max(axis=1, keepdims=True), np.float32(1 - radius))
        return replace(self, sets=self.probabilities >= cut)

    def columns(self) -> dict[str, list[Any]]:
        """The outputs as columns of a frame, under the graph's names; a cell of a matrix is a list.

        `Scores.read` is the inverse.
        """
        named = zip(_FIELDS_TO_OUTPUTS.values(), self._parts(), strict=True)
        return {name: value.tolist() for name, value in named if value is not None}

    @classmethod
    def read(cls, frame: Columns) -> Scores:
        """The outputs in columns, such as those of `reference.parquet`."""
        names = {field: name for field, name in _FIELDS_TO_OUTPUTS.items() if name in frame}
        return cls(**{field: _matrix(frame[name], field) for field, name in names.items()})

    @classmethod
    def join(cls, parts: Sequence[Scores]) -> Scores:
        """Scores of consecutive rows as one. `parts` is not empty."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part._parts() for part in parts), strict=True)
        joined: Any = (None if column[0] is None else np.concatenate(column) for column in columns)
        return cls(*joined)

    def _parts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _FIELDS_TO_OUTPUTS)


_FIELDS_TO_OUTPUTS = {
    "prediction": "prediction",
    "uncertainty": "uncertainty",
    "disagreement": "disagreement",
    "probabilities": "probabilities",
    "sets": "set",
    "interval": "interval",
    "representation": REPRESENTATION,
}


def feed(conformed: Columns, schema: Schema) -> Feed:
    """The graph's inputs of conformed columns: (n, 1) each, or (n, *`input_shape`)."""
    return {column.name: _input(conformed[column.name], column) for column in schema.columns}


def input_shape(column: Column) -> tuple[int, ...]:
    """The shape of one row of a column's input: a text's numbers, an image's channels, rows and columns."""
    if column.kind == "image":
        return column.channels, column.size, column.size
    return (column.width if column.kind == "text" else 1,)


def chunk_rows(schema: Schema) -> int:
    """How many rows go through a graph at once."""
    return CHUNK_ROWS if schema.image is None else image_rows(schema.image)


def image_rows(image: ImageColumn) -> int:
    """How many images are reckoned with at once."""
    return min(CHUNK_ROWS, max(16, CHUNK_BYTES // (image.channels * image.size**2)))


def outputs_of(problem: Problem, *, images: bool = False) -> tuple[str, ...]:
    """The names of the graph's outputs, in the order in which `Scorer` asks for them."""
    return (*(NUMBER_OUTPUTS if problem == "regression" else CLASS_OUTPUTS), *([REPRESENTATION] if images else []))


def differences(found: Scores, expected: Scores, *, radius: float, tolerance: float = TOLERANCE) -> dict[str, float]:
    """The largest difference in each output, relative to its size where that is above 1; of a number and its interval
    to the largest of the three, as one of them may lie near 0 and be no more exact than the others, and of their
    uncertainty to a tenth of that; of an entropy to how steep it is, which the least probability's logarithm tells.

    A prediction or a set that differs counts as 1, unless probabilities within `tolerance` of the boundary explain it:
    two classes tie, or a class stands at the conformal threshold, 1 - `radius`.
    """
    seen = ("representation",) if expected.representation is not None else ()
    out = {name: _gap(found, expected, name) for name in ("uncertainty", "disagreement", *seen)}
    if expected.probabilities is None or expected.sets is None:
        return {name: _gap(found, expected, name) for name in ("prediction", "interval")} | out
    p, index = expected.scores, np.arange(len(expected))
    top, other = p.argmax(axis=1), np.sort(p, axis=1)[:, -2]
    tied = p[index, top] - other <= tolerance
    edge = np.abs(p - (1 - radius)) <= tolerance
    edge |= tied[:, None] & (p >= other[:, None] - tolerance)  # the arg max is in the set whatever the threshold
    return out | {
        "probabilities": _gap(found, expected, "probabilities"),
        "prediction": float(((found.prediction != expected.prediction) & ~tied).any()),
        "set": float(((found.sets != expected.sets) & ~edge).any()),
    }


class Graph:
    """A loaded graph. Safe to share between threads."""

    def __init__(self, session: ort.InferenceSession, schema: Schema, problem: Problem) -> None:
        self.schema = schema
        self.radius: float | None = None
        """A conformal radius that takes the place of the graph's own."""
        self._session = session
        self._names = list(outputs_of(problem, images=schema.image is not None))
        self._read = _numbers if problem == "regression" else _classes

    @classmethod
    def open(cls, path: Path, schema: Schema, problem: Problem, *, threads: int = 1) -> Graph:
        """Open a graph for `threads` threads a call. Raises `BundleError` when it does not load or does not have the
        inputs of this schema and the outputs of this problem."""
        return cls(_open(path, schema, problem, threads), schema, problem)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """Scores of the rows in `inputs` (see `feed`); the hot path of serving."""
        scores = self._read(*self._session.run(self._names, inputs))
        return scores if self.radius is None else scores.at(self.radius)

    def run_in_parts(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """What `run` gives, `chunk_rows` at once: what is reckoned on the way stays bounded."""
        rows = len(next(iter(inputs.values())))
        parts = ({name: values[part] for name, values in inputs.items()} for part in self._parts(rows))
        return Scores.join([self.run(part) for part in parts])

    def predict(self, frame: pd.DataFrame, *, conformed: bool = False) -> Scores:
        """Scores of a frame's rows, raw or `conformed`, in bounded memory. Raises `RowError` for a misfit value."""
        from registry.conforming import conform  # here, since it loads pandas

        parts = (frame.iloc[part] for part in self._parts(len(frame)))
        ready = parts if conformed else (conform(part, self.schema) for part in parts)
        try:
            return Scores.join([self.run(feed(part, self.schema)) for part in ready])
        except RowError:
            conform(frame, self.schema)  # the whole frame tells the row's place in it
            raise

    def _parts(self, rows: int) -> list[slice]:
        """One at least: a graph answers no rows with arrays of its own types."""
        size = chunk_rows(self.schema)
        return [slice(at, at + size) for at in range(0, max(rows, 1), size)]


class Scorer(Graph):
    """A bundle's graph, with the bundle's own test of it."""

    def __init__(self, bundle: ModelBundle, session: ort.InferenceSession) -> None:
        super().__init__(session, bundle.manifest.data_schema, bundle.manifest.target.problem)
        self.bundle = bundle

    @property
    def conformal_radius(self) -> float:
        """The radius of its sets and intervals."""
        return self.bundle.manifest.conformal_radius if self.radius is None else self.radius

    @classmethod
    def load(cls, bundle: ModelBundle, *, threads: int = 1) -> Scorer:
        """Open the bundle's graph as `Graph.open` does."""
        manifest = bundle.manifest
        return cls(bundle, _open(bundle.model, manifest.data_schema, manifest.target.problem, threads))

    def self_test(self) -> None:
        """Raise `BundleError` when the golden rows' outputs differ from the stored ones by more than `TOLERANCE`."""
        golden = self.bundle.golden().rows
        if not all(map(len, golden.values())):
            raise BundleError(f"{self.bundle.folder}: the reference has no golden rows")
        try:
            answers = self.run_in_parts(feed(golden, self.schema))
        except GRAPH_ERRORS as error:
            raise BundleError(f"{self.bundle.folder}: the graph does not run: {str(error)[:300]}") from error
        found = differences(answers, Scores.read(golden), radius=self.bundle.manifest.conformal_radius)
        require_small(found, f"{self.bundle.folder}: golden rows")


def require_small(found: Mapping[str, float], where: str, *, tolerance: float = TOLERANCE) -> None:
    """Raise `BundleError`, naming the worst output, when one of the `differences` is above `tolerance` or NaN."""
    if bad := {name: value for name, value in found.items() if not value <= tolerance}:
        shown = ", ".join(f"{name} by {value:.2g}" for name, value in sorted(bad.items()))
        raise BundleError(f"{where}: expected outputs equal within {tolerance:g}, they differ: {shown}")


def session_options(threads: int) -> ort.SessionOptions:
    """How graphs run: so many threads a call, none of which spins; what is held as int8 becomes floats as it loads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _open(path: Path, schema: Schema, problem: Problem, threads: int) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    except GRAPH_ERRORS as error:
        raise BundleError(f"{path}: does not load: {str(error)[:300]}") from error
    expected = {column.name: _GRAPH_TYPES[column.kind] for column in schema.columns}
    found = {one.name: one.type for one in session.get_inputs()}
    if found != expected:
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise BundleError(f"{path}: the graph's inputs differ from the schema in {', '.join(wrong[:10])}")
    given = {one.name for one in session.get_outputs()}
    if lacking := {*outputs_of(problem, images=schema.image is not None)} - given:
        raise BundleError(f"{path}: the graph lacks the outputs {', '.join(sorted(lacking))}")
    return session


def _classes(
    prediction: Any, probabilities: Any, sets: Any, uncertainty: Any, disagreement: Any, seen: Any = None
) -> Scores:
    return Scores(prediction, uncertainty, disagreement, probabilities, sets, None, seen)


def _numbers(prediction: Any, interval: Any, uncertainty: Any, disagreement: Any, seen: Any = None) -> Scores:
    return Scores(prediction, uncertainty, disagreement, None, None, interval, seen)


def _input(values: Any, column: Column) -> npt.NDArray[Any]:
    if column.kind == "image":
        return stack(values.tolist(), column.size, column.channels, column.fill)
    if column.kind == "text":
        return TextNumbers(column.words).table(values.tolist())
    if column.kind == "categorical":
        held: Any = np.asarray(values, dtype=object)
        return np.where(np.equal(held, _NONE) | (held != held), "", held)[:, None]  # NaN differs from itself
    if column.kind == "datetime":
        return np.asarray(values, dtype="datetime64[us]").view(np.int64)[:, None]
    return np.asarray(values, dtype=np.float64)[:, None]


def _matrix(values: Any, field: str) -> npt.NDArray[Any]:
    if field == "prediction":
        return np.asarray(values, dtype=object if values.dtype.kind != "f" else None)
    dtype = np.bool_ if field == "sets" else np.float64
    return np.array(values.tolist(), dtype=dtype)


def _gap(found: Scores, expected: Scores, field: str) -> float:
    a, b = (np.asarray(getattr(one, field), dtype=np.float64) for one in (found, expected))  # NaN where it is None
    if (size := np.abs(b)).shape != a.shape:
        return float("inf")
    if expected.interval is not None:
        three = np.nan_to_num(np.abs(np.column_stack([expected.prediction, expected.interval])), posinf=0)
        largest = three.max(axis=1).reshape(-1, *[1] * (b.ndim - 1))  # an uncertainty is made of differences of means
        size = largest if field in ("prediction", "interval") else np.maximum(size, largest / 10)
    elif field in ("uncertainty", "disagreement") and expected.probabilities is not None:
        size = np.maximum(size, -np.log(np.clip(expected.scores.min(axis=1), TOLERANCE, 1)))
    with np.errstate(invalid="ignore"):  # infinite bounds are equal, though their difference is NaN
        return float(np.where(a == b, 0, np.abs(a - b) / np.maximum(1, size)).max(initial=0))
