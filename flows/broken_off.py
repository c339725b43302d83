"""An improvement whose process has gone without ending it: killed, out of memory, or by a fault.

The next improvement completes it (`intents.py`), which may end in the same way, or never be asked for. So a pass that
finds one writes it down (`broken_off`), which is told as a failure: once a day until there is an end. Whether somebody
is still at work, the task's lock says, which the system gives back with the process.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from flows.intents import Intent, Intents
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.database import utc_now
from registry.errors import BusyError
from registry.ledger import Entry
from registry.locks import exclusive

KIND, BROKEN = "broken_off", "broken off"
AGAIN = timedelta(days=1)
"""After so long (wall clock) it is told again."""


@stage
def note_broken_off(place: Workplace, as_of: datetime) -> None:
    """Write down that an improvement was broken off, where one was; `as_of` is the pass's moment. Raises `StoreError`.

    What is open is asked for under the lock: who is at work holds it from before the beginning until after the end.
    """
    intents = Intents(place.ledger, place.task.name)
    if intents.open("improve") is None:
        return
    try:
        with exclusive(place.lock, "looking for a broken-off improvement"):
            intent = intents.open("improve")
            if intent is not None and _is_new(intents.stage(intent, KIND)):
                _write(place, intents, intent, as_of)
    except BusyError:
        return


def broken_off(place: Workplace) -> Entry | None:
    """The newest entry about the improvement that is open, whether or not somebody completes it by now."""
    intents = Intents(place.ledger, place.task.name)
    intent = intents.open("improve")
    return None if intent is None else intents.stage(intent, KIND)


def _is_new(before: Entry | None) -> bool:
    return before is None or before.written is None or utc_now() - before.written >= AGAIN


def _write(place: Workplace, intents: Intents, intent: Intent, as_of: datetime) -> None:
    said = f"as of {intent.at:%Y-%m-%d %H:%M}, it ended without a result: killed, out of memory, or by a fault"
    remedies = intent.details.get("remedies", [])
    done = [one for one in remedies if intents.stage(intent, "remedy", remedy=one) is not None]
    said += f"; of {', '.join(remedies)} done by then: {', '.join(done) or 'none'}" * bool(remedies)
    say(f"an improvement was broken off: {said}")
    version = intent.details.get("champion")
    intents.write(intent, KIND, at=as_of, version=version, outcome=BROKEN, reasons=(said,))
