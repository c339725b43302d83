"""In which segments it is: what is surely otherwise in a part of the rows, told once a verdict says that something is.

No part of the budget pays for it, and nothing is decided by it: of the newest window all that is measured by segment is
tested together, by Holm's method, and named where the effect matters too. What is wrong in one segment alone, and too
little to be seen in all rows together, raises no verdict and is in the ledger and on the pages only.
"""

from __future__ import annotations

from collections.abc import Sequence

from monitor.findings import Finding, cohen_h, holm
from monitor.measurements import Measurement, WindowRecord
from registry.decisions import DISTANCE

SHIFT, SHARE = "segment_shift", "segment_share"

BOUNDS = {SHIFT: DISTANCE, SHARE: 0.2, "segment_coverage": 0.2, "segment_calibration": 0.03}
"""From which an effect counts: how much further answers moved than elsewhere, shares as Cohen's h (small), the error of
calibration beyond what chance shows (what the gate tolerates)."""


def located(record: WindowRecord, level: float) -> tuple[Finding, ...]:
    """What is otherwise in a segment of a window, surest first; any of it falsely with probability `level`."""
    tested = [one for one in record.named(*BOUNDS) if one.p_value is not None]
    sure = holm([one.p_value or 0.0 for one in tested], level)
    found = [Finding(one, _effect(one) / BOUNDS[one.name]) for one, yes in zip(tested, sure, strict=True) if yes]
    return tuple(sorted((one for one in found if one.weight >= 1), key=lambda one: one.measurement.p_value or 0.0))


def segment_of(found: Sequence[Finding], name: str) -> str | None:
    """The segment in which most of a kind was found."""
    return next((one.measurement.subject for one in found if one.measurement.name == name), None)


def _effect(one: Measurement) -> float:
    value, reference = one.value or 0.0, one.reference or 0.0
    match one.name:
        case "segment_share":
            return abs(cohen_h(value, reference))
        case "segment_coverage":
            return cohen_h(reference, value)
    return value - reference
