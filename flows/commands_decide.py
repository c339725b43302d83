"""Commands that decide on versions: who is the champion, who answers a share, who is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from flows.door import MOMENT, UNASKED, connect
from flows.waiting import waiting
from registry.errors import InputError, NoModelError, StateError

if TYPE_CHECKING:
    from flows.following import Following
    from flows.workplace import Workplace
    from registry.versions import Promotion

_FEW = 20
"""Versions that are named one by one."""


@click.command()
@click.argument("task")
@click.argument("version")
def promote(task: str, version: str) -> None:
    """Make VERSION the champion of TASK without a gate.

    The former champion becomes `previous`. Where VERSION is the champion already, nothing changes.

    \b
    Example:
      everfit promote flights 3
    """
    settings = connect()
    from flows.following import following
    from flows.handover import handing_over
    from flows.workplace import Workplace, find_task
    from registry.moves import CHAMPION

    place = Workplace.open(settings, find_task(settings, task))
    with waiting("asking the registry"), handing_over(place):
        _require_version(place, version)
        followed = following(place)
        already = place.versions.get(place.task.name, CHAMPION) == version
        done = place.versions.promote(place.task.name, version)  # also what completes a promotion that was cut short
        if not already:
            _record(place, "promotion", "promoted", done)
    said = "is the champion already, nothing changed" if already else "is the champion"
    click.echo(f"{place.task.name}: version {done.version} {said} (previous: {done.previous or 'none'})")
    if not already:
        _tell_following(place, followed)


def _require_version(place: Workplace, version: str) -> None:
    """Raise `InputError` for a version that is not there, `NoModelError` where there is none at all yet."""
    name, known = place.task.name, [one.version for one in place.versions.list(place.task.name)]
    if not known:
        raise NoModelError(f"task {name!r} has no version yet; run `everfit search` first")
    if version not in known:
        few = f"expected one of {', '.join(known)}" if len(known) <= _FEW else f"the newest is {known[-1]}"
        raise InputError(f"task {name!r} has no version {version!r}: {few}; `everfit status {name}` lists them")


class _Share(click.ParamType[float]):
    """A part of all requests: 0.1, or 10%."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The part, from 0 to 1."""
        said = str(value).strip()
        try:
            share = float(said.removesuffix("%")) / (100 if said.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"expected a part of the requests, from 0 to 1 as 0.1 or 10%, got {said!r}", param, ctx)
        return share


@click.command()
@click.argument("task")
@click.argument("share", type=_Share())
def canary(task: str, share: float) -> None:
    """Let the challenger of TASK answer SHARE of the live requests; 0 ends it.

    Requests with the same X-Everfit-Key header meet the same version. The share ends when the challenger is promoted or
    let go.

    \b
    Example:
      everfit canary flights 0.1
    """
    settings = connect()
    from flows.publishing import alias_of
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    version = alias_of(place, "challenger")
    if version is None:
        raise StateError(f"task {place.task.name!r} has no challenger")
    place.versions.set_canary(place.task.name, version, share)
    said = f"answers {share:.0%} of the requests" if share else "answers no request any more"
    click.echo(f"{place.task.name}: challenger {version} {said}")


@click.command()
@click.argument("task")
def rollback(task: str) -> None:
    """Make the previous champion of TASK the champion again.

    The version that it replaces becomes the previous one: a second roll-back leads back to it. `everfit promote` leads
    to any version.

    \b
    Example:
      everfit rollback flights
    """
    settings = connect()
    from flows.following import following
    from flows.handover import handing_over
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    with waiting("asking the registry"), handing_over(place):
        followed = following(place)
        done = place.versions.rollback(place.task.name)
        _record(place, "rollback", "rolled back", done)
    click.echo(f"{place.task.name}: version {done.version} is the champion again (instead of {done.previous})")
    click.echo(f"  a second roll-back leads back to {done.previous}; any other version: everfit promote {task} VERSION")
    _tell_following(place, followed)


@click.command()
@click.argument("task")
@click.option("--refuse", is_flag=True, help="Let the challenger go instead.")
def approve(task: str, refuse: bool) -> None:
    """Promote the proved challenger that waits for you.

    With `mode: approve` in TASK's file, what the gate proves is promoted by a person. A flow run that waits in
    Prefect's UI goes on.

    \b
    Example:
      everfit approve flights
      everfit approve flights --refuse
    """
    settings = connect()
    from flows.approval import answer, pending, release
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    asked = pending(place)
    done = answer(place, promote=not refuse, at=place.now(), by="by hand")
    if asked is not None:
        release(asked, promote=not refuse)
    said = "was let go" if refuse else f"is the champion (previous: {done.details['champion']})"
    click.echo(f"{place.task.name}: version {done.version} {said}")


