"""The flow `lifecycle`: watch, and improve if it says so, in one run and without an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.improve import improve, pending
from flows.stages import perform
from flows.watch import asks, observe, summary
from flows.workplace import enter
from registry.decisions import Remedy


@flow(name="lifecycle", flow_run_name="lifecycle {task}", persist_result=False)
def lifecycle(task: str, as_of: datetime | None = None) -> dict[str, Any]:
    """One pass of `watch`, then `improve` where the decision asks for a new model or an improvement was broken off.

    Returns what `watch` answers, with `improvement`: what `improve` answers, or None.
    """
    place = enter(task)
    moment = as_of or place.now()
    report = observe(place, moment)
    found: dict[str, Any] = {**summary(report), "improvement": None}
    if asks(report) or pending(place):
        reason = "; ".join(report.decision.reasons)
        cold = report.decision.remedy is Remedy.SEARCH
        found["improvement"] = perform(improve, task, as_of=moment, reason=reason, cold=cold)
    return found
