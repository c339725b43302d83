"""What is told of a task's state, and when: told once, worse at once, over after quiet windows, the same one again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from monitor.alerts import (
    Judged,
    News,
    failure,
    from_entry,
    judged,
    message_id,
    news,
    pending,
    to_entry,
)
from registry.database import open_engine
from registry.decisions import Severity
from registry.deliveries import ALERT, SENT
from registry.ledger import Entry, Ledger
from registry.task import Alerts

START, DAY = datetime(2024, 1, 1), timedelta(days=1)
SPEC = Alerts(cooldown="1d", reopen_within="3d", remind=None)  # type: ignore[arg-type]
LEVELS: tuple[Severity, ...] = ("ok", "shifted", "faulty", "degraded")


def after(spec: Alerts, days: Sequence[Severity], *, every: timedelta = DAY) -> list[News]:
    """All news of a watch that judges one window a day, each a day long, of these severities."""
    told: list[News] = []
    windows: list[Judged] = []
    for number, severity in enumerate(days):
        end = START + number * every
        windows.append(Judged(end=end, severity=severity, reasons=(f"window {number}",), version="1"))
        if found := news("flights", spec, told, windows, end):
            told.append(found)
    return told


def seen(told: Sequence[News]) -> list[tuple[int, str, str, bool]]:
    return [((one.alert.at - START).days, one.alert.state, one.alert.severity, one.told) for one in told]


def test_a_state_that_goes_on_is_told_once() -> None:
    told = after(SPEC, ["ok", *["degraded"] * 30])  # type: ignore[list-item]
    assert seen(told) == [(1, "opened", "degraded", True)]
    (only,) = told
    assert only.alert.key == "flights-20240102T000000"
    assert only.alert.title == "flights: performance is degraded"
    assert (only.alert.reasons, only.alert.version) == (("window 1",), "1")


def test_shift_is_kept_in_the_ledger_and_told_only_on_demand() -> None:
    assert after(SPEC, ["shifted"] * 5) == []
    told = after(SPEC.model_copy(update={"least": "shifted"}), ["shifted"] * 5)
    assert seen(told) == [(0, "opened", "shifted", True)]
    assert after(SPEC.model_copy(update={"least": "degraded"}), ["faulty"] * 5) == []


def test_what_gets_worse_is_told_at_once() -> None:
    hourly = after(
        Alerts(least="shifted"), ["shifted", "faulty", "degraded", "faulty", "degraded"], every=timedelta(hours=1)
    )
    assert [(one.alert.state, one.alert.severity, one.told) for one in hourly] == [
        ("opened", "shifted", True),
        ("escalated", "faulty", True),
        ("escalated", "degraded", True),
    ]
    assert len({one.alert.key for one in hourly}) == 1


def test_an_end_needs_quiet_windows_in_a_row() -> None:
    flapping: list[Severity] = ["faulty", "ok", "faulty", "shifted", "faulty", "ok"]
    assert seen(after(SPEC, flapping)) == [(0, "opened", "faulty", True)]
    told = after(SPEC, [*flapping, "shifted", "ok"])
    assert seen(told)[1:] == [(6, "resolved", "faulty", True)]
    assert told[-1].alert.title == "flights, over: the data are broken"


def test_passes_without_a_new_window_are_no_quiet_windows() -> None:
    told = after(SPEC, ["faulty"])
    quiet = [Judged(end=START, severity="faulty", reasons=()), Judged(end=START + DAY, severity="ok", reasons=())]
    for minute in range(5):
        assert news("flights", SPEC, told, quiet, START + DAY + timedelta(minutes=minute)) is None


def test_a_level_falls_after_as_many_windows_and_is_not_told() -> None:
    told = after(SPEC, ["degraded", "faulty", "faulty", "faulty", "ok", "ok"])
    assert seen(told) == [
        (0, "opened", "degraded", True),
        (2, "ongoing", "faulty", False),
        (5, "resolved", "faulty", True),
    ]
    again = after(SPEC, ["degraded", "faulty", "faulty", "degraded"])
    assert seen(again)[2:] == [(3, "ongoing", "degraded", False)]  # they know: degraded was told last


def test_soon_after_its_end_the_same_alert_goes_on() -> None:
    told = after(SPEC, ["faulty", "ok", "ok", "ok", "ok", "faulty", "ok", "ok", *["ok"] * 3, "degraded"])  # type: ignore[list-item]
    assert seen(told) == [
        (0, "opened", "faulty", True),
        (2, "resolved", "faulty", True),
        (5, "reopened", "faulty", True),
        (7, "resolved", "faulty", True),
        (11, "opened", "degraded", True),
    ]
    assert [one.alert.reopened for one in told] == [0, 0, 1, 1, 0]
    assert len({one.alert.key for one in told[:4]}) == 1
    assert told[4].alert.key != told[0].alert.key
    assert told[2].alert.opened_at == START


def test_what_falls_into_the_cooldown_is_told_later_if_it_is_still_on() -> None:
    spec = Alerts(cooldown="1w", reopen_within="3d", remind=None)  # type: ignore[arg-type]
    days: list[Severity] = ["faulty", "ok", "ok", "faulty"]
    told = after(spec, [*days, *["faulty"] * 6])  # type: ignore[list-item]
    assert seen(told)[2:] == [(3, "reopened", "faulty", False), (7, "reopened", "faulty", True)]
    assert [one.alert.reopened for one in told[2:]] == [1, 1]
    over = after(spec, [*days, "ok", "ok"])
    assert seen(over)[2:] == [(3, "reopened", "faulty", False), (5, "resolved", "faulty", False)]
    worse = after(spec, [*days, "degraded"])
    assert seen(worse)[3:] == [(4, "escalated", "degraded", True)]


def test_reminders_come_on_noisy_windows_only() -> None:
    spec = SPEC.model_copy(update={"remind": 3 * DAY})
    told = after(spec, [*["faulty"] * 6, "ok", "faulty", "faulty"])  # type: ignore[list-item]
    assert seen(told) == [
        (0, "opened", "faulty", True),
        (3, "ongoing", "faulty", True),
        (7, "ongoing", "faulty", True),
    ]


def test_the_past_judged_again_tells_nothing() -> None:
    told = after(SPEC, ["ok", "faulty"])
    windows = [Judged(end=START, severity="degraded", reasons=())]
    assert news("flights", SPEC, told, windows, START) is None
    assert news("flights", SPEC, [], [], START) is None


SPECS = st.builds(
    Alerts,
    least=st.sampled_from(LEVELS[1:]),
    cooldown=st.integers(1, 9).map(lambda days: days * DAY),
    resolve_after=st.integers(1, 4),
    reopen_within=st.integers(1, 9).map(lambda days: days * DAY),
    remind=st.none() | st.integers(1, 9).map(lambda days: days * DAY),
)
DAYS = st.lists(st.sampled_from(LEVELS), max_size=40)


@given(SPECS, DAYS)
def test_a_severity_is_told_once_within_the_cooldown(spec: Alerts, days: list[Severity]) -> None:
    told = [one.alert for one in after(spec, days) if one.told and one.alert.is_open]
    for number, later in enumerate(told):
        if later.state != "escalated":
            same = [one for one in told[:number] if one.severity == later.severity]
            assert all(later.at - one.at >= spec.cooldown for one in same)


@given(SPECS, DAYS)
def test_the_receiver_is_never_left_in_a_wrong_belief(spec: Alerts, days: list[Severity]) -> None:
    """Beginnings and ends alternate; the worst severity was told; what is over was told to be over."""
    news_of = after(spec, days)
    told = [one.alert for one in news_of if one.told]
    for before, one in zip([None, *told], told, strict=False):
        is_open = before is not None and before.is_open
        assert is_open or one.state in ("opened", "reopened", "escalated")
        if is_open:
            assert one.state not in ("opened", "reopened")
            assert before is not None
            assert one.key == before.key
    if news_of and not news_of[-1].alert.is_open and told:
        assert not told[-1].is_open
    quiet = [LEVELS.index(day) < LEVELS.index(spec.least) for day in days]
    assert bool(news_of) == (not all(quiet))


@given(SPECS, DAYS)
def test_the_ledger_alone_holds_the_state(spec: Alerts, days: list[Severity]) -> None:
    told = after(spec, days)
    assert [from_entry(to_entry("flights", one, ["a"])) for one in told] == told


def decision(number: int, severity: Severity, *, at: datetime | None = None, window: bool = True) -> Entry:
    end = START + number * DAY
    place = {"index": number, "start": (end - DAY).isoformat(), "end": end.isoformat(), "rows": 10}
    details = {"seen": number, "window": place if window else None}
    return Entry(task="flights", kind="decision", at=at or end, version="1", severity=severity, details=details)


def test_the_newest_decision_on_a_window_counts() -> None:
    late = decision(1, "degraded", at=START + 2 * DAY)
    entries = [decision(0, "ok", window=False), decision(1, "ok"), decision(2, "shifted"), late]
    assert [one.severity for one in judged(entries, START + 2 * DAY)] == ["degraded", "shifted"]
    assert [one.severity for one in judged(entries, START + DAY)] == ["ok"]


@pytest.mark.parametrize(
    ("then", "now", "severity"),
    [
        (0, 40, "degraded"),  # an estimate said so, and two fifths of the labels are few
        (0, 50, "ok"),
        (30, 50, "degraded"),  # not twice as many
        (30, 60, "ok"),
        (70, 99, "degraded"),
        (70, 100, "ok"),
        (100, 100, "degraded"),  # labels of another window came
    ],
)
def test_a_window_looked_at_again_ends_an_alert_only_with_clearly_more_labels(
    then: int, now: int, severity: str
) -> None:
    entries = [
        one.model_copy(update={"details": one.details | {"answered": {"rows": 100, "labels": labels}}})
        for one, labels in [(decision(1, "degraded"), then), (decision(1, "ok", at=START + 2 * DAY), now)]
    ]
    windows = judged(entries, START + 2 * DAY)
    assert [one.severity for one in windows] == [severity]
    spec = SPEC.model_copy(update={"resolve_after": 1})
    told = [news("flights", spec, [], judged(entries, START + DAY), START + DAY)]
    assert told[0] is not None
    later = news("flights", spec, [one for one in told if one], windows, START + 2 * DAY)
    assert (None if later is None else later.alert.state) == ("resolved" if severity == "ok" else None)
    newer = judged([*entries, decision(2, "ok")], START + 2 * DAY)
    assert [one.severity for one in newer] == [severity, "ok"]  # it ends with the window after


def test_another_version_on_the_same_window_counts() -> None:
    other = decision(1, "ok", at=START + 2 * DAY).model_copy(update={"version": "2"})
    assert [one.severity for one in judged([decision(1, "degraded"), other], START + 2 * DAY)] == ["ok"]


@pytest.fixture
def engine(tmp_path: object) -> Engine:
    return open_engine(f"sqlite:///{tmp_path}/everfit.db")


def test_between_writing_and_sending_a_message_is_pending(engine: Engine) -> None:
    ledger = Ledger(engine, "flights")
    told = after(SPEC, ["faulty", "ok", "ok"])
    for one in told:
        ledger.write(to_entry("flights", one, ["mail://", "https://b"]))
    alerts = ledger.read(kinds={ALERT})
    for name in ("mail://", "https://b"):
        assert pending(alerts, [], name) == alerts
    assert pending(alerts, [], "https://new") == []
    assert len({message_id(one) for one in alerts}) == 2

    def sent(of: Entry, outcome: str, *why: str) -> None:
        details = {"of": of.id, "channel": "mail://"}
        ledger.write(Entry(task="flights", kind=SENT, at=START, outcome=outcome, reasons=why, details=details))

    sent(alerts[0], "failed", "answered 503")
    assert pending(alerts, ledger.read(kinds={SENT}), "mail://") == alerts
    assert failure(ledger.read(kinds={SENT}), alerts[0], "mail://") == "answered 503"
    sent(alerts[0], "sent")
    assert pending(alerts, ledger.read(kinds={SENT}), "mail://") == alerts[1:]
    assert failure(ledger.read(kinds={SENT}), alerts[0], "mail://") is None
    assert pending(alerts, ledger.read(kinds={SENT}), "https://b") == alerts
    engine.dispose()


def test_what_is_not_told_is_pending_nowhere() -> None:
    spec = Alerts(cooldown="1w", remind=None)  # type: ignore[arg-type]
    *_, silent = after(spec, ["faulty", "ok", "ok", "faulty"])
    assert not silent.told
    assert pending([to_entry("flights", silent, ["mail://"])], [], "mail://") == []