def _tell_following(place: Workplace, before: Following | None) -> None:
    """Say that a person has ended the following, from when on it may begin again by itself, and how it is asked for."""
    from flows.following import following
    from flows.handover import chosen
    from flows.wishes import FIRST, looked_for

    if following(place) is not None:
        return
    if before is not None:
        click.echo(f"  this ends the following of version {before.anchor} (by version {before.newest}): no more steps")
    act, how = chosen(place), f"everfit improve {place.task.name} --remedies follow"
    said = f"following, which learns from labels as they come, can be asked for: {how}"
    if act is not None and looked_for(place.task):
        said = (
            f"by itself it is tried, once {FIRST} windows that end after {act.at:%Y-%m-%d %H:%M} are over, whether "
            f"following (learning from labels as they come) pays; at once: {how}"
        )
    elif before is None:
        return
    click.echo(f"  {said}")


def _record(place: Workplace, kind: str, outcome: str, done: Promotion) -> None:
    """Write in the ledger what a person did to the aliases: policies count their warm-up from it."""
    from flows.handover import BY_HAND
    from flows.rollout import write

    write(place, kind, outcome, done.version, (BY_HAND,), place.now(), {"previous": done.previous})


@click.command()
@click.argument("task")
@click.option("--as-of", type=MOMENT, help=f"Use only what was known at this moment (UTC); {UNASKED}.")
@click.option("--reason", default="asked for by hand", show_default=True, help="Why, for the ledger.")
@click.option(
    "--remedies",
    default="research",
    show_default=True,
    help="What to try until one is promoted: recalibrate, follow, fine_tune, research, search.",
)
def improve(task: str, as_of: datetime | None, reason: str, remedies: str) -> None:
    """Make a better model, prove it, promote it.

    All remedies but a (cold) search start from what TASK's champion knows. A challenger is promoted only if it is
    better than the champion on fresh rows that neither has seen. Where that cannot be done now, with too few labels,
    say, it is refused, and the exit code is 3.

    \b
    Example:
      everfit improve flights --reason "new aircraft" --remedies fine_tune,research
    """
    from registry.decisions import Remedy, parse_remedies

    wanted = parse_remedies(remedies)  # first: a word that is wrong is told before what takes seconds to load
    settings = connect()
    from flows.workplace import find_task

    spec = find_task(settings, task)
    name = spec.name
    if set(wanted) == {Remedy.FOLLOW}:
        from flows.following import following
        from flows.workplace import Workplace

        if following(Workplace.open(settings, spec)) is not None:
            raise StateError("the champion follows already")
    with waiting("loading the libraries"):
        from flows.improve import improve as flow
        from flows.progress import listening
        from flows.stages import perform
        from flows.terminal import ProgressLine
    with ProgressLine() as shown, listening(shown):
        done = perform(flow, name, as_of=as_of, reason=reason, remedies=remedies)
    click.echo(outcome_line(task, done))
    for line in tried_lines(done):
        click.echo(f"  {line}")
    if done["outcome"] == "refused":
        sys.exit(StateError.exit_code)


def outcome_line(task: str, done: Mapping[str, Any]) -> str:
    """How an improvement ended: the outcome, the remedy and the version that it is of, and what a person is asked to
    say; of one that ended before, that it did."""
    from flows.rollout import ASKED

    if done.get("already"):
        return f"{task}: {done['already']}"
    asked = f"; a person decides: everfit approve {task}" if done["outcome"] == ASKED else ""
    made = f"version {done['version']}" if done["version"] else "no version was made"
    return f"{task}: {done['outcome']} ({done['by'] or 'no remedy'}, {made}){asked}"


def tried_lines(done: Mapping[str, Any]) -> Iterator[str]:
    """What became of each remedy that was tried, and why; of one alone, or none, the reasons."""
    if len(done["tried"]) < 2:
        yield from done["reasons"]
        return
    for one in done["tried"]:
        version = f", version {one['version']}" if one["version"] else ""
        yield f"{one['remedy']}{version}: {one['outcome']}"
        yield from (f"  {reason}" for reason in one["reasons"])
