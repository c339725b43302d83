"""What a window's measurements say about its data: broken (faults) or moved (shifts), ranked, in sentences.

A finding needs two things, an effect that matters and a p-value that holds among all those of the window (Holm 1979).
With thousands of rows everything is significant, so the size of the effect decides; with few rows large effects come
by chance, so the p-value does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.measurements import Measurement, WindowRecord

FAULTS = {"broken": 0.2, "missing": 0.8, "duplicates": 0.8, "constant": 0.5 * math.pi}
"""Shares and the growth, as Cohen's h, from which the data count as broken: 0.8 is large (Cohen 1988), from 0 to 15 %;
wrong types at 0.2, 1 %; a column stands still on a value that it had in fewer than half of the reference's rows."""

USUALLY_THERE = 0.2
"""A column missing in more of the reference's rows than this is one that comes and goes: more of it is a shift."""

SHIFTS = {"missing": 0.2, "duplicates": 0.5, "unseen": 0.5, "out_of_range": 0.5, "novel_labels": 0.2, "coverage": 0.2}
"""Shares and the change, as Cohen's h, from which the inputs or outputs count as moved: 0.2 small, 0.5 medium."""

DISTANCE = 0.1
"""Distance between two distributions, on a scale from 0 to 1, from which they count as moved."""

DISTANCES = ("shift", "prediction_shift", "uncertainty_shift")

_SENTENCES = {
    "broken": "values of the wrong type in {share} of the rows{note}",
    "missing": "missing in {share} of the rows, {was} in the reference",
    "duplicates": "{share} of the rows repeat another one, {was} in the reference",
    "constant": "stands still{note}, which {was} of the reference had",
    "unseen": "categories not known from training in {share} of the rows{note}, {was} in the reference",
    "out_of_range": "{share} of the values outside the range seen in training, {was} in the reference",
    "novel_labels": "{share} of the labels are of no class the model knows{note}",
    "coverage": "conformal coverage {share} on {rows:,} labels, promised {was}",
    "shift": "distribution moved by {value:.2f}{note}",
    "prediction_shift": "distribution moved by {value:.2f}{note}",
    "uncertainty_shift": "distribution moved by {value:.2f}{note}",
}


@dataclass(frozen=True)
class Finding:
    """One thing found. `weight` is the effect over its threshold: what findings are ranked by."""

    measurement: Measurement
    weight: float

    @property
    def sentence(self) -> str:
        """The finding in words."""
        one = self.measurement
        subject = {"prediction_shift": "prediction", "uncertainty_shift": "uncertainty"}.get(one.name, one.subject)
        text = _SENTENCES[one.name].format(
            share=_percent(one.value),
            was=_percent(one.reference),
            rows=one.rows,
            value=one.value or 0.0,
            note=f" ({one.note})" if one.note else "",
        )
        return f"{subject}: {text}" if subject else text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def cohen_h(first: float, second: float) -> float:
    """Difference of two shares where 0.2 is small, 0.5 medium and 0.8 large at any base rate (Cohen 1988, ch. 6).

    >>> round(cohen_h(0.15, 0.0), 2), round(cohen_h(0.9, 0.75), 2)
    (0.8, 0.4)
    """
    return 2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected with a family-wise error of `level` (Holm 1979).

    >>> holm([0.001, 0.02, 0.9, 0.021], 0.05)
    [True, False, False, False]
    """
    out, left = [False] * len(p_values), len(p_values)
    for place in sorted(range(left), key=p_values.__getitem__):
        if p_values[place] > level / left:
            break
        out[place], left = True, left - 1
    return out


def faults(record: WindowRecord, level: float) -> list[Finding]:
    """What is broken in a window's data, worst first."""
    found = _ranked(record, FAULTS, level)
    return [
        one for one in found if one.measurement.name != "missing" or (one.measurement.reference or 0) < USUALLY_THERE
    ]


def shifts(record: WindowRecord, level: float) -> list[Finding]:
    """What moved in a window without being broken, furthest first."""
    broken = {one.measurement for one in faults(record, level)}
    bounds = {**SHIFTS, **dict.fromkeys(DISTANCES, DISTANCE)}
    return [one for one in _ranked(record, bounds, level) if one.measurement not in broken]


def _ranked(record: WindowRecord, bounds: dict[str, float], level: float) -> list[Finding]:
    tested = [one for one in record.named(*FAULTS, *SHIFTS, *DISTANCES) if one.p_value is not None]
    real = [one for one, sure in zip(tested, holm([one.p_value or 0.0 for one in tested], level), strict=True) if sure]
    found = [Finding(one, _effect(one) / bounds[one.name]) for one in real if one.name in bounds]
    return sorted((one for one in found if one.weight >= 1), key=lambda one: -one.weight)


def _effect(one: Measurement) -> float:
    value = one.value or 0.0
    if one.name in DISTANCES:
        return value
    gap = cohen_h(value, one.reference or 0.0)
    return -gap if one.name == "coverage" else gap
