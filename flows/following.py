"""Following: a champion whose procedure is proven (`retrain/following.py`) learns each window's labels as they come.

The rung `follow` proves it: from the frozen champion on, the steps of the last windows are taken as they would have
been taken then, and the answers given before the labels came meet the champion's in the gate. Once its newest model is
promoted, each pass that finds new labels takes a step, and the new model answers from then on, without a gate of its
own. What keeps it there is the running comparison of the answers that were served with those of the anchor, the version
that it was proven against, on the newest `RECENT` windows, each one block of the jackknife. It stops, and the anchor
serves again, when it is surely worse by `FEW` windows or more, or not better by `MANY`.

The ledger holds each step (`follow`) with its reasons. A step is written down before the alias moves, so whoever comes
after a kill completes it. Somebody who promotes or rolls back by hand ends the following.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.intents import Intents
from flows.publishing import alias_of, fetch, figures_of
from flows.rows import from_log, same_columns, whole
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.decisions import ROLLBACK
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, DataError, InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.schema import Schema
from registry.scoring import Scorer, Scores

if TYPE_CHECKING:
    from monitor.views import Side
    from retrain.following import Followed, Lesson
    from retrain.paired import Interval

KIND = "follow"
CONTINUED, STOPPED = "continued", "stopped"

RECENT = 16
"""Windows that a proof, and the comparison with the anchor, are about: the newest."""
FEW, MANY = 8, 12
"""Windows that can tell that it is worse, and that it does not pay. A few say little: on elec2 four days did."""
MOST_ROWS = 50_000
"""Labelled rows that are read of them at most, the newest."""


@dataclass(frozen=True)
class Following:
    """A champion that follows: the version it is compared with, the moment its rows begin after, its versions, the
    newest last, and the moment whose labels that one knows. `ended`: it is to stop."""

    anchor: str
    begun: datetime
    versions: tuple[str, ...]
    known: datetime
    ended: bool = False

    @property
    def newest(self) -> str:
        """The version that serves."""
        return self.versions[-1]


@dataclass(frozen=True)
class Arrived:
    """Labelled rows of the newest windows in time order: as a model learns from them, and as they were logged; the
    number of each one's window, from 1 on, and the moment before window 1 with those at which each window ended."""

    rows: pd.DataFrame
    logged: pd.DataFrame
    windows: npt.NDArray[np.int64]
    ends: Sequence[np.datetime64]

    @property
    def arrived(self) -> npt.NDArray[np.datetime64]:
        """When each label came (n,)."""
        return self.logged["__label_time__"].to_numpy()

    def lessons(self) -> list[Lesson]:
        """The steps that would have been taken."""
        from retrain.following import lessons

        return lessons(self.windows, self.arrived, self.ends)

    def served(self, bundle: ModelBundle, rows: npt.NDArray[np.int64]) -> Side:
        """These rows, with what was answered to them by versions of the same target as a bundle's."""
        from monitor.views import window_side

        return window_side(self.logged.iloc[rows].reset_index(drop=True), None, bundle.manifest)

    def proof(self, chain: Followed, champion: ModelBundle, after: datetime, now: Following | None = None) -> Proof:
        """What a chain has answered of the rows later than `after`, beside what was served where the champion follows
        itself. Raises `DataError` when nothing is."""
        mine = (self.logged["__time__"] > after).to_numpy()
        if now is not None:
            mine = mine & self.logged["__version__"].isin(now.versions).to_numpy()
        if not mine[chain.answered].any():
            raise DataError(f"nothing that it has answered since {after} has its label: nothing is proven yet")
        places = chain.answered[mine[chain.answered]]
        old = None if now is None else self.served(champion, places).scores
        rows = self.rows.iloc[places].reset_index(drop=True)
        return Proof(rows, old, chain.answers.take(mine[chain.answered]))


def arrived(place: Workplace, schema: Schema, begun: datetime, as_of: datetime) -> Arrived:
    """The labelled rows later than `begun`, of the newest `RECENT` windows that were watched, as known at `as_of`; none
    of windows whose data were broken."""
    entries = place.ledger.read(kinds={"window"}, last=4 * RECENT)
    known = {datetime.fromisoformat(one.details["window"]["end"]) for one in entries}
    ends = [begun, *sorted(end for end in known if begun < end < as_of), as_of][-RECENT - 1 :]
    start = max(begun + timedelta(microseconds=1), ends[0])
    asked: dict[str, Any] = {"start": start, "end": as_of, "labels_by": as_of, "labelled_only": True}
    logged = whole(place, place.log.frame(**asked, columns=schema.names, newest=MOST_ROWS), schema)
    logged = logged[~_faulty(place, logged["__time__"], as_of)].reset_index(drop=True)
    moments = [np.datetime64(end, "us") for end in ends]
    windows = np.searchsorted(np.array(moments), logged["__time__"].to_numpy(), side="right")
    return Arrived(from_log(logged, place.task, schema), logged, windows, moments)


