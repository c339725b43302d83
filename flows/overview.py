"""The state of a task and of the services in lines of text: what `everfit status` prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from monitor.alerts import from_entry
from registry.deliveries import ALERT, DUE, NOTICE, outages
from registry.moves import CHALLENGER
from registry.naive import weakness
from registry.plurals import counted
from registry.thinning import THIN

if TYPE_CHECKING:
    from flows.following import Following
    from flows.services import Running
    from flows.workplace import Workplace
    from registry.deliveries import Outage
    from registry.ledger import Entry
    from registry.task import TaskSpec
    from registry.versions import VersionInfo

_LAST_WINDOWS = 8
_LAST_ALERTS = 12


def task_lines(place: Workplace) -> list[str]:
    """A task, what matters most first: how its champion is judged and why, the alert that is open, the challenger that
    waits for a person; then its last windows as judged, its versions with the rows each has served, what was done for
    them and what that took, its log."""
    from flows.alerting import written
    from flows.approval import pending
    from flows.broken_off import broken_off
    from flows.deeds import deeds
    from flows.following import following
    from flows.silence import unwatched
    from flows.spending import KINDS, spending

    name, logged = place.task.name, place.log.counts()
    versions = place.versions.list(name)
    windows = judged_first(place.ledger.read(kinds={"decision"}, last=_LAST_WINDOWS, timely=True))
    champion = next((one.version for one in versions if "champion" in one.aliases), None)
    done = deeds(place, windows)
    return [
        f"{name}: {verdict(champion, *((windows[-1], done[-1]) if windows else (None,)))}",
        *(f"    {reason}" for reason in (windows[-1].reasons if windows else ())),
        *mode_lines(place.task),
        *open_lines(written(place.ledger)[0], name),
        *outage_lines(outages(*written(place.ledger, (ALERT, NOTICE))), name),
        *broken_lines(broken_off(place), name),
        *(waiting_lines(asked, name) if (asked := pending(place)) else challenger_lines(place, versions)),
        *weak_lines(next((one for one in versions if one.version == champion), None), place.task),
        *decision_lines(windows, done),
        *version_lines(versions, place.log.versions(), place.task.metric),
        *following_lines(following(place), _newest_step(place)),
        f"  so far {spending(place.ledger.costs(KINDS))}",
        f"  {counted(logged.predictions, 'prediction')} logged, {logged.labelled:,} with their label",
        *pass_lines(place.ledger.last_pass()),
        *(f"  {why}" for why in [unwatched(place.settings)] if why),
    ]


def verdict(champion: str | None, decision: Entry | None, done: str = "") -> str:
    """Which version serves, how it was judged in the newest window, and what was done about that.

    >>> verdict("3", None)
    'version 3 is the champion, nothing was judged yet'
    """
    who = "no champion yet" if champion is None else f"version {champion} is the champion"
    if decision is None or nothing_judged(decision):
        return f"{who}, nothing was judged yet"
    of = f"version {decision.version}, " if decision.version != champion else ""
    begun = window_from(decision)
    where = "" if begun is None else f" in the window from {begun:%Y-%m-%d %H:%M}"
    judged = f"{decision.severity}{where} ({of}as of {decision.at:%Y-%m-%d %H:%M})"
    return f"{who}, {judged}, remedy: {done or decision.outcome}"


def nothing_judged(decision: Entry) -> bool:
    """Whether there was no window yet that could be judged: that is no good news."""
    return "window" in decision.details and decision.details["window"] is None


def judged_first(decisions: Sequence[Entry]) -> list[Entry]:
    """Decisions on windows; those that found none yet only where there are no others: a pass "now" that comes before a
    replay of older rows is later by its moment, and says nothing."""
    return [one for one in decisions if not nothing_judged(one)] or list(decisions)


def judged_as(decision: Entry | None) -> str:
    """A decision's severity in a word, or why there is none."""
    if decision is None or decision.severity is None:
        return "no decision yet"
    return "nothing judged yet" if nothing_judged(decision) else decision.severity


def window_from(decision: Entry) -> datetime | None:
    """Where the newest window of a decision begins, which is what windows are called by; None of one without."""
    window = decision.details.get("window")
    return None if window is None else datetime.fromisoformat(window["start"])


def mode_lines(task: TaskSpec) -> list[str]:
    """What becomes of decisions, where it is not done by itself."""
    told = {
        "approve": f"a person promotes what the gate proves: everfit approve {task.name}",
        "observe": "decisions are written down, and nothing is done about them",
    }
    return [f"  mode {task.mode}: {told[task.mode]}"] if task.mode in told else []


