"""A procedure is proven, takes over, goes on window by window, and ends where it should; nothing is done twice."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import retrain.cadence
import retrain.following
import retrain.race
from flows.approval import answer, ask, pending
from flows.cli import main
from flows.following import (
    CONTINUED,
    FEW,
    KIND,
    MANY,
    MISSED,
    STOPPED,
    SUDDEN,
    Following,
    _verdict,
    following,
    keep_following,
    no_step,
    stepped,
)
from flows.handover import newest_act
from flows.improve import complete
from flows.offline import Offline
from flows.outgrown import KEPT, thin_out
from flows.overview import task_lines
from flows.retracing import RECENT, ends_of
from flows.rollout import ASKED
from flows.second_look import _act as act_on
from flows.second_look import look_again
from flows.watch import observe
from flows.workplace import Workplace, open_versions, register_task
from monitor.measurements import Window, WindowRecord
from monitor.upkeep import upkeep
from registry.bundle import ModelBundle
from registry.decisions import Check, Outcome, Remedy, Verdict
from registry.errors import BundleError, InputError, NoModelError, RegistryError
from registry.ledger import Entry
from registry.settings import Settings
from registry.versions import Versions
from retrain.following import Followed
from retrain.learners import PACES
from retrain.paired import Interval
from retrain.race import RACE, Standing, keys_of
from tests.flows.conftest import settings_in
from tests.flows.snapshots import once
from tests.handmade import make_frame

DAY, BEGIN = 144, datetime(2024, 1, 15)
pytestmark = pytest.mark.parametrize("champion", ["binary"], indirect=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Path:
    """One for all tests here: each begins with a state that is put back."""
    folder = tmp_path_factory.mktemp("following") / "home"
    folder.mkdir()
    shutil.copy(empty_registry, folder / "mlflow.db")
    return folder


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of that home."""
    return settings_in(home, monkeypatch)


@pytest.fixture
def place(settings: Settings, champion: ModelBundle) -> Workplace:
    """January's champion, on a real registry."""
    source = settings.folder.with_name("source.parquet")
    make_frame(2_000, seed=1).to_parquet(source)
    task = champion.manifest.task.model_validate(
        {
            **champion.manifest.task.model_dump(),
            "source": {"kind": "file", "path": str(source)},
            "monitor": {"windows": {"kind": "time", "every": "1d"}, "report": "never", "yardstick_rows": 0},
            "gate": {"min_rows": 100, "latency_ratio": 100, "coverage_tolerance": 1.0, "calibration_tolerance": 1.0},
        }
    )

    def publish() -> None:
        register_task(settings, task)
        versions = open_versions(settings)
        version = versions.publish(champion)
        versions.promote(task.name, version)
        entry = Entry(task=task.name, kind="promotion", at=BEGIN, version=version, outcome="promoted")
        Workplace.open(settings, task).ledger.write(entry)

    once(settings.folder, "published", publish)
    return Workplace.open(settings, task)


