"""A version whose files were let go: its tags, its metrics and the manifest of its bundle tell what it was.

What predictions in the log refer to stays explained; the graph, the weights and the reference rows, which are nearly
all of its bytes, are deleted where MLflow keeps them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from registry.bundle import MANIFEST, Manifest
from registry.errors import BundleError, NoModelError

if TYPE_CHECKING:
    from mlflow import MlflowClient

THIN = "everfit.thin"
"""Tag of such a version: `GOING` from before its first file is deleted until nothing more is to be, then `GONE`."""
GOING, GONE = "going", "true"


def require_whole(client: MlflowClient, task: str, version: str) -> None:
    """Raise `NoModelError` for a version that has lost its files."""
    if THIN in client.get_model_version(task, version).tags:
        raise NoModelError(f"the files of version {version} of task {task!r} were let go: it answers no more")


def thin(client: MlflowClient, url: str, task: str, version: str, cached: Path) -> None:
    """Delete the files of a version other than its manifest, and the copy in `cached`. May be done again.

    The tag comes first, so that whoever finds some of the files gone is told why, and last, so that whoever comes after
    a kill finds what is left to do (`half_gone`).
    """
    client.set_model_version_tag(task, version, THIN, GOING)
    store = _store(client, url, task, version)
    for path in list(_files(store)):
        if Path(path).name != MANIFEST:
            store.delete_artifacts(path)
    shutil.rmtree(cached, ignore_errors=True)
    client.set_model_version_tag(task, version, THIN, GONE)


def half_gone(client: MlflowClient, task: str) -> list[str]:
    """The versions whose files a kill, or a store that failed, has left to be deleted."""
    found = client.search_model_versions(f"name='{task}' and tags.`{THIN}` = '{GOING}'")
    return sorted((str(one.version) for one in found), key=int)


def tagged(client: MlflowClient, task: str, name: str, value: str) -> list[str]:
    """The versions that bear a tag, and have their files."""
    found = client.search_model_versions(f"name='{task}' and tags.`{name}` = '{value}'")
    return sorted((str(one.version) for one in found if THIN not in one.tags), key=int)


def manifest_of(client: MlflowClient, url: str, task: str, version: str) -> Manifest:
    """The manifest as the registry has it. Raises `BundleError` for a version without one."""
    store = _store(client, url, task, version)
    found = [path for path in _files(store) if Path(path).name == MANIFEST]
    if len(found) != 1:
        raise BundleError(f"expected one {MANIFEST} among the files of version {version}, found {len(found)}")
    with TemporaryDirectory() as folder:
        return Manifest.model_validate_json(Path(store.download_artifacts(found[0], folder)).read_bytes())


def _store(client: MlflowClient, url: str, task: str, version: str) -> Any:
    """MLflow's door to the files of a version, whose methods are not typed."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(client.get_model_version_download_uri(task, version), url, url)


def _files(store: Any, folder: str | None = None) -> Iterator[str]:
    for one in store.list_artifacts(folder):
        if one.is_dir:
            yield from _files(store, one.path)
        else:
            yield one.path