def open_lines(alerts: Sequence[Entry], task: str) -> list[str]:
    """The alert that is open, if one is."""
    last = from_entry(alerts[-1]).alert if alerts else None
    if last is None or not last.is_open:
        return []
    return [f"  an alert is open, {last.severity}, since {last.opened_at:%Y-%m-%d %H:%M}: everfit alerts {task}"]


def outage_lines(found: Sequence[Outage], task: str) -> list[str]:
    """The channels that alerts and notices do not reach, why, and how long they have not."""
    return [
        f"  alerts have not reached {one.channel} since {one.since:%Y-%m-%d %H:%M} ({one.why}), and are kept for it: "
        f"everfit alerts {task}"
        for one in found
    ]


def broken_lines(broken: Entry | None, task: str) -> list[str]:
    """That an improvement was broken off, and has not been completed."""
    if broken is None:
        return []
    reasons = "; ".join(broken.reasons)
    return [f"  an improvement was broken off, and has no end yet: everfit improve {task}", f"    {reasons}"]


def pass_lines(ended: datetime | None) -> list[str]:
    """When the task was watched last, by the clock: without a new window a pass leaves no other trace."""
    return [] if ended is None else [f"  watched last at {ended:%Y-%m-%d %H:%M} UTC"]


def following_lines(now: Following | None, newest: Sequence[Entry]) -> list[str]:
    """That the champion learns the windows' labels, since when, for how many windows its next step waits, of which rows
    its figure is, what its newest step says of that, and why none was possible since."""
    if now is None:
        return []
    mine = [entry for entry in newest if entry.version in now.versions]
    said = [f"    {_lead(entry)}{reason}" for entry in mine for reason in entry.reasons]
    if now.newest != now.anchor:
        of = f"    its test figure is of rows it answered before it learnt them, not of version {now.anchor}'s"
        said = [of, *said]
    steps, known = counted(len(now.versions) - 1, "step"), f"{now.known:%Y-%m-%d %H:%M}"
    wait = mine[0].details.get("wait", 1) if mine else 1
    until = f", and learns again after {wait} windows while all is ok" if wait > 1 else ""
    return [f"  the champion follows version {now.anchor}: {steps}, it knows the labels of {known}{until}", *said]


def _newest_step(place: Workplace) -> list[Entry]:
    """The newest step of a champion that follows, and what kept it from one since then."""
    from flows.following import KIND, MISSED

    steps = place.ledger.read(kinds={KIND}, last=1)
    since = steps[-1].id or 0 if steps else 0
    return [*steps, *place.ledger.read(kinds={MISSED}, since=since, last=1)]


def _lead(step: Entry) -> str:
    from flows.following import MISSED

    return f"last step not taken ({step.at:%Y-%m-%d %H:%M}): " if step.kind == MISSED else ""


def challenger_lines(place: Workplace, versions: Sequence[VersionInfo]) -> list[str]:
    """Which version is the challenger, what has made it, and how it stands."""
    version = next((one.version for one in versions if CHALLENGER in one.aliases), None)
    if version is None:
        return []
    from flows.spending import CHALLENGE

    told = {one.kind: one for one in place.ledger.read(kinds={*CHALLENGE, "search"}, version=version)}
    made = f"made by {told['remedy'].details.get('remedy')}" if "remedy" in told else "found by a search"
    gate = told.get("second_look") or told.get("gate")
    judged = "no gate has judged it" if gate is None else f"the gate said {gate.outcome}"
    name, share = place.task.name, place.versions.canary(place.task.name, version)
    answers = f"it answers {share:.0%} of the requests" if share else "it answers no request"
    lead = f"  version {version} is the challenger, {made}: {judged}, {answers}"
    return [f"{lead}; to have it as champion: everfit promote {name} {version}"]


def weak_lines(champion: VersionInfo | None, task: TaskSpec) -> list[str]:
    """That the champion is not surely better than one that knows nothing, where that is so."""
    found = {} if champion is None else champion.metrics
    if champion is None or not {task.metric, "naive", "naive.error"} <= found.keys():
        return []
    known = found[task.metric], found["naive"], found["naive.error"]
    weak = weakness(task.metric, task.problem, *known)
    return [] if weak is None else [f"  version {champion.version} is {weak}"]


def waiting_lines(asked: Entry, task: str) -> list[str]:
    """The question that waits for an answer, and how it is answered."""
    reasons = "; ".join(asked.reasons)
    since = "" if asked.written is None else f" since {asked.written:%Y-%m-%d %H:%M}"
    proved = f"proved on rows up to {asked.at:%Y-%m-%d %H:%M}"
    return [
        f"  version {asked.version}, {proved}, waits for a person{since}: everfit approve {task}",
        f"    {reasons}",
    ]


