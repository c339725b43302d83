"""The rungs of the ladder: each makes a challenger out of a champion and the rows known, and registers it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.following import following
from flows.intents import Intent, Intents
from flows.progress import Reporter, reported
from flows.publishing import fetch, finished, publish_once, show_bundle
from flows.retracing import CHAMPIONS, Proof, provable, retrace
from flows.rows import same_columns
from flows.search import former_studies
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.decisions import Remedy
from registry.energy import costs, cpu_seconds
from registry.errors import BusyError, DataError, InputError, StateError
from registry.task import Research, Search, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from retrain.renewal import Request

FORMER = 3
"""Former champions that may come back, the newest ones."""


def make(
    place: Workplace, intents: Intents, intent: Intent, remedy: Remedy, champion: ModelBundle, history: pd.DataFrame
) -> str | None:
    """Carry a remedy out and register its result as the challenger; its version, or None when it cannot be done here.

    What was finished before is not done again.
    """
    if (done := intents.stage(intent, "remedy", remedy=remedy)) is not None:
        return done.version
    begun, cpu = time.monotonic(), cpu_seconds()
    details: dict[str, Any] = {"remedy": remedy.value, "rows": len(history)}
    version, reasons = None, tuple(filter(None, (intent.details.get("reason", ""),)))
    try:
        bundle = _found(place, intent, remedy, champion, history)
    except BusyError:
        raise
    except (InputError, StateError) as error:
        say(f"{remedy.value} is no remedy here: {error}")
        reasons = (str(error),)
    else:
        version = publish_once(place, f"{intent.id}-{remedy.value}", bundle)
        challenge(place, version)
        details |= {"follows": _follows(place, intent, bundle, history)}
        details |= {"trials": bundle.manifest.lineage.trials, "metrics": bundle.manifest.metrics}
        show_bundle(place, bundle, version)
    intents.write(
        intent,
        "remedy",
        version=version,
        outcome="refused" if version is None else "registered",
        reasons=reasons,
        details={**details, **costs(cpu_seconds() - cpu)},
        seconds=time.monotonic() - begun,
    )
    return version


@stage
def challenge(place: Workplace, version: str) -> None:
    """Make a version the challenger."""
    place.versions.set(place.task.name, "challenger", version)


def _found(
    place: Workplace, intent: Intent, remedy: Remedy, champion: ModelBundle, history: pd.DataFrame
) -> ModelBundle:
    """The remedy's bundle; one that a killed flow had finished is taken as it is. Where the champion follows, its
    rivals follow too, and are judged as it is: none is made that could not be."""
    follows, folder = intent.details.get("anchor") is not None, place.study / intent.id / remedy.value
    if follows and remedy is Remedy.FOLLOW:
        raise StateError("the champion follows already")
    with reported(f"{place.task.name}-{remedy.value.replace('_', '-')}") as report:
        job = _Job(place, intent, champion, history, folder, report)
        made = finished(folder / "bundle")
        if made is None and follows:
            job.require_judge()
        made = made or _made(job, remedy)
        return job.follow(made) if follows or remedy is Remedy.FOLLOW else made


def _made(job: _Job, remedy: Remedy) -> ModelBundle:
    """What a remedy makes of the rows that are not the gate's; `follow` begins with the champion itself."""
    ways: Mapping[Remedy, Callable[[], ModelBundle]] = {
        Remedy.FOLLOW: lambda: job.champion,
        Remedy.RECALIBRATE: job.recalibrate,
        Remedy.FINE_TUNE: job.fine_tune,
        Remedy.RESEARCH: job.research,
        Remedy.SEARCH: job.search,
    }
    return ways[remedy]()


def _follows(
    place: Workplace, intent: Intent, bundle: ModelBundle, history: pd.DataFrame
) -> dict[str, str | None] | None:
    """What a version that is to follow is compared with (None: itself, as it is), and the moments that its rows, and
    those it was judged on, begin after; None for one that stays as it is."""
    from retrain.following import BEGUN

    begun = bundle.candidates.get("heritage", {}).get(BEGUN)
    anchor = None if "anchor" in intent.details else intent.details["champion"]
    if begun is None:
        return None
    return {"anchor": anchor, "begun": begun, "judged": history[place.task.time].max().isoformat()}


