"""API keys: made once, kept as hashes, asked for by scope, task and rate, revoked without a restart."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from registry.bundle import ModelBundle
from registry.errors import BusyError, InputError
from registry.locks import exclusive
from registry.settings import Settings
from serving.guard import Guard, scope_of, task_of
from serving.keys import SCOPES, add_key, digest_of, open_door, read_keys, revoke_key
from serving.rates import Rates
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for

LABEL = {"id": "a", "label": "no"}


@pytest.fixture
def versions(bundles: dict[str, ModelBundle]) -> FakeVersions:
    return champion_of(bundles)


def champion_of(bundles: dict[str, ModelBundle]) -> FakeVersions:
    found = FakeVersions(v1=bundles["good"])
    found.champion = "1"
    return found


class Door(NamedTuple):
    """An endpoint with a key of each kind."""

    client: httpx.Client
    keys: dict[str, str]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, ModelBundle]) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("home")
    file = home / "keys.json"
    keys = {scope: add_key(file, scope, [scope]) for scope in SCOPES}
    keys |= {task: add_key(file, task, ["predict", "read"], task=task) for task in ("handmade", "other")}
    keys["slow"] = add_key(file, "slow", ["predict"], rate=0.5)
    with endpoint(home, champion_of(bundles)) as client:
        yield Door(client, keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def status(client: httpx.Client, path: str, secret: str | None, body: object = None) -> int:
    headers = {} if secret is None else bearer(secret)
    method = "GET" if body is None else "POST"
    return client.request(method, path, json=body, headers=headers).status_code


def test_only_the_hash_is_kept(file: Path) -> None:
    secret = add_key(file, "shop", ["feedback", "predict"], rate=5, task="flights")
    (key,) = read_keys(file).keys
    assert len(secret) == 4 + 43
    assert secret.startswith("evf_")
    assert secret not in file.read_text()
    assert secret[4:] not in file.read_text()
    assert (key.digest, key.scopes, key.rate) == (digest_of(secret.encode()), ("predict", "feedback"), 5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(one.name for one in file.parent.iterdir()) == ["keys.json", "locks"]


def test_a_name_is_taken_until_its_key_is_revoked(file: Path) -> None:
    first = add_key(file, "shop", ["predict"])
    with pytest.raises(InputError, match="there already"):
        add_key(file, "shop", ["predict"])
    revoke_key(file, "shop")
    assert add_key(file, "shop", ["read"]) != first
    assert [key.live for key in read_keys(file).keys] == [False, True]
    with pytest.raises(InputError, match="did you mean 'shop'"):
        revoke_key(file, "shp")
    revoke_key(file, "shop")
    with pytest.raises(InputError, match=r"key 'shop' was revoked already, \d{4}-.* UTC; nothing changed"):
        revoke_key(file, "shop")


@pytest.mark.parametrize(("name", "scopes"), [("Shop", ["predict"]), ("", ["predict"]), ("a", []), ("a", ["predct"])])
def test_keys_that_cannot_be(file: Path, name: str, scopes: list[str]) -> None:
    with pytest.raises(InputError, match="expected"):
        add_key(file, name, scopes)
    assert not file.exists()


def test_one_process_changes_the_keys_at_a_time(file: Path) -> None:
    with exclusive(file.parent / "locks" / "keys.lock", "`everfit key`"), pytest.raises(BusyError):
        add_key(file, "shop", ["predict"])


def test_a_file_that_others_may_write_or_that_is_damaged_is_refused(file: Path) -> None:
    add_key(file, "shop", ["predict"])
    file.chmod(0o666)
    with pytest.raises(InputError, match="chmod 600"):
        read_keys(file)
    file.chmod(0o600)
    file.write_text('{"keys": [{"name": "x"}]}')
    with pytest.raises(InputError, match=r"keys\.0\.digest"):
        Guard(Settings(home=file.parent), lambda _: None)


def test_scopes_by_route(door: Door) -> None:
    client, keys = door
    wanted = {
        "/predict": "predict",
        "/models/handmade/predict": "predict",
        "/feedback": "feedback",
        "/model": "read",
        "/": "read",
        "/models": "read",
        "/metrics": "read",
        "/docs": "read",
        "/docs/static/swagger-ui.css": "read",
        "/openapi.json": "read",
        "/v2/repository/models/handmade/load": "admin",
    }
    bodies = {"/predict": ROW, "/models/handmade/predict": ROW, "/feedback": LABEL} | {list(wanted)[-1]: {}}
    assert client.get("/health/live").status_code == 200
    for path, scope in wanted.items():
        assert status(client, path, None, bodies.get(path)) == 401
        found = {one: status(client, path, keys[one], bodies.get(path)) for one in SCOPES}
        assert {name for name, code in found.items() if code != 403} == {scope}, path
    refused = client.post("/predict", json=ROW, headers=bearer(keys["read"]))
    assert refused.headers["content-type"] == "application/problem+json"
    assert "has not the scope 'predict'" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/invocations", "predict"),
        ("POST", "/v2/models/flights/versions/3/infer", "predict"),
        ("POST", "/v2/repository/models/infer/unload", "admin"),
        ("POST", "/v2/repository/models/x/infer", "admin"),
        ("POST", "/v2/repository/index", "read"),
        ("GET", "/v2/models/flights", "read"),
        ("PUT", "/predict", "admin"),
        ("POST", "/model", "admin"),
    ],
)
def test_what_a_route_asks_for(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope


def test_the_task_of_a_path() -> None:
    paths = ("/models/a/predict", "/v2/models/a/versions/1/infer", "/v2/repository/models/a/load", "/models/a")
    assert {task_of(path) for path in paths} == {"a"}
    assert [task_of(path) for path in ("/", "/models", "/v2", "/docs/models/a", "/health/live")] == [None] * 5


def test_a_key_of_one_task(door: Door) -> None:
    client, mine, theirs = door.client, door.keys["handmade"], door.keys["other"]
    for path in ("/predict", "/models/handmade/predict"):
        assert status(client, path, mine, ROW) == 200
        assert status(client, path, theirs, ROW) == 403
    assert (status(client, "/metrics", mine), status(client, "/metrics", theirs)) == (200, 403)
    assert status(client, "/models/other/predict", mine, ROW) == 403


def test_a_key_of_one_task_beside_several(tmp_path: Path, file: Path) -> None:
    """What tells of all tasks is closed to it."""
    secret = add_key(file, "one", ["predict", "read"], task="other")
    guard = Guard(Settings(home=tmp_path), lambda _: None)
    headers = [(b"authorization", f"Bearer {secret}".encode())]
    paths = ("/models/other", "/models/handmade", "/models", "/metrics", "/model")
    refused = [guard.refusal({"method": "GET", "path": path, "headers": headers}) is not None for path in paths]
    assert refused == [False, True, True, True, True]


def test_a_rate_gives_429_with_retry_after(door: Door) -> None:
    client, slow = door.client, door.keys["slow"]
    assert status(client, "/predict", slow, ROW) == 200
    refused = client.post("/predict", json=ROW, headers=bearer(slow))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) == 2
    assert refused.json()["detail"] == "the key 'slow' may send 0.5 requests a second"
    assert status(client, "/predict", door.keys["predict"], ROW) == 200


DIGESTS = [digest_of(bytes([number % 256, number // 256])) for number in range(1_000)]


def test_a_bucket_gives_its_rate(tmp_path: Path) -> None:
    for rates in (Rates(), Rates(tmp_path / "rates")):
        begun = time.monotonic()
        served = sum(rates.wait(DIGESTS[0], 10, begun + number / 1000) == 0 for number in range(5000))
        assert 58 <= served <= 60
        assert [rates.wait(DIGESTS[0], 10, begun + 5) for _ in range(2)][1] == pytest.approx(0.1, abs=0.1)
        rates.close()


def test_workers_share_a_rate_and_a_new_start_of_the_machine_fills_it(tmp_path: Path) -> None:
    one, two = (Rates(tmp_path / "workers" / "rates") for _ in range(2))
    assert [rates.wait(DIGESTS[0], 2, 1000.0) for rates in (one, two, one)] == [0, 0, 0.5]
    assert two.wait(DIGESTS[1], 2, 1000.0) == 0, "another key has its own"
    assert two.wait(DIGESTS[0], 2, 1000.5) == 0
    assert one.wait(DIGESTS[0], 2, 12.0) == 0, "the clock began anew"
    assert (tmp_path / "workers" / "rates").stat().st_mode & 0o777 == 0o600
    for rates in (one, two):
        rates.close()


def test_more_keys_than_places_put_out_those_that_waited_longest(tmp_path: Path) -> None:
    one, two = (Rates(tmp_path / "rates") for _ in range(2))
    rivals = [f"{512 * number:08x}{number:056x}" for number in range(1, 10)]  # all of them have the same eight places
    assert [two.wait(rivals[0], 0.01, 1.0), two.wait(rivals[-1], 0.01, 700.0)] == [0, 0]
    assert all(one.wait(digest, 0.01, 2.0 + number) == 0 for number, digest in enumerate(rivals[1:-1]))
    assert two.wait(rivals[0], 0.01, 600.0) == 0, "its place was another's"
    assert two.wait(rivals[-1], 0.01, 700.0) == pytest.approx(100)
    for rates in (one, two):
        rates.close()


def test_keys_come_and_go_without_a_restart(tmp_path: Path, file: Path, versions: FakeVersions) -> None:
    with endpoint(tmp_path, versions) as client:
        assert status(client, "/predict", None, ROW) == 200, "on loopback, before the first key"
        one, two = add_key(file, "one", ["predict"]), add_key(file, "two", ["predict"], rate=1)
        wait_for(lambda: status(client, "/predict", None, ROW) == 401, 5)
        assert (status(client, "/predict", one, ROW), status(client, "/predict", two, ROW)) == (200, 200)
        revoke_key(file, "one")
        wait_for(lambda: status(client, "/predict", one, ROW) == 401, 5)
        revoke_key(file, "two")
        wait_for(lambda: status(client, "/predict", two, ROW) == 401, 5)
        assert status(client, "/predict", None, ROW) == 401, "the last key's end opens nothing"
        assert open_door(file)
        wait_for(lambda: status(client, "/predict", None, ROW) == 200, 5)
        three = add_key(file, "three", ["predict"])
        wait_for(lambda: status(client, "/predict", None, ROW) == 401, 5)
        assert status(client, "/predict", three, ROW) == 200
        file.unlink()
        time.sleep(1.2)
        assert status(client, "/predict", None, ROW) == 401


def test_no_key_is_asked_for_again_on_loopback_alone(tmp_path: Path, file: Path) -> None:
    assert not open_door(file), "nothing asks for one yet"
    assert not file.exists()
    add_key(file, "shop", ["read"])
    with pytest.raises(InputError, match=r"keys are live \(shop\): revoke them first"):
        open_door(file)
    revoke_key(file, "shop")
    assert "open" not in file.read_text(), "an earlier Everfit reads it"
    assert [open_door(file), open_door(file)] == [True, False]
    assert [key.name for key in read_keys(file).keys] == ["shop"]
    assert not Guard(Settings(home=tmp_path), lambda _: None).closed
    assert Guard(Settings.model_validate({"home": tmp_path, "api_key": "s"}), lambda _: None).closed
    with pytest.raises(InputError, match="every key is revoked"):
        Guard(Settings(home=tmp_path, host="0.0.0.0"), lambda _: None, own="the machine's own opens it to nobody else")


def test_readiness_names_tasks_to_who_may_read_them(door: Door, bundles: dict[str, ModelBundle]) -> None:
    """Probes, which have no key, are told whether it is ready."""
    client, keys = door
    told = {name: client.get("/health/ready", headers=bearer(secret)).json() for name, secret in keys.items()}
    assert client.get("/health/ready").json() == told["predict"] == told["other"] == {"ready": True}
    assert client.get("/health/ready", headers=bearer("evf_unknown")).status_code == 200
    for name in ("read", "handmade"):
        assert (told[name]["ready"], told[name]["version"], told[name]["registry"]) == (True, "1", "ok")


def test_a_file_that_is_spoilt_leaves_the_keys_as_they_were(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = add_key(file, "one", ["read"])
    guard = Guard(Settings(home=tmp_path), lambda _: None)
    file.write_text("{")
    time.sleep(1.1)
    logging.getLogger("uvicorn.error").addHandler(caplog.handler)
    assert guard.refusal({"method": "GET", "path": "/model", "headers": [(b"authorization", b"Bearer x")]}) is not None
    right = [(b"authorization", f"Bearer {one}".encode())]
    assert guard.refusal({"method": "GET", "path": "/model", "headers": right}) is None
    logging.getLogger("uvicorn.error").removeHandler(caplog.handler)
    assert "the keys stay as they were" in caplog.text


def test_a_reread_gives_no_new_bucket(tmp_path: Path, file: Path) -> None:
    slow = add_key(file, "slow", ["read"], rate=0.01)
    guard = Guard(Settings(home=tmp_path), lambda _: None)
    request = {"method": "GET", "path": "/model", "headers": [(b"authorization", f"Bearer {slow}".encode())]}
    assert guard.refusal(request) is None
    add_key(file, "another", ["read"])
    time.sleep(1.1)
    assert getattr(guard.refusal(request), "status", None) == 429


def test_the_scheme_is_read_in_any_case_and_nothing_else_passes(tmp_path: Path, file: Path) -> None:
    secret = add_key(file, "one", ["read"]).encode()
    guard = Guard(Settings(home=tmp_path), lambda _: None)

    def passes(value: bytes) -> bool:
        return guard.refusal({"method": "GET", "path": "/model", "headers": [(b"authorization", value)]}) is None

    assert passes(b"Bearer " + secret)
    assert passes(b"bearer  " + secret)
    for value in (secret, b"Basic " + secret, b"Bearer", b"", b"Bearer " + secret[:-1], b"\xff\xfe \xff"):
        assert not passes(value)


def test_many_keys_with_rates_keep_their_buckets_and_cost_no_more(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    for one in DIGESTS:
        assert rates.wait(one, 1, 1000.0) == 0
    begun = time.process_time()
    assert sum(rates.wait(one, 1, 1000.0) > 0 for one in DIGESTS) >= 995  # a few have found all their places taken
    assert (time.process_time() - begun) / len(DIGESTS) < 100e-6
    rates.close()


def test_a_worker_that_stops_with_the_lock_stops_nobody(tmp_path: Path) -> None:
    """A lock of `lockf` is the process's: it has to be another one that holds it."""
    rates = Rates(tmp_path / "rates")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / "rates")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        begun = time.monotonic()
        assert [rates.wait(DIGESTS[0], 2, 1000.0) for _ in range(3)] == [0, 0, 0.5]
        assert time.monotonic() - begun < 1
        other.communicate(b"\n")
    rates.close()


