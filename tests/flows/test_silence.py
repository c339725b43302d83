"""Silence: told once where rows or labels stay away for longer than ever lately, and once more when they are back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from click.testing import CliRunner

from flows.alerting import alert
from flows.cli import main
from flows.overview import task_lines
from flows.silence import KIND, note_silence
from flows.watch import forget, watch
from flows.workplace import Workplace
from registry.database import to_micros, utc_now
from registry.inference_log import Feedback
from registry.ledger import Entry
from registry.log_batch import Batch
from tests.flows.test_alerting import Receiver, told_to

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAG = 30 * HOUR
"""Rows are sent so long after they happened."""


@pytest.fixture
def now() -> datetime:
    return utc_now()


def send(
    place: Workplace,
    moments: Sequence[datetime],
    *,
    labels: Sequence[datetime] = (),
    lag: timedelta = LAG,
    astray: bool = False,
) -> None:
    """Predictions that arrive at these moments, five at a time, and labels of the first of them at others."""
    for number, moment in enumerate(moments):
        ids = [f"{to_micros(moment)}-{one}" for one in range(5)]
        times = [to_micros(moment - lag)] * 4 + [0 if astray else to_micros(moment - lag)]
        received = [to_micros(moment)] * 5
        many = {"predictions": ["no"] * 5, "scores": [[0.9, 0.1]] * 5, "conformal": [[0]] * 5}
        sure = {"uncertainty": [0.1] * 5, "disagreement": [0.0] * 5}
        rows = Batch("1", "champion", ids, times, received, [{"x": 1}] * 5, **many, **sure)  # type: ignore[arg-type]
        place.log.append_batches([rows])
        if number < len(labels):
            place.log.add_feedback([Feedback(ids[0], "no", labels[number], labels[number])])


def every(step: timedelta, first: datetime, last: datetime) -> list[datetime]:
    return [first + number * step for number in range((last - first) // step + 1)]


def said(place: Workplace) -> list[tuple[str, str | None]]:
    return [(one.details["of"], one.outcome) for one in place.ledger.read(kinds={KIND})]


def test_rows_that_stay_away_are_told_once_and_once_when_they_are_back(place: Workplace, now: datetime) -> None:
    with Receiver() as receiver:
        told = told_to(place, f"http://127.0.0.1:{receiver.port}/")
        sent = every(6 * HOUR, now - 24 * DAY, now - 2 * DAY)
        send(told, sent)
        for _ in range(3):
            note_silence(told, now)
            alert(told, now)
        assert said(told) == [("predictions", "silent")]
        send(told, [utc_now()])
        for _ in range(2):
            note_silence(told, now)
            alert(told, now)
    began, ended = receiver.messages
    assert (began["title"], began["state"]) == ("handmade: no predictions arrive any more", "silence")
    assert began["reasons"] == [
        f"the last arrived at {sent[-1]:%Y-%m-%d %H:%M} UTC, 2.0 days ago; "
        "the longest pause in the weeks before was of 6 hours"
    ]
    assert (began["version"], began["next"]) == ("1", "everfit status handmade")
    assert (ended["title"], ended["state"]) == ("handmade: predictions arrive again", "resolved")
    assert ended["key"] == began["key"]
    assert said(told) == [("predictions", "silent"), ("predictions", "resolved")]


def test_labels_are_looked_at_apart(place: Workplace, now: datetime) -> None:
    rows = every(6 * HOUR, now - 24 * DAY, now - HOUR)
    send(place, rows, labels=[one + HOUR for one in rows if one < now - 3 * DAY])
    note_silence(place, now)
    assert said(place) == [("labels", "silent")]


@pytest.mark.parametrize("away", [timedelta(days=3, hours=12), timedelta(hours=20)], ids=["weekend", "night"])
def test_a_usual_pause_is_none(place: Workplace, now: datetime, away: timedelta) -> None:
    """Rows come by day, five days a week: nights and weekends were there before."""
    until = now - away
    days = [one for one in every(DAY, until - 25 * DAY, until) if (until - one).days % 7 < 5]
    assert max(after - before for before, after in pairwise(days)) == 3 * DAY
    send(place, [one + hour * HOUR for one in days for hour in (-8, -4, 0)])
    note_silence(place, now)
    assert said(place) == []


@pytest.mark.parametrize("ahead", [3 * DAY, 60 * DAY])
def test_rows_of_the_future_arrive_too(place: Workplace, now: datetime, ahead: timedelta) -> None:
    """What is predicted days ahead has arrived when it was sent, not when it happens."""
    send(place, every(6 * HOUR, now - 24 * DAY, now - HOUR), lag=-ahead)
    note_silence(place, now)
    assert said(place) == []


def test_rows_arrive_with_one_of_1970_among_them(place: Workplace, now: datetime) -> None:
    """A batch is not left out for the clock of one of its rows."""
    sent = every(6 * HOUR, now - 24 * DAY, now - HOUR)
    send(place, [one for one in sent if one < now - 5 * DAY])
    send(place, [one for one in sent if one >= now - 5 * DAY], astray=True)
    note_silence(place, now)
    assert said(place) == []


@pytest.mark.parametrize("begin", [10 * DAY, 400 * DAY], ids=["a short history", "rows of another year"])
def test_without_a_history_nothing_is_said(place: Workplace, now: datetime, begin: timedelta) -> None:
    send(place, every(6 * HOUR, now - begin, now - begin + 7 * DAY))
    note_silence(place, now)
    assert said(place) == []


def test_a_scheduled_pass_looks_and_one_of_the_past_does_not(place: Workplace, now: datetime) -> None:
    assert "EVERFIT_ALERT_URLS" not in os.environ
    send(place, every(6 * HOUR, now - 24 * DAY, now - 2 * DAY))
    watch.fn("handmade", as_of=now, repair=False)
    assert said(place) == []
    watch.fn("handmade", repair=False)
    assert said(place) == [("predictions", "silent")]


@pytest.mark.parametrize(("days", "watched"), [(7, False), (14, False), (15, True), (None, True)])
def test_a_log_that_is_kept_too_shortly_is_said_to_watch_no_silence(
    place: Workplace, now: datetime, days: int | None, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it does not: what is kept of weeks of rows, as a pass keeps it, shows no silence."""
    changed = place.settings.model_copy(update={"log_days": days})
    kept = replace(place, settings=changed)
    last = now - 5 * DAY
    send(kept, every(HOUR, now - 26 * DAY, last), lag=timedelta())
    seen = last + timedelta(minutes=1)
    place.ledger.write(Entry(task="handmade", kind="window", at=seen))
    forget(kept, seen)
    note_silence(kept, now)
    assert said(kept) == ([("predictions", "silent")] if watched else [])
    words = f"EVERFIT_LOG_DAYS={days}: nobody is told when predictions or labels stay away"
    assert any(line.strip().startswith(words) for line in task_lines(kept)) != watched
    monkeypatch.setenv("EVERFIT_LOG_DAYS", str(days or ""))
    done = CliRunner().invoke(main, ["up", "nothing"])
    assert (f"warning: {words}" in done.output) != watched
