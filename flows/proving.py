"""Whether it would pay to follow, looked at early and often: the rung `follow` before anything has asked for a remedy.

From the fourth window of a champion on, and whenever its labels have grown by `GROWTH` since, the steps that would have
been taken are taken, and what those models answered before the labels came meets the champion's answers on the newest
`NEWEST` windows. After a promotion or roll-back by hand, or the roll-back after a bake time, only windows that end
later count: for when a look is due, and for what is compared. A look costs the steps alone: only what passes is sealed,
judged by the whole gate, registered and promoted (or put to a person, or let begin as a canary). There are at most
`LOOKS` of a champion, and each has that share of the error probability that the gate grants (Bonferroni).

The ledger holds each look (`proof`). One that passes is written down before an alias moves, so whoever comes after a
kill completes it.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from flows.approval import KIND as APPROVAL
from flows.approval import ask, pending
from flows.following import following
from flows.handover import chosen, newest_act, require_unchanged
from flows.improve import show_verdict, with_error
from flows.intents import Intents
from flows.publishing import alias_of, fetch, publish_once
from flows.remedies import challenge
from flows.retracing import CHAMPIONS, Proof, ends_of, retrace
from flows.rollout import KIND as CANARY
from flows.rollout import canary_out, ends_as, roll_out, write
from flows.spending import LOOK
from flows.stages import say, stage
from flows.wishes import FIRST, looked_for
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.decisions import Outcome, Remedy, Verdict
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.scoring import Scorer
from registry.task import TaskSpec

KIND = LOOK

GROWTH = 1.4
LOOKS = 8
"""Between four windows and about forty."""
NEWEST = 8
"""Windows whose answers are compared: in older ones the champion was young too."""


def prove(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """Look whether following the champion pays by what is known at `as_of`, and promote its newest model where it does.

    None when no look is due, it is not shown, or an improvement is at work. Otherwise what `improve` answers.
    """
    try:
        with exclusive(place.lock, f"a proof of task {place.task.name}"):
            entry = _looked(place, as_of)
    except (BusyError, StateError, InputError) as error:
        say(f"no proof now: {error}")
        return None
    if entry is None or entry.version is None:
        return None
    found = {"by": Remedy.FOLLOW.value, "outcome": ends_as(place, Outcome.PROMOTE), "version": entry.version}
    return {**found, "champion": entry.details["champion"], "reasons": list(entry.reasons), "seconds": entry.seconds}


def _looked(place: Workplace, as_of: datetime) -> Entry | None:
    """The entry of a look, of this pass or of one that was killed; None when none is due."""
    champion, since = alias_of(place, "champion"), newest_act(place)
    if champion is None or not _wanted(place):
        return None
    looks = place.ledger.read(kinds={KIND})
    entry = looks[-1] if looks and _cut_short(place, looks[-1], champion) else None
    entry = entry or _look(place, champion, [one for one in looks if one.details["champion"] == champion], as_of)
    if entry is not None and entry.version is not None:
        _act(place, entry, since)
    return entry


def _wanted(place: Workplace) -> bool:
    """Whether anybody wants a champion that follows, and none is there or on its way."""
    return (
        looked_for(place.task)
        and following(place) is None
        and pending(place) is None
        and canary_out(place) is None
        and Intents(place.ledger, place.task.name).open("improve") is None
    )


def _cut_short(place: Workplace, look: Entry, champion: str) -> bool:
    """Whether a look has passed, and a kill came before anything was done about it."""
    if look.version is None or champion not in (look.version, look.details["champion"]):
        return False
    return not place.ledger.read(kinds={"promotion", "rollback", CANARY, APPROVAL}, since=look.id or 0)


def _look(place: Workplace, champion: str, before: list[Entry], as_of: datetime) -> Entry | None:
    """The entry of a look; None when none is due. Its version is None unless it has passed."""
    bundle = fetch(place, champion)
    begun = bundle.manifest.lineage.known_until
    if begun is None or len(before) >= LOOKS:
        return None
    act = chosen(place)
    since = begun if act is None else max(begun, act.at)
    least = 2 * place.task.gate.min_rows
    if len(ends_of(place, since, as_of)) <= FIRST or _labelled(place, since, as_of) < least:
        return None
    ends, rows = ends_of(place, begun, as_of), _labelled(place, begun, as_of)
    if before and rows < GROWTH * int(before[-1].details["rows"]):
        return None
    began, cpu = time.monotonic(), cpu_seconds()
    chain, arrived = retrace(place, bundle, champion, as_of, place.study / "proving", CHAMPIONS)
    proof = arrived.proof(chain, bundle, max(ends[-NEWEST - 1 :][0], arrived.taught, since))
    task = with_error(place.task, (1 - place.task.gate.confidence) / LOOKS)
    pays, said = _pays(task, bundle, proof)
    reasons: tuple[str, ...] = (f"{compared(champion)}: {said}",)
    version, more = None, dict[str, Any]()
    if pays:
        made = chain.seal()
        verdict = _judged(task, bundle, made, proof)
        reasons, more = (*reasons, *verdict.reasons), {"verdict": verdict.model_dump(mode="json")}
        if verdict.outcome is Outcome.PROMOTE:
            version = publish_once(place, f"proof-{champion}-{rows}", made)
            show_verdict(place, version, verdict)
    say(f"following version {champion} {'pays' if version else 'is not shown to pay'}: {'; '.join(reasons)}")
    spent, seconds = costs(cpu_seconds() - cpu), time.monotonic() - began
    if version is not None and not place.ledger.read(kinds={"remedy"}, version=version):
        follows = {"anchor": champion, "begun": begun.isoformat(), "judged": begun.isoformat()}
        made_of = {"remedy": Remedy.FOLLOW.value, "rows": rows, "follows": follows}
        write(place, "remedy", "registered", version, reasons, as_of, made_of)
    outcome = (Outcome.HOLD if version is None else Outcome.PROMOTE).value
    details = {"champion": champion, "rows": rows, **more, **spent}
    return write(place, KIND, outcome, version, reasons, as_of, details, seconds)


def _labelled(place: Workplace, since: datetime, as_of: datetime) -> int:
    """How many rows later than a moment have their label."""
    return place.log.counts(start=since + timedelta(microseconds=1), end=as_of, labels_by=as_of).labelled


def compared(champion: str) -> str:
    """What a look compares, which its reasons begin with.

    >>> compared("1")
    'follow: what the learning champion answered before the labels came, against version 1'
    """
    return (
        f"{Remedy.FOLLOW.value}: what the learning champion answered before the labels came, against version {champion}"
    )


def _pays(task: TaskSpec, champion: ModelBundle, proof: Proof) -> tuple[bool, str]:
    """Whether what was answered is surely better than the champion's answers, and the figures in words."""
    from retrain.contest import ROW, Recorded, meet, paired

    rows = proof.rows.assign(**{ROW: np.arange(len(proof.rows))})
    contest = meet(task, Scorer.load(champion), Recorded(champion, proof.new), rows)
    count = len(contest.labels)
    if count < task.gate.min_rows or not contest.decidable:
        return False, f"{count:,} rows were answered, too few to tell"
    gain = paired(contest).gain
    said = (
        f"gain {gain.value:+.4f} in {task.metric} on {count:,} rows, "
        f"at least {gain.low:+.4f} with {task.gate.confidence:.2%} confidence"
    )
    return gain.low > task.gate.min_gain, said


def _judged(task: TaskSpec, champion: ModelBundle, challenger: ModelBundle, proof: Proof) -> Verdict:
    from retrain.gate import judge

    return judge(task, champion, challenger, proof.rows, said=(None, proof.new))


@stage
def _act(place: Workplace, look: Entry, since: int) -> None:
    """Promote what has passed, or ask. May be done twice with the same end. Raises `StateError` when somebody has
    changed the champion since the act of this id."""
    version, champion = str(look.version), look.details["champion"]
    require_unchanged(place, version, champion, since)
    if alias_of(place, "champion") != version:
        challenge(place, version)
    if place.task.mode != "auto":
        ask(place, version, champion, look.reasons, look.at)
        return
    roll_out(place, version, champion, look.reasons, look.at, since)
