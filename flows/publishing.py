"""A bundle becomes a version exactly once, however often the flow that made it is killed and run again."""

from __future__ import annotations

from pathlib import Path

from flows.stages import show_link, show_markdown, show_picture, show_table, stage
from flows.workplace import Workplace
from registry.bundle import CARD, FIGURES, ModelBundle
from registry.errors import BundleError

INTENT_TAG = "everfit.intent"
"""Tag of a version with the id of the intent that made it."""


def finished(folder: Path) -> ModelBundle | None:
    """The bundle in a folder if it was sealed, else None."""
    try:
        return ModelBundle.load(folder)
    except BundleError:
        return None


@stage
def publish_once(place: Workplace, intent: str, bundle: ModelBundle) -> str:
    """The version of a bundle: the one that this intent has published before, or a new one."""
    name = place.task.name
    published = [one.version for one in place.versions.list(name) if one.tags.get(INTENT_TAG) == intent]
    if published:
        return published[-1]
    return place.versions.publish(bundle, metrics=figures_of(bundle), tags={INTENT_TAG: intent})


@stage
def fetch(place: Workplace, version: str) -> ModelBundle:
    """The bundle of a version."""
    return place.versions.fetch(place.task.name, version)


@stage
def alias_of(place: Workplace, alias: str) -> str | None:
    """The version that an alias names."""
    return place.versions.get(place.task.name, alias)


def figures_of(bundle: ModelBundle) -> dict[str, float]:
    """The metrics of a bundle as one flat table: `auc` is the champion's own, `boosted.auc` the reference's; `naive` is
    what one that knows nothing reaches, `naive.error` the error of the difference to it."""
    tables, naive = bundle.manifest.metrics, bundle.manifest.naive
    known = {
        name if model == "champion" else f"{model}.{name}": value
        for model, table in tables.items()
        for name, value in table.items()
    }
    return known if naive is None else {**known, "naive": naive.value, "naive.error": naive.error}


def show_bundle(place: Workplace, bundle: ModelBundle, version: str) -> None:
    """Artifacts of a version: its card, its metrics beside the boosted reference's, its pictures, its page."""
    name = place.task.name
    card = (bundle.folder / CARD).read_text(encoding="utf-8")
    show_markdown(f"{name}-card", card, f"Model card of version {version}")
    show_table(f"{name}-metrics", metric_rows(bundle), f"Version {version} on its test rows")
    for path in sorted((bundle.folder / FIGURES).glob("*.png")):
        show_picture(f"{name}-{path.stem.replace('_', '-')}", path, f"{path.stem} of version {version}")
    show_link(f"{name}-version", version_page(place, version), f"Version {version} in MLflow")


def metric_rows(bundle: ModelBundle) -> list[dict[str, object]]:
    """One row a metric, one column a model."""
    tables = bundle.manifest.metrics
    names = dict.fromkeys(name for table in tables.values() for name in table)
    return [{"metric": name, **{model: table.get(name) for model, table in tables.items()}} for name in names]


def version_page(place: Workplace, version: str) -> str:
    """The version's page on MLflow's server, or an empty string when the registry is no server."""
    url = place.settings.tracking
    return f"{url}/#/models/{place.task.name}/versions/{version}" if url.startswith("http") else ""
