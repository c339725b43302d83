"""The flow `search`: a cold search over the task's source. Its result is registered; the first one is the champion."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.handover import handing_over
from flows.intents import Intent, Intents
from flows.progress import note, reported
from flows.publishing import alias_of, finished, publish_once, show_bundle
from flows.stages import say, stage
from flows.workplace import Workplace, enter, task_names
from registry.bundle import ModelBundle
from registry.database import utc_now
from registry.energy import WATTS, costs
from registry.errors import BusyError, EverfitError, OutsideError, RegistryError, StateError, TaskError
from registry.locks import exclusive
from registry.plurals import counted
from registry.sources import read

if TYPE_CHECKING:
    import pandas as pd

    from registry.task import Search, TaskSpec
    from retrain.families.base import Reads
    from retrain.search.experience import Former


FAILURES = {"diverged": "diverged", "interrupted": "interrupted", "failed": "failed"}
"""What is said of trainings without a result, where there are any; older ledgers knew only that they failed."""
BROKEN = {"refused": "large", "slow": "slow"}
"""What a count of candidates that broke a constraint says of them."""
FIRST_ROWS = 20
"""Rows that are looked at before a search begins."""
NAMED = 3
"""Tasks that a message of many names."""
MUCH_LEFT = 0.1
"""The share of a search's seconds that is worth a word where no trials were left for it."""


@flow(name="search", flow_run_name="search {task}", persist_result=False)
def search(
    task: str,
    trials: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    fresh: bool = False,
    strategy: str | None = None,
    families: list[str] | None = None,
    stopping: str | None = None,
) -> str:
    """Search for a model of a registered task and register it; the version.

    What is given takes the place of the task's own budget and means. It becomes the champion if there is none, else the
    challenger: `everfit promote` decides then. A search that was killed is resumed with all its finished trials, or
    begun anew if `fresh`. Raises `BusyError` while another search of the task runs, `TaskError` for a strategy, a
    policy of early stopping or a family that is not known, for objectives or choices that do not fit them, and for
    columns that are not there.
    """
    from retrain.search.session import require_means

    require_known(strategy, families)
    asked = {"trials": trials, "seconds": seconds, "seed": seed, "workers": workers}
    means = {"strategy": strategy, "families": None if families is None else tuple(families), "stopping": stopping}
    place = _budgeted(enter(task), **asked, **means)
    require_means(place.task)
    require_rows(place.task)  # a mistake in the task is no search that failed
    with exclusive(place.lock, f"a search or an improvement of task {task}"):
        return search_and_register(place, fresh=fresh)


def require_rows(task: TaskSpec) -> None:
    """Raise `DataError` or `TaskError` for what the first rows of a task show to be wrong: columns that are not there,
    and families that read images of rows that hold none."""
    from retrain.checks import require_columns
    from retrain.families.catalogue import families_for
    from retrain.image_checks import image_name

    rows = read(task.source, limit=FIRST_ROWS)
    require_columns(rows, task)
    if not rows.isna().all().any() and image_name(rows, task) is None:
        families_for(task.search.families, "table")


def require_data(task: TaskSpec) -> int:
    """Raise `DataError` or `TaskError` for all that the rows of a task show to be wrong before anything is trained; how
    many rows there are."""
    from retrain.checks import examine, require
    from retrain.families.catalogue import families_for
    from retrain.image_checks import image_name, load_images
    from retrain.search.session import require_choices

    require_rows(task)
    frame, found = load_images(read(task.source), task)
    require([*found, *examine(frame, task)])
    reads: Reads = "table" if image_name(frame, task) is None else "image"
    families_for(task.search.families, reads)
    require_choices(task, reads)
    return len(frame)


def require_known(strategy: str | None, families: Sequence[str] | None) -> None:
    """Raise `TaskError` that names the known ones for a strategy or a family that is not known."""
    from retrain.families.catalogue import family_named
    from retrain.search.strategies.catalogue import strategy_named

    if strategy is not None:
        strategy_named(strategy)
    for name in families or ():
        family_named(name)
    if families is not None and not 0 < len(set(families)) == len(families):
        raise TaskError(f"expected families that differ from one another, got {', '.join(families) or 'none'}")


def _budgeted(place: Workplace, **asked: float | str | tuple[str, ...] | None) -> Workplace:
    """The workplace with what was asked for in its task's search."""
    changes = {name: value for name, value in asked.items() if value is not None}
    budget = place.task.search.model_copy(update=changes)
    return replace(place, task=place.task.model_copy(update={"search": budget}))


def search_and_register(place: Workplace, *, fresh: bool = False) -> str:
    """What the flow does, inside the task's lock."""
    intents = Intents(place.ledger, place.task.name)
    intent = _resumed(intents, place, fresh) or intents.begin("search", utc_now(), question=_question(place))
    begun = time.monotonic()
    try:
        bundle = _find(place, intent)
        version = publish_once(place, intent.id, bundle)
        _name(place, intents, intent, version, bundle)
    except (OutsideError, BusyError):
        raise  # the intent stays open: the next search completes it
    except EverfitError as error:
        intents.end(intent, outcome="failed", reasons=(str(error),), seconds=time.monotonic() - begun)
        raise
    details = _details(bundle, place.task.search)
    intents.end(intent, outcome="registered", version=version, details=details, seconds=time.monotonic() - begun)
    show_bundle(place, bundle, version)
    return version


