"""The flow `lifecycle`: watch, and improve if it says so, in one run and without an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.alerting import alert, inform
from flows.bake import bake, rolled_back
from flows.broken_off import note_broken_off
from flows.canary import canarys, is_out, keep_canary
from flows.coverage import keep_coverage
from flows.following import keep_following, no_step, stepped
from flows.improve import improve
from flows.proving import prove
from flows.second_look import look_again, promoted
from flows.stages import perform
from flows.turns import require_no_replay
from flows.watch import observe, summary
from flows.wishes import wished
from flows.workplace import enter


@flow(name="lifecycle", flow_run_name="lifecycle {task}", persist_result=False)
def lifecycle(task: str, as_of: datetime | None = None) -> dict[str, Any]:
    """One pass of `watch`, then `improve` where the decision asks for a new model or an improvement was broken off.

    Returns what `watch` answers, with `improvement`: what `improve` answers, or the roll-back of a new champion, or a
    look at a canary, or a second look at a held challenger, or None; with `stepped`, whether a champion that follows
    has learnt this window's labels; and with `no_step`, why it could not. Raises `BusyError` where it is to judge "now"
    beside a replay.
    """
    place = enter(task)
    if as_of is None:
        require_no_replay(place)
    moment = place.moment(as_of)
    report = observe(place, moment, place.seen() if as_of is None else None)
    if as_of is None:
        note_broken_off(place, moment)
    alert(place, moment)
    keep_coverage(place, moment)
    look = keep_following(place, moment) or keep_canary(place, moment) or bake(place, moment)
    ended = rolled_back(look) or promoted(look) or is_out(look)
    look = look if ended else prove(place, moment) or look_again(place, moment) or canarys(look)
    if promoted(look):
        keep_following(place, moment)
    inform(place, moment)
    found: dict[str, Any] = {**summary(report), "improvement": look, "stepped": stepped(place, moment)}
    found["no_step"] = no_step(place, moment)
    if as_of is None:
        place.ledger.note_pass()
    if ended or promoted(look):
        return found
    if (wish := wished(place)) is not None:
        found["improvement"] = perform(improve, task, as_of=wish.as_of, reason=wish.reason, remedies=wish.remedies)
    return found
