"""The flow `improve`: research, gate, and what the verdict says. One at a time a task; killed, it is completed.

The ledger holds the stages: `intent` before anything is done; `research` when the challenger is registered; `gate`
with the verdict; `promotion` when the aliases have moved; `improvement` at the end, with the outcome and the costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.concurrency.sync import concurrency
from prefect.runtime import deployment

from flows.intents import Intent, Intents
from flows.progress import reported
from flows.publishing import alias_of, fetch, finished, publish_once, show_bundle
from flows.rows import forget, kept, known_rows, same_columns, unseen_rows
from flows.stages import in_run, say, show_markdown, show_table, stage
from flows.workplace import Workplace, enter
from registry.bundle import ModelBundle
from registry.decisions import Outcome, Remedy, Verdict
from registry.errors import BusyError, DataError, InputError, NoModelError, StateError
from registry.ledger import Entry
from registry.locks import exclusive

if TYPE_CHECKING:
    import pandas as pd

TRAINS = (Remedy.RESEARCH, Remedy.SEARCH)
"""The remedies that are carried out here."""

WAIT_SECONDS = 1800.0
"""How long a triggered run waits for another one of the same task."""


@flow(name="improve", flow_run_name="improve {task}", persist_result=False)
def improve(task: str, as_of: datetime | None = None, reason: str = "", cold: bool = False) -> dict[str, Any]:
    """Search for a better model on the rows known at `as_of`, prove it against the champion, act on the verdict.

    `cold` asks for a search that inherits nothing. Returns `{"outcome", "version", "champion", "reasons", "seconds"}`;
    the outcome is promote, hold or reject, or `refused` when it cannot be done (too few fresh labels, faulty data).
    An improvement that was broken off is completed first, and is then the answer. Raises `BusyError` while the task is
    searched or improved elsewhere, `NoModelError` without a champion, `OutsideError` when registry or store fail.
    """
    place = enter(task)
    with one_at_a_time(place):
        entry = complete(place, place.moment(as_of), reason=reason, cold=cold)
    return summary(entry)


def summary(entry: Entry) -> dict[str, Any]:
    """What the flow answers, from the entry that ended it."""
    details = entry.details
    return {
        "outcome": entry.outcome,
        "version": entry.version,
        "champion": details.get("champion"),
        "reasons": list(entry.reasons),
        "seconds": entry.seconds,
    }


def limit_name(task: str) -> str:
    """The name of Prefect's global concurrency limit of a task."""
    return f"everfit-improve-{task}"


@contextmanager
def one_at_a_time(place: Workplace) -> Iterator[None]:
    """Hold Prefect's limit (a deployment waits for its turn) and the task's lock on this machine."""
    name = place.task.name
    with ExitStack() as held:
        if in_run() and deployment.id is not None:
            limit = concurrency(limit_name(name), strict=True, timeout_seconds=WAIT_SECONDS, lease_duration=60)
            held.enter_context(limit)
        held.enter_context(exclusive(place.lock, f"a search or an improvement of task {name}"))
        yield


@dataclass(frozen=True)
class Wish:
    """An improvement that should be made: as of when, why, and whether it may inherit nothing."""

    as_of: datetime
    reason: str
    cold: bool = False


def wished(place: Workplace) -> Wish | None:
    """What the ledger says is to be done: an improvement that was broken off and that nobody is at work on, or the
    newest decision, if it asks for a new model and nothing has followed, whoever was killed in between."""
    if (begun := Intents(place.ledger, place.task.name).open("improve")) is not None:
        return Wish(begun.at, "an improvement was broken off") if _idle(place) else None
    decided = place.ledger.read(kinds={"decision"}, last=1)
    if not decided or decided[-1].outcome not in TRAINS:
        return None
    entry = decided[-1]
    since = place.ledger.read(kinds={"intent", "promotion", "rollback"}, since=entry.id or 0)
    if any(one.kind != "intent" or one.outcome == "improve" for one in since):
        return None
    return Wish(entry.at, "; ".join(entry.reasons), entry.outcome == Remedy.SEARCH)


def _idle(place: Workplace) -> bool:
    try:
        with exclusive(place.lock, "looking for a broken-off improvement"):
            return True
    except BusyError:
        return False