def _details(bundle: ModelBundle, budget: Search) -> dict[str, Any]:
    """What the ledger holds of a search: metrics, how its trials ended, what it took, and `left`, the seconds of its
    budget that it had no trials for, where these were many."""
    lineage = bundle.manifest.lineage
    cpu = {} if lineage.cpu_seconds is None else costs(lineage.cpu_seconds)
    ended = {"ended": bundle.candidates.get("search", {}), "wall": round(lineage.seconds, 2)}
    left = budget.seconds - lineage.seconds if lineage.trials >= budget.trials else 0.0
    unused = {"left": round(left)} if left > MUCH_LEFT * budget.seconds else {}
    return {"metrics": bundle.manifest.metrics, "trials": lineage.trials, **ended, **unused, **cpu}


def cost_lines(details: Mapping[str, Any]) -> Iterator[str]:
    """What a search took, from its entry in the ledger, for a person."""
    ended = details.get("ended") or {}
    if ended:
        trained = counted(ended.get("complete", 0), "candidate")
        told = [f"{trained} trained to the end", f"{ended.get('pruned', 0)} stopped early"]
        yield ", ".join([*told, *(f"{ended[name]} {what}" for name, what in FAILURES.items() if ended.get(name))])
    if ended.get("unbegun"):
        from retrain.trials import hardly_any

        few = hardly_any(ended.get("complete", 0), ended.get("waited", 0), details.get("wall", 0))
        yield f"{few} More seconds (--seconds, or search.seconds) find a better model."
    if left := details.get("left"):
        said = f"the budget's trials ({details['trials']:,}) are used up, {left:,} of its seconds are left"
        yield f"{said}: more trials (--trials, or search.trials) make use of them"
    if broken := [f"{ended[name]} too {what}" for name, what in BROKEN.items() if ended.get(name)]:
        yield f"by the task's constraints {' and '.join(broken)} for the model"
    if "cpu" in details:
        wall, cpu = f"{details.get('wall', 0):,.0f} s", f"{details['cpu']:,.0f} CPU-seconds"
        yield f"{wall}, {cpu} in all processes, about {details['watt_hours']:.2g} Wh (estimated at {WATTS:g} W a core)"


def _resumed(intents: Intents, place: Workplace, fresh: bool) -> Intent | None:
    """The search that was broken off, unless something else is asked now."""
    intent = intents.open("search")
    if intent is None:
        return None
    if fresh or intent.details.get("question") != _question(place):
        why = "a fresh start was asked for" if fresh else "the task has changed since"
        intents.end(intent, outcome="failed", reasons=(f"broken off, and {why}",))
        return None
    note(f"resuming the search that began at {intent.at:%Y-%m-%d %H:%M} UTC")
    return intent


def _question(place: Workplace) -> str:
    """A fingerprint of what is searched for: the task without its budget."""
    budget = {"trials", "seconds", "workers"}
    question = {"source", "target", "time", "problem", "metric", "columns", "splits", "constraints"}
    asked = place.task.model_dump_json(include=question)
    means = place.task.search.model_dump_json(exclude=budget)
    return hashlib.sha256(f"{asked}{means}".encode()).hexdigest()[:16]


def _find(place: Workplace, intent: Intent) -> ModelBundle:
    """The search's bundle; one that a killed flow had finished is taken as it is."""
    from retrain.search.session import search as find

    budget, out = place.task.search, place.study / intent.id / "bundle"
    if (found := finished(out)) is not None:
        return found
    with reported(f"{place.task.name}-search") as report:
        return find(
            place.task,
            source_rows(place),
            folder=place.study / intent.id / "study",
            out=out,
            trials=budget.trials,
            seconds=budget.seconds,
            seed=budget.seed,
            formers=former_studies(place),
            progress=report,
        )


def former_studies(place: Workplace, prior: ModelBundle | None = None, as_of: datetime | None = None) -> list[Former]:
    """The studies behind the champions of the other registered tasks, for a strategy that learns from them, and that
    behind a former model; a task whose bundle is not sound, or is gone, is passed over, and so is one that knows rows
    later than `as_of`: a replay of an older time learns nothing from its future."""
    from retrain.search.experience import Former
    from retrain.search.strategies.catalogue import strategy_named

    if not strategy_named(place.task.search.strategy).learns_from_others:
        return []
    found, small = list[Former](), list[str]()
    for name in task_names(place.settings):
        version = place.versions.get(name, "champion") if name != place.task.name else None
        if version is None:
            continue
        try:
            bundle = place.versions.fetch(name, version)
            known = bundle.manifest.lineage.known_until
            if as_of is not None and known is not None and known > as_of:
                continue
            former = Former.of(bundle)
        except (StateError, RegistryError) as error:
            note(f"nothing is learnt from the studies of task {name!r}: {error}")
            continue
        if former is None:
            small.append(name)
        else:
            found.append(former)
    if small:
        names = f"{', '.join(small[:NAMED])}{', ...' if len(small) > NAMED else ''}"
        note(f"nothing is learnt from the studies of {counted(len(small), 'task')} with too few candidates: {names}")
    own = None if prior is None else Former.of(prior)
    return found if own is None else [*found, own]


@stage
def source_rows(place: Workplace) -> pd.DataFrame:
    """The rows of the task's source. Raises `SourceError`."""
    return read(place.task.source)


@stage
def _name(place: Workplace, intents: Intents, intent: Intent, version: str, bundle: ModelBundle) -> None:
    """Champion if there is none, or if this very search made it so before it was killed; else challenger."""
    with handing_over(place):
        if alias_of(place, "champion") not in (None, version):
            place.versions.set(place.task.name, "challenger", version)
            say(f"version {version} is registered as the challenger")
            return
        place.versions.promote(place.task.name, version)
        told = {"outcome": "promoted", "reasons": ("the first model",)}
        at = bundle.manifest.lineage.known_until or intent.at
        intents.write_once(intent, "promotion", version=version, at=at, **told)
    say(f"version {version} is the champion")