def _faulty(place: Workplace, times: pd.Series[Any], as_of: datetime) -> npt.NDArray[np.bool_]:
    """Which rows are of windows that were called faulty by then."""
    out = np.zeros(len(times), dtype=bool)
    for one in place.ledger.read(kinds={"decision"}, last=4 * RECENT):
        if one.at <= as_of and one.severity == "faulty" and (window := one.details.get("window")):
            start, end = (datetime.fromisoformat(window[name]) for name in ("start", "end"))
            out |= ((times >= start) & (times < end)).to_numpy()
    return out


def retrace(place: Workplace, first: ModelBundle, version: str, as_of: datetime, out: Path) -> tuple[Followed, Arrived]:
    """The chain of models that would have followed a first one until now. Raises `DataError` for too few rows."""
    from retrain.following import follow
    from retrain.renewal import Request

    if (begun := first.manifest.lineage.known_until) is None:
        raise StateError("without times nobody can tell which labels are new")
    rows = arrived(place, first.manifest.data_schema, begun, as_of)
    task = same_columns(place.task, first.manifest.data_schema)
    asked = Request(task, first, version, rows.rows, out, seed=task.search.seed)
    return follow(asked, rows.lessons()), rows


def proof_again(place: Workplace, champion: ModelBundle, version: str, after: datetime, as_of: datetime) -> Proof:
    """What the models following a champion until now would have answered to the rows later than `after`."""
    chain, rows = retrace(place, champion, version, as_of, place.study / "following")
    return rows.proof(chain, champion, after)


def judged_after(place: Workplace, version: str) -> datetime | None:
    """Of a version made to follow a champion that does not: the moment after which its procedure was judged."""
    made = [one for one in place.ledger.read(kinds={"remedy"}) if one.version == version]
    told = made[-1].details.get("follows") if made else None
    return datetime.fromisoformat(told["judged"]) if told and told["anchor"] else None