def complete(place: Workplace, as_of: datetime, *, reason: str = "", cold: bool = False) -> Entry:
    """Complete the open improvement, or begin one and complete it; the entry that ends it."""
    intents = Intents(place.ledger, place.task.name)
    if (intent := intents.open("improve")) is not None:
        say(f"completing the improvement of {intent.at} that was broken off")
    elif (done := _answered(place, as_of)) is not None:
        say(f"the improvement of {as_of} was done before: {done.outcome}")
        return done
    else:
        champion = _champion(place)
        intent = intents.begin("improve", as_of, reason=reason, cold=cold, champion=champion)
    begun = time.monotonic()
    try:
        outcome, version, reasons, details = _carry_out(place, intents, intent)
    except BusyError:
        raise
    except (InputError, StateError) as error:
        outcome, version, reasons, details = "refused", None, (str(error),), {}
        say(f"refused: {error}")
    details = {**details, "champion": intent.details["champion"], "reason": intent.details.get("reason", "")}
    seconds = time.monotonic() - begun
    entry = intents.end(intent, outcome=outcome, version=version, reasons=reasons, details=details, seconds=seconds)
    forget(_folder(place, intent))
    return entry


def _answered(place: Workplace, as_of: datetime) -> Entry | None:
    """The end of an improvement of this very moment: an event delivered twice starts nothing."""
    ends = place.ledger.read(kinds={"improvement"}, last=1)
    return ends[-1] if ends and ends[-1].at == as_of and ends[-1].outcome != "refused" else None


def _champion(place: Workplace) -> str:
    champion = alias_of(place, "champion")
    if champion is None:
        raise NoModelError(f"task {place.task.name!r} has no champion to improve on; run `everfit search` first")
    return champion


def _folder(place: Workplace, intent: Intent) -> Path:
    return place.study / intent.id


def _carry_out(place: Workplace, intents: Intents, intent: Intent) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    """The stages in their order, each passed over when it was finished before."""
    champion = fetch(place, intent.details["champion"])
    history, fresh = rows(place, intent, champion)
    if intents.stage(intent, "research") is None:
        _require_enough(place, fresh)
    version = research(place, intents, intent, champion, history)
    verdict = gate(place, intents, intent, champion, version, fresh)
    act(place, intents, intent, version, verdict)
    return verdict.outcome.value, version, verdict.reasons, _costs(intents, intent)


def _require_enough(place: Workplace, fresh: pd.DataFrame) -> None:
    """A search whose result could not be judged is not worth its costs."""
    if len(fresh) < (needed := place.task.gate.min_rows):
        raise DataError(f"only {len(fresh):,} fresh labelled rows, {needed:,} are needed to judge a new model")


def _costs(intents: Intents, intent: Intent) -> dict[str, Any]:
    found = {kind: intents.stage(intent, kind) for kind in ("research", "gate")}
    return {"seconds": {kind: round(entry.seconds, 2) for kind, entry in found.items() if entry is not None}}


@stage
def rows(place: Workplace, intent: Intent, champion: ModelBundle) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to search on, and the fresh ones for the gate alone: the same at every run of the intent."""
    from retrain.gate import hold_out

    schema, seen = champion.manifest.data_schema, champion.manifest.lineage.known_until
    timeless = place.task.time is None
    new = unseen_rows(place, intent.details["champion"], intent.at) if timeless else None

    def cut() -> tuple[pd.DataFrame, pd.DataFrame]:
        return hold_out(place.task, known_rows(place, schema, intent.at), after=seen, new=new)

    return kept(_folder(place, intent), cut)


def research(place: Workplace, intents: Intents, intent: Intent, champion: ModelBundle, history: pd.DataFrame) -> str:
    """Search, warm-started from the champion, and register the result as the challenger; its version."""
    if (done := intents.stage(intent, "research")) is not None and done.version is not None:
        return done.version
    begun = time.monotonic()
    bundle = _find(place, intent, champion, history)
    version = publish_once(place, intent.id, bundle)
    challenge(place, version)
    details = {"rows": len(history), "trials": bundle.manifest.lineage.trials, "metrics": bundle.manifest.metrics}
    reason = intent.details.get("reason", "")
    seconds = time.monotonic() - begun
    intents.write(
        intent,
        "research",
        version=version,
        outcome="registered",
        reasons=(reason,) if reason else (),
        details=details,
        seconds=seconds,
    )
    show_bundle(place, bundle, version)
    return version


def _find(place: Workplace, intent: Intent, champion: ModelBundle, history: pd.DataFrame) -> ModelBundle:
    """The search's bundle; one that a killed flow had finished is taken as it is."""
    from retrain.search.session import search

    folder, cold = _folder(place, intent), bool(intent.details.get("cold"))
    if (found := finished(folder / "bundle")) is not None:
        return found
    task = same_columns(place.task, champion.manifest.data_schema)
    budget = task.search if cold else task.research
    with reported(f"{place.task.name}-research") as report:
        return search(
            task if cold else task.model_copy(update={"splits": task.research.splits}),
            history,
            folder=folder / "study",
            out=folder / "bundle",
            prior=None if cold else champion,
            trials=budget.trials,
            seconds=budget.seconds,
            seed=place.task.search.seed,
            parent_version=intent.details["champion"],
            progress=report,
        )


