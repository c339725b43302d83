"""The gate: a challenger is promoted only when it is shown to be better on fresh rows, and worse in nothing that
matters. An old score of the champion is never compared with a new one of the challenger: both predict the same rows.

    PROMOTE   the gain's lower bound is above `gate.min_gain`, and every other check passes
    REJECT    the gain's upper bound is below 0, or the model costs more than the task's constraints allow
    HOLD      anything between: too few rows, an unclear gain, a gain bought with calibration, coverage or a segment
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pandas as pd

from registry.bundle import ModelBundle
from registry.conforming import as_datetimes
from registry.decisions import Check, Outcome, Verdict
from registry.errors import StateError
from registry.plurals import counted
from registry.scoring import Scorer, Scores
from registry.task import TaskSpec
from retrain.checks import usable
from retrain.contest import (
    ROW,
    Contest,
    Latency,
    Paired,
    Recorded,
    Segment,
    latency,
    meet,
    paired,
    segment_columns,
    segments,
    tolerated,
)
from retrain.splits import time_cuts

NEGLIGIBLE_MS = 1.0
"""A single row answered in less is quick enough, whatever the champion takes."""

DECISIVE = ("latency limit", "size limit")
"""Checks that more rows cannot change."""


def hold_out(
    task: TaskSpec, frame: pd.DataFrame, *, after: datetime | None = None, new: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled rows as (history to search on, fresh rows for the gate alone), each oldest first.

    The fresh ones are the newest `research.fresh`, or `gate.min_rows` where that is more, at most
    `research.max_fresh_rows` and half of the frame; rows of one moment stay together. `after` is the newest moment the
    champion knows (`lineage.known_until`): fresh rows are all later, and at most half of those, unless `gate.min_rows`
    needs more, so that the challenger too has new rows to learn from. History reaches back by `research.history`.
    Without a time column the frame's order counts as age, and `new` says how many of the newest rows no model has seen
    (None: all).
    """
    frame = usable(frame, task)
    times = np.arange(len(frame), dtype=np.int64)
    if task.time is not None:
        times = as_datetimes(frame[task.time], task.time).to_numpy().astype("datetime64[us]").astype(np.int64)
    unseen = _unseen(task, times, after, new)
    count = _fresh_count(task, len(frame), unseen)
    order, cuts = time_cuts(times, (1 - count / max(len(frame), 1),))
    start = max(int(cuts[0]), len(frame) - unseen)
    if len(frame) - start < min(count, task.gate.min_rows):  # the nearest border between moments left too few
        start = int(np.searchsorted(times[order], times[order[-count]]))
    history, fresh = order[:start], order[start:]
    if task.research.history is not None and task.time is not None and len(times):
        oldest = times.max() - round(task.research.history.total_seconds() * 1e6)
        history = history[times[history] >= oldest]
    return frame.iloc[history].reset_index(drop=True), frame.iloc[fresh].reset_index(drop=True)


def _unseen(task: TaskSpec, times: np.ndarray, after: datetime | None, new: int | None) -> int:
    """How many of the newest rows the champion cannot know."""
    if task.time is None:
        return len(times) if new is None else min(new, len(times))
    return len(times) if after is None else int((times > _microseconds(after)).sum())


def _fresh_count(task: TaskSpec, rows: int, unseen: int) -> int:
    """How many rows to aim for: a share of few rows may be too few ever to be judged."""
    aim = min(max(round(task.research.fresh * rows), task.gate.min_rows), task.research.max_fresh_rows)
    return min(aim, max(unseen // 2, min(unseen, task.gate.min_rows)), rows // 2)


def _microseconds(moment: datetime) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))


def judge(
    task: TaskSpec,
    champion: ModelBundle,
    challenger: ModelBundle,
    fresh: pd.DataFrame,
    *,
    said: tuple[Scores | None, Scores | None] = (None, None),
) -> Verdict:
    """Judge a challenger on fresh labelled rows that neither model has seen.

    `said` is what champion and challenger, or models before them, have answered to these very rows before their labels
    came: of whoever has learnt from the rows since, that is what is judged.

    Raises `StateError` when a row is not later than what either model knows (tasks with a time column; without one the
    caller must see to it), `RowError` for rows that do not fit a schema.
    """
    old, new = Scorer.load(champion), Scorer.load(challenger)
    models = dict(zip(("champion", "challenger"), zip((old, new), said, strict=True), strict=True))
    _require_fresh(task, {name: one.bundle for name, (one, answers) in models.items() if answers is None}, fresh)
    first, second = (one if answers is None else Recorded(one.bundle, answers) for one, answers in models.values())
    contest = meet(task, first, second, fresh.assign(**{ROW: np.arange(len(fresh))}))
    if (reason := _too_little(contest)) is not None:
        rows = Check(name="rows", passed=False, detail=reason, value=float(len(contest.labels)))
        return Verdict(outcome=Outcome.HOLD, reasons=(reason,), checks=(rows,))
    measured = paired(contest)
    checks = (
        _gain_check(contest, measured),
        *_calibration_check(contest, measured),
        _coverage_check(contest, measured),
        _segment_check(contest, segments(contest, segment_columns(contest, champion))),
        *_latency_checks(task, latency(old, new, contest.frame)),
        _size_check(task, challenger),
    )
    return _verdict(contest, measured, checks)


