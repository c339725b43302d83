"""What Prometheus reads: requests, batches, versions, and what monitoring found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.deliveries import ARRIVED, FAILED
from registry.ledger import Entry, Ledger
from serving.catalogue import METRICS
from serving.monitored import MOST_COLUMNS, MOST_SEGMENTS, WINDOWS, Findings, Monitored
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for
from tests.serving.observed import WEEK, delivered, metrics_of, notify, watch_weeks

TASK = 'task="handmade"'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, ModelBundle]) -> Path:
    folder = tmp_path_factory.mktemp("home")
    watch_weeks(folder, bundles["good"])
    return folder


@pytest.fixture(scope="module")
def versions(bundles: dict[str, ModelBundle]) -> FakeVersions:
    found = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    found.champion = "1"
    return found


@pytest.fixture(scope="module")
def client(home: Path, versions: FakeVersions) -> Iterator[httpx.Client]:
    with endpoint(home, versions, ledger_seconds=0.1, max_body_bytes=10_000) as one:
        wait_for(lambda: f"everfit_window_rows{{{TASK}}}" in metrics_of(one))
        yield one


def test_all_that_is_described_is_shown(client: httpx.Client) -> None:
    assert client.post("/predict", json=ROW).status_code == 200
    shown = {key.partition("{")[0] for key in metrics_of(client)}
    plain = {name for name in METRICS if METRICS[name].kind(name) != "histogram"}
    assert plain <= shown
    assert {f"{name}_{part}" for name in METRICS.keys() - plain for part in ("bucket", "sum", "count")} <= shown


def test_names_are_as_prometheus_wants_them() -> None:
    for name, described in METRICS.items():
        assert name.startswith("everfit_")
        assert (described.kind(name) == "counter") == name.endswith("_total")
        assert not name.endswith(("_ms", "_milliseconds", "_percent", "_mb"))


def test_requests_are_counted_by_route_and_status(client: httpx.Client) -> None:
    def counted() -> dict[tuple[str, int], float]:
        found = metrics_of(client)
        name = 'everfit_requests_total{{route="{}",status="{}",' + TASK + "}}"
        return {key: found.get(name.format(*key), 0.0) for key in asked}

    asked = {
        ("/predict", 200): {"json": ROW},
        ("/predict", 422): {"json": {**ROW, "amount": "much"}},
        ("/predict", 413): {"content": b" " * 10_001},
        ("/invocations", 200): {"json": {"dataframe_records": [ROW]}},
        ("/invocations", 400): {"content": b"{"},
        ("/feedback", 200): {"json": {"id": "nobody", "label": "yes"}},
        ("/v2/infer", 400): {"content": b"{"},
    }
    before = counted()
    timed = metrics_of(client)[f'everfit_request_duration_seconds_count{{route="/invocations",{TASK}}}']
    for (route, status), body in asked.items():
        path = "/v2/models/handmade/infer" if route == "/v2/infer" else route
        assert client.post(path, **body).status_code == status
    assert {key: number - before[key] for key, number in counted().items()} == dict.fromkeys(asked, 1)
    now = metrics_of(client)
    assert now[f'everfit_request_duration_seconds_count{{route="/invocations",{TASK}}}'] == timed + 1
    assert now[f'everfit_feedback_total{{outcome="unknown",{TASK}}}'] >= 1


def test_rows_that_share_a_call_are_seen_in_the_batches(client: httpx.Client) -> None:
    def calls(le: str = "+Inf") -> float:
        return metrics_of(client)[f'everfit_batch_rows_bucket{{le="{le}",{TASK}}}']

    rows, before, single = metrics_of(client)[f"everfit_batch_rows_sum{{{TASK}}}"], calls(), calls("1.0")
    assert client.post("/predict", json=ROW).status_code == 200
    assert (calls(), calls("1.0")) == (before + 1, single + 1)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: client.post("/predict", json=ROW), range(80)):
            assert answer.status_code == 200
    found = metrics_of(client)
    assert found[f"everfit_batch_rows_sum{{{TASK}}}"] == rows + 81
    assert calls() <= before + 81
    assert found[f"everfit_batch_graph_seconds_total{{{TASK}}}"] > 0
    assert found[f"everfit_requests_in_progress{{{TASK}}}"] == 0


def test_a_swap_changes_the_version_that_is_told(client: httpx.Client, versions: FakeVersions) -> None:
    def role(version: str, name: str) -> bool:
        labels = f'metric="auc",problem="binary",role="{name}",{TASK},version="{version}"'
        return metrics_of(client).get(f"everfit_model_info{{{labels}}}") == 1

    assert role("1", "champion")
    swaps = metrics_of(client)[f"everfit_swaps_total{{{TASK}}}"]
    versions.champion = "2"
    wait_for(lambda: role("2", "champion"))
    found = metrics_of(client)
    assert role("1", "previous")
    assert found[f"everfit_swaps_total{{{TASK}}}"] == swaps + 1
    assert abs(found[f"everfit_model_served_timestamp_seconds{{{TASK}}}"] - time.time()) < 60
    versions.champion = "1"
    wait_for(lambda: role("1", "champion"))


def test_what_monitoring_found_is_told(client: httpx.Client, home: Path) -> None:
    """The newest window has moved and has no labels; performance is that of the one before, which has."""
    found = metrics_of(client)
    newest = datetime.fromisoformat("2024-03-18T00:00:00+00:00").timestamp()
    assert found[f"everfit_window_end_timestamp_seconds{{{TASK}}}"] == newest
    assert found[f"everfit_window_rows{{{TASK}}}"] == WEEK
    assert found[f"everfit_window_labelled_rows{{{TASK}}}"] == 0
    assert found[f'everfit_window_column_shift{{column="amount",{TASK}}}'] > 0.3
    assert found[f'everfit_window_column_shift{{column="weight",{TASK}}}'] < 0.1
    assert found[f"everfit_window_shifted_columns{{{TASK}}}"] == 1
    assert found[f"everfit_window_columns{{{TASK}}}"] == 4
    labels = f'metric="auc",{TASK},version="1"'
    assert found[f"everfit_performance{{{labels}}}"] == pytest.approx(
        found[f"everfit_performance_reference{{{labels}}}"], abs=0.05
    )
    assert 0.5 < found[f"everfit_performance_estimated{{{labels}}}"] < 1
    assert 0 < found[f"everfit_window_calibration_error{{{TASK}}}"] < 0.2
    assert 0 < found[f"everfit_window_calibration_error_expected{{{TASK}}}"] < 0.1
    assert 0 < found[f"everfit_window_out_of_distribution{{{TASK}}}"] < 1
    states = {one: found[f'everfit_severity{{severity="{one}",{TASK}}}'] for one in ("ok", "shifted", "degraded")}
    assert sum(states.values()) == 1
    assert found[f"everfit_window_age_seconds{{{TASK}}}"] < 600
    assert found[f"everfit_pass_age_seconds{{{TASK}}}"] < 600
    assert found[f"everfit_monitoring_age_seconds{{{TASK}}}"] < 30


def test_where_no_window_is_over_there_is_no_severity() -> None:
    entry = Entry(task="handmade", kind="decision", at=datetime(2024, 3, 20), severity="ok", details={"window": None})
    found = Findings()
    found.take([entry])
    assert "everfit_severity" not in {name for name, *_ in found.told()["samples"]}
    found.take([entry.model_copy(update={"at": datetime(2024, 1, 3), "details": {"window": {"index": 0}}})])
    assert "everfit_severity" in {name for name, *_ in found.told()["samples"]}


def test_what_is_new_in_the_ledger_is_told(client: httpx.Client, home: Path) -> None:
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    entry = Entry(task="handmade", kind="decision", at=datetime(2024, 3, 20), severity="degraded", outcome="research")
    older = entry.model_copy(update={"at": datetime(2024, 1, 3), "severity": "faulty"})
    Ledger(engine, "handmade").write(entry)
    wait_for(lambda: metrics_of(client)[f'everfit_severity{{severity="degraded",{TASK}}}'] == 1)
    replayed = Ledger(engine, "handmade").write(older).written
    engine.dispose()
    assert replayed is not None
    at = replayed.replace(tzinfo=UTC).timestamp()
    wait_for(lambda: metrics_of(client)[f"everfit_decision_timestamp_seconds{{{TASK}}}"] == pytest.approx(at, abs=1e-3))
    assert metrics_of(client)[f'everfit_severity{{severity="degraded",{TASK}}}'] == 1
    assert metrics_of(client)[f'everfit_severity{{severity="ok",{TASK}}}'] == 0


def test_channels_of_alerts_are_told_as_they_were_last_heard_of(client: httpx.Client, home: Path) -> None:
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    ledger = Ledger(engine, "handmade")

    def up() -> list[float | None]:
        found, name = metrics_of(client), "everfit_alert_channel_up"
        return [found.get(f'{name}{{channel="{one}",{TASK}}}') for one in ("https://hooks.example", "mailto://")]

    assert up() == [1, None]
    of = notify(ledger, "https://hooks.example", "mailto://")
    delivered(ledger, of, "https://hooks.example", FAILED)
    delivered(ledger, of, "mailto://", ARRIVED)
    wait_for(lambda: up() == [0, 1])
    delivered(ledger, of, "https://hooks.example", ARRIVED)
    wait_for(lambda: up() == [1, 1])
    notify(ledger, "mailto://")
    wait_for(lambda: up() == [None, 1])
    notify(ledger, "https://hooks.example")
    wait_for(lambda: up() == [1, None])
    engine.dispose()


def test_a_store_that_is_away_leaves_the_last_values(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Scrapes go on; the values grow old, and are told anew when it is back."""
    watch_weeks(tmp_path, bundles["good"], third=False)
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    store, away = tmp_path / "everfit.db", tmp_path / "moved.db"
    with endpoint(tmp_path / "home", versions, ledger_seconds=0.1, store_url=f"sqlite:///{store}") as client:
        wait_for(lambda: metrics_of(client).get(f"everfit_window_rows{{{TASK}}}") == WEEK)
        engine = open_engine(f"sqlite:///{store}")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE ledger RENAME TO {away.stem}")
        wait_for(lambda: metrics_of(client)[f"everfit_monitoring_up{{{TASK}}}"] == 0)
        age = metrics_of(client)[f"everfit_monitoring_age_seconds{{{TASK}}}"]
        wait_for(lambda: metrics_of(client)[f"everfit_monitoring_age_seconds{{{TASK}}}"] > age + 0.3)
        assert metrics_of(client)[f"everfit_window_rows{{{TASK}}}"] == WEEK
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {away.stem} RENAME TO ledger")
        wait_for(lambda: metrics_of(client)[f"everfit_monitoring_up{{{TASK}}}"] == 1)
        engine.dispose()


