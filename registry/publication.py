"""How a bundle is written into MLflow: a run that shows where it comes from and how good it is, and a pyfunc model
that any MLflow client can load. `registry/versions.py` makes a version of it."""

from __future__ import annotations

import importlib
import threading
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from registry.bundle import CARD, FIGURES, Manifest, ModelBundle

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

MODEL_CODE = Path(__file__).with_name("pyfunc_model.py")
REQUIREMENTS = ("mlflow", "onnxruntime", "numpy", "pandas")

_NOTE = "mlflow.note.content"  # tag of a run: the text its page shows
_NOTE_LENGTH = 4_900
_EXAMPLE_ROWS = 5
_saving = threading.Lock()  # MLflow keeps the model whose code it runs in a global
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Logged:
    """What was written: ids of the run and of the model, and where the model's files are."""

    run: str
    model: str
    location: str


def lineage_tags(manifest: Manifest) -> dict[str, str]:
    """Where a version comes from, from data to code, as tags."""
    lineage = manifest.lineage
    tags = {"data_hash": lineage.data_hash, "code_version": lineage.code_version, "seed": str(lineage.seed)}
    if lineage.parent_version is not None:
        tags["parent_version"] = lineage.parent_version
    if lineage.known_until is not None:
        tags["known_until"] = lineage.known_until.isoformat()
    return {f"everfit.{name}": value for name, value in {**tags, "version": version_of("everfit")}.items()}


def published_metrics(manifest: Manifest) -> dict[str, float]:
    """The manifest's metrics by one name each.

    `{"champion": {"auc": .8}, "boosted": {"auc": .7}}` becomes `{"champion_auc": .8, "boosted_auc": .7}`.
    """
    return {f"{model}_{name}": value for model, found in manifest.metrics.items() for name, value in found.items()}


def published_params(manifest: Manifest) -> dict[str, object]:
    """What the run of a version shows beside its metrics."""
    task, lineage = manifest.task, manifest.lineage
    shown = {"problem": task.problem, "metric": task.metric, "strategy": task.search.strategy, "seed": lineage.seed}
    rows = {f"rows_{part}": number for part, number in lineage.rows.items()}
    fitted = {"temperature": manifest.temperature, "conformal_radius": manifest.conformal_radius}
    return {**shown, **rows, **fitted, "trials": lineage.trials, "seconds": lineage.seconds}


def signature(manifest: Manifest) -> ModelSignature:
    """The model's signature: every column of the schema, any type, none required; and the outputs by type.

    Any type: MLflow refuses integers where it was told double, missing values where it was told boolean, and pandas'
    own types for either. The model's code converts all of them, and names column and value where it cannot.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    anything = AnyType()  # type: ignore[no-untyped-call]
    inputs = Schema([ColSpec(anything, name=name, required=False) for name in manifest.data_schema.names])
    classes = manifest.target.classes
    kinds = {"prediction": "string" if classes else "float"}
    for name in classes:
        kinds |= {f"probability_{name}": "float", f"set_{name}": "boolean"}
    if not classes:
        kinds |= {"low": "float", "high": "float"}
    kinds |= {"uncertainty": "float", "disagreement": "float"}
    return ModelSignature(inputs, Schema([ColSpec(kind, name) for name, kind in kinds.items()]))


def tolerating(code: str, call: Callable[[], _Result]) -> _Result | None:
    """What a call gives, or None if MLflow answers with this error code."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code != code:
            raise
        return None


def write_run(
    client: MlflowClient,
    bundle: ModelBundle,
    place: Path | None,
    *,
    tags: Mapping[str, str],
    metrics: Mapping[str, float] | None,
    params: Mapping[str, object] | None,
) -> Logged:
    """Write a run with everything about a bundle. One that fails is marked so, and the error passes on.

    `place` is the folder of the task's files if this run is its first; None: where MLflow's server keeps them.
    """
    experiment = _experiment(client, bundle.manifest.task.name, place)
    note = (bundle.folder / CARD).read_text(encoding="utf-8")[:_NOTE_LENGTH]
    run: str = client.create_run(experiment, run_name=bundle.folder.name, tags={**tags, _NOTE: note}).info.run_id
    outcome = "FAILED"
    try:
        model, location = _log_model(client, bundle, experiment, run)
        _log_facts(client, bundle, run, model, metrics, params)
        outcome = "FINISHED"
    finally:
        client.set_terminated(run, outcome)
    return Logged(run, model, location)


