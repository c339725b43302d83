"""Where a person decides (`mode: approve`): a challenger that the gate would promote waits for a yes or a no.

It comes by `everfit approve`, or in Prefect's UI: the flow run that proved the challenger is suspended there, and is
resumed with an answer. Whichever comes first counts. The ledger holds the question and the answer (`approval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import httpx
from pydantic import BaseModel

from flows.following import following
from flows.publishing import alias_of
from flows.rollout import ASKED, roll_out, write
from flows.services import prefect_api
from flows.stages import deployed, run_id, say
from flows.workplace import Workplace
from registry.errors import StateError
from registry.ledger import Entry

KIND = "approval"
APPROVED, REFUSED = "approved", "refused"

PATIENCE_SECONDS = 14 * 86_400
"""How long a flow run waits in Prefect's UI. The question itself does not end."""


class Answer(BaseModel):
    """What a person says in Prefect's UI."""

    promote: bool = True


def ask(place: Workplace, version: str, champion: str, reasons: Sequence[str], at: datetime) -> None:
    """Put the question, unless it stands already."""
    waits = pending(place)
    if waits is not None and waits.version == version:
        return
    write(place, KIND, ASKED, version, reasons, at, {"champion": champion, "run": run_id()})
    say(f"version {version} is proved, and waits for a person: everfit approve {place.task.name}")


def pending(place: Workplace) -> Entry | None:
    """The question that waits for an answer; none when champion or challenger are others by now. A champion that
    follows is the same one after its steps."""
    asked = place.ledger.read(kinds={KIND}, last=1)
    if not asked or asked[-1].outcome != ASKED:
        return None
    one = asked[-1]
    if alias_of(place, "challenger") != one.version:
        return None
    champion, asked_of = alias_of(place, "champion"), one.details["champion"]
    if champion == asked_of:
        return one
    now = following(place)
    return one if now is not None and {champion, asked_of} <= set(now.versions) else None


def answer(place: Workplace, *, promote: bool, at: datetime, by: str) -> Entry:
    """Promote the challenger that waits, or let it go; the entry of the answer. Raises `StateError` when none waits."""
    asked = pending(place)
    if asked is None:
        raise StateError(f"task {place.task.name!r} has no challenger that waits for an approval")
    name, version = place.task.name, str(asked.version)
    if not promote:
        place.versions.unset(name, "challenger")
        return write(place, KIND, REFUSED, version, (by,), at, asked.details)
    former = alias_of(place, "champion") or asked.details["champion"]
    roll_out(place, version, former, (by, *asked.reasons), at)
    return write(place, KIND, APPROVED, version, (by,), at, asked.details)


def await_answer(place: Workplace, at: datetime) -> None:
    """Inside a deployment's flow run: suspend it until somebody answers in Prefect's UI, and do what was said. Called
    again when the run is resumed."""
    if not deployed() or (asked := pending(place)) is None:
        return
    from prefect.flow_runs import suspend_flow_run

    said = suspend_flow_run(wait_for_input=Answer, timeout=PATIENCE_SECONDS, key=f"approve-{asked.version}")
    if pending(place) is not None:
        answer(place, promote=said.promote, at=at, by="answered in Prefect's UI")


def release(asked: Entry, *, promote: bool) -> None:
    """Let the flow run that waits for this answer go on, where one does and Prefect is there."""
    run = asked.details.get("run")
    if run is None or prefect_api() is None:
        return
    from prefect.exceptions import PrefectException
    from prefect.flow_runs import resume_flow_run

    try:
        resume_flow_run(UUID(run), run_input={"promote": promote})
    except (PrefectException, httpx.HTTPError) as error:  # the answer is given all the same
        say(f"the flow run {run} could not be resumed: {error}")