def version_lines(versions: Sequence[VersionInfo], served: dict[str, int], metric: str) -> list[str]:
    """A table of versions, newest last; those of a row whose files were let go on one line."""
    if not versions:
        return ["  no version yet"]
    lines = [f"  {'version':<8} {'aliases':<22} {'made':<17} {f'{metric} (test)':>16} {'rows served':>12}"]
    for gone, group in groupby(versions, lambda one: THIN in one.tags):
        some = list(group)
        if gone:
            lines.append(_gone_line([one.version for one in some], sum(served.get(one.version, 0) for one in some)))
        else:
            lines += [_version_line(one, served.get(one.version, 0), metric) for one in some]
    return lines


def _gone_line(versions: Sequence[str], rows: int) -> str:
    names = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
    return f"  {f'{names}: steps of a champion that followed, files let go':<66} {rows:>12,}"


def _version_line(one: VersionInfo, served: int, metric: str) -> str:
    value = one.metrics.get(metric)
    shown = "-" if value is None else f"{value:.4f}"
    aliases = ", ".join(sorted(one.aliases)) or "-"
    return f"  {one.version:<8} {aliases:<22} {one.created:%Y-%m-%d %H:%M}  {shown:>16} {served:>12,}"


def decision_lines(decisions: Sequence[Entry], done: Sequence[str]) -> list[str]:
    """A table of decisions by the windows they are of, newest last, with what was done about each (`flows/deeds.py`);
    nothing without any."""
    if not decisions:
        return []
    head = f"  {'window from':<17} {'judged as of':<17} {'version':<8} {'severity':<9} remedy"
    return [head, *map(_decision_line, decisions, done)]


def _decision_line(one: Entry, done: str) -> str:
    begun = "-" if (at := window_from(one)) is None else f"{at:%Y-%m-%d %H:%M}"
    severity = "-" if nothing_judged(one) else one.severity or "-"
    seen = f"{one.version or '-':<8} {severity:<9} {done}"
    return f"  {begun:<17} {one.at:%Y-%m-%d %H:%M}  {seen}"


def alert_lines(task: str, alerts: Sequence[Entry], sent: Sequence[Entry]) -> list[str]:
    """The alert that is open with its reasons, and what was told of the last ones, newest last."""
    if not alerts:
        return [f"{task}: no alert yet"]
    last = from_entry(alerts[-1]).alert
    lines = [f"{task}: no alert is open"]
    if last.is_open:
        again = f", reopened {last.reopened} time{'s' * (last.reopened > 1)}" if last.reopened else ""
        lines = [f"{task}: an alert is open, {last.severity}, since {last.opened_at:%Y-%m-%d %H:%M}{again}"]
        lines += [f"    {reason}" for reason in last.reasons]
    head = f"  {'as of':<17} {'alert':<10} {'severity':<9} {'version':<8} told"
    return [*lines, head, *(_alert_line(one, sent) for one in alerts[-_LAST_ALERTS:])]


def _alert_line(entry: Entry, sent: Sequence[Entry]) -> str:
    stand = {one.details["channel"]: one.outcome for one in sent if one.details["of"] == entry.id}
    names = dict.fromkeys([*entry.details["channels"], *stand])
    channels = [f"{name}: {'pending' if stand.get(name, DUE) == DUE else stand[name]}" for name in names]
    told = ", ".join(channels) or ("no channel" if entry.details["told"] else "nobody")
    seen = f"{entry.outcome or '-':<10} {entry.severity or '-':<9} {entry.version or '-':<8}"
    return f"  {entry.at:%Y-%m-%d %H:%M}  {seen} {told}"


def notice_lines(notices: Sequence[Entry], sent: Sequence[Entry]) -> list[str]:
    """What was told beside alerts (`notices.py`), newest last."""
    head = f"  {'as of':<17} {'notice':<10} {'':<9} {'version':<8} told"
    return [head, *(_alert_line(one, sent) for one in notices[-_LAST_ALERTS:])] if notices else []


def service_lines(services: Sequence[Running], endpoints: Sequence[str]) -> list[str]:
    """The services that run, with the lines of the endpoints among them (`flows/endpoints.py`); that no endpoint does,
    where others do."""
    lines = [
        f"  {one.name:<12} {one.url or 'running':<28} pid {one.pid}"
        for one in services
        if not endpoints or one.name != "endpoint"
    ]
    if not lines and not endpoints:
        return ["services: none running (start them with `everfit up TASK`)"]
    known = endpoints or any(one.name == "endpoint" for one in services)
    return ["services:", *lines, *(endpoints if known else ["  endpoint     not running: `everfit up TASK`"])]
