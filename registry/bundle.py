"""A model as one folder without pickle. Loading a bundle executes no code.

    model.onnx           raw columns in; prediction, probabilities or interval, uncertainty out
    serving.onnx         the same for the endpoint, from matrices instead of columns (`registry/serving_graph.py`); not
                         with images, nor in bundles from before it
    weights.safetensors  the members' weights, for warm starts
    networks.onnx        the graph before it was made lean, without weights: renewed members are exported by it
    candidates.json      the members' candidates and the study's best ones, for warm starts
    reference.parquet    conformed rows with labels, and answers of networks that were not fitted to them: the graph's
                         own, but of a champion that follows what it answered before it learnt them, and of a first
                         search's what its rehearsal answered (`retrain/search/refit.py`); golden rows, which come
                         first, with the graph's own in any case
    golden.json          what the endpoint needs of it (`registry/golden.py`); not with images, nor from before it
    card.md              the model card
    figures/*.png        the card's pictures
    race.safetensors     of a champion that follows: learners beside those that serve, and what all have answered
                         (`retrain/race.py`)
    bundle.json          the manifest: task, schema, metrics, calibration, lineage, and the SHA-256 of every other file

Graph inputs, one per schema column under its name, all of shape (n, 1):

    numeric, boolean   double, NaN where missing
    datetime           int64, microseconds since 1970 UTC, `MISSING_TIME` where missing
    categorical        string, "" where missing

Graph outputs, under these names:

    prediction         string (n,): a class of `target.classes`; or float (n,) for regression
    probabilities      float (n, k), classification only, calibrated
    set                bool (n, k), classification only: members of the conformal set
    interval           float (n, 2), regression only: lower and upper conformal bound
    uncertainty        float (n,): total: predictive entropy in nats; or standard deviation in the target's unit
    disagreement       float (n,): the part of it that the members disagree about (mutual information, or the
                       standard deviation of the members' means)
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from registry.errors import BundleError
from registry.fallen import fall
from registry.golden import GOLDEN, Columns, Golden
from registry.naive import weakness
from registry.parquet import read_parquet
from registry.schema import Frozen, Schema
from registry.target import Target
from registry.task import TaskSpec

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "bundle.json"
MODEL = "model.onnx"
SERVING = "serving.onnx"
WEIGHTS = "weights.safetensors"
NETWORKS = "networks.onnx"
CANDIDATES = "candidates.json"
REFERENCE = "reference.parquet"
CARD = "card.md"
FIGURES = "figures"
REQUIRED = (MODEL, WEIGHTS, CANDIDATES, REFERENCE, CARD)

LABEL = "__label__"
"""Column of `reference.parquet` with the true label: a class name, or a number for regression."""


TIME = "__time__"
"""Column of `reference.parquet` with the event time (UTC, without zone), where the task has one."""


class Estimate(Frozen):
    """A metric on rows that were answered before they were learnt, if ever; its standard error, the number of rows."""

    value: float
    error: float = Field(ge=0)
    rows: int = Field(ge=0)


class Lineage(Frozen):
    """Where a model comes from. `known_until` is the newest event time of any row that training, validation,
    calibration or test has seen: a gate compares only on rows after it."""

    data_hash: str
    rows: dict[str, int]
    known_until: datetime | None = None
    code_version: str
    seed: int
    parent_version: str | None = None
    seconds: float = Field(ge=0, description="wall-clock of the search")
    cpu_seconds: float | None = Field(None, ge=0, description="CPU-seconds of the search, its workers included")
    trials: int = Field(ge=0)


class Manifest(Frozen):
    """`bundle.json`: everything about a model that is not an array."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # an undefined metric is NaN, a radius may be infinite

    format: Literal[1] = 1
    task: TaskSpec
    data_schema: Schema
    target: Target
    reference: Estimate = Field(description="the task's metric on the test rows: what monitoring compares with")
    headroom: Estimate | None = Field(
        None, description="what the boosted reference adds to the task's metric when averaged with the champion, ditto"
    )
    naive: Estimate | None = Field(
        None,
        description="the task's metric of the training rows' mean or class shares on the test rows; the error is "
        "that of its difference to the champion's",
    )
    validation: Estimate | None = Field(
        None, description="the task's metric on the validation rows, by which the model was chosen"
    )
    metrics: dict[str, dict[str, float]] = Field(
        description="on the test rows, by model (champion, boosted) and metric"
    )
    conformal_radius: float
    temperature: float = 1.0
    refitted: int = Field(0, ge=0, description="for how many whole epochs the networks have learnt all rows since")
    lineage: Lineage
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of every other file, by relative path")

    @property
    def weakness(self) -> str | None:
        """That the model is not surely better than one that knows nothing, in a sentence; None where it is."""
        if self.naive is None:
            return None
        known = self.reference.value, self.naive.value, self.naive.error
        return weakness(self.task.metric, self.task.problem, *known)

    @property
    def fall(self) -> str | None:
        """That the model is surely worse on the test rows than on those it was chosen by, in a sentence; None where it
        is not."""
        if self.validation is None:
            return None
        task, (test, validation) = self.task, ((one.value, one.error) for one in (self.reference, self.validation))
        tolerate = getattr(task.policy, "tolerate", None)
        return fall(task.metric, test, validation, tolerate=tolerate, timed=task.time is not None)


