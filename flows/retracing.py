"""What a procedure that follows would have answered: the labelled rows of the newest windows as a model learns them,
the steps that would have been taken, and the proof, the answers that were given before the labels came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.rows import from_log, same_columns, whole
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.errors import DataError, StateError
from registry.parquet import read_parquet
from registry.schema import Schema
from registry.scoring import Scores

if TYPE_CHECKING:
    from monitor.views import Side
    from retrain.following import Followed
    from retrain.learners import Lesson

RECENT = 16
"""Windows that a proof, and the comparison with the anchor, are about: the newest."""
MOST_ROWS = 50_000
"""Labelled rows that are read of them at most, the newest."""
CHAMPIONS = "champion"
"""The name of the trail that a champion's proofs go on from, look by look."""


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

    @property
    def taught(self) -> datetime:
        """The end of the window by which labels enough had come to be learnt: whoever answered before is who the models
        begin with."""
        from retrain.learners import LEAST_BATCH

        known = (end for end, one in zip(self.ends, self.lessons(), strict=True) if len(one.learn) >= LEAST_BATCH)
        moment: datetime = pd.Timestamp(next(known, self.ends[-1])).to_pydatetime()
        return moment

    def since(self, known: np.datetime64) -> list[Lesson]:
        """The steps later than one that was taken at a moment, more than one after a gap; before them, what the models
        of then have answered."""
        from retrain.learners import Lesson

        steps = [one for one, end in zip(self.lessons(), self.ends, strict=True) if end > known]
        until = next((end for end in self.ends if end > known), known)
        none = np.empty(0, dtype=np.int64)
        return [Lesson(none, none, self._waiting(known, until)), *steps]

    def at_once(self, known: np.datetime64, waited: int) -> list[Lesson]:
        """One step for all that has come in so many windows since a moment; before it, what the models of then have
        answered. What has come between the last window's end and now counts as of that window: none is over since."""
        from retrain.following import catch_up

        ends = list(self.ends)
        if sum(end > known for end in ends) > waited:
            del ends[-2]
        return catch_up(self.arrived, ends, waited, self._waiting(known, ends[-1]))

    def _waiting(self, known: np.datetime64, until: np.datetime64) -> npt.NDArray[np.int64]:
        """The rows between two moments whose labels had not come by the first."""
        times = self.logged["__time__"].to_numpy()
        return np.flatnonzero((times >= known) & (times < until) & ~(self.arrived <= known))

    def served(self, bundle: ModelBundle, rows: npt.NDArray[np.int64]) -> Side:
        """These rows, with what was answered to them by versions of the same target as a bundle's."""
        from monitor.views import window_side

        return window_side(self.logged.iloc[rows].reset_index(drop=True), None, bundle.manifest)

    def proof(
        self, chain: Followed, champion: ModelBundle, after: datetime, versions: Sequence[str] | None = None
    ) -> Proof:
        """What a chain has answered of the rows later than `after`, beside what was served by `versions`, where the
        champion follows itself. Raises `DataError` when nothing is."""
        mine = ((self.logged["__time__"] > after) & self.logged["__label__"].notna()).to_numpy()
        if versions is not None:
            mine = mine & self.logged["__version__"].isin(versions).to_numpy()
        if not mine[chain.answered].any():
            raise DataError(f"nothing that it has answered since {after} has its label: nothing is proven yet")
        places = chain.answered[mine[chain.answered]]
        old = None if versions is None else self.served(champion, places).scores
        rows = self.rows.iloc[places].reset_index(drop=True)
        return Proof(rows, old, chain.answers.take(mine[chain.answered]))


def arrived(place: Workplace, schema: Schema, begun: datetime, as_of: datetime) -> Arrived:
    """The labelled rows later than `begun`, of the newest `RECENT` windows that were watched, as known at `as_of`; none
    of windows whose data were broken."""
    ends = ends_of(place, begun, as_of)
    start = max(begun + timedelta(microseconds=1), ends[0])
    asked: dict[str, Any] = {"start": start, "end": as_of, "labels_by": as_of, "labelled_only": True}
    logged = whole(place, place.log.frame(**asked, columns=schema.names, newest=MOST_ROWS), schema)
    logged = logged[~_faulty(place, logged["__time__"], as_of)].reset_index(drop=True)
    moments = [np.datetime64(end, "us") for end in ends]
    windows = np.searchsorted(np.array(moments), logged["__time__"].to_numpy(), side="right")
    return Arrived(from_log(logged, place.task, schema), logged, windows, moments)


def provable(place: Workplace, after: datetime, versions: Sequence[str] | None, as_of: datetime) -> bool:
    """Whether any label of what `versions` (None: any) have answered later than `after` has come by `as_of`, in windows
    whose data were not broken: without any, no proof can be made."""
    asked: dict[str, Any] = {"start": after + timedelta(microseconds=1), "end": as_of, "labels_by": as_of}
    told = place.log.frame(**asked, labelled_only=True, columns=[], newest=MOST_ROWS)
    mine = ~_faulty(place, told["__time__"], as_of)
    return bool((mine if versions is None else mine & told["__version__"].isin(versions).to_numpy()).any())


