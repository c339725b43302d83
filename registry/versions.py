"""The versions of a task's model, and which of them is champion, challenger and previous: MLflow, and its only home.

A version is a registered MLflow model whose artifact is the bundle's folder, so that plain
`mlflow.pyfunc.load_model("models:/NAME@champion").predict(frame)` works without Everfit. MLflow is imported at first
use, not with this module, and none of its process-wide settings (active run, tracking URI) is touched.

    versions = Versions("sqlite:////home/mlflow.db", Path("/home/artifacts"), Path("/home/bundles"))
    version = versions.publish(bundle)
    versions.promote("flights", version)
    versions.fetch("flights", versions.get("flights", "champion"))
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import sqlalchemy as sa

from registry.bundle import Manifest, ModelBundle
from registry.database import driver_words, explain_at, from_micros
from registry.errors import BundleError, NoModelError, RegistryError
from registry.moves import CHAMPION, PREVIOUS, Move, Step, aliases_of, begin, finish
from registry.publication import lineage_tags, metrics_by_run, pages, tolerating, write_run
from registry.quiet import QUIET
from registry.thinning import half_gone, manifest_of, require_whole, tagged, thin

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_SECONDS = 5
"""How long one call waits for the registry before it fails; who calls decides whether to try again."""

_ENVIRONMENT = QUIET | {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PATIENCE_SECONDS),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_RADIUS, _CANARY = "everfit.radius", "everfit.canary"  # tags of a version
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


@dataclass(frozen=True)
class VersionInfo:
    """A version as lists show it. `created` is UTC without zone; `metrics` are those it was published with."""

    version: str
    created: datetime
    aliases: tuple[str, ...]
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Promotion:
    """The champion after a promotion or a rollback, and the one before it (None if there was none)."""

    version: str
    previous: str | None


Infos: TypeAlias = list[VersionInfo]  # inside the class `list` is a method
Names: TypeAlias = list[str]


def _knock(url: str) -> None:
    """Fail fast if a database does not answer, for which MLflow itself would try for minutes, or nobody listens where a
    server should be: to load MLflow for that takes more than a second."""
    if url.startswith("http"):
        _call_at(url)
        return
    sqlite = url.startswith("sqlite")
    if sqlite:
        Path(str(sa.make_url(url).database)).parent.mkdir(parents=True, exist_ok=True)
    limit = {"timeout": PATIENCE_SECONDS} if sqlite else {"connect_timeout": PATIENCE_SECONDS}
    engine = sa.create_engine(url, connect_args=limit)
    try:
        sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _call_at(url: str) -> None:
    """Raise `OSError` if nobody listens there; behind a proxy only the proxy knows."""
    from requests.utils import get_environ_proxies

    try:
        if get_environ_proxies(url):
            return
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=PATIENCE_SECONDS).close()
    except (ValueError, KeyError) as error:  # whose words may hold a piece of a password
        raise OSError("no URL of a server: its host or its port cannot be read") from error


def _number(version: str) -> str:
    if not version.isdigit():
        raise NoModelError(f"expected the number of a version, got {version!r}")
    return version


def _sound(folder: Path) -> ModelBundle | None:
    try:
        return ModelBundle.load(folder)
    except BundleError:
        return None


def _only_folder(folder: Path) -> Path:
    """The bundle among the files of a version: MLflow keeps it under the name its folder had when published."""
    found = [path for path in folder.iterdir() if path.is_dir()]
    if len(found) != 1:
        raise BundleError(f"expected one bundle among the version's files, found {sorted(path.name for path in found)}")
    return found[0]


class Versions:
    """The registry behind one MLflow URL: `http://...`, `sqlite:///...` or `postgresql://...`.

    `artifacts` is where a new experiment keeps its files when the URL is a database; a server has its own place.
    `cache` is where `fetch` keeps bundles. Thread-safe. Every method raises `RegistryError` when the registry cannot
    be reached, within `PATIENCE_SECONDS` or so, and `NoModelError` when it has no such version.
    """

    def __init__(self, tracking_url: str, artifacts: Path, cache: Path) -> None:
        self._url = tracking_url
        self._artifacts = artifacts
        self._cache = cache
        self._opening = threading.Lock()

    def publish(
        self,
        bundle: ModelBundle,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Register a bundle as a new version of its task, without an alias; returns its number.

        The run shows metrics (the manifest's, if none are given), parameters, the card and the figures. `tags` are the
        version's, beside its lineage. A publication that is cut short leaves a run, and no version.
        """
        task, marks = bundle.manifest.task.name, lineage_tags(bundle.manifest) | dict(tags or {})
        with self._open() as client:
            place = None if self._url.startswith("http") else self._artifacts.resolve() / task
            logged = write_run(client, bundle, place, tags=marks, metrics=metrics, params=params)
            tolerating("RESOURCE_ALREADY_EXISTS", lambda: client.create_registered_model(task))
            created = client.create_model_version(
                task, logged.location, run_id=logged.run, tags=marks, model_id=logged.model
            )
            return str(created.version)

    def get(self, task: str, alias: str) -> str | None:
        """The version that bears an alias now, or None. One quick call, fit for polling."""
        with self._open() as client:
            return aliases_of(client, task).get(alias)

    def set(self, task: str, alias: str, version: str) -> None:
        """Let a version bear an alias, taking it from another."""
        with self._open() as client:
            require_whole(client, task, _number(version))
            client.set_registered_model_alias(task, alias, _number(version))

    def unset(self, task: str, alias: str) -> None:
        """Let no version bear an alias."""
        with self._open() as client:
            if alias in aliases_of(client, task):
                client.delete_registered_model_alias(task, alias)

    def promote(self, task: str, version: str, *, step: Step = lambda name: None) -> Promotion:
        """Make a version the champion and the old champion `previous`; the version stops being challenger.

        The move is noted in the registry before the first alias is touched, so one that was cut short is completed by
        the next promotion or rollback, whoever asks for it; promoting the champion again changes nothing. `step` is
        called with the name of each step done.
        """
        with self._open() as client:
            require_whole(client, task, _number(version))
            finish(client, task)
            aliases = aliases_of(client, task)
            if (champion := aliases.get(CHAMPION)) == version:
                return Promotion(version, aliases.get(PREVIOUS))
            begin(client, task, Move(version, champion), step)
            return Promotion(version, champion)

    def rollback(self, task: str, *, step: Step = lambda name: None) -> Promotion:
        """Make `previous` the champion again and the champion `previous`. Raises `NoModelError` if there is none.

        One that was cut short is completed by the next call, which then goes no further.
        """
        with self._open() as client:
            if (move := finish(client, task)) is not None and move.rollback:
                return Promotion(move.champion, move.previous)
            aliases = aliases_of(client, task)
            champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
            if champion is None or previous is None:
                raise NoModelError(f"task {task!r} has no previous version to go back to (champion: {champion})")
            begin(client, task, Move(previous, champion, rollback=True), step)
            return Promotion(previous, champion)

    def canary(self, task: str, version: str) -> float:
        """The share of the live requests that a version answers while it is the challenger."""
        return self._tagged(task, version, _CANARY) or 0.0

    def set_canary(self, task: str, version: str, share: float) -> None:
        """Let a challenger answer a share of the live requests; 0 ends it."""
        self._tag(task, version, _CANARY, share)

    def radius(self, task: str, version: str) -> float | None:
        """The conformal radius that takes the place of a version's own; None where none does."""
        return self._tagged(task, version, _RADIUS)

    def set_radius(self, task: str, version: str, radius: float) -> None:
        """Let a version answer with another conformal radius."""
        self._tag(task, version, _RADIUS, radius)

    def _tagged(self, task: str, version: str, name: str) -> float | None:
        with self._open() as client:
            found = client.get_model_version(task, _number(version)).tags.get(name)
            return None if found is None else float(found)

    def _tag(self, task: str, version: str, name: str, value: float) -> None:
        with self._open() as client:
            client.set_model_version_tag(task, _number(version), name, repr(value))

    def fetch(self, task: str, version: str) -> ModelBundle:
        """The bundle of a version, from the cache if it is there and sound, else downloaded, checked and kept.

        A version never changes, so a cached one needs no registry. Raises `BundleError` if the registry's own copy is
        corrupt; a bundle in the cache is always whole.
        """
        place = self._cache / task / _number(version)
        return _sound(place) or self._download(task, version, place)

    def manifest(self, task: str, version: str) -> Manifest:
        """What a version's bundle tells of itself, also of one whose files were let go."""
        if (found := _sound(self._cache / task / _number(version))) is not None:
            return found.manifest
        with self._open() as client:
            return manifest_of(client, self._url, task, version)

    def thin(self, task: str, version: str) -> None:
        """Let the files of a version go, except what it tells of itself: tags, metrics and manifest remain, and it
        answers no more. May be done again. Raises `RegistryError` for one that bears an alias."""
        with self._open() as client:
            if version in aliases_of(client, task).values():
                raise RegistryError(f"version {version} of task {task!r} bears an alias: its files are needed")
            thin(client, self._url, task, _number(version), self._cache / task / version)

    def half_gone(self, task: str) -> Names:
        """The versions of which `thin` was cut short, oldest first."""
        with self._open() as client:
            return half_gone(client, task)

    def tagged(self, task: str, name: str, value: str) -> Names:
        """The versions with this tag whose files are there, oldest first."""
        with self._open() as client:
            return tagged(client, task, name, value)

    def list(self, task: str) -> Infos:
        """All versions of a task, oldest first; none for a task that has published nothing."""
        with self._open() as client:
            aliases = aliases_of(client, task)
            metrics = metrics_by_run(client, task)
            found = [
                VersionInfo(
                    version=str(one.version),
                    created=from_micros(one.creation_timestamp * 1000),
                    aliases=tuple(sorted(name for name, version in aliases.items() if version == str(one.version))),
                    tags=dict(one.tags),
                    metrics=metrics.get(one.run_id, {}),
                )
                for one in pages(lambda **page: client.search_model_versions(f"name='{task}'", **page))
            ]
        return sorted(found, key=lambda one: int(one.version))

    def _download(self, task: str, version: str, place: Path) -> ModelBundle:
        with self._open() as client:
            from mlflow.artifacts import download_artifacts

            require_whole(client, task, version)
            source = f"{client.get_model_version_download_uri(task, version)}/artifacts"
            place.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=f".{version}-", dir=place.parent) as partial:
                folder = download_artifacts(source, dst_path=f"{partial}/new", tracking_uri=self._url)
                bundle = ModelBundle.load(_only_folder(Path(folder)))
                if (other := _sound(place)) is not None:  # another process was quicker
                    return other
                if place.exists():  # a damaged copy, moved away: a folder cannot be replaced in one step
                    place.rename(f"{partial}/damaged")
                bundle.folder.rename(place)
            return ModelBundle.load(place)

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _knock(self._url)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what ours has as its cause
        from mlflow import MlflowClient

        return MlflowClient(self._url, self._url)

    @contextmanager
    def _open(self) -> Iterator[MlflowClient]:
        """The client; what MLflow, its database or the network raise becomes one of our errors."""
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._opening:
                client = self._client
            from mlflow.exceptions import MlflowException
        except (SQLAlchemyError, OSError) as error:
            raise RegistryError(self._words(error)) from error
        try:
            yield client
        except MlflowException as error:
            kind = NoModelError if error.error_code in _ABSENT else RegistryError
            raise kind(self._words(error)) from error
        except (SQLAlchemyError, RequestException, OSError) as error:
            raise RegistryError(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        """An error on one line, with the registry's URL and without its password."""
        shown = re.sub(r"//([^/@:]*):.*@", r"//\1:***@", self._url)  # a password may hold any sign
        text = " ".join(driver_words(error).replace(self._url, shown).split())
        said, local = (text.partition("(Caused by ")[2] or text)[:300], self._url.startswith("sqlite")
        if isinstance(error, OSError) and error.filename:
            return f"registry {shown}: {explain_at(said, Path(os.fsdecode(error.filename)))}"
        return f"registry {shown}: {explain_at(said, Path(str(sa.make_url(self._url).database))) if local else said}"