def test_a_look_costs_less_than_three_microseconds(tmp_path: Path, file: Path) -> None:
    """The best of many runs, with room for a machine that does other things meanwhile."""
    for number in range(50):
        last = add_key(file, f"k{number}", ["predict"], rate=1e9)
    guard = Guard(Settings(home=tmp_path), lambda _: None)
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"authorization", f"Bearer {last}".encode())]
    request = {"method": "POST", "path": "/models/handmade/predict", "headers": headers}
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(1000):
            guard.refusal(request)
        best = min(best, (time.perf_counter() - begun) / 1000)
    assert guard.refusal(request) is None
    assert best < 6e-6, f"{best * 1e6:.2f} us"


def test_beyond_loopback_a_live_key_is_there_at_the_start(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="everfit key add"):
        Settings(home=tmp_path, host="0.0.0.0")
    secret = add_key(file, "one", ["read"])
    guard = Guard(Settings(home=tmp_path, host="0.0.0.0"), lambda _: None)
    assert guard.closed
    assert secret
    revoke_key(file, "one")
    with pytest.raises(InputError, match="every key is revoked"):
        Guard(Settings(home=tmp_path, host="0.0.0.0"), lambda _: None)
    Guard(Settings(home=tmp_path), lambda _: None)
    assert "every key is revoked: all requests are answered 401" in caplog.text
    Guard(Settings.model_validate({"home": tmp_path, "host": "0.0.0.0", "api_key": "s"}), lambda _: None)


