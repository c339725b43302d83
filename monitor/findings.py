"""What a window's measurements say about its data: broken (faults) or moved (shifts), ranked, in sentences.

A finding needs two things, an effect that matters and evidence that holds among all measures. With thousands of rows
everything is significant, so the size of the effect decides; with few rows large effects come by chance, so the
evidence does. Broken data are seen in one window, by p-values that hold among all those of the window (Holm 1979);
shifts by evidence that adds up over the windows of a version (`evidence.py`), so that small windows are judged too.
Shifts are ranked by what they are estimated to cost.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import stdtr

from monitor.evidence import alarming, detect, onset, scores_of
from monitor.measurements import Measurement, WindowRecord
from monitor.past import gap_scores
from registry.decisions import DISTANCE
from registry.metrics import Array

FAULTS = {"broken": 0.2, "missing": 0.8, "duplicates": 0.8, "constant": 0.5 * math.pi, "rescaled": 1.0}
"""Shares and the growth, as Cohen's h, from which the data count as broken: 0.8 is large (Cohen 1988), from 0 to 15 %;
wrong types at 0.2, 1 %; a column stands still on a value that it had in fewer than half of the reference's rows; a
column of another unit at a distance of 0.23 that a conversion takes away."""

USUALLY_THERE = 0.2
"""A column missing in more of the reference's rows than this is one that comes and goes: more of it is a shift."""

SHIFTS = {"missing": 0.2, "duplicates": 0.5, "unseen": 0.5, "out_of_range": 0.5, "novel_labels": 0.2, "coverage": 0.2}
"""Shares and the change, as Cohen's h, from which the inputs or outputs count as moved: 0.2 small, 0.5 medium."""

DISTANCES = ("shift", "domain_shift", "output_shift", "prediction_shift", "uncertainty_shift", "label_shift")

LASTS = {"constant": "has stood still", "duplicates": "rows have repeated one another"}
"""What may be the world as it is, and in which words."""

LASTING = 8
"""Windows in a row after which it is no longer taken for broken."""

LEAST_WINDOWS = 8
"""Fewest windows that show how many rows there usually are."""

LEAST_SPREAD = 0.05
"""The least that numbers of rows are taken to vary by, as a share."""

_WORTH = 0.37  # of a row, for the error of a median absolute deviation (Hampel 1974)
_NORMAL = 1.4826  # of a normal: standard deviations a median absolute deviation

CERTAIN = 2.0
"""Standard errors from which an estimated cost differs from none."""

_SENTENCES = {
    "broken": "values of the wrong type in {share} of the rows{note}",
    "missing": "missing in {share} of the rows, {was} in the reference",
    "duplicates": "{share} of the rows repeat another one, {was} in the reference",
    "constant": "stands still{note}, which {was} of the reference had",
    "rescaled": "in another unit{note}",
    "unseen": "categories not known from training in {share} of the rows{note}, {was} in the reference",
    "out_of_range": "{share} of the values outside the range seen in training, {was} in the reference",
    "novel_labels": "{share} of the labels are of no class the model knows{note}",
    "coverage": "conformal coverage {share} on {rows:,} labels, promised {was}",
    "shift": "distribution moved by {value:.2f}{note}",
    "domain_shift": "a classifier tells them from the reference by {value:.2f}{note}",
    "output_shift": "a classifier tells them from the reference by {value:.2f}{note}",
    "prediction_shift": "distribution moved by {value:.2f}{note}",
    "uncertainty_shift": "distribution moved by {value:.2f}{note}",
    "label_shift": "distribution moved by {value:.2f}{note}",
    "segment_share": "{share} of the rows, {was} in the reference",
    "segment_shift": "answers moved by {value:.2f}, by {before:.2f} elsewhere",
    "segment_coverage": "conformal coverage {share} on {rows:,} labels, {was} in the reference",
    "segment_calibration": "calibration error {value:.3f} on {rows:,} labels, {before:.3f} expected by chance{note}",
    "volume": "{value:,.0f} rows, usually {rows:,}",
    "gap": "worse than expected by {value:.3g} +/- {error:.2g} on {rows:,} labels{note}",
}

_SUBJECTS = {
    "domain_shift": "inputs together",
    "output_shift": "outputs together",
    "prediction_shift": "prediction",
    "uncertainty_shift": "uncertainty",
    "label_shift": "label",
    "gap": "performance",
}


def subject_of(one: Measurement) -> str | None:
    """What a measurement is about, as people call it: the column, or the whole of a window in a word."""
    return _SUBJECTS.get(one.name, one.subject)