@stage
def challenge(place: Workplace, version: str) -> None:
    """Make a version the challenger."""
    place.versions.set(place.task.name, "challenger", version)


def gate(
    place: Workplace, intents: Intents, intent: Intent, champion: ModelBundle, version: str, fresh: pd.DataFrame
) -> Verdict:
    """Judge the challenger against the champion on the fresh rows; a verdict once given stands."""
    from retrain.gate import judge

    if (done := intents.stage(intent, "gate")) is not None:
        return Verdict.model_validate(done.details["verdict"])
    begun = time.monotonic()
    verdict = judge(place.task, champion, fetch(place, version), fresh)
    details = {"verdict": verdict.model_dump(mode="json"), "rows": len(fresh), "champion": intent.details["champion"]}
    seconds = time.monotonic() - begun
    intents.write(
        intent,
        "gate",
        version=version,
        outcome=verdict.outcome.value,
        reasons=verdict.reasons,
        details=details,
        seconds=seconds,
    )
    show_verdict(place, version, verdict)
    return verdict


def show_verdict(place: Workplace, version: str, verdict: Verdict) -> None:
    """Artifacts of a verdict: the checks as a table, the reasons as text."""
    checks = [check.model_dump(mode="json") for check in verdict.checks]
    show_table(f"{place.task.name}-gate", checks, f"Checks of version {version}: {verdict.outcome.value}")
    reasons = "".join(f"- {reason}\n" for reason in verdict.reasons)
    show_markdown(f"{place.task.name}-verdict", f"## Version {version}: {verdict.outcome.value}\n\n{reasons}")
    say(f"gate: {verdict.outcome.value} version {version}: {'; '.join(verdict.reasons)}")


@stage
def act(place: Workplace, intents: Intents, intent: Intent, version: str, verdict: Verdict) -> None:
    """Promote the challenger, let it stand, or let it go. Each may be done twice with the same end."""
    name, champion = place.task.name, intent.details["champion"]
    if verdict.outcome is Outcome.PROMOTE:
        if intents.stage(intent, "promotion") is not None:
            return  # all was done; whatever the aliases say now is somebody's later wish
        _require_unchanged(place, intents, intent, version)
        place.versions.promote(name, version)
        intents.write_once(
            intent,
            "promotion",
            version=version,
            outcome="promoted",
            reasons=verdict.reasons,
            details={"previous": champion},
        )
    elif verdict.outcome is Outcome.REJECT and place.versions.get(name, "challenger") == version:
        place.versions.unset(name, "challenger")


def _require_unchanged(place: Workplace, intents: Intents, intent: Intent, version: str) -> None:
    """Somebody who changed the champion by hand since the verdict is not overruled, even if it is the old one again."""
    champion, now = intent.details["champion"], place.versions.get(place.task.name, "champion")
    if now not in (champion, version):
        raise StateError(f"version {version} was proved against {champion}, but {now} is the champion now")
    judged = intents.stage(intent, "gate")
    since = (judged.id if judged else None) or 0
    for one in place.ledger.read(kinds={"promotion", "rollback"}, since=since):
        if one.details.get("intent") != intent.id:
            raise StateError(f"version {version} was proved, but since then a {one.kind} chose version {one.version}")