def run(home: Path, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(main, ["key", *arguments], env={"EVERFIT_HOME": str(home), **more})


def test_the_command_makes_lists_and_revokes(tmp_path: Path, file: Path) -> None:
    assert "no keys yet" in run(tmp_path, "list").output
    done = run(tmp_path, "add", "shop", "--scope", "predict", "--rate", "100", EVERFIT_HOST="0.0.0.0")
    secret = done.stdout.strip()
    assert (done.exit_code, "only time" in done.stderr, "the endpoint made" in done.stderr) == (0, True, True)
    assert read_keys(file).keys[0].digest == digest_of(secret.encode())
    heads, listed = run(tmp_path, "list").output.split("\n", 1)
    assert heads.split() == ["name", "scopes", "task", "rate", "made", "state"]
    assert secret not in listed
    assert listed.split()[:4] == ["shop", "predict", "-", "100/s"]
    assert run(tmp_path, "add", "other", "--scope", "read").exit_code == 0
    assert "no key is left" not in run(tmp_path, "revoke", "other").output
    told = run(tmp_path, "revoke", "shop").output
    assert "no key is left: the endpoint answers 401 to everybody" in told
    assert "everfit key open" in told
    assert "revoked" in run(tmp_path, "list").output
    assert run(tmp_path, "revoke", "shop").exit_code == 2
    assert "endpoints on loopback ask for no key any more" in run(tmp_path, "open").output
    assert "nothing changed" in (again := run(tmp_path, "open", EVERFIT_API_KEY="x").output)
    assert "they ask for that one" in again
    run(tmp_path, "add", "shop", "--scope", "predict")
    assert (refused := run(tmp_path, "open")).exit_code == 2
    assert "keys are live (shop)" in refused.stderr
    assert run(tmp_path, "add", "shop").exit_code == 2


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands put settings into the environment for the flows: not for the next test."""
    for name in [name for name in os.environ if name.startswith("EVERFIT_")]:
        monkeypatch.delenv(name)