def _experiment(client: MlflowClient, task: str, place: Path | None) -> str:
    """The task's experiment, made if there is none, with its files at `place` (None: where the server keeps them)."""
    if (found := client.get_experiment_by_name(task)) is not None:
        return str(found.experiment_id)
    uri = None if place is None else place.as_uri()
    made = tolerating("RESOURCE_ALREADY_EXISTS", lambda: client.create_experiment(task, uri))
    return made if made is not None else _experiment(client, task, place)


def _pyfunc() -> ModuleType:
    """MLflow's module, whose import warns of MLflow's own type hints."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
        return importlib.import_module("mlflow.pyfunc")


def _log_model(client: MlflowClient, bundle: ModelBundle, experiment: str, run: str) -> tuple[str, str]:
    """Store the bundle as a pyfunc model of a run; its id and the place of its files."""
    import mlflow

    pyfunc = _pyfunc()
    names = bundle.manifest.data_schema
    logged = client.create_logged_model(experiment, name=bundle.manifest.task.name, source_run_id=run)
    with TemporaryDirectory() as folder, _saving:
        pyfunc.save_model(
            f"{folder}/model",
            python_model=str(MODEL_CODE),
            artifacts={"bundle": str(bundle.folder)},
            signature=signature(bundle.manifest),
            input_example=_example(bundle),
            pip_requirements=[f"{name}=={version_of(name)}" for name in _required(bundle.manifest)],
            metadata={"columns": {column.name: column.kind for column in names.columns}},
            mlflow_model=mlflow.models.Model(
                artifact_path=logged.artifact_location, model_uuid=logged.model_id, model_id=logged.model_id, run_id=run
            ),
        )
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id, logged.artifact_location


def _required(manifest: Manifest) -> tuple[str, ...]:
    """The packages that the model's code needs."""
    return REQUIREMENTS if manifest.data_schema.image is None else (*REQUIREMENTS, "pillow")


def _example(bundle: ModelBundle) -> pd.DataFrame:
    """Some rows as a client sends them: an image as base64 text."""
    schema = bundle.manifest.data_schema
    rows = bundle.reference()[list(schema.names)].head(_EXAMPLE_ROWS)
    if (image := schema.image) is None:
        return rows
    return rows.assign(**{image.name: rows[image.name].map(lambda data: b64encode(data).decode(), na_action="ignore")})


def _log_facts(
    client: MlflowClient,
    bundle: ModelBundle,
    run: str,
    model_id: str,
    metrics: Mapping[str, float] | None,
    params: Mapping[str, object] | None,
) -> None:
    """The run's metrics, parameters, card and figures."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    found = published_metrics(bundle.manifest) if metrics is None else metrics
    numbers = [Metric(name, float(value), now, 0, model_id=model_id) for name, value in found.items()]
    texts = [Param(name, str(value)) for name, value in {**published_params(bundle.manifest), **(params or {})}.items()]
    client.log_batch(run, metrics=numbers, params=texts)
    client.log_artifact(run, str(bundle.folder / CARD))
    for figure in sorted((bundle.folder / FIGURES).glob("*.png")):
        client.log_artifact(run, str(figure), FIGURES)


def metrics_by_run(client: MlflowClient, task: str) -> dict[str, dict[str, float]]:
    """The metrics of a task's runs, by run."""
    if (experiment := client.get_experiment_by_name(task)) is None:
        return {}
    runs = pages(lambda **page: client.search_runs([experiment.experiment_id], **page))
    return {run.info.run_id: dict(run.data.metrics) for run in runs}


def pages(search: Callable[..., Any]) -> list[Any]:
    """All results of one of MLflow's searches."""
    found = page = search()
    while page.token:
        page = search(page_token=page.token)
        found += page
    return list(found)
