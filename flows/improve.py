"""The flow `improve`: a remedy, the gate, what its verdict says; the next remedy of the ladder where that was not yes.
One at a time a task; killed, it is completed.

The ledger holds the stages: `intent` before anything is done; of each remedy `remedy` when its challenger is registered
and `gate` with the verdict; `promotion` when the aliases have moved; `improvement` at the end, with outcome and costs.

All challengers of an improvement meet the champion on the same fresh rows. The error probability that the gate grants,
1 - `gate.confidence`, is shared out among them (Bonferroni); what a remedy that could not be carried out leaves of its
share goes to those that follow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.concurrency.sync import concurrency
from prefect.runtime import deployment

from flows.alerting import inform
from flows.approval import ask, await_answer
from flows.decided import answered, told
from flows.deeds import summary
from flows.following import following
from flows.handover import require_unchanged
from flows.intents import Intent, Intents
from flows.publishing import alias_of, fetch
from flows.remedies import challenge, make, proof_of
from flows.rollout import KIND as CANARY
from flows.rollout import ends_as, roll_out
from flows.rows import forget, kept, known_rows, unseen_rows, why_none
from flows.stages import in_run, say, show_markdown, show_table, stage
from flows.workplace import Workplace, enter
from registry.bundle import ModelBundle
from registry.decisions import Outcome, Remedy, Verdict, parse_remedies
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, DataError, InputError, NoModelError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.plurals import counted
from registry.task import TaskSpec

if TYPE_CHECKING:
    import pandas as pd

WAIT_SECONDS = 1800.0
"""How long a triggered run waits for another one of the same task."""


@flow(name="improve", flow_run_name="improve {task}", persist_result=False)
def improve(task: str, as_of: datetime | None = None, reason: str = "", remedies: str = "research") -> dict[str, Any]:
    """Make a better model of the rows known at `as_of`, prove it against the champion, act on the verdict.

    `remedies` are tried in this order until one is promoted: `recalibrate`, `follow`, `fine_tune`, `research`,
    `search`, with commas between them. Returns `{"by", "outcome", "version", "champion", "reasons", "tried",
    "seconds", "already"}`: `by` is the remedy that the outcome is of, `tried` what became of each, in order, `already`
    says in words that all this was decided on the same rows before, where it was: nothing is done then. The outcome is
    promote, hold or reject, `asked` when a person is to promote, `canary` when it answers a share first, or `refused`
    when it cannot be done (too few labels, say). An improvement that was broken off is completed first, and is then the
    answer. Raises `BusyError` while the task is searched or improved elsewhere, `NoModelError` without a champion,
    `OutsideError` when registry or store fail.
    """
    place = enter(task)
    with one_at_a_time(place):
        before = place.ledger.read(kinds={"improvement"}, last=1)
        entry = complete(place, place.moment(as_of), reason=reason, remedies=parse_remedies(remedies))
        already = told(place, entry) if any(one.id == entry.id for one in before) else ""
    inform(place, entry.at)
    await_answer(place, entry.at)
    return {**summary(entry), "already": already}


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


def complete(
    place: Workplace, as_of: datetime, *, reason: str = "", remedies: tuple[Remedy, ...] = (Remedy.RESEARCH,)
) -> Entry:
    """Complete the open improvement, or begin one and complete it; the entry that ends it."""
    intents = Intents(place.ledger, place.task.name)
    _forget_ended(place)
    if (intent := intents.open("improve")) is not None:
        say(f"completing the improvement of {intent.at} that was broken off")
    elif (done := answered(place, as_of, remedies)) is not None:
        say(told(place, done))
        return done
    else:
        champion = _champion(place)
        now = following(place)
        anchor = {} if now is None else {"anchor": now.anchor}
        intent = intents.begin("improve", as_of, reason=reason, remedies=list(remedies), champion=champion, **anchor)
    begun = time.monotonic()
    try:
        outcome, version, reasons, details = _carry_out(place, intents, intent)
    except BusyError:
        raise
    except (InputError, StateError) as error:
        outcome, version, reasons, details = "refused", None, (str(error),), {}
        say(f"refused: {error}")
    asked = {"champion": intent.details["champion"], "reason": intent.details.get("reason", "")}
    details = {**details, **asked, "tried": list(_tried(intents, intent))}
    seconds = time.monotonic() - begun
    entry = intents.end(intent, outcome=outcome, version=version, reasons=reasons, details=details, seconds=seconds)
    forget(_folder(place, intent))
    return entry


def _champion(place: Workplace) -> str:
    champion = alias_of(place, "champion")
    if champion is None:
        raise NoModelError(f"task {place.task.name!r} has no champion to improve on; run `everfit search` first")
    return champion


def _forget_ended(place: Workplace) -> None:
    """Remove the folder of the last improvement, with rows in plain, where a kill came between its end and that."""
    for ended in place.ledger.read(kinds={"improvement"}, last=1):
        if name := ended.details.get("intent"):
            forget(place.study / name)


def _folder(place: Workplace, intent: Intent) -> Path:
    return place.study / intent.id


def _carry_out(place: Workplace, intents: Intents, intent: Intent) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    """The stages in their order, each passed over when it was finished before."""
    champion = fetch(place, intent.details.get("anchor") or intent.details["champion"])
    history, fresh = rows(place, intent, champion)
    remedies = [Remedy(one) for one in intent.details.get("remedies", [Remedy.RESEARCH])]
    if all(intents.stage(intent, "remedy", remedy=one) is None for one in remedies):
        _require_enough(place, fresh, champion)
    judged: list[tuple[str, Verdict]] = []
    error = 1 - place.task.gate.confidence
    for left, remedy in zip(range(len(remedies), 0, -1), remedies, strict=True):
        version = make(place, intents, intent, remedy, champion, history)
        if version is None:
            continue
        verdict = gate(place, intents, intent, champion, version, fresh, error / left)
        act(place, intents, intent, version, verdict)
        judged.append((version, verdict))
        if verdict.outcome is Outcome.PROMOTE:
            break
        error -= error / left
    if not judged:
        raise DataError(_refusals(intents, intent, remedies))
    version, verdict = _chosen(judged)
    if verdict.outcome is Outcome.HOLD:
        challenge(place, version)
    return ends_as(place, verdict.outcome), version, verdict.reasons, _costs(intents, intent, remedies)


def _chosen(judged: Sequence[tuple[str, Verdict]]) -> tuple[str, Verdict]:
    """The challenger that the improvement ends with: the last one if it is promoted, else the held one that gained
    most, else the last."""
    held = [one for one in judged if one[1].outcome is Outcome.HOLD]
    if judged[-1][1].outcome is Outcome.PROMOTE or not held:
        return judged[-1]
    return max(held, key=lambda one: one[1].checks[0].value or 0.0)


def _refusals(intents: Intents, intent: Intent, remedies: Sequence[Remedy]) -> str:
    found = {remedy: intents.stage(intent, "remedy", remedy=remedy) for remedy in remedies}
    return "; ".join(f"{remedy}: {', '.join(entry.reasons)}" for remedy, entry in found.items() if entry)


def _tried(intents: Intents, intent: Intent) -> Iterator[dict[str, Any]]:
    """What became of each remedy so far, in order: the gate's verdict on its version, or why there is none."""
    for remedy in intent.details.get("remedies", [Remedy.RESEARCH]):
        entry = intents.stage(intent, "gate", remedy=remedy) or intents.stage(intent, "remedy", remedy=remedy)
        if entry is not None:
            told = {"outcome": entry.outcome, "version": entry.version, "reasons": list(entry.reasons)}
            yield {"remedy": str(remedy), **told}