def test_what_is_remembered_is_bounded() -> None:
    measured = [{"name": "shift", "subject": f"c{number}", "value": number / 1000} for number in range(300)]
    found = Findings()
    for day in range(1, 31):
        details = {"window": {"rows": 1}, "metric": "auc", "measurements": measured}
        at = datetime(2024, 1, day)
        found.take([Entry(id=day, task="t", kind="window", at=at, written=at, version="1", details=details)])
    assert len(found.windows) == WINDOWS
    told = orjson.dumps(found.told())
    assert len(told) < 20_000
    monitored = Monitored("t")
    monitored.hear(orjson.loads(told))
    shown = [one for one in monitored.samples() if one.name == "everfit_window_column_shift"]
    assert [one.labels for one in shown[:2]] == [("c299",), ("c298",)]
    assert len(shown) == MOST_COLUMNS


def test_what_the_guard_refuses_is_counted(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions, api_key="s3cret", max_concurrent=1) as client:
        for _ in range(3):
            assert client.post("/predict", json=ROW).status_code == 401
        client.headers["authorization"] = "Bearer s3cret"
        found = metrics_of(client)
        assert found['everfit_refused_requests_total{reason="no key"}'] == 3
        assert found['everfit_refused_requests_total{reason="crowding"}'] == 0
        assert (found["everfit_server_requests_limit{}"], found["everfit_server_requests_in_progress{}"]) == (1, 1)


def test_segments_are_told_by_name_so_many_at_most() -> None:
    """Those that are watched; not the slice that was found, which is another one each window."""
    names = [f"carrier=c{number}" for number in range(30)]
    measured = [
        {"name": "performance", "value": 0.7, "rows": 900},
        {"name": "slice_performance", "subject": "hour > 9", "value": 0.5},
        *({"name": "segment_share", "subject": one, "value": 0.01} for one in (*names, "hour > 9")),
        *({"name": "segment_coverage", "subject": one, "value": 0.8} for one in (*names, "hour > 9")),
        {"name": "segment_performance", "subject": names[0], "note": "auc is undefined"},
    ]
    found, at = Findings(), datetime(2024, 1, 1)
    details = {"window": {"rows": 900}, "metric": "auc", "measurements": measured}
    found.take([Entry(id=1, task="t", kind="window", at=at, written=at, version="1", details=details)])
    told = [(name, labels) for name, _, labels in found.told()["samples"] if name.startswith("everfit_segment")]
    shown = [(one,) for one in names[:MOST_SEGMENTS]]
    wanted = [(f"everfit_segment_{what}", one) for what in ("share", "coverage") for one in shown]
    assert told == wanted
