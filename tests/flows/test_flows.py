"""The flows as Prefect runs them: names, retries, artifacts; and as plain functions."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker

from flows import stages
from flows.alerting import alert
from flows.lifecycle import lifecycle
from flows.overview import task_lines
from flows.progress import Reporter, line, listening, reported
from flows.stages import in_run, perform, stage
from flows.turns import replaying
from flows.watch import watch
from flows.workplace import Workplace
from registry.errors import BusyError, DataError, NoModelError, RegistryError
from retrain.search.progress import Progress
from tests.flows.conftest import fill
from tests.flows.test_alerting import decide
from tests.handmade import make_frame

HALF = Progress("search", 3, 6, 0.71234, "auc", 12.4)


@pytest.fixture
def watched(place: Workplace, tmp_path: Path) -> Workplace:
    """Ten days of predictions with labels, in weekly windows: two are over."""
    fill(place.log, make_frame(1440, seed=3, start="2024-03-02"), tmp_path / "bundle")
    return place


def test_watch_as_a_plain_function(watched: Workplace) -> None:
    found = watch.fn("handmade")
    assert (found["severity"], found["remedy"], found["windows"]) == ("ok", "none", 2)
    assert [entry.kind for entry in watched.ledger.read()] == ["window", "window", "decision", "radius"]
    assert watch.fn("handmade")["windows"] == 0


def test_a_pass_over_the_newest_rows_tells_when_it_ended(watched: Workplace) -> None:
    """A pass with nothing new too, and one that leaves the task to a replay; not one as of a moment, nor one that
    fails."""
    watch.fn("handmade", as_of=datetime(2024, 3, 9))
    assert watched.ledger.last_pass() is None
    assert not any("watched last" in line for line in task_lines(watched))
    watch.fn("handmade")
    first = watched.ledger.last_pass()
    assert first is not None
    assert task_lines(watched)[-1] == f"  watched last at {first:%Y-%m-%d %H:%M} UTC"
    watch.fn("handmade")
    second = watched.ledger.last_pass()
    assert second is not None
    assert second > first
    lifecycle.fn("handmade")
    third = watched.ledger.last_pass()
    assert third is not None
    assert third > second
    watched.versions.unset("handmade", "champion")
    with pytest.raises(NoModelError):
        watch.fn("handmade")
    assert watched.ledger.last_pass() == third


def test_a_pass_lets_rows_go_that_are_older_than_they_are_kept(
    watched: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the newest row, whatever the clock says; what was measured of them stays."""
    watch.fn("handmade")
    fill(watched.log, make_frame(144, seed=4, start="2024-03-20"), tmp_path / "bundle")
    monkeypatch.setenv("EVERFIT_LOG_DAYS", "30")
    watch.fn("handmade")
    assert watched.log.number() == 1_440 + 144
    monkeypatch.setenv("EVERFIT_LOG_DAYS", "5")
    watch.fn("handmade")
    assert watched.log.number() == 144
    assert len(watched.ledger.moments("window", until=datetime(2024, 4, 1), last=9)) >= 2


