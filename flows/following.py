"""Following: a champion whose procedure is proven (`retrain/following.py`) learns each window's labels as they come.

The rung `follow` proves it: from the frozen champion on, the steps of the last windows are taken as they would have
been taken then, and the answers given before the labels came meet the champion's in the gate. Once its newest model is
promoted, each pass that finds new labels takes a step, and the new model answers from then on, without a gate of its
own. What keeps it there is the running comparison of the answers that were served with those of the anchor, the version
that it was proven against: on the newest `RECENT` windows, each one block of the jackknife, and on the newest `SUDDEN`,
in blocks as the gate has them, for a world that turns round. It stops, and the anchor serves again, when it is surely
worse by either, or not better by `MANY` windows.

The ledger holds each step (`follow`) with its reasons, and why one was not possible (`no_step`). A step is written down
before the alias moves, so whoever comes after a kill completes it. Somebody who promotes or rolls back by hand ends
the following.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flows.handover import Standing, handing_over
from flows.intents import Intents
from flows.outgrown import STEP_TAG, thin_out
from flows.publishing import alias_of, fetch, figures_of
from flows.retracing import RECENT, Arrived, arrived, with_unlabelled
from flows.rows import same_columns
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.decisions import ROLLBACK
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.moves import CHAMPION
from registry.scoring import Scorer

if TYPE_CHECKING:
    from retrain.paired import Interval

KIND = "follow"
CONTINUED, STOPPED = "continued", "stopped"
MISSED = "no_step"
"""The kind of the entry of a step that was not possible: once a window for each reason."""

FEW, MANY = 8, 12
"""Windows, each a block, that can tell that it is worse, and that it does not pay: fewer blocks say little."""
SUDDEN = 4
"""The newest windows that can tell it at once."""
GROWTH = 1.25
"""By how much labels must have grown before a step that could not be sealed is tried again within its window."""
COMPARED = 16_000
"""Rows on which it is compared with its anchor at most, evenly over the windows, whose luck is what makes it unsure."""


@dataclass(frozen=True)
class Following:
    """A champion that follows: the version it is compared with, the moment its rows begin after, its versions, the
    newest last, the moment whose labels that one knows, and the ledger's entry of it. `ended`: it is to stop."""

    anchor: str
    begun: datetime
    versions: tuple[str, ...]
    known: datetime
    ended: bool = False
    entry: int = 0

    @property
    def newest(self) -> str:
        """The version that serves."""
        return self.versions[-1]


def following(place: Workplace) -> Following | None:
    """How the champion follows, if it does. Nothing where a task only observes."""
    acts = place.ledger.read(kinds={"promotion", ROLLBACK}, last=1)
    if not acts or acts[-1].kind == ROLLBACK or place.task.mode == "observe":
        return None
    first = acts[-1]
    made = place.ledger.read(kinds={"remedy"}, version=first.version)
    told = made[-1].details.get("follows") if made else None
    if told is None:
        return None
    steps = place.ledger.read(kinds={KIND}, since=first.id or 0)
    versions = [str(first.version), *(str(one.version) for one in steps if one.outcome == CONTINUED)]
    now, ended = alias_of(place, "champion"), bool(steps) and steps[-1].outcome == STOPPED
    if not ended and now not in versions[-2:]:
        return None
    anchor, begun = told["anchor"] or versions[0], datetime.fromisoformat(told["begun"])
    last = (*made, *steps)[-1]
    return Following(anchor, begun, tuple(versions), last.at, ended, last.id or 0)