@dataclass(frozen=True)
class Finding:
    """One thing found. `weight` is the effect over its threshold."""

    measurement: Measurement
    weight: float

    @property
    def subject(self) -> str | None:
        """The column, or what else it is about."""
        return subject_of(self.measurement)

    @property
    def cost(self) -> float:
        """By how much the metric is estimated to be worse for this; 0 where that is not sure."""
        one = self.measurement
        return one.cost if one.cost and abs(one.cost) > CERTAIN * (one.cost_error or 0.0) else 0.0

    @property
    def sentence(self) -> str:
        """The finding in words."""
        one = self.measurement
        text = _SENTENCES[one.name].format(
            share=_percent(one.value),
            was=_percent(one.reference),
            rows=one.rows,
            value=one.value or 0.0,
            before=one.reference or 0.0,
            error=one.error or 0.0,
            note=f" ({one.note})" if one.note else "",
        )
        text += f"; {self._price}" if self._price else ""
        return f"{self.subject}: {text}" if self.subject else text

    @property
    def _price(self) -> str:
        one = self.measurement
        if one.cost is None or one.cost_error is None:
            return ""
        known = 0.0 if abs(one.cost) < one.cost_error / 100 else one.cost  # no powers of ten that say nothing
        figure = f"({known:+.2g} +/- {one.cost_error:.1g})"
        if self.cost:
            return f"estimated to cost {'' if self.cost > 0 else 'the model nothing '}{figure}"
        return f"what it costs is not shown {figure}"


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


def faults(record: WindowRecord, level: float, settled: Collection[str | None] = ()) -> list[Finding]:
    """What is broken in a window's data, worst first; what is `settled` is not."""
    found = _ranked(record, FAULTS, level)
    return [
        one
        for one in found
        if (one.measurement.name != "missing" or (one.measurement.reference or 0) < USUALLY_THERE)
        and (one.measurement.name not in LASTS or one.measurement.subject not in settled)
    ]


def broken(history: Sequence[WindowRecord], level: float, usual: Collection[str | None] | None = None) -> list[Finding]:
    """What is broken in the data of a history's newest window, worst first. `usual`: what is `settled` in it, where
    somebody knows that already."""
    return [
        *faults(history[-1], level, settled(history, level) if usual is None else usual),
        *filter(None, [thin(history, level)]),
    ]


def settled(history: Sequence[WindowRecord], level: float) -> set[str | None]:
    """The columns that have ever stood still, where the reference does not, in `LASTING` of these windows in a row: a
    sensor that is stuck has been alerted of, and would be mended by then; a season or a price list is the world as it
    is, and begins anew. None among them are rows that repeated one another as long: a client that sends twice, or a
    world that does, such as mail."""
    lasting = [
        {one.measurement.subject for one in faults(record, level) if one.measurement.name in LASTS}
        if record.least_of(*LASTS) <= level
        else set()
        for record in history
        if record.window.rows
    ]
    runs = (lasting[start : start + LASTING] for start in range(len(lasting) - LASTING + 1))
    return set().union(*(set.intersection(*run) for run in runs))


def known(subjects: Collection[str | None]) -> tuple[str, ...]:
    """What is said of what is settled."""
    names = ", ".join(sorted(name for name in subjects if name is not None))
    who = [f"{names}: {LASTS['constant']}"] * bool(names) + [LASTS["duplicates"]] * (None in subjects)
    return tuple(f"{one} for {LASTING} windows in a row, which is no longer taken for a fault" for one in who)


def unwatched(record: WindowRecord) -> tuple[str, ...]:
    """What is said of columns whose values the log does not have."""
    listed = ", ".join(f"{one.subject} ({one.note})" for one in record.named("unwatched"))
    return (f"not watched, since the log does not have their values: {listed}",) if listed else ()


def shifts(history: Sequence[WindowRecord], windows: float) -> list[Finding]:
    """What moved in the newest of these windows, broken or not: the costliest first, then the furthest.

    One of them is named falsely in one of `windows` windows at most.
    """
    newest = history[-1]
    records = [record for record in history if record.version == newest.version]
    found = {_key(one): one for one in newest.measurements if one.name in (*SHIFTS, *DISTANCES)}
    tested = {key: one for key, one in found.items() if one.p_value is not None}
    if not tested:
        return []
    keys = tuple(tested)
    scores = np.array([record.once(keys, partial(_scores, record, keys)) for record in records])
    sure = alarming(detect(scores, cap=windows * len(tested))[-1], windows)
    bounds = {**SHIFTS, **dict.fromkeys(DISTANCES, DISTANCE)}
    made = [
        Finding(one, _effect(one) / bounds[one.name]) for one, yes in zip(tested.values(), sure, strict=True) if yes
    ]
    return sorted((one for one in made if one.weight >= 1), key=lambda one: (-one.cost, -one.weight))


