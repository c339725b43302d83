"""Coverage between remedies: the champion's conformal radius follows the labels that arrive (`monitor/adaptive.py`).

The bundle stays as it is. The radius is a tag of the version in the registry; the endpoint takes it over at its next
look, and so does a back-test. A new version begins with its own.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from flows.publishing import alias_of, fetch
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.ledger import Entry
from registry.plurals import counted

KIND = "radius"
"""The ledger's kind for a change; `details` has the radius and the one before."""


@stage
def keep_coverage(place: Workplace, as_of: datetime) -> Entry | None:
    """Adapt the radius of the champion to its labelled rows known at `as_of`; the entry, if it has changed enough."""
    from monitor.adaptive import MATERIAL, MOST_ROWS, follow, nonconformity
    from monitor.views import window_side

    task = place.task
    version = alias_of(place, "champion")
    if version is None or task.mode == "observe" or not task.monitor.adaptive:
        return None
    manifest = fetch(place, version).manifest
    known: dict[str, Any] = {"version": version, "end": as_of, "labels_by": as_of, "labelled_only": True}
    rows = place.log.frame(**known, newest=MOST_ROWS, columns=[])
    scores = nonconformity(window_side(rows, version, manifest))
    found = follow(scores, coverage=task.coverage, radius=manifest.conformal_radius)
    tag = place.versions.radius(task.name, version)
    before = manifest.conformal_radius if tag is None else tag
    if found is None or (math.isfinite(before) and abs(found - before) <= MATERIAL * before):
        return None
    place.versions.set_radius(task.name, version, found)
    reason = f"conformal radius {before:.4g} -> {found:.4g}, by {counted(len(scores), 'label')}"
    say(f"version {version}: {reason}")
    details = {"radius": found, "before": before, "rows": len(scores)}
    return place.ledger.write(
        Entry(task=task.name, kind=KIND, at=as_of, version=version, reasons=(reason,), details=details)
    )