def test_rows_that_no_pass_has_measured_yet_stay(
    watched: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass as of an older time lets none go of later than it; nor does one whose window is longer than rows are kept,
    before that is over."""
    fill(watched.log, make_frame(144, seed=4, start="2024-05-20"), tmp_path / "bundle")
    monkeypatch.setenv("EVERFIT_LOG_DAYS", "2")
    assert watch.fn("handmade", as_of=datetime(2024, 3, 10))["windows"] == 1
    assert watched.log.number() == 1_440 - 2 * 144 + 144  # 2 and 3 March, the only window that was over
    assert watch.fn("handmade", as_of=datetime(2024, 3, 11))["windows"] == 1
    assert watched.ledger.read(kinds={"window"})[-1].details["window"]["rows"] == 7 * 144


def test_watch_without_a_champion(place: Workplace) -> None:
    place.versions.unset("handmade", "champion")
    with pytest.raises(NoModelError, match="no champion to watch"):
        watch.fn("handmade", as_of=datetime(2024, 3, 9))


def test_without_a_server_a_flow_is_a_plain_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    @flow
    def where() -> bool:
        return in_run()

    assert perform(where) is False


@pytest.mark.usefixtures("prefect_server")
def test_watch_as_a_flow_leaves_its_artifacts(watched: Workplace) -> None:
    found = watch("handmade")
    assert found["windows"] == 2
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["watch handmade"])))
        ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = {one.key: one.type for one in client.read_artifacts(artifact_filter=ours)}
    assert run.parameters == {"task": "handmade", "as_of": None, "repair": True, "until": None}
    assert artifacts == {"handmade-measurements": "table", "handmade-decision": "markdown"}


@pytest.mark.usefixtures("prefect_server")
def test_a_scheduled_pass_leaves_a_task_alone_that_a_replay_judges(
    watched: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes again by itself; whoever asks by hand is refused, and a moment that is named is judged."""
    with replaying(watched):
        with pytest.raises(BusyError, match="a replay judges task handmade"):
            watch.fn("handmade")
        with pytest.raises(BusyError, match="a replay judges task handmade"):
            lifecycle.fn("handmade")
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid.uuid4()))
        found = watch("handmade")
        assert (found["severity"], found["windows"]) == ("", 0)
        assert "a replay judges task handmade" in found["reasons"][0]
        assert not watched.ledger.read()
        assert watch.fn("handmade", as_of=datetime(2024, 3, 16))["windows"] == 2


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("error", "attempts"), [(RegistryError, 3), (DataError, 1)])
def test_only_what_fails_outside_is_tried_again(
    error: type[Exception], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "RETRY_DELAYS", (0.01, 0.01))
    calls = []

    @stage
    def fragile() -> None:
        calls.append(1)
        raise error("no")

    @flow
    def one_stage() -> None:
        fragile()

    with pytest.raises(error):
        one_stage()
    assert len(calls) == attempts
    with pytest.raises(error):
        fragile()
    assert len(calls) == attempts + 1


def test_progress_is_one_line() -> None:
    assert line(HALF) == "search, 3/6, best auc 0.7123, 12 s left"
    assert line(Progress("export", 0, None, None, "auc", 0.0, "one graph")) == "export: one graph"
    assert line(Progress("export", 0, None, None, "auc", 4.2, "one graph")) == "export: one graph, 4 s left"


def test_progress_goes_to_the_listener_or_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        Reporter("search")(HALF)
    assert heard == [HALF]
    with caplog.at_level(logging.INFO, "everfit"):
        report = Reporter("search")
        for left in (12.4, 11.9, 11.4):
            report(Progress("search", 3, 6, 0.71234, "auc", left))
    assert caplog.messages == [line(HALF)]


@pytest.mark.usefixtures("prefect_server")
def test_progress_fills_an_artifact(make_place: Callable[..., Workplace]) -> None:
    @flow
    def searching() -> None:
        with reported("some-search") as report:
            report(HALF)

    searching()
    with get_client(sync_client=True) as client:
        (found,) = [one for one in client.read_artifacts() if one.key == "some-search"]
    assert found.data == 100.0


@pytest.mark.usefixtures("prefect_server")
def test_prefect_hears_of_it_inside_a_flow_run(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    at = decide(place, 0, "degraded")

    @flow
    def one_pass() -> None:
        alert(place, at)
        alert(place, at)

    AssertingEventsClient.reset()
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)
    one_pass()
    worker.drain()
    (event,) = [one for one in AssertingEventsClient.all[-1].events if one.event == "everfit.alert"]
    AssertingEventsClient.reset()
    assert event.resource.id == "everfit.task.handmade"
    assert {name: event.payload[name] for name in ("severity", "state", "title", "reasons")} == {
        "severity": "degraded",
        "state": "opened",
        "title": "handmade: performance is degraded",
        "reasons": ["auc 0.61 <on> 500 labels"],
    }
    (sent,) = place.ledger.read(kinds={"alert_sent"})
    assert (sent.outcome, sent.details["channel"]) == ("sent", "prefect")