def _scores(record: WindowRecord, keys: Sequence[tuple[str, str | None]]) -> Array:
    """The standard scores of what a window has measured under these names and subjects, NaN where it has not."""
    return scores_of(np.array([*map(record.p_values.get, keys)], dtype=np.float64))  # None becomes NaN


def thin(history: Sequence[WindowRecord], level: float) -> Finding | None:
    """A newest window with less than half of the rows of those before it, and far from how these vary: by Student's t
    of the logarithms, about their median and with their median deviation, with error probability `level`."""
    rows = np.array([record.window.rows for record in history], dtype=np.float64)
    before = rows[:-1][rows[:-1] > 0]
    if len(before) < LEAST_WINDOWS or not 0 < rows[-1] <= (usual := float(np.median(before))) / 2:
        return None
    logs = np.log(before)
    spread = max(_NORMAL * float(np.median(np.abs(logs - np.median(logs)))), LEAST_SPREAD)
    chance = float(stdtr(_WORTH * (len(before) - 1), (math.log(rows[-1]) - math.log(usual)) / spread))
    if chance > level:
        return None
    return Finding(Measurement(name="volume", value=float(rows[-1]), p_value=chance, rows=round(usual)), 1.0)


def lag(sound: Sequence[WindowRecord], windows: float, min_labels: int) -> Finding | None:
    """Performance that lags behind what the champion's answers lead one to expect, however little: the gap over the
    windows since its onset, of windows of the champion whose data are sound and that have so many labels.

    Two e-detectors are averaged. One looks at the gap of the task's metric, the reference's bias taken to be larger
    than it seems; the other at that of the log loss, of the metric in regression, beside the windows before: it learns
    to live with a slow change, and sees a sudden one sooner. A gap is found falsely in one of `windows` windows."""
    records = [one for one in sound if one.once(("tested gap", min_labels), partial(_tested_gap, one, min_labels))]
    if not records:
        return None
    names = ("gap", "log_gap" if any(one.named("log_gap") for one in records) else "gap")
    alone = scores_of(np.array([one.p_values["gap", None] for one in records], dtype=np.float64))
    scores = np.column_stack([alone, gap_scores(records, names[1])])
    evidence = detect(scores, cap=windows * scores.shape[1])[-1]
    if evidence.mean() < windows:
        return None
    best = int(evidence.argmax())
    since = records[onset(scores[:, best]).at :]
    found = pooled(since, names[best])
    if found is None:
        return None
    told = [one for record in since for one in record.named(names[best]) if one.value is not None]
    rows, note = sum(one.rows for one in told), told[-1].note
    return Finding(Measurement(name="gap", value=found[0], error=found[1], rows=rows, note=note), 1.0)


def _tested_gap(record: WindowRecord, min_labels: int) -> bool:
    return any(gap.p_value is not None and gap.rows >= min_labels for gap in record.named("gap"))


def pooled(records: Sequence[WindowRecord], name: str) -> tuple[float, float] | None:
    """A gap over several windows, weighted by rows, with its standard error; None without any. What its error has
    beyond the noise of a window is that of the estimate's bias, which all windows share."""
    found = [one for record in records for one in record.named(name) if one.value is not None and one.error]
    if not found:
        return None
    each = [(one.rows, one.value or 0.0, one.error or 0.0, one.null_error or one.error or 0.0) for one in found]
    rows, values, errors, noise = np.array(each, dtype=np.float64).T
    shares = rows / rows.sum()
    shared = float(shares @ np.sqrt(np.maximum(0.0, errors**2 - noise**2)))
    return float(shares @ values), math.hypot(float(np.sqrt(((shares * noise) ** 2).sum())), shared)


def _key(one: Measurement) -> tuple[str, str | None]:
    return one.name, one.subject


def _ranked(record: WindowRecord, bounds: dict[str, float], level: float) -> list[Finding]:
    if record.least_of(*bounds) > level:
        return []
    tested = [one for one in record.named(*bounds) if one.p_value is not None]
    real = [one for one, sure in zip(tested, holm([one.p_value or 0.0 for one in tested], level), strict=True) if sure]
    found = [Finding(one, _effect(one) / bounds[one.name]) for one in real]
    return sorted((one for one in found if one.weight >= 1), key=lambda one: -one.weight)


def _effect(one: Measurement) -> float:
    value = one.value or 0.0
    if one.name in DISTANCES:
        return value
    gap = cohen_h(value, one.reference or 0.0)
    return -gap if one.name == "coverage" else gap