def keep_following(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """Let a champion that follows learn the labels known at `as_of`, or end that where it no longer pays: at its steps,
    for which it may wait.

    None when none follows, or when it goes on. Otherwise what `improve` answers, with the outcome `rollback`.
    """
    try:
        with exclusive(place.lock, f"the following of task {place.task.name}"):
            if Intents(place.ledger, place.task.name).open("improve") is not None:
                return None  # that is completed first, against the champion it has begun with
            now = following(place)
            return None if now is None else _kept_up(place, now, as_of)
    except BusyError as error:
        say(f"no step now: {error}")
    except (StateError, InputError) as error:
        say(f"no step now: {error}")
        _missed(place, str(error), as_of, {"labels": error.labels} if isinstance(error, UnsealedError) else {})
    return None


class UnsealedError(StateError):
    """A step that was trained and could not be sealed, with so many labels that were new to it."""

    def __init__(self, why: str, labels: int) -> None:
        super().__init__(why)
        self.labels = labels


def _in_vain(place: Workplace, as_of: datetime, labels: int) -> bool:
    """Whether the step was tried since the newest window's end, whole and in vain, with hardly fewer labels."""
    last = place.ledger.read(kinds={KIND, MISSED}, last=1)
    told = last[-1].details if last and last[-1].kind == MISSED else {}
    return "labels" in told and told["window"] == _newest(place, as_of) and labels < GROWTH * told["labels"]


def _newest(place: Workplace, as_of: datetime) -> list[str]:
    return [end.isoformat() for end in place.ledger.moments("window", until=as_of, last=1)]


def _missed(place: Workplace, why: str, as_of: datetime, tried: Mapping[str, int]) -> None:
    """Tell the ledger, unless it was told since the newest window's end with the same words, whatever numbers."""
    told = {"window": _newest(place, as_of), **tried}
    last = place.ledger.read(kinds={KIND, MISSED}, last=1)
    if last and (last[-1].kind, last[-1].details) == (MISSED, told) and _wording(last[-1].reasons[0]) == _wording(why):
        return
    version = alias_of(place, CHAMPION)
    place.ledger.write(
        Entry(task=place.task.name, kind=MISSED, at=as_of, version=version, reasons=(why,), details=told)
    )


def _wording(why: str) -> str:
    return re.sub(r"\d+", "", why)


def no_step(place: Workplace, as_of: datetime) -> str:
    """Why the champion could not learn what was known at this moment; empty where it could, or had nothing to."""
    last = place.ledger.read(kinds={KIND, MISSED}, last=1)
    return "; ".join(last[-1].reasons) if last and last[-1].kind == MISSED and last[-1].at == as_of else ""


def _kept_up(place: Workplace, now: Following, as_of: datetime) -> dict[str, Any] | None:
    from retrain.race import waits

    if now.ended:
        return _stop(place, now)
    with handing_over(place):
        if following(place) != now:
            return None
        if alias_of(place, CHAMPION) != now.newest:  # a step that was cut short
            place.versions.promote(place.task.name, now.newest)
        before = Standing.now(place)
    begun, cpu, newest = time.monotonic(), cpu_seconds(), fetch(place, now.newest)
    if not (waited := _due(place, now, newest, as_of)):
        return None
    found = arrived(place, newest.manifest.data_schema, now.begun, as_of)
    labels = int((found.arrived > np.datetime64(now.known, "us")).sum())
    if not labels or _in_vain(place, as_of, labels):
        return None
    own = np.flatnonzero(found.logged["__version__"].isin(now.versions))
    windows = len(np.unique(found.windows[own]))
    gain, sudden = _gains(place, now, newest, found, own) if windows > 1 else (None, None)
    stops, reason = _verdict(now, gain, windows, sudden)
    say(f"version {now.newest} {'stops following' if stops else 'follows'}: {reason}")
    bundle = None if stops else _step(place, now, newest, found, own, as_of, waited)
    told = {"anchor": now.anchor, "before": now.newest, "rows": len(own), "windows": waited}
    details: dict[str, Any] = {**told, **({} if bundle is None else {"wait": waits(bundle)})}
    details |= {} if gain is None else {"gain": gain.value, "low": gain.low, "high": gain.high}
    with handing_over(place):
        if why := before.changed(place):
            raise StateError(f"the step of version {now.newest} is dropped: since it began, {why}")
        version = now.newest if bundle is None else _publish(place, bundle, now.newest)
        place.ledger.write(
            Entry(
                task=place.task.name,
                kind=KIND,
                at=as_of,
                version=version,
                outcome=STOPPED if stops else CONTINUED,
                reasons=(reason,),
                details={**details, **costs(cpu_seconds() - cpu)},
                seconds=time.monotonic() - begun,
            )
        )
        if not stops:
            place.versions.promote(place.task.name, version)
    if stops:
        return _stop(place, now)
    thin_out(place, (*now.versions, version))
    return None


def _publish(place: Workplace, bundle: ModelBundle, before: str) -> str:
    return place.versions.publish(bundle, metrics=figures_of(bundle), tags={STEP_TAG: before})


def _due(place: Workplace, now: Following, newest: ModelBundle, as_of: datetime) -> int:
    """How many windows have ended since the last step, where one is due: at the end of each while the champion is not
    judged to do as it should, else when so many are over as the last steps were worth waiting for. A window whose rows
    come later than its end has ended when it is measured."""
    from retrain.race import waits

    before = place.ledger.moments("window", until=as_of, last=1, before=now.entry)
    since = min(now.known, *before)
    ended = sum(since < end for end in place.ledger.moments("window", until=as_of, last=RECENT))
    decided = place.ledger.read(kinds={"decision"}, last=1)
    well = not decided or decided[-1].severity == "ok"
    return ended if ended >= (waits(newest) if well else 1) else 0


def stepped(place: Workplace, as_of: datetime) -> bool:
    """Whether the champion has learnt what was known at this moment, or is to serve as one that has."""
    last = place.ledger.read(kinds={KIND}, last=1)
    return bool(last) and last[-1].at == as_of and last[-1].outcome == CONTINUED


def _gains(
    place: Workplace, now: Following, newest: ModelBundle, found: Arrived, own: npt.NDArray[np.int64]
) -> tuple[Interval | None, Interval | None]:
    """By how much the answers that were served are better than the anchor's: over all windows, each a block, and over
    the newest few, in blocks as the gate has them. None where they are too few or it is undefined."""
    from retrain.contest import ROW, Recorded, meet, paired

    error = (1 - place.task.gate.confidence) / RECENT
    task = place.task.model_copy(update={"gate": place.task.gate.model_copy(update={"confidence": 1 - error})})
    own = own[:: -(-len(own) // COMPARED)]
    served = Recorded(newest, found.served(newest, own).scores)
    rows = found.rows.iloc[own].reset_index(drop=True).assign(**{ROW: np.arange(len(own))})
    contest = meet(task, Scorer.load(fetch(place, now.anchor)), served, rows)
    if not len(contest.labels) or not contest.decidable:
        return None, None
    known, windows = np.unique(found.windows[own][contest.frame[ROW]], return_inverse=True)
    last = contest.take(np.flatnonzero(windows >= len(known) - SUDDEN))
    gain = paired(replace(contest, blocks=windows)).gain if len(known) >= FEW else None
    return gain, paired(last).gain if last.decidable else None


def _verdict(now: Following, gain: Interval | None, windows: int, sudden: Interval | None = None) -> tuple[bool, str]:
    """Whether to stop, and why, or why not."""
    if sudden is not None and sudden.high < 0:
        return True, _said(now, sudden, min(windows, SUDDEN))
    if gain is None:
        so_far = f"{windows} so far" if windows < FEW else f"these {windows} do not tell yet"
        proven = "it learns on: that this pays was proven before its promotion"
        return False, f"{proven}, and is judged again by {FEW} windows with labels or more; {so_far}"
    return bool(gain.high < 0 or (windows >= MANY and gain.value <= 0)), _said(now, gain, windows)


def _said(now: Following, gain: Interval, windows: int) -> str:
    return (
        f"what it served in the newest {windows} windows against version {now.anchor}: gain {gain.value:+.4f}, "
        f"between {gain.low:+.4f} and {gain.high:+.4f}"
    )


def _step(
    place: Workplace,
    now: Following,
    newest: ModelBundle,
    found: Arrived,
    own: npt.NDArray[np.int64],
    as_of: datetime,
    waited: int,
) -> ModelBundle:
    """The next model: the one that leads of those that learn side by side."""
    from retrain.calibration import Calibration
    from retrain.following import follow
    from retrain.members import read_scale
    from retrain.race import Standing, keys_of
    from retrain.renewal import Request

    manifest, out = newest.manifest, place.study / "following"
    task = same_columns(place.task, manifest.data_schema)
    radius = _radius(place, newest, found, own)
    all_rows = with_unlabelled(place, found, manifest.data_schema, now.known, as_of)
    asked = Request(task, newest, now.newest, all_rows.rows, out, seed=task.search.seed)
    taken = follow(
        asked,
        all_rows.at_once(np.datetime64(now.known, "us"), waited),
        standing=Standing.of(newest),
        keys=keys_of(all_rows.logged["__id__"]),
        calibration=Calibration(temperature=manifest.temperature, radius=radius, scale=read_scale(newest)),
    )
    try:
        return taken.seal(pictures=False)
    except (StateError, InputError) as error:
        raise UnsealedError(str(error), int((found.arrived > np.datetime64(now.known, "us")).sum())) from error


def _radius(place: Workplace, newest: ModelBundle, found: Arrived, own: npt.NDArray[np.int64]) -> float:
    """The conformal radius after the labels that came: adapted over all versions that followed."""
    from monitor.adaptive import follow, nonconformity

    radius = newest.manifest.conformal_radius
    if not place.task.monitor.adaptive or not len(own):
        return radius
    return follow(nonconformity(found.served(newest, own)), coverage=place.task.coverage, radius=radius) or radius


@stage
def _stop(place: Workplace, now: Following) -> dict[str, Any] | None:
    """Let the anchor serve again, and tell the ledger, unless somebody has chosen another champion meanwhile. May be
    done twice with the same end."""
    name, last = place.task.name, place.ledger.read(kinds={KIND}, last=1)[-1]
    with handing_over(place):
        again = following(place)
        if again is None or not again.ended:
            return None
        place.versions.promote(name, now.anchor)
        told = {
            "outcome": "rolled back",
            "reasons": last.reasons,
            "details": {"previous": now.newest, "follows": now.anchor},
        }
        place.ledger.write(Entry(task=name, kind=ROLLBACK, at=last.at, version=now.anchor, **told))
    thin_out(place, now.versions)
    found = {"by": "follow", "outcome": ROLLBACK, "version": now.newest, "champion": now.anchor}
    return {**found, "reasons": list(last.reasons), "seconds": last.seconds}