def proof_of(place: Workplace, intent: Intent, remedy: Remedy) -> Proof | None:
    """What a remedy's procedure has answered, where it is a procedure that is judged."""
    return Proof.load(place.study / intent.id / remedy.value)


def former_champions(place: Workplace, champion: str) -> list[str]:
    """The newest versions that were champions before, the newest first."""
    served = [str(one.version) for one in place.ledger.read(kinds={"promotion", "rollback"})]
    known = {one.version for one in place.versions.list(place.task.name)}
    return [version for version in dict.fromkeys(reversed(served)) if version != champion and version in known][:FORMER]


@dataclass(frozen=True)
class _Job:
    """A remedy to be carried out on the champion with the rows of `history`, into `folder`."""

    place: Workplace
    intent: Intent
    champion: ModelBundle
    history: pd.DataFrame
    folder: Path
    report: Reporter

    @property
    def task(self) -> TaskSpec:
        return same_columns(self.place.task, self.champion.manifest.data_schema)

    @property
    def version(self) -> str:
        """The champion's number; where it follows, its anchor's, which has learnt from none of the gate's rows."""
        found: str = self.intent.details.get("anchor") or self.intent.details["champion"]
        return found

    @property
    def known(self) -> datetime:
        """The newest moment that is not the gate's."""
        if self.task.time is None:
            raise StateError("without times nobody can tell which labels are new")
        moment: datetime = self.history[self.task.time].max().to_pydatetime()
        return moment

    def require_judge(self) -> None:
        """Raises `DataError` where what follows beside the champion could not be judged: that is not worth a search."""
        now = following(self.place)
        if not provable(self.place, self.known, None if now is None else now.versions, self.intent.at):
            raise DataError(
                f"nothing that the champion has answered since {self.known} has its label: nothing can judge"
            )

    def follow(self, first: ModelBundle) -> ModelBundle:
        """The newest of the models that follow a first one; with the proof, against what was served where the champion
        follows too."""
        home = self.folder / "chain"
        if (found := finished(home)) is not None and Proof.load(self.folder) is not None:
            return found
        trail = CHAMPIONS if first is self.champion else None
        chain, rows = retrace(self.place, first, self.version, self.intent.at, home, trail)
        now = following(self.place)
        served = None if now is None else now.versions
        after = max(self.known, rows.taught) if first is self.champion else self.known
        rows.proof(chain, self.champion, after, served).save(self.folder)
        return chain.seal()

    def recalibrate(self) -> ModelBundle:
        from retrain.recalibration import recalibrate

        versions = former_champions(self.place, self.version)
        return recalibrate(self._request(), {one: fetch(self.place, one) for one in versions})

    def fine_tune(self) -> ModelBundle:
        from retrain.fine_tuning import fine_tune

        return fine_tune(self._request())

    def research(self) -> ModelBundle:
        budget = self.place.task.research
        return self._search(self.task.model_copy(update={"splits": budget.splits}), budget, self.champion)

    def search(self) -> ModelBundle:
        return self._search(self.task, self.place.task.search, None)

    def _request(self) -> Request:
        from retrain.renewal import Request

        return Request(
            task=self.task,
            bundle=self.champion,
            version=self.version,
            frame=self.history,
            out=self.folder / "bundle",
            seconds=self.task.research.seconds,
            seed=self.task.search.seed,
            progress=self.report,
        )

    def _search(self, task: TaskSpec, budget: Search | Research, prior: ModelBundle | None) -> ModelBundle:
        from retrain.search.session import search

        return search(
            task,
            self.history,
            folder=self.folder / "study",
            out=self.folder / "bundle",
            prior=prior,
            trials=budget.trials,
            seconds=budget.seconds,
            seed=task.search.seed,
            enough=budget.enough if isinstance(budget, Research) else 0,
            formers=former_studies(self.place, prior, self.intent.at),
            parent_version=self.version,
            progress=self.report,
        )
