"""The services as real processes on ports of their own: started, found again, stopped, and told from strangers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.approval import ask
from flows.endpoints import endpoint_lines
from flows.processes import Desk, Service, require_free
from flows.services import (
    NAMES,
    child_environment,
    connected,
    down,
    everfit_environment,
    running,
    services,
    up,
)
from flows.traffic import Endpoint
from flows.workplace import Workplace, register_task
from registry.errors import BusyError, InputError, OutsideError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.settings import Settings
from serving.keys import add_key
from serving.presence import present, secret_for, served_by, workers_folder
from serving.tls import trusted
from tests.certificates import make_certificate
from tests.flows.conftest import fill
from tests.handmade import make_bundle, make_frame

LOCAL = ("status", "endpoint")


@pytest.fixture
def stopped(settings: Settings) -> Iterator[Settings]:
    """Whatever a test starts is gone when it ends."""
    yield settings
    Desk(settings.folder).stop(*NAMES, grace=5.0)


@pytest.fixture
def secured(stopped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With a certificate of nobody's authority, for another address than the one that the services use."""
    cert, key = make_certificate(tmp_path / "tls", "192.0.2.1")
    made = stopped.model_copy(update={"tls_cert": cert, "tls_key": key})
    for name, value in everfit_environment(made).items():
        monkeypatch.setenv(name, value)
    return made


def test_up_and_down(place: Workplace, secured: Settings) -> None:
    """With TLS: whoever waits for the endpoint or asks it trusts its very certificate."""
    stopped, verify = secured, trusted(secured)
    said: list[str] = []
    began = up(stopped, "handmade", only=LOCAL, say=said.append)
    assert [(one.name, one.started) for one in began] == [("status", True), ("endpoint", True)]
    assert "endpoint: starting the endpoint of handmade" in said
    again = up(stopped, "handmade", only=LOCAL, say=said.append)
    assert [(one.pid, one.started) for one in again] == [(one.pid, False) for one in began]
    assert {one.name for one in running(stopped)} == set(LOCAL)

    status, endpoint = began
    page = httpx.get(status.url, trust_env=False, timeout=30)
    assert page.status_code == 200
    assert "version 1" in page.text
    assert httpx.get(status.url, headers={"Host": "elsewhere.example"}, trust_env=False).status_code == 400
    assert "not answering" not in page.text
    register_task(stopped, place.task.model_copy(update={"name": "other"}))
    other = httpx.get(f"{status.url}/tasks/other", trust_env=False, timeout=30).text
    assert "not served" in other
    assert "everfit up other has it served" in other
    assert httpx.get(f"{endpoint.url}/model", trust_env=False, verify=verify).json()["version"] == "1"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{endpoint.url}/model", trust_env=False)
    with closing(Endpoint(secured.endpoint_url, "handmade", verify=verify)) as client:
        assert client.model()["version"] == "1"

    record = Desk(stopped.folder).record("status")
    command = json.loads(record.read_text())["command"]
    record.write_text(json.dumps({"command": command}))  # as if a kill had come right after the start
    os.kill(endpoint.pid, signal.SIGKILL)
    psutil.Process(endpoint.pid).wait(timeout=10)
    found = up(stopped, "handmade", only=LOCAL, say=said.append)
    assert [(one.name, one.started) for one in found] == [("status", False), ("endpoint", True)]

    assert set(down(stopped, say=said.append)) == set(LOCAL)
    assert not any(psutil.pid_exists(one.pid) for one in found)
    assert down(stopped, say=said.append) == ()
    assert os.listdir(stopped.folder / "run") == []


def test_a_stranger_on_the_port_is_named(place: Workplace, stopped: Settings) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", stopped.status_port))
        stranger.listen()
        with pytest.raises(StateError, match=rf"port {stopped.status_port} is taken by .*EVERFIT_STATUS_PORT"):
            up(stopped, "handmade", only=["status"])
        speaking = stopped.model_copy(update={"grpc_port": stopped.status_port})
        with pytest.raises(StateError, match=rf"port {stopped.status_port} is taken by .*EVERFIT_GRPC_PORT"):
            up(speaking, "handmade", only=["endpoint"])