@pytest.fixture(autouse=True)
def each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step at the end of each, whatever the last ones were worth."""
    monkeypatch.setattr(retrain.cadence, "WAITS", (1,))


def live(
    place: Workplace, *days: int, flip: float = 1.0, watched: bool = False, late: timedelta = timedelta(hours=12)
) -> datetime:
    """Days since `BEGIN`: the champion answers, labels come half a day late; the end of the last one."""
    server = Offline(place)
    for day in days:
        frame = make_frame(DAY, seed=100 + day, start=str(BEGIN + timedelta(days=day)), flip=flip)
        ids = [f"{day}-{row}" for row in range(DAY)]
        rows = frame.drop(columns="late").assign(when=frame["when"].astype(str)).to_dict("records")
        rows = [{name: None if value != value else value for name, value in one.items()} for one in rows]
        server.post("/predict", {"rows": rows, "ids": ids})
        told = zip(ids, frame["late"], [(moment + late).isoformat() for moment in frame["when"]], strict=True)
        labels = [{"id": name, "label": label, "time": time} for name, label, time in told]
        server.post("/feedback", {"labels": labels})
        start, end = BEGIN + timedelta(days=day), BEGIN + timedelta(days=day + 1)
        if not watched:
            window = Window(index=day, start=start, end=end, rows=DAY)
            record = WindowRecord(window=window, version="1", metric=place.task.metric, measurements=())
            details = record.model_dump(mode="json")
            place.ledger.write(Entry(task="handmade", kind="window", at=end, version="1", details=details))
    return BEGIN + timedelta(days=days[-1] + 1)


def prove(place: Workplace) -> datetime:
    """Five days of a world that is reversed, and the rung."""

    def proof() -> None:
        moment = live(place, *range(5))
        assert complete(place, moment, remedies=(Remedy.FOLLOW,)).outcome == "promote"

    once(place.settings.folder, "proven", proof)
    return BEGIN + timedelta(days=5)


def champion_of(place: Workplace) -> str | None:
    return place.versions.get("handmade", "champion")


def steps(place: Workplace) -> list[Entry]:
    return place.ledger.read(kinds={KIND})


def test_a_proven_procedure_takes_over_window_by_window(place: Workplace) -> None:
    moment = prove(place)
    now = following(place)
    assert now is not None
    assert (now.anchor, now.versions, champion_of(place)) == ("1", ("2",), "2")
    (gate,) = place.ledger.read(kinds={"gate"})
    assert gate.details["remedy"] == "follow"
    assert keep_following(place, moment) is None
    assert not steps(place)  # no label has come since
    for day in (5, 6):
        moment = live(place, day)
        assert not stepped(place, moment)
        assert keep_following(place, moment) is None
        assert stepped(place, moment)
        assert keep_following(place, moment) is None
    assert champion_of(place) == "4"
    assert [(one.version, one.outcome, one.details["anchor"]) for one in steps(place)] == [
        ("3", CONTINUED, "1"),
        ("4", CONTINUED, "1"),
    ]
    paid = upkeep(place.ledger, ("2", "3", "4"), moment)
    assert paid.cpu == pytest.approx(sum(one.details["cpu"] for one in steps(place)) / 2)
    assert paid.gain == gate.details["verdict"]["checks"][0]["value"]
    alone = upkeep(place.ledger, ("1",), moment)
    assert (alone.cpu, alone.gain) == (0.0, None)
    assert alone.since < paid.since <= moment
    few = Check(name="rows", passed=False, detail="only 40 fresh labelled rows", value=40.0)
    held = Verdict(outcome=Outcome.HOLD, reasons=(few.detail,), checks=(few,)).model_dump(mode="json")
    place.ledger.write(gate.model_copy(update={"id": None, "version": "9", "details": {"verdict": held}}))
    assert upkeep(place.ledger, ("9",), moment).gain is None  # a person promoted it, and nobody knows its gain
    newest = place.versions.fetch("handmade", "4").manifest.lineage
    assert newest.known_until == moment - timedelta(hours=12)
    assert newest.parent_version == "3"
    place.versions.set("handmade", "champion", "3")  # as if a kill had come before the alias moved
    moment = live(place, 7)
    keep_following(place, moment)
    assert champion_of(place) == "5"
    assert keep_following(place.__class__(**{**vars(place), "task": observed(place)}), live(place, 8)) is None
    assert len(steps(place)) == 3


def test_a_step_waits_until_it_is_worth_it(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many windows as the last ones say; at the end of each while the champion is judged to be worse."""
    moment = prove(place)
    assert keep_following(place, moment + timedelta(hours=6)) is None  # labels have come, but no window is over
    assert not steps(place)
    monkeypatch.setattr(retrain.race, "waits", lambda bundle: 3)
    for day in (5, 6, 7):
        moment = live(place, day)
        keep_following(place, moment)
    (step,) = steps(place)
    assert (step.at, step.details["windows"], champion_of(place)) == (moment, 3, "3")
    assert any(line.endswith("learns again after 3 windows while all is ok") for line in task_lines(place))
    record = Standing.of(place.versions.fetch("handmade", "3")).record
    assert set(keys_of(f"{day}-{row}" for day in (5, 6, 7) for row in range(DAY))) <= set(record.keys)
    assert place.versions.fetch("handmade", "3").manifest.lineage.known_until == moment - timedelta(hours=12)
    place.ledger.write(Entry(task="handmade", kind="decision", at=moment, severity="degraded", outcome="none"))
    keep_following(place, live(place, 8))
    assert [one.details["windows"] for one in steps(place)] == [3, 1]