def _require_enough(place: Workplace, fresh: pd.DataFrame, champion: ModelBundle) -> None:
    """A search whose result could not be judged is not worth its costs."""
    if len(fresh) < (needed := place.task.gate.min_rows):
        said = f"only {counted(len(fresh), 'fresh labelled row')}, {needed:,} are needed to judge a new model"
        raise DataError(f"{said}{why_none(place.task, champion.manifest.data_schema)}")


def _costs(intents: Intents, intent: Intent, remedies: Sequence[Remedy]) -> dict[str, Any]:
    """Wall-clock seconds by remedy, gates included, and CPU-seconds and watt-hours of all together."""
    stages = {one: [intents.stage(intent, kind, remedy=one) for kind in ("remedy", "gate")] for one in remedies}
    found = {one: [entry for entry in entries if entry is not None] for one, entries in stages.items()}
    cpu = sum(entry.details.get("cpu", 0.0) for entries in found.values() for entry in entries)
    spent = {one.value: round(sum(entry.seconds for entry in entries), 2) for one, entries in found.items() if entries}
    return {"seconds": spent, **costs(cpu)}


@stage
def rows(place: Workplace, intent: Intent, champion: ModelBundle) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to search on, and the fresh ones for the gate alone: the same at every run of the intent."""
    from retrain.gate import hold_out

    schema, seen = champion.manifest.data_schema, champion.manifest.lineage.known_until
    timeless = place.task.time is None
    new = unseen_rows(place, intent.details["champion"], schema, intent.at) if timeless else None

    def cut() -> tuple[pd.DataFrame, pd.DataFrame]:
        return hold_out(place.task, known_rows(place, schema, intent.at), after=seen, new=new)

    return kept(_folder(place, intent), cut)


def gate(
    place: Workplace,
    intents: Intents,
    intent: Intent,
    champion: ModelBundle,
    version: str,
    fresh: pd.DataFrame,
    error: float,
) -> Verdict:
    """Judge a challenger against the champion on the fresh rows, with this error probability; a verdict once given
    stands."""
    from retrain.gate import judge

    if (done := intents.stage(intent, "gate", version=version)) is not None:
        return Verdict.model_validate(done.details["verdict"])
    begun, cpu = time.monotonic(), cpu_seconds()
    made = place.ledger.read(kinds={"remedy"}, version=version)[0]
    proof = proof_of(place, intent, Remedy(made.details["remedy"]))
    rows, said = (fresh, (None, None)) if proof is None else (proof.rows, (proof.old, proof.new))
    verdict = judge(with_error(place.task, error), champion, fetch(place, version), rows, said=said)
    details = {
        "verdict": verdict.model_dump(mode="json"),
        "rows": len(rows),
        "champion": intent.details["champion"],
        "remedy": made.details["remedy"],
        "version": version,
        **costs(cpu_seconds() - cpu),
    }
    intents.write(
        intent,
        "gate",
        version=version,
        outcome=verdict.outcome.value,
        reasons=verdict.reasons,
        details=details,
        seconds=time.monotonic() - begun,
    )
    show_verdict(place, version, verdict)
    return verdict


def with_error(task: TaskSpec, error: float) -> TaskSpec:
    """The task with a gate of this error probability."""
    return task.model_copy(update={"gate": task.gate.model_copy(update={"confidence": 1 - error})})


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
        if intents.stage(intent, "promotion") or intents.stage(intent, CANARY):
            return  # all was done; whatever the aliases say now is somebody's later wish
        judged = intents.stage(intent, "gate", version=version)
        since = (judged.id if judged else None) or 0
        require_unchanged(place, version, champion, since)
        if place.task.mode != "auto":
            ask(place, version, champion, verdict.reasons, intent.at)
            return
        roll_out(place, version, champion, verdict.reasons, intent.at, since, intent=intent.id)
    elif verdict.outcome is Outcome.REJECT and place.versions.get(name, "challenger") == version:
        place.versions.unset(name, "challenger")
