"""The flow `watch`: one monitoring pass. When it asks for a new model, it says so by an event that starts `improve`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.events import emit_event

from flows.improve import pending
from flows.publishing import alias_of, fetch
from flows.stages import in_run, say, show_link, show_markdown, show_table, stage
from flows.workplace import Workplace, enter
from registry.decisions import Decision, Remedy
from registry.errors import NoModelError

if TYPE_CHECKING:
    from monitor.watching import WatchReport

EVENT = "everfit.degraded"
"""The event that starts `improve`; its resource is `everfit.task.NAME`."""

TRAINS = (Remedy.RESEARCH, Remedy.SEARCH)
"""The remedies that `improve` carries out."""


@flow(name="watch", flow_run_name="watch {task}", persist_result=False)
def watch(task: str, as_of: datetime | None = None) -> dict[str, Any]:
    """Measure the windows that are over, judge, write the ledger; `{"severity", "remedy", "windows", "reasons"}`.

    When a new model is asked for, or an improvement was broken off, the event `everfit.degraded` is emitted. Raises
    `NoModelError` without a champion, `BusyError` while another pass is at work, `OutsideError`.
    """
    place = enter(task)
    moment = as_of or place.now()
    report = observe(place, moment)
    if asks(report):
        announce(place, moment, report.decision)
    elif pending(place):
        announce(place, moment, None)
    return summary(report)


def summary(report: WatchReport) -> dict[str, Any]:
    """What the flow answers."""
    decision = report.decision
    return {
        "severity": decision.severity,
        "remedy": decision.remedy.value,
        "windows": len(report.records),
        "reasons": list(decision.reasons),
    }


def asks(report: WatchReport) -> bool:
    """Whether this pass, and not an earlier one, asks for a new model."""
    return bool(report.records) and report.decision.remedy in TRAINS


@stage
def observe(place: Workplace, as_of: datetime) -> WatchReport:
    """One pass of monitoring over the champion, with its artifacts."""
    from monitor.watching import watch as measure

    version = alias_of(place, "champion")
    if version is None:
        raise NoModelError(f"task {place.task.name!r} has no champion to watch; run `everfit search` first")
    bundle = fetch(place, version)
    report = measure(place.task, bundle, version, place.log, place.ledger, as_of=as_of, reports=place.reports)
    show(place, report)
    return report


def show(place: Workplace, report: WatchReport) -> None:
    """Artifacts of a pass: the newest window's measurements, the decision in words, the report's place."""
    name, decision = place.task.name, report.decision
    say(f"{decision.severity}, remedy {decision.remedy.value}: {'; '.join(decision.reasons)}")
    if report.records:
        rows = [one.model_dump(mode="json") for one in report.records[-1].measurements]
        show_table(f"{name}-measurements", rows, f"Window {report.records[-1].window.index}")
    reasons = "".join(f"- {reason}\n" for reason in decision.reasons)
    show_markdown(f"{name}-decision", f"## {decision.severity}: {decision.remedy.value}\n\n{reasons}")
    if report.report is not None:
        show_link(f"{name}-report", report.report.as_uri(), "Evidently's report of the window")


def announce(place: Workplace, as_of: datetime, decision: Decision | None) -> None:
    """Emit the event; without a decision it is for an improvement that was broken off."""
    if not in_run():
        return
    name = place.task.name
    reason = decision.reasons[0] if decision and decision.reasons else "an improvement was broken off"
    cold = decision is not None and decision.remedy is Remedy.SEARCH
    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"everfit.task.{name}", "task": name},
        payload={"as_of": as_of.isoformat(), "reason": reason, "cold": cold},
    )
    say(f"asked for an improvement: {reason}")