def test_the_port_is_looked_at_where_it_will_be_listened_on() -> None:
    """Another address of the machine may have the same port free, or taken."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.2", 0))
        stranger.listen()
        service = Service("endpoint", "the endpoint", (), "", port=stranger.getsockname()[1], setting="EVERFIT_PORT")
        require_free(service)
        for host in ("127.0.0.2", "0.0.0.0"):
            with pytest.raises(StateError, match=rf"is taken by process {os.getpid()} "):
                require_free(replace(service, host=host))
    for host in ("192.0.2.1", "no-such.invalid"):
        with pytest.raises(StateError, match=f"the endpoint cannot listen on {host}, port "):
            require_free(replace(service, host=host))


def test_a_name_may_have_addresses_that_the_machine_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `localhost` has `::1` where IPv6 is off; of those that it has, none may be taken."""

    def resolved(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        service = Service("endpoint", "the endpoint", (), "", port=port, setting="EVERFIT_PORT", host="localhost")
        held.listen()
        with pytest.raises(StateError, match=f"port {port} is taken by process {os.getpid()} "):
            require_free(service)
    require_free(service)


def test_a_start_that_was_cut_short_does_not_put_out_what_was_served_before_it(stopped: Settings) -> None:
    desk = Desk(stopped.folder)
    desk.record("endpoint").parent.mkdir(parents=True)
    desk.record("endpoint").write_text(json.dumps({"command": ["served"], "pid": 1, "created": 0.0}))
    service = Service("endpoint", "the endpoint", (sys.executable, "-c", "raise SystemExit(1)"), desk.ready("endpoint"))
    desk.start(service, os.environ)  # as by an `up` that is killed before it knows
    with pytest.raises(OutsideError, match="the endpoint stopped while starting"):
        desk.wait(service, desk.start(service, os.environ))
    assert desk.command("endpoint") == ("served",)


def test_a_service_that_does_not_come_up_says_why_and_is_not_brought_back(stopped: Settings) -> None:
    """What had run before it, and was killed, still is."""
    desk = Desk(stopped.folder)
    for before in ((), ("python", "-m", "serving", "shop", "cars")):
        if before:
            desk.record("endpoint").write_text(json.dumps({"command": before, "pid": 1, "created": 0.0}))
        with pytest.raises(OutsideError, match=r"the endpoint of No[^$]* stopped while starting; the end of [^$]*'No'"):
            up(stopped, "No", only=["endpoint"], say=lambda _: None)
        assert desk.command("endpoint") == before
    assert {one.suffix for one in desk.record("endpoint").parent.iterdir()} == {".json"}


def test_what_another_endpoint_had_served_is_not_brought_back(settings: Settings) -> None:
    """One of `everfit serve` on the same port, between the crash and the next `everfit up`."""
    with present(settings, ("cars", "shop")):
        pass
    assert served_by(workers_folder(settings), os.getpid()) == ("cars", "shop")
    assert served_by(workers_folder(settings), 1) == ()


def test_two_at_once_are_one_too_many(settings: Settings) -> None:
    with exclusive(settings.folder / "locks" / "services.lock", "starting"):
        with pytest.raises(BusyError):
            up(settings, "handmade")
        with pytest.raises(BusyError):
            down(settings)


def test_an_unknown_service(settings: Settings) -> None:
    with pytest.raises(StateError, match=r"unknown service 'endpiont'.*did you mean 'endpoint'"):
        up(settings, "handmade", only=["endpiont"])


def test_a_task_that_is_new_is_served_while_others_are(place: Workplace, stopped: Settings, tmp_path: Path) -> None:
    """An endpoint that asks for keys lets this machine's own programs in by one that it made for them."""
    said: list[str] = []

    def told(*task: str) -> str:
        with closing(Endpoint(stopped.endpoint_url, *task, key=secret_for(stopped))) as one:
            return str(one.model()["task"])

    (began,) = up(stopped, "handmade", only=["endpoint"], say=said.append)
    add_key(stopped.key_file, "shop", ["predict"])
    until(lambda: httpx.get(f"{stopped.endpoint_url}/model", trust_env=False).status_code == 401)
    place.versions.publish(make_bundle(tmp_path / "other", rows=100, name="other"))
    with pytest.raises(OutsideError, match="other"):
        up(stopped, "handmade", "other", only=["endpoint"], say=said.append)  # it has no champion yet
    place.versions.set("other", "champion", "1")
    (again,) = up(stopped, "other", only=["endpoint"], say=said.append)
    assert again.pid == began.pid
    assert said[-1] == "endpoint: serves other too"
    assert (told("other"), told()) == ("other", "handmade")
    own = workers_folder(stopped) / "key"
    first_key, mode = own.read_text(), own.stat().st_mode & 0o777
    assert mode == 0o600
    crashed = psutil.Process(began.pid)
    crashed.kill()
    crashed.wait(timeout=10)
    assert endpoint_lines(stopped) == []
    (anew,) = up(stopped, "other", only=["endpoint"], say=said.append)
    assert (anew.started, said[-1]) == (True, "endpoint: serves other too")
    assert any("killed while it served handmade too, and will again" in one for one in said)
    assert (told("other"), told()) == ("other", "handmade")
    with closing(Endpoint(stopped.endpoint_url, key=first_key)) as late, pytest.raises(InputError, match="401"):
        late.model()
    first, *tasks = endpoint_lines(stopped)
    assert re.search(rf"{stopped.endpoint_url} +pid {anew.pid}, since [-\d]+ [:\d]+$", first)
    assert [re.sub(r"[-\d]{10} [:\d]{5}", "then", one) for one in tasks] == [
        f"    {task}: version 1, since then" for task in ("handmade", "other")
    ]
    record = Desk(stopped.folder).record("endpoint")
    kept = record.rename(record.with_suffix(".kept"))
    assert endpoint_lines(stopped)[0] == f"{first}, of `everfit serve`"
    kept.rename(record)
    down(stopped, say=said.append)
    assert Desk(stopped.folder).command("endpoint") == ()  # stopped in good order, nothing is to be restored
    assert endpoint_lines(stopped) == []


def test_which_services_there_are(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(one.name for one in services(settings, "handmade")) == NAMES
    assert [one.name for one in services(settings)] == ["prefect", "mlflow", "status", "deployments"]
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    elsewhere = settings.model_copy(update={"tracking_url": "http://mlflow.example"})
    assert [one.name for one in services(elsewhere)] == ["status", "deployments"]
    assert all("127.0.0.1" in one.url for one in services(settings, "handmade") if one.url)


def test_children_reach_the_services_that_are_there(settings: Settings) -> None:
    alone = child_environment(settings, ())
    assert "EVERFIT_TRACKING_URL" not in alone or alone["EVERFIT_TRACKING_URL"] == ""
    assert "PREFECT_API_URL" not in alone
    beside = child_environment(settings, NAMES)
    assert beside["EVERFIT_TRACKING_URL"] == f"http://127.0.0.1:{settings.mlflow_port}"
    assert beside["PREFECT_API_URL"] == f"http://127.0.0.1:{settings.prefect_port}/api"
    assert beside["PREFECT_HOME"].startswith(str(settings.folder))
    assert beside["DO_NOT_TRACK"] == "true"


def test_prefect_lets_old_runs_go(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its server reads the environment it is given: by itself it keeps every pass for ever. Those of a server of the
    user's, whose database this environment names, are none of ours to delete."""
    from prefect.settings import Settings as PrefectSettings

    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(name, "postgresql+asyncpg://user@db/theirs")
    for name, value in child_environment(settings.model_copy(update={"run_days": 3}), NAMES).items():
        monkeypatch.setenv(name, value)
    server = PrefectSettings().server
    assert server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert server.services.db_vacuum.retention_period == timedelta(days=3)
    assert server.events.retention_period == timedelta(days=1)
    assert server.database.connection_url is not None
    database = f"sqlite+aiosqlite:///{settings.folder}/prefect/prefect.db"
    assert server.database.connection_url.get_secret_value() == database


def test_a_key_reaches_the_children(settings: Settings) -> None:
    locked = Settings(home=settings.home, api_key="opensesame")  # type: ignore[arg-type]
    assert child_environment(locked, ())["EVERFIT_API_KEY"] == "opensesame"


def test_what_is_unset_is_not_inherited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo on a machine with an endpoint that asks for a key and speaks gRPC has neither."""
    monkeypatch.setenv("EVERFIT_API_KEY", "opensesame")
    monkeypatch.setenv("EVERFIT_GRPC_PORT", "9000")
    mine = settings.model_copy(update={"api_key": None, "grpc_port": None})
    assert {"EVERFIT_API_KEY", "EVERFIT_GRPC_PORT"}.isdisjoint(child_environment(mine, ()))


def test_nothing_runs_and_nothing_is_swapped_in(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert running(settings) == ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        assert connected(settings).tracking == settings.tracking
        assert "PREFECT_API_URL" not in os.environ


def until(answer: Callable[[], Any], seconds: float = 120) -> Any:
    """The first answer that is something."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


def call(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What a Prefect server answers; on SQLite it says 503 while its database is locked, and means: again."""

    def answered() -> httpx.Response | None:
        response = client.request(method, path, json=body)
        return None if response.status_code == httpx.codes.SERVICE_UNAVAILABLE else response

    return until(answered, 30).raise_for_status().json()


def test_a_scheduled_watch_asks_for_an_improvement_that_its_event_starts(
    make_place: Callable[..., Workplace], stopped: Settings, tmp_path: Path
) -> None:
    """One server for the whole chain: schedule, watch, event, automation, limit, improve (refused: no source); then a
    flow run that waits for a person, and is answered in Prefect's way."""
    place = make_place()
    fill(place.log, make_frame(2016, seed=5, start="2024-03-02", flip=1.0), tmp_path / "bundle")
    (tmp_path / "source.parquet").unlink()
    often = stopped.model_copy(update={"watch_minutes": 0.1})
    server, _ = up(often, only=["prefect", "deployments"], say=lambda _: None)

    def runs(flow: str) -> list[dict[str, Any]]:
        asked = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return list(call(client, "POST", "/flow_runs/filter", asked))

    with httpx.Client(base_url=f"{server.url}/api", trust_env=False, timeout=30) as client:
        watched = until(lambda: runs("watch"))
        _pause(client, "watch/handmade")
        other = place.task.model_copy(update={"name": "other"})
        register_task(stopped, other)  # of which the process that runs the deployments is not told
        found = until(lambda: deployed(client, "watch/other"))
        assert (found["parameters"], found["schedules"][0]["active"]) == ({"task": "other"}, True)
        _pause(client, "watch/other")
        assert watched[0]["auto_scheduled"]
        assert watched[0]["name"] == "watch handmade"
        (improved,) = until(lambda: runs("improve"))
        _it_was_refused(place, improved)
        _a_person_answers(place, client, tmp_path)


def deployed(client: httpx.Client, name: str) -> Any:
    """A deployment, or None."""
    answer = client.get(f"/deployments/name/{name}")
    return answer.json() if answer.is_success else None


def _pause(client: httpx.Client, name: str) -> None:
    """No more passes: each is a process, and the rest of the chain needs none."""
    call(client, "POST", f"/deployments/{deployed(client, name)['id']}/pause_deployment")


def _it_was_refused(place: Workplace, improved: dict[str, Any]) -> None:
    (end,) = place.ledger.read(kinds={"improvement"})
    assert end.outcome == "refused"
    assert "source.parquet" in end.reasons[0]
    (decision,) = (entry for entry in place.ledger.read(kinds={"decision"}) if entry.outcome == "follow")
    assert datetime.fromisoformat(improved["parameters"]["as_of"]) == decision.at == end.at
    assert improved["parameters"]["reason"]


def _a_person_answers(place: Workplace, client: httpx.Client, tmp_path: Path) -> None:
    """An improvement that has asked is run again, suspends, and promotes when it is resumed with a yes."""
    version = place.versions.publish(make_bundle(tmp_path / "better"))
    place.versions.set("handmade", "challenger", version)
    at = datetime(2024, 4, 1)
    place.ledger.write(Entry(task="handmade", kind="improvement", at=at, version=version, outcome="asked"))
    ask(place, version, "1", ("better",), at)
    _resume(client, place, version, at)
    (promotion,) = place.ledger.read(kinds={"promotion"})
    assert promotion.reasons == ("answered in Prefect's UI", "better")


def _resume(client: httpx.Client, place: Workplace, version: str, at: datetime) -> None:
    deployment = call(client, "GET", "/deployments/name/improve/improve")
    parameters = {"task": "handmade", "as_of": at.isoformat()}
    run = call(client, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]
    until(lambda: call(client, "GET", f"/flow_runs/{run}")["state"]["name"] == "Suspended")
    assert place.versions.get("handmade", "champion") == "1"
    resumed = call(client, "POST", f"/flow_runs/{run}/resume", {"run_input": {"promote": True}})
    assert resumed["status"] == "ACCEPT"
    until(lambda: place.versions.get("handmade", "champion") == version)
    until(lambda: call(client, "GET", f"/flow_runs/{run}")["state"]["type"] == "COMPLETED")
