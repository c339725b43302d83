"""A challenger that was held is judged again as labels arrive, at no cost of training: hold means "not shown yet".

Each look is on all labelled rows later than what either model knows, the first gate's among them, so that evidence
adds up. A look is taken only when those rows have grown by a quarter since the version was judged last. There are at
most `LOOKS`, and each asks for the confidence 1 - (1 - confidence) / LOOKS (Bonferroni): together they spend as much
error probability as the first gate did, so 2 (1 - confidence) in all. A task without a time column gets none (nobody
could tell which rows are fresh), nor does one whose policy is `never`. Of a challenger that follows, it is the
procedure that is judged again: by what its models would have answered to the rows that came since. Beside a champion
that follows too it goes on from the version that was registered, and meets what the champion's versions have served.

A look is written down with its verdict before that is acted on: a verdict once given stands, and whoever comes after a
kill acts on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.approval import KIND as APPROVAL
from flows.approval import ask, pending
from flows.deeds import SECOND_LOOK
from flows.following import following
from flows.handover import newest_act, require_unchanged
from flows.improve import show_verdict, with_error
from flows.publishing import alias_of, fetch
from flows.retracing import judged_after, proof_again, rival_again
from flows.rollout import KIND as CANARY
from flows.rollout import canary_out, leads_to, roll_out
from flows.rows import from_log, whole, why_none
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.decisions import Outcome, Verdict
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

KIND = SECOND_LOOK
LOOKS = 4
GROWTH = 1.25
"""By how much the labelled rows must have grown since the last judgement: looks at the same rows show nothing new."""


def look_again(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """Judge a held challenger on what is known at `as_of`, and promote or reject it where that is clear now.

    None when no challenger is held, too few labels have arrived since it was judged, a search or an improvement is at
    work, or somebody changes the champion meanwhile. Otherwise what `improve` answers.
    """
    try:
        with exclusive(place.lock, f"a second look at task {place.task.name}"):
            held = held_challenger(place)
            entry = None if held is None else _look(place, held, as_of)
    except (BusyError, StateError, InputError) as error:
        say(f"no second look now: {error}")
        return None
    if held is None or entry is None:
        return None
    found = {"outcome": entry.outcome, "version": entry.version, "champion": entry.details["champion"]}
    return {"by": "second look", **found, "reasons": list(entry.reasons), "seconds": entry.seconds}


def promoted(look: dict[str, Any] | None) -> bool:
    """Whether a second look made a new champion."""
    return look is not None and look["outcome"] == Outcome.PROMOTE.value


def held_challenger(place: Workplace) -> Entry | None:
    """The end of the last improvement, if it held its challenger and another look at that is due, or the last one was
    cut short: its verdict was not acted on, or the aliases have moved and the ledger does not know."""
    if place.task.time is None or place.task.policy.kind == "never" or place.task.mode == "observe":
        return None
    if pending(place) is not None or canary_out(place) is not None:
        return None
    ends = place.ledger.read(kinds={"improvement"}, last=1)
    if not ends or ends[-1].outcome != Outcome.HOLD.value:
        return None
    held = ends[-1]
    champion, challenger = alias_of(place, "champion"), alias_of(place, "challenger")
    if champion == held.version:
        return None if place.ledger.read(kinds={"promotion"}, version=champion, last=1) else held
    waits = challenger == held.version and held.details.get("champion") in (champion, *_chain(place))
    return held if waits and (len(_looks(place, held)) < LOOKS or _cut_short(place, held)) else None


def _chain(place: Workplace) -> tuple[str, ...]:
    """The versions of a champion that follows: what was held against one of them waits still."""
    now = following(place)
    return () if now is None or now.ended else now.versions


def _looks(place: Workplace, held: Entry) -> list[Entry]:
    return place.ledger.read(kinds={KIND}, version=held.version)


def _cut_short(place: Workplace, held: Entry) -> Entry | None:
    """The last look at the version, if it was not acted on."""
    looks = _looks(place, held)
    if not looks or looks[-1].outcome == Outcome.HOLD.value:
        return None
    acts = place.ledger.read(kinds={"promotion", APPROVAL, CANARY}, since=held.id or 0, version=held.version, last=1)
    return None if acts else looks[-1]


def _look(place: Workplace, held: Entry, as_of: datetime) -> Entry | None:
    """The entry of a look, or None when there is nothing new to look at."""
    from retrain.gate import judge

    if (done := _cut_short(place, held)) is not None:
        chain, champion, former = _chain(place), alias_of(place, "champion"), str(done.details["champion"])
        former = str(champion) if champion in chain and former in chain else former  # a step later
        verdict = Verdict.model_validate(done.details["verdict"])
        _act(place, str(held.version), former, verdict, done.at, done.id or 0)
        return done
    began, cpu, since = time.monotonic(), cpu_seconds(), newest_act(place)
    version, former = str(held.version), str(held.details["champion"])
    if (champion := alias_of(place, "champion")) == version:
        verdict = Verdict(outcome=Outcome.PROMOTE, reasons=("a promotion that was broken off",), checks=())
        rows = 0
    else:
        chain = _chain(place)
        former = str(champion) if chain else former  # a step later it is another version
        models, after = (fetch(place, former), fetch(place, version)), judged_after(place, version)
        known = after or known_until(*models[bool(chain) :])
        if not _grown(place, held, place.log.counts(start=_just_after(known), end=as_of, labels_by=as_of).labelled):
            return None
        proof = None
        if chain:
            proof = rival_again(place, models, version, chain, as_of)
        elif after is not None:
            proof = proof_again(place, models[0], former, after, as_of)
        fresh = fresh_rows(place, *models, as_of) if proof is None else proof.rows
        if not _grown(place, held, rows := len(fresh)):
            say(f"no second look: {rows:,} logged rows have all columns{why_none(place.task, read_by(models))}")
            return None
        task = with_error(place.task, (1 - place.task.gate.confidence) / LOOKS)
        verdict = judge(task, *models, fresh, said=(proof.old, proof.new) if proof else (None, None))
        show_verdict(place, version, verdict)
    if verdict.outcome is Outcome.PROMOTE:
        require_unchanged(place, version, former, since)
    spent = costs(cpu_seconds() - cpu)
    entry = place.ledger.write(
        Entry(
            task=place.task.name,
            kind=KIND,
            at=as_of,
            version=version,
            outcome=leads_to(place, verdict.outcome),
            reasons=verdict.reasons,
            details={"verdict": verdict.model_dump(mode="json"), "rows": rows, "champion": former, **spent},
            seconds=time.monotonic() - began,
        )
    )
    _act(place, version, former, verdict, as_of, since)
    return entry


def _grown(place: Workplace, held: Entry, rows: int) -> bool:
    """Whether labelled rows are enough to judge, and enough more than at the last judgement of the version."""
    judged = place.ledger.read(kinds={"gate", KIND}, version=held.version, last=1)
    before = int(judged[-1].details.get("rows", 0)) if judged else 0
    return rows >= max(GROWTH * before, place.task.gate.min_rows)


def known_until(*models: ModelBundle) -> datetime | None:
    """The newest moment that any of the models knows."""
    known = (one.manifest.lineage.known_until for one in models)
    return max((moment for moment in known if moment is not None), default=None)


def _just_after(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment + timedelta(microseconds=1)


def fresh_rows(place: Workplace, champion: ModelBundle, challenger: ModelBundle, as_of: datetime) -> pd.DataFrame:
    """The labelled rows of the log later than what either model knows, as known at `as_of`, in time order."""
    start = _just_after(known_until(champion, challenger))
    return labelled_rows(place, (challenger, champion), start, as_of)


def read_by(models: Sequence[ModelBundle]) -> Schema:
    """The columns that any of the models reads."""
    columns = {column.name: column for model in reversed(models) for column in model.manifest.data_schema.columns}
    return Schema(columns=tuple(columns.values()))


def labelled_rows(
    place: Workplace, models: Sequence[ModelBundle], start: datetime | None, as_of: datetime
) -> pd.DataFrame:
    """The labelled rows of the log from `start` on, as known at `as_of`, in time order, with the columns of all these
    models: one may lack a column that did not vary in its training."""
    schema = read_by(models)
    logged = place.log.frame(start=start, end=as_of, labels_by=as_of, labelled_only=True, columns=schema.names)
    return from_log(whole(place, logged, schema), place.task, schema)


@stage
def _act(place: Workplace, version: str, former: str, verdict: Verdict, as_of: datetime, since: int) -> None:
    """Move the aliases as the verdict says, and tell the ledger. Each may be done twice with the same end.

    Raises `StateError` when somebody has changed the champion since the act of this id.
    """
    name = place.task.name
    if verdict.outcome is Outcome.REJECT:
        place.versions.unset(name, "challenger")
    if verdict.outcome is not Outcome.PROMOTE:
        return
    require_unchanged(place, version, former, since)
    if place.task.mode != "auto":
        ask(place, version, former, verdict.reasons, as_of)
        return
    roll_out(place, version, former, verdict.reasons, as_of, since)
