"""The flow `watch`: one monitoring pass. When it asks for a new model, it says so by an event that starts `improve`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.events import emit_event

from flows.alerting import alert, inform
from flows.bake import bake, rolled_back
from flows.broken_off import note_broken_off
from flows.canary import is_out, keep_canary
from flows.coverage import keep_coverage
from flows.following import following, keep_following
from flows.proving import prove
from flows.publishing import alias_of, fetch
from flows.second_look import look_again, promoted
from flows.silence import note_silence
from flows.stages import in_run, say, show_link, show_markdown, show_table, stage
from flows.turns import left_alone, turn
from flows.wishes import Wish, wished
from flows.workplace import Workplace, enter
from registry.errors import NoModelError
from registry.plurals import counted

if TYPE_CHECKING:
    from monitor.watching import WatchReport

EVENT = "everfit.degraded"
"""The event that starts `improve`; its resource is `everfit.task.NAME`."""

_TURNS = 100
"""So many times a pass deletes some of the log at most."""


@flow(name="watch", flow_run_name="watch {task}", persist_result=False)
def watch(
    task: str, as_of: datetime | None = None, repair: bool = True, until: datetime | None = None
) -> dict[str, Any]:
    """Measure the windows that are over, judge, write the ledger; `{"severity", "remedy", "windows", "judged",
    "reasons"}`. `judged` is False as long as no window is over: then `ok` is no good news.

    With `repair`, a new champion that is worse than the former one is rolled back, and a challenger that was held is
    looked at again, and promoted if it is shown to be better by now; a canary whose windows are over is promoted or let
    go; when a new model is asked for, or an improvement was broken off, the event `everfit.degraded` is emitted.
    Windows that end after `until` are not measured: rows are known to be missing there, as at the end of a replay.
    Without `as_of` it is `Workplace.now`, and windows are measured as far as the rows go (`Workplace.seen`).
    While a replay judges the task, a scheduled pass leaves it alone (`flows/turns.py`). Raises `NoModelError` without a
    champion, `BusyError` when another pass takes too long, or asked by hand beside a replay, `OutsideError`.
    """
    place = enter(task)
    if as_of is None and (why := left_alone(place)) is not None:
        place.ledger.note_pass()
        return {"severity": "", "remedy": "none", "windows": 0, "judged": True, "reasons": [why]}
    moment = place.moment(as_of)
    report = observe(place, moment, until or (place.seen() if as_of is None else None))
    if as_of is None:
        note_silence(place, moment)
        note_broken_off(place, moment)
    alert(place, moment)
    forget(place, moment)
    if repair:
        keep_coverage(place, moment)
        look = keep_following(place, moment) or keep_canary(place, moment) or bake(place, moment)
        if not (ended := rolled_back(look) or promoted(look) or is_out(look)):
            look = prove(place, moment) or look_again(place, moment)
        if promoted(look):
            keep_following(place, moment)
        elif not ended:
            announce(place, wished(place))
        inform(place, moment)
    if as_of is None:
        place.ledger.note_pass()
    return summary(report)


def summary(report: WatchReport) -> dict[str, Any]:
    """What the flow answers."""
    decision = report.decision
    return {
        "severity": decision.severity,
        "remedy": decision.remedy.value,
        "windows": len(report.records),
        "judged": report.judged,
        "reasons": list(decision.reasons),
    }


@stage
def observe(place: Workplace, as_of: datetime, until: datetime | None = None) -> WatchReport:
    """One pass of monitoring over the champion, with its artifacts; of windows that end by `until`."""
    from monitor.watching import watch as measure

    version = alias_of(place, "champion")
    if version is None:
        raise NoModelError(f"task {place.task.name!r} has no champion to watch; run `everfit search` first")
    bundle = fetch(place, version)
    with turn(place):
        now, astray = following(place), place.astray()
        report = measure(
            place.task,
            bundle,
            version,
            place.log,
            place.ledger,
            as_of=as_of,
            until=until,
            shelf=place.shelf,
            followed=() if now is None else now.versions,
            noted=() if astray is None else (astray,),
        )
    show(place, report)
    return report


def forget(place: Workplace, as_of: datetime) -> None:
    """Let rows of the log go that are older than they are kept, some in one pass: after a year without it there are
    many. Counted from where the pass stands, so that one as of an older time keeps the rows of its time; those of a
    window that is not measured yet stay, however long that one is."""
    if (days := place.settings.log_days) is None:
        return
    if not (measured := place.ledger.moments("window", until=as_of, last=1)):
        return
    before, gone = min(min(as_of, place.now()) - timedelta(days=days), *measured), 0
    for _ in range(_TURNS):
        some = place.log.drop(before)
        gone += some
        if not some:
            break
    if gone:
        say(f"let go of {counted(gone, 'row')} of the log, {days} days old or older (EVERFIT_LOG_DAYS)")


def show(place: Workplace, report: WatchReport) -> None:
    """Artifacts of a pass: the newest window's measurements, the decision in words, the report's place."""
    name, decision = place.task.name, report.decision
    say(f"{decision.severity}, remedy {decision.remedy.value}: {'; '.join(decision.reasons)}")
    if report.records:
        rows = [one.model_dump(mode="json") for one in report.records[-1].measurements]
        show_table(f"{name}-measurements", rows, f"The window from {report.records[-1].window.name}")
    reasons = "".join(f"- {reason}\n" for reason in decision.reasons)
    show_markdown(f"{name}-decision", f"## {decision.severity}: {decision.remedy.value}\n\n{reasons}")
    if report.report is not None:
        show_link(f"{name}-report", f"{place.page}/reports/{report.report.name}", "Evidently's report of the window")


def announce(place: Workplace, wish: Wish | None) -> None:
    """Emit the event for what is to be done. Outside a flow run nobody would hear it."""
    if wish is None or not in_run():
        return
    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"everfit.task.{place.task.name}", "task": place.task.name},
        payload={"as_of": wish.as_of.isoformat(), "reason": wish.reason, "remedies": wish.remedies},
    )
    say(f"asked for an improvement: {wish.reason}")