@dataclass(frozen=True)
class Proof:
    """Rows in time order, and what the champion (None: it can be asked still) and the challenger's procedure have
    answered to them before their labels came."""

    rows: pd.DataFrame
    old: Scores | None
    new: Scores

    def save(self, folder: Path) -> None:
        """Write it down; complete once the last file is there."""
        folder.mkdir(parents=True, exist_ok=True)
        sides = {"old": self.old, "new": self.new}
        for name, frame in {"rows": self.rows, **{k: pd.DataFrame(v.columns()) for k, v in sides.items() if v}}.items():
            frame.to_parquet(folder / f"{name}.partial", index=False)
            (folder / f"{name}.partial").replace(folder / f"{name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> Proof | None:
        """What was written down, if it was."""
        if not (folder / "new.parquet").is_file():
            return None
        old, new = (folder / "old.parquet", folder / "new.parquet")
        before = Scores.read(pd.read_parquet(old)) if old.is_file() else None
        return cls(pd.read_parquet(folder / "rows.parquet"), before, Scores.read(pd.read_parquet(new)))


def following(place: Workplace) -> Following | None:
    """How the champion follows, if it does. Nothing where a task only observes."""
    acts = place.ledger.read(kinds={"promotion", ROLLBACK}, last=1)
    if not acts or acts[-1].kind == ROLLBACK or place.task.mode == "observe":
        return None
    first = acts[-1]
    made = [one for one in place.ledger.read(kinds={"remedy"}) if one.version == first.version]
    told = made[-1].details.get("follows") if made else None
    if told is None:
        return None
    steps = place.ledger.read(kinds={KIND}, since=first.id or 0)
    versions = [str(first.version), *(str(one.version) for one in steps if one.outcome == CONTINUED)]
    now, ended = alias_of(place, "champion"), bool(steps) and steps[-1].outcome == STOPPED
    if not ended and now not in versions[-2:]:
        return None
    anchor, begun = told["anchor"] or versions[0], datetime.fromisoformat(told["begun"])
    return Following(anchor, begun, tuple(versions), (steps[-1] if steps else made[-1]).at, ended)


def keep_following(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """Let a champion that follows learn the labels known at `as_of`, or end that where it no longer pays.

    None when none follows, or when it goes on. Otherwise what `improve` answers, with the outcome `rollback`.
    """
    try:
        with exclusive(place.lock, f"the following of task {place.task.name}"):
            if Intents(place.ledger, place.task.name).open("improve") is not None:
                return None  # that is completed first, against the champion it has begun with
            now = following(place)
            return None if now is None else _kept_up(place, now, as_of)
    except (BusyError, StateError, InputError) as error:
        say(f"no step now: {error}")
        return None


def _kept_up(place: Workplace, now: Following, as_of: datetime) -> dict[str, Any] | None:
    if now.ended:
        return _stop(place, now)
    if alias_of(place, "champion") != now.newest:  # a step that was cut short
        place.versions.promote(place.task.name, now.newest)
    begun, cpu, newest = time.monotonic(), cpu_seconds(), fetch(place, now.newest)
    found = arrived(place, newest.manifest.data_schema, now.begun, as_of)
    if not (found.arrived > np.datetime64(now.known, "us")).any():
        return None
    own = np.flatnonzero(found.logged["__version__"].isin(now.versions))
    windows = len(np.unique(found.windows[own]))
    gain = _gain(place, now, newest, found, own) if windows >= FEW else None
    stops, reason = _verdict(now, gain, windows)
    say(f"version {now.newest} {'stops following' if stops else 'follows'}: {reason}")
    version = now.newest
    if not stops:
        bundle = _step(place, now, newest, found, own)
        version = place.versions.publish(bundle, metrics=figures_of(bundle))
    details = {"anchor": now.anchor, "before": now.newest, "rows": len(own), **costs(cpu_seconds() - cpu)}
    details |= {} if gain is None else {"gain": gain.value, "low": gain.low, "high": gain.high}
    place.ledger.write(
        Entry(
            task=place.task.name,
            kind=KIND,
            at=as_of,
            version=version,
            outcome=STOPPED if stops else CONTINUED,
            reasons=(reason,),
            details=details,
            seconds=time.monotonic() - begun,
        )
    )
    if stops:
        return _stop(place, now)
    place.versions.promote(place.task.name, version)
    return None


def _gain(
    place: Workplace, now: Following, newest: ModelBundle, found: Arrived, own: npt.NDArray[np.int64]
) -> Interval | None:
    """By how much the answers that were served are better than the anchor's; None where that is undefined."""
    from retrain.contest import ROW, Recorded, meet, paired

    error = (1 - place.task.gate.confidence) / RECENT
    task = place.task.model_copy(update={"gate": place.task.gate.model_copy(update={"confidence": 1 - error})})
    served = Recorded(newest, found.served(newest, own).scores)
    rows = found.rows.iloc[own].reset_index(drop=True).assign(**{ROW: np.arange(len(own))})
    contest = meet(task, Scorer.load(fetch(place, now.anchor)), served, rows)
    windows = np.unique(found.windows[own][contest.frame[ROW]], return_inverse=True)[1]
    return paired(replace(contest, blocks=windows)).gain if contest.decidable else None


def _verdict(now: Following, gain: Interval | None, windows: int) -> tuple[bool, str]:
    """Whether to stop, and why, or why not."""
    if gain is None:
        return False, f"its promotion was proven, and {windows} windows with labels since do not tell more"
    said = (
        f"what it served in the newest {windows} windows against version {now.anchor}: gain {gain.value:+.4f}, "
        f"between {gain.low:+.4f} and {gain.high:+.4f}"
    )
    return bool(gain.high < 0 or (windows >= MANY and gain.value <= 0)), said


def _step(
    place: Workplace,
    now: Following,
    newest: ModelBundle,
    found: Arrived,
    own: npt.NDArray[np.int64],
) -> ModelBundle:
    """The next model."""
    from retrain.calibration import Calibration
    from retrain.following import follow
    from retrain.members import read_scale
    from retrain.renewal import Request

    manifest, out = newest.manifest, place.study / "following"
    task = same_columns(place.task, manifest.data_schema)
    asked = Request(task, newest, now.newest, found.rows, out, seed=task.search.seed)
    calibration = Calibration(
        temperature=manifest.temperature, radius=_radius(place, newest, found, own), scale=read_scale(newest)
    )
    known = np.datetime64(now.known, "us")
    steps = [
        one for one, end in zip(found.lessons(), found.ends, strict=True) if end > known
    ]  # more than one after a gap
    return follow(asked, steps, calibration=calibration).seal(pictures=False)


def _radius(place: Workplace, newest: ModelBundle, found: Arrived, own: npt.NDArray[np.int64]) -> float:
    """The conformal radius after the labels that came: adapted over all versions that followed."""
    from monitor.adaptive import follow, nonconformity

    radius = newest.manifest.conformal_radius
    if not place.task.monitor.adaptive or not len(own):
        return radius
    return follow(nonconformity(found.served(newest, own)), coverage=place.task.coverage, radius=radius) or radius


@stage
def _stop(place: Workplace, now: Following) -> dict[str, Any]:
    """Let the anchor serve again, and tell the ledger. May be done twice with the same end."""
    name, last = place.task.name, place.ledger.read(kinds={KIND}, last=1)[-1]
    place.versions.promote(name, now.anchor)
    place.ledger.write(
        Entry(
            task=name,
            kind=ROLLBACK,
            at=last.at,
            version=now.anchor,
            outcome="rolled back",
            reasons=last.reasons,
            details={"previous": now.newest},
        )
    )
    found = {"by": "follow", "outcome": ROLLBACK, "version": now.newest, "champion": now.anchor}
    return {**found, "reasons": list(last.reasons), "seconds": last.seconds}