def test_rows_that_come_later_than_their_window_ends_have_their_steps(place: Workplace) -> None:
    """Two windows later: a pass knows of a window only when it is long over."""
    late = timedelta(days=2)
    moment = live(place, *range(5), late=late) + late
    assert complete(place, moment, remedies=(Remedy.FOLLOW,)).outcome == "promote"
    for day in (5, 6):
        moment = live(place, day, late=late) + late
        keep_following(place, moment)
        assert keep_following(place, moment + timedelta(hours=1)) is None
    assert [one.details["windows"] for one in steps(place)] == [1, 1]


def test_a_pass_after_a_window_has_ended_learns_as_one_at_its_end(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`everfit up` makes one every five minutes; that is no window of its own. And a window that was measured often, as
    its labels came, hides none of the others."""
    real, taken = retrain.following.follow, list[list[int]]()

    def watched(asked: Any, taught: Any, **more: Any) -> Followed:
        taken.append(np.bincount(taught[-1].ago).tolist())
        return real(asked, taught, **more)

    moment = prove(place)
    (window,) = place.ledger.read(kinds={"window"}, last=1)
    for _ in range(5 * RECENT):
        place.ledger.write(window.model_copy(update={"id": None, "written": None}))
    assert len(ends_of(place, BEGIN, moment + timedelta(hours=1))) == 7
    monkeypatch.setattr(retrain.following, "follow", watched)
    keep_following(place, live(place, 5) + timedelta(minutes=5))
    assert taken == [[DAY] * 5]


def test_what_serves_is_a_race_that_goes_on(place: Workplace) -> None:
    """Each version brings all learners and what they have answered; the labels that come tell who leads."""
    prove(place)
    first = Standing.of(place.versions.fetch("handmade", "2"))
    assert first.paces == PACES
    pending = ~np.isfinite(first.record.labels)
    assert 0 < pending.sum() <= DAY // 2  # the newest half day, whose labels have not come
    for day in (5, 6):
        keep_following(place, live(place, day))
    third = Standing.of(place.versions.fetch("handmade", "4"))
    known = third.record.labels[: len(first.record.keys)]
    assert np.array_equal(third.record.keys[: len(first.record.keys)], first.record.keys)
    assert np.isfinite(known[pending]).all()
    assert len(third.record.keys) == len(first.record.keys) + 2 * DAY  # each row once
    values = [
        (one.argmax(axis=1) == third.record.labels)[np.isfinite(third.record.labels)] for one in third.record.scores
    ]
    gone = place.versions.manifest("handmade", "3")
    assert RACE in gone.files
    assert all(value.mean() > 0.5 for value in values)


def observed(place: Workplace) -> object:
    return place.task.model_copy(update={"mode": "observe"})


def test_nothing_is_proven_by_who_has_learnt_nothing(place: Workplace) -> None:
    """Labels come three days late: whoever answered the rows that have theirs was the champion itself."""
    ended = complete(place, live(place, *range(5), late=timedelta(days=3)), remedies=(Remedy.FOLLOW,))
    assert ended.outcome == "refused"
    assert "nothing is proven yet" in ended.reasons[0]


def test_a_remedy_that_a_champion_that_follows_cannot_have_is_refused(place: Workplace) -> None:
    """By hand and alone, before anything is begun: exit code 3, and nothing is written."""
    prove(place)
    before = place.ledger.read()
    done = CliRunner().invoke(main, ["improve", "handmade", "--remedies", "follow"])
    assert (done.exit_code, done.stderr) == (3, "everfit: the champion follows already\n")
    assert place.ledger.read() == before
    assert champion_of(place) == "2"


def test_rivals_of_a_champion_that_follows_are_judged_as_it_is(place: Workplace) -> None:
    prove(place)
    moment = live(place, 5)
    keep_following(place, moment)
    moment = live(place, 6)
    ended = complete(place, moment, remedies=(Remedy.FOLLOW, Remedy.RECALIBRATE))
    follow, rival = place.ledger.read(kinds={"remedy"})[-2:]
    assert (follow.outcome, follow.reasons) == ("refused", ("the champion follows already",))
    assert rival.details["follows"]["anchor"] is None
    gate = place.ledger.read(kinds={"gate"})[-1]
    served = place.log.frame(end=moment, labels_by=moment, labelled_only=True, columns=[])
    known = datetime.fromisoformat(rival.details["follows"]["judged"])
    mine = served["__version__"].isin(["2", "3"]) & (served["__time__"] > known)
    assert 0 < gate.details["rows"] <= mine.sum()
    assert ended.outcome in ("promote", "hold", "reject")
    if ended.outcome == "promote":
        now = following(place)
        assert now is not None
        assert now.anchor == ended.version


def test_no_rival_is_made_that_could_not_be_judged(place: Workplace) -> None:
    """The champion has taken over this very moment: the rows that have their label were answered by its anchor."""
    moment = prove(place) + timedelta(hours=1)
    ended = complete(place, moment, remedies=(Remedy.RESEARCH,))
    assert (ended.outcome, ended.reasons[0][:46]) == ("refused", "research: nothing that the champion has answer")
    (made,) = [one for one in place.ledger.read(kinds={"remedy"}) if one.details["remedy"] == "research"]
    assert (made.version, made.outcome) == (None, "refused")


def test_it_ends_where_it_does_not_pay(place: Workplace) -> None:
    moment = prove(place)
    steps_end = Entry(task="handmade", kind=KIND, at=moment, version="2", outcome=STOPPED, reasons=("worse",))
    place.ledger.write(steps_end)  # as if a kill had come before the alias moved
    found = keep_following(place, moment)
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"], champion_of(place)) == ("rollback", "2", "1", "1")
    (undone,) = place.ledger.read(kinds={"rollback"})
    assert (undone.version, undone.details["previous"], undone.reasons) == ("1", "2", ("worse",))
    assert following(place) is None
    assert keep_following(place, live(place, 5)) is None


@pytest.mark.parametrize(
    ("gain", "windows", "stops"),
    [
        (Interval(-0.02, -0.03, -0.01), FEW, True),
        (Interval(-0.01, -0.03, 0.01), MANY - 1, False),
        (Interval(-0.01, -0.03, 0.01), MANY, True),
        (Interval(0.01, -0.01, 0.03), MANY, False),
        (None, FEW - 1, False),
    ],
)
def test_when_it_stops(gain: Interval | None, windows: int, stops: bool, champion: ModelBundle) -> None:
    now = Following("1", BEGIN, ("2",), BEGIN)
    assert _verdict(now, gain, windows)[0] is stops
    stopped, reason = _verdict(now, gain, windows, Interval(-0.2, -0.3, -0.1))
    assert stopped
    assert f"newest {SUDDEN} windows against version 1: gain -0.2000" in reason
    assert _verdict(now, gain, windows, Interval(-0.2, -0.5, 0.1))[0] is stops


def test_how_many_windows_with_labels_it_takes_is_said(champion: ModelBundle) -> None:
    told = [_verdict(Following("1", BEGIN, ("2",), BEGIN), None, windows)[1] for windows in (1, FEW)]
    lead = (
        "it learns on: that this pays was proven before its promotion, and is judged again by 8 windows with labels or"
    )
    assert told == [f"{lead} more; 1 so far", f"{lead} more; these 8 do not tell yet"]


def test_it_ends_at_once_where_the_world_turns_round(place: Workplace) -> None:
    prove(place)
    found, day = None, 5
    while found is None and day < 5 + FEW:
        moment = live(place, day, day + 1, flip=0.0)
        found, day = keep_following(place, moment), day + 2
    assert found is not None
    assert (found["outcome"], champion_of(place)) == ("rollback", "1")
    assert day < 5 + FEW


def test_nothing_is_learnt_of_broken_data(place: Workplace) -> None:
    prove(place)
    moment = live(place, 5)
    window = {"index": 5, "start": str(moment - timedelta(days=1)), "end": str(moment), "rows": DAY}
    broken = Entry(task="handmade", kind="decision", at=moment, severity="faulty", outcome="alert")
    place.ledger.write(broken.model_copy(update={"details": {"window": window}}))
    before = {**window, "start": str(moment - timedelta(days=2)), "end": str(moment - timedelta(days=1))}
    for _ in range(5 * RECENT):  # its labels come, one after another
        place.ledger.write(broken.model_copy(update={"severity": "ok", "details": {"window": before}}))
    keep_following(place, moment)
    known = place.versions.fetch("handmade", str(champion_of(place))).manifest.lineage.known_until
    assert known is not None
    assert known < moment - timedelta(days=1)


def test_why_there_was_no_step_is_told_once_a_window(place: Workplace) -> None:
    """Somebody has taken the time column out of the task's file, and puts it back."""
    prove(place)
    timeless = place.__class__(**{**vars(place), "task": place.task.model_copy(update={"time": None})})
    moment = live(place, 5)
    (*_, window) = place.ledger.read(kinds={"window"})
    for _ in range(2):
        assert keep_following(timeless, moment) is None
        place.ledger.write(window.model_copy(update={"id": None, "written": None}))  # measured again, with more labels
    (missed,) = place.ledger.read(kinds={MISSED})
    assert (missed.at, missed.version, champion_of(place)) == (moment, "2", "2")
    assert no_step(place, moment) == "without times nobody can tell which labels are new"
    assert not stepped(place, moment)
    assert f"    last step not taken ({moment:%Y-%m-%d %H:%M}): {missed.reasons[0]}" in task_lines(place)
    moment = live(place, 6)
    assert keep_following(place, moment) is None
    assert (champion_of(place), no_step(place, moment)) == ("3", "")
    assert "not taken" not in "\n".join(task_lines(place))


def test_a_reason_with_other_numbers_is_no_other_reason(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(place)
    moment = live(place, 5)
    for why in ("only 7 rows with labels", "only 12 rows with labels", "one class alone"):

        def refused(*_: object, why: str = why) -> None:
            raise InputError(why)

        monkeypatch.setattr("flows.following._kept_up", refused)
        assert keep_following(place, moment) is None
    told = [entry.reasons[0] for entry in place.ledger.read(kinds={MISSED})]
    assert told == ["only 7 rows with labels", "one class alone"]


def test_a_step_that_cannot_be_sealed_is_not_tried_at_each_pass(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its window only when labels have come that may make another of it."""
    prove(place)
    moment, tried = live(place, 5), list[bool]()

    def refuse(*_: object, **__: object) -> ModelBundle:
        tried.append(True)
        raise BundleError("graph and torch differ")

    with monkeypatch.context() as patch:
        patch.setattr(Followed, "seal", refuse)
        for _ in range(3):
            assert keep_following(place, moment) is None
        (missed,) = place.ledger.read(kinds={MISSED})
        assert (missed.details["labels"], len(tried)) == (DAY, 1)
        late = moment + timedelta(hours=11)
        assert keep_following(place, late) is None
        assert len(tried) == 2
        assert keep_following(place, late) is None
        assert len(tried) == 2
    assert keep_following(place, live(place, 6)) is None
    assert champion_of(place) == "3"


def test_a_person_who_ends_it_is_told_so(place: Workplace) -> None:
    prove(place)
    keep_following(place, live(place, 5))
    done = CliRunner().invoke(main, ["rollback", "handmade"])
    assert done.exit_code == 0, done.output
    assert following(place) is None
    assert "  this ends the following of version 1 (by version 3): no more steps\n" in done.output
    assert "everfit improve handmade --remedies follow" in done.output
    again = CliRunner().invoke(main, ["promote", "handmade", "1"])
    assert "this ends the following" not in again.output


def test_whoever_intervenes_by_hand_ends_it(place: Workplace) -> None:
    moment = prove(place)
    place.versions.rollback("handmade")
    place.ledger.write(Entry(task="handmade", kind="rollback", at=moment, version="1", outcome="rolled back"))
    assert following(place) is None
    assert keep_following(place, live(place, 5)) is None
    assert champion_of(place) == "1"


def test_a_person_approves_the_procedure(place: Workplace) -> None:
    place = place.__class__(**{**vars(place), "task": place.task.model_copy(update={"mode": "approve"})})
    moment = live(place, *range(5))
    assert complete(place, moment, remedies=(Remedy.FOLLOW,)).outcome == ASKED
    assert following(place) is None
    answer(place, promote=True, at=moment, by="me")
    keep_following(place, live(place, 5))
    assert champion_of(place) == "3"


def test_a_question_stays_while_the_champion_follows(place: Workplace) -> None:
    moment = prove(place)
    asking = place.__class__(**{**vars(place), "task": place.task.model_copy(update={"mode": "approve"})})
    rival = place.versions.publish(place.versions.fetch("handmade", "1"))
    place.versions.set("handmade", "challenger", rival)
    ask(asking, rival, "2", ("better",), moment)
    keep_following(asking, live(asking, 5))
    assert champion_of(place) != "2"
    assert pending(asking) is not None
    answer(asking, promote=True, at=moment, by="me")
    assert champion_of(place) == rival
    assert following(asking) is None


def test_versions_of_a_chain_have_a_bounded_life(place: Workplace) -> None:
    prove(place)
    for day in range(5, 5 + KEPT + 2):
        keep_following(place, live(place, day))
    made = [one.version for one in place.versions.list("handmade")]
    assert made == [str(1 + number) for number in range(KEPT + 4)]  # the anchor, the first, and each step's
    gone = made[2:-KEPT]
    assert gone
    for version in made:
        assert place.versions.manifest("handmade", version).lineage.known_until is not None
        if version in gone:
            with pytest.raises(NoModelError, match="were let go"):
                place.versions.fetch("handmade", version)
        else:
            place.versions.fetch("handmade", version)


def test_a_step_that_was_killed_before_the_ledger_knew_of_it_is_made_again_and_its_files_go(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove(place)
    publish, first = Versions.publish, following(place)
    assert first is not None

    def die(*given: Any, **more: Any) -> str:
        publish(*given, **more)
        raise KeyboardInterrupt

    moment = live(place, 5)
    with monkeypatch.context() as patched:
        patched.setattr(Versions, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            keep_following(place, moment)
    assert (champion_of(place), len(place.versions.list("handmade"))) == ("2", 3)
    keep_following(place, moment)
    now = following(place)
    assert now is not None
    assert now.versions == ("2", "4")
    with pytest.raises(NoModelError, match="were let go"):
        place.versions.fetch("handmade", "3")
    for version in ("1", "2", "4"):
        place.versions.fetch("handmade", version)


def test_a_registry_that_deletes_nothing_stops_no_step(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Versions, task: str, version: str) -> None:
        raise RegistryError("nothing is deleted here")

    monkeypatch.setattr(Versions, "thin", refuse)
    thin_out(place, [str(number) for number in range(1, KEPT + 5)])


def test_what_was_held_is_proven_later(place: Workplace) -> None:
    moment = live(place, 0, 1, flip=0.0)
    assert complete(place, moment, remedies=(Remedy.FOLLOW,)).outcome == "hold"
    moment = live(place, *range(2, 11))
    look = look_again(place, moment)
    assert look is not None
    assert (look["outcome"], champion_of(place)) == ("promote", "2")
    keep_following(place, moment)
    assert champion_of(place) == "3"  # it learns at once what has come since it was made


def hold_rival(place: Workplace, champion: str, at: datetime) -> None:
    """What an improvement leaves behind whose challenger, here as good as the champion, was held."""
    rival = place.versions.publish(place.versions.fetch("handmade", champion))
    place.versions.set("handmade", "challenger", rival)
    follows = {"anchor": None, "begun": BEGIN.isoformat(), "judged": at.isoformat()}
    made = Entry(task="handmade", kind="remedy", at=at, version=rival, outcome="registered")
    place.ledger.write(made.model_copy(update={"details": {"remedy": "fine_tune", "follows": follows}}))
    judged = Entry(task="handmade", kind="gate", at=at, version=rival, outcome="hold", details={"rows": DAY})
    place.ledger.write(judged)
    told = Entry(task="handmade", kind="improvement", at=at, version=rival, outcome="hold")
    place.ledger.write(told.model_copy(update={"details": {"champion": champion}}))


def test_a_held_rival_is_judged_again_after_the_champion_has_gone_on(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the race that would go on were it promoted."""
    real, standings = retrain.following.follow, list[Standing | None]()

    def watched(*given: Any, **more: Any) -> Followed:
        standings.append(more["standing"])
        return real(*given, **more)

    monkeypatch.setattr(retrain.following, "follow", watched)
    assert complete(place, live(place, *range(5)), remedies=(Remedy.FOLLOW,)).outcome == "promote"
    keep_following(place, live(place, 5))
    hold_rival(place, "3", moment := live(place, 6))
    keep_following(place, moment)
    assert look_again(place, moment) is None  # no label has come since
    moment = live(place, *range(7, 10))
    keep_following(place, moment)
    look = look_again(place, moment)
    assert look is not None
    assert standings[0] is None  # the rung's proof
    assert [one.paces for one in standings[1:] if one] == [PACES] * (len(standings) - 1)
    assert (look["version"], look["champion"]) == ("4", "6")
    (entry,) = place.ledger.read(kinds={"second_look"})
    known = place.versions.fetch("handmade", "4").manifest.lineage.known_until
    served = place.log.frame(start=known, end=moment, labels_by=moment, labelled_only=True, columns=[])
    assert 0 < entry.details["rows"] <= served["__version__"].isin(["2", "3", "5"]).sum()
    better = Verdict(outcome=Outcome.PROMOTE, reasons=("better",), checks=())
    act_on(place, "4", "6", better, moment, newest_act(place))
    now = following(place)
    assert now is not None
    assert (now.anchor, now.versions) == ("4", ("4",))
    keep_following(place, moment)
    assert champion_of(place) == "7"  # it goes on with all labels since it was made


def test_where_nothing_is_done_a_champion_that_followed_is_tried_at_its_dates(place: Workplace) -> None:
    prove(place)
    policy = {"kind": "performance", "refresh": 2}
    seen = []
    for mode in ("auto", "observe"):
        task = place.task.model_validate({**place.task.model_dump(), "policy": policy, "mode": mode})
        mine = place.__class__(**{**vars(place), "task": task})
        start = 5 + 3 * len(seen)
        seen.append(observe(mine, live(mine, start, start + 1, start + 2, watched=True)).decision.remedy)
    assert seen[0] is Remedy.NONE
    assert seen[1] in (Remedy.RECALIBRATE, Remedy.FOLLOW, Remedy.FINE_TUNE)


def test_windows_of_a_champion_that_follows_are_judged_with_their_labels(place: Workplace) -> None:
    prove(place)
    for day in (5, 6, 7):
        moment = live(place, day, watched=True)
        observe(place, moment)
        keep_following(place, moment)
    records = [WindowRecord.model_validate(one.details) for one in place.ledger.read(kinds={"window"})[5:]]
    complete_ones = {one.window.index: one for one in records if one.performance and one.performance.rows == DAY}
    assert [complete_ones[index].version for index in (5, 6)] == ["2", "3"]
    assert np.isfinite([one.performance.value for one in complete_ones.values()]).all()  # type: ignore[union-attr]