def _require_fresh(task: TaskSpec, models: dict[str, ModelBundle], fresh: pd.DataFrame) -> None:
    if task.time is None or fresh.empty:
        return
    oldest = as_datetimes(fresh[task.time], task.time).min()
    for name, bundle in models.items():
        known = bundle.manifest.lineage.known_until
        if known is not None and oldest <= known:
            raise StateError(f"the {name} knows rows until {known}, but the fresh rows begin at {oldest}: not fresh")


def _too_little(contest: Contest) -> str | None:
    rows, needed = len(contest.labels), contest.task.gate.min_rows
    if rows < needed:
        return f"only {counted(rows, 'fresh labelled row')}, {needed:,} are needed to judge"
    if not contest.decidable:
        return f"{contest.task.metric} is undefined on the {rows:,} fresh rows: they hold one class only"
    return None


def _gain_check(contest: Contest, measured: Paired) -> Check:
    gain, metric = measured.gain, contest.metric
    old, new = (metric.value(contest.labels, scores) for scores in (contest.old, contest.new))
    detail = (
        f"{metric.name} {new:.4f} of the challenger, {old:.4f} of the champion, on the same {len(contest.labels):,} "
        f"fresh rows in {_blocks(contest):,} blocks: gain {gain.value:+.4f}, at least {gain.low:+.4f} with "
        f"{contest.task.gate.confidence:.0%} confidence (needed: above {contest.task.gate.min_gain:g})"
    )
    passed = bool(gain.low > contest.task.gate.min_gain)
    return Check(name="gain", passed=passed, detail=detail, value=gain.value, low=gain.low, high=gain.high)


def _blocks(contest: Contest) -> int:
    return int(contest.blocks.max()) + 1


def _calibration_check(contest: Contest, measured: Paired) -> Iterator[Check]:
    """Fails when the calibration error grew by more than is tolerated, unless its lower bound is as far below zero as
    the value is above: who brings a new model owes the proof, and ranks alone do not see a level that is off."""
    if (growth := measured.calibration) is None:
        return
    tolerance = contest.task.gate.calibration_tolerance
    detail = f"calibration error (ECE) grew by {growth.value:+.4f}, tolerated {tolerance:g}"
    passed = not (growth.value > tolerance and growth.value + growth.low > 0)
    yield Check(name="calibration", passed=passed, detail=detail, value=growth.value, low=growth.low, high=growth.high)


def _coverage_check(contest: Contest, measured: Paired) -> Check:
    """Fails when coverage is surely below what is tolerated, and below the champion's by more than that: a stretch that
    no model covers as promised says little against the new one."""
    found, old = measured.coverage, float(contest.old_covered.mean())
    tolerance = contest.task.gate.coverage_tolerance
    detail = f"{found.value:.3f} of the truths covered, promised {contest.task.coverage:g}; the champion's {old:.3f}"
    passed = not (found.high < contest.task.coverage - tolerance and found.value < old - tolerance)
    return Check(name="coverage", passed=passed, detail=detail, value=found.value, low=found.low, high=found.high)


def _segment_check(contest: Contest, found: list[Segment]) -> Check:
    """Fails when a segment became worse by more than is tolerated, its own noise taken into account."""
    if not found:
        return Check(name="segments", passed=True, detail="no segment has enough rows of its own")
    bound = -tolerated(contest, contest.task.gate.segment_tolerance)
    worst = min(found, key=lambda one: one.gain.high)
    detail = (
        f"worst of {len(found)} segments: {worst.column} = {worst.value}, {counted(worst.rows, 'row')}, "
        f"gain {worst.gain.value:+.4f}, at most {worst.gain.high:+.4f}; tolerated {bound:+.4f}"
    )
    gain = worst.gain
    return Check(
        name="segments", passed=gain.high >= bound, detail=detail, value=gain.value, low=gain.low, high=gain.high
    )


def _latency_checks(task: TaskSpec, found: Latency) -> Iterator[Check]:
    ratio, most = found.ratio, task.gate.latency_ratio
    detail = f"{found.new:.3f} ms a row, the champion {found.old:.3f} ms: {ratio.value:.2f} times, tolerated {most:g}"
    passed = ratio.value <= most or found.new < NEGLIGIBLE_MS
    yield Check(name="latency", passed=passed, detail=detail, value=ratio.value, low=ratio.low, high=ratio.high)
    if (limit := task.constraints.latency_ms) is not None:
        detail = f"{found.new:.3f} ms a row, allowed {limit:g} ms"
        yield Check(name="latency limit", passed=found.new <= limit, detail=detail, value=found.new)


def _size_check(task: TaskSpec, challenger: ModelBundle) -> Check:
    size, limit = challenger.model.stat().st_size / 1e6, task.constraints.size_mb
    detail = f"{size:.3f} MB" + (f", allowed {limit:g} MB" if limit is not None else ", no limit set")
    return Check(name="size limit", passed=limit is None or size <= limit, detail=detail, value=size)


def _verdict(contest: Contest, measured: Paired, checks: tuple[Check, ...]) -> Verdict:
    failed = [check for check in checks if not check.passed]
    reasons = tuple(one.detail if one is checks[0] else f"{one.name}: {one.detail}" for one in failed)
    if not failed:
        return Verdict(outcome=Outcome.PROMOTE, reasons=(checks[0].detail,), checks=checks)
    if measured.gain.high < 0:
        reasons = (f"the challenger is surely worse: its gain is at most {measured.gain.high:+.4f}", *reasons)
        return Verdict(outcome=Outcome.REJECT, reasons=reasons, checks=checks)
    decisive = any(check.name in DECISIVE for check in failed)
    return Verdict(outcome=Outcome.REJECT if decisive else Outcome.HOLD, reasons=reasons, checks=checks)