def with_unlabelled(place: Workplace, found: Arrived, schema: Schema, since: datetime, as_of: datetime) -> Arrived:
    """The same with the rows later than `since` whose labels have not come yet: what they are answered counts later."""
    asked: dict[str, Any] = {"end": as_of, "labels_by": as_of, "newest": MOST_ROWS}
    first = place.log.unlabelled_from(since, **asked)
    if first is None:
        return found
    logged = place.log.frame(start=first, **asked, columns=schema.names)
    logged = whole(place, logged[logged["__label__"].isna()].reset_index(drop=True), schema)
    logged = logged[~_faulty(place, logged["__time__"], as_of)].reset_index(drop=True)
    if not len(logged):
        return found
    both = pd.concat([found.logged, logged], ignore_index=True)
    order = np.lexsort((both["__id__"].to_numpy().astype(str), both["__time__"].to_numpy()))
    rows = pd.concat([found.rows, from_log(logged, place.task, schema)], ignore_index=True)
    both, rows = (one.iloc[order].reset_index(drop=True) for one in (both, rows))
    windows = np.searchsorted(np.array(found.ends), both["__time__"].to_numpy(), side="right")
    return Arrived(rows, both, windows, found.ends)


def ends_of(place: Workplace, begun: datetime, as_of: datetime) -> list[datetime]:
    """The ends of the newest `RECENT` windows later than `begun`, the last one as of now, after the moment before."""
    known = place.ledger.moments("window", until=as_of, last=RECENT + 1)
    return [begun, *(end for end in known if begun < end < as_of), as_of][-RECENT - 1 :]


def _faulty(place: Workplace, times: pd.Series[Any], as_of: datetime) -> npt.NDArray[np.bool_]:
    """Which rows are of windows whose data were broken, by what was known then."""
    from monitor.watching import faulty_windows

    out = np.zeros(len(times), dtype=bool)
    for window in faulty_windows(place.task, place.ledger, as_of):
        out |= ((times >= window.start) & (times < window.end)).to_numpy()
    return out


def retrace(
    place: Workplace, first: ModelBundle, version: str, as_of: datetime, out: Path, trail: str | None = None
) -> tuple[Followed, Arrived]:
    """The models that would have followed a first one until now, from where its race stands if it has one. Under the
    name of a `trail` they go on from where they were when they were asked for last. Raises `DataError` for too few
    rows."""
    from retrain.following import Trail, follow
    from retrain.race import RACE, Standing, keys_of
    from retrain.renewal import Request

    if (begun := first.manifest.lineage.known_until) is None:
        raise StateError("without times nobody can tell which labels are new")
    schema = first.manifest.data_schema
    rows = arrived(place, schema, begun, as_of)
    path = place.study / "trails" / f"{trail}.safetensors"
    before = None if trail is None else Trail.load(path, first)
    if before is not None and not rows.ends[0] <= np.datetime64(before.moment, "us") <= np.datetime64(as_of, "us"):
        before = None  # of another time, or so long ago that windows between are not read any more
    since = max(begun + timedelta(microseconds=1), pd.Timestamp(rows.ends[0]).to_pydatetime())
    rows = with_unlabelled(place, rows, schema, since, as_of)
    task = same_columns(place.task, schema)
    asked = Request(task, first, version, rows.rows, out, seed=task.search.seed)
    steps = rows.lessons() if before is None else rows.since(np.datetime64(before.moment, "us"))
    standing = Standing.of(first) if RACE in first.manifest.files else None
    found = follow(asked, steps, standing=standing, before=before, keys=keys_of(rows.logged["__id__"]))
    if trail is not None:
        found.keep(path, first, as_of)
    return found, rows


def proof_again(place: Workplace, champion: ModelBundle, version: str, after: datetime, as_of: datetime) -> Proof:
    """What the models following a champion until now would have answered to the rows later than `after`."""
    chain, rows = retrace(place, champion, version, as_of, place.study / "following", CHAMPIONS)
    return rows.proof(chain, champion, after)


def rival_again(
    place: Workplace, models: tuple[ModelBundle, ModelBundle], version: str, chain: Sequence[str], as_of: datetime
) -> Proof:
    """What the rival of a champion that follows would have answered had it gone on from the version that was
    registered, to the rows that a chain of versions has served since. `models`: champion and rival."""
    champion, rival = models
    followed, rows = retrace(place, rival, version, as_of, place.study / "following", "rival")
    known = rival.manifest.lineage.known_until
    return rows.proof(followed, champion, known or datetime.min, chain)


def judged_after(place: Workplace, version: str) -> datetime | None:
    """Of a version made to follow a champion that does not: the moment after which its procedure was judged."""
    made = place.ledger.read(kinds={"remedy"}, version=version)
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
        """Write it down in place of another one; complete once the last file is there."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("new", "old"):  # the last file first: what a kill leaves is no proof
            (folder / f"{name}.parquet").unlink(missing_ok=True)
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
        before = Scores.read(read_parquet(old)) if old.is_file() else None
        return cls(read_parquet(folder / "rows.parquet"), before, Scores.read(read_parquet(new)))