class ModelBundle:
    """An opened bundle: the folder and its checked manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def load(cls, folder: Path) -> ModelBundle:
        """Open a bundle, checking that each file is there and unchanged. Raises `BundleError` naming the file."""
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except OSError as error:
            raise BundleError(f"{folder}: no readable {MANIFEST} ({error.strerror})") from error
        except ValidationError as error:
            raise BundleError(f"{folder / MANIFEST}: not a manifest of this version: {error}") from error
        for name in dict.fromkeys((*manifest.files, *REQUIRED)):
            _check_file(folder, name, manifest.files.get(name))
        return cls(folder, manifest)

    @classmethod
    def seal(cls, folder: Path, manifest: Manifest) -> ModelBundle:
        """Write the manifest last, with the hashes of all files beside it: a folder without it is no bundle."""
        if (folder / REFERENCE).is_file():
            Golden.of(_columns(folder / REFERENCE)).write(folder)
        files = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        files.pop(MANIFEST, None)
        sealed = manifest.model_copy(update={"files": files})
        text = sealed.model_dump_json(indent=2)
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / MANIFEST)
        return cls.load(folder)

    @property
    def model(self) -> Path:
        """The ONNX graph's file."""
        return self.folder / MODEL

    @property
    def graph_bytes(self) -> int:
        """About how many bytes the graph takes once it is loaded, less what the runtime needs: those of its file, or of
        the weights as floats, which a graph that holds int8 becomes."""
        return max((self.folder / name).stat().st_size for name in (MODEL, WEIGHTS))

    @property
    def candidates(self) -> dict[str, Any]:
        """The JSON of `candidates.json`."""
        found: dict[str, Any] = json.loads((self.folder / CANDIDATES).read_text(encoding="utf-8"))
        return found

    def reference(self) -> pd.DataFrame:
        """The reference rows: the schema's columns, `LABEL`, `TIME`, and the graph's outputs under their names."""
        return read_parquet(self.folder / REFERENCE)

    def golden(self) -> Golden:
        """The golden rows, and the disagreement about all. Raises `BundleError`."""
        if GOLDEN not in self.manifest.files:
            return Golden.of(_columns(self.folder / REFERENCE))
        try:
            return Golden.read(self.folder)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BundleError(f"{self.folder / GOLDEN}: no golden rows: {error}") from error


def _columns(path: Path) -> Columns:
    """A reference by columns, for a process without pandas."""
    import pyarrow.parquet as pq  # here: the endpoint does without it until somebody sends Arrow

    table = pq.read_table(path)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(folder: Path, name: str, expected: str | None) -> None:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the manifest names a file outside the bundle, {name!r}")
    if not path.is_file():
        raise BundleError(f"{folder}: {name} is missing")
    if expected is None:
        raise BundleError(f"{folder}: {name} has no checksum in {MANIFEST}")
    if (found := digest(path)) != expected:
        raise BundleError(f"{path}: expected SHA-256 {expected[:12]}..., found {found[:12]}...: the file was changed")
