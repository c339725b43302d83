"""Clients that are slow, lie or are many; bodies too deep; headers, logs and TLS; and an end that breaks nobody."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.errors import InputError
from registry.settings import Settings
from serving.log_lines import without_values
from serving.process import main
from serving.tls import check_tls
from tests.certificates import make_certificate
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for
from tests.serving.test_faults import log_of, process, remember

BODY = orjson.dumps(ROW)
BODY_SECONDS, IDLE_SECONDS = 0.7, 1.5


@pytest.fixture(scope="module")
def versions(bundles: dict[str, ModelBundle]) -> FakeVersions:
    found = FakeVersions(v1=bundles["good"])
    found.champion = "1"
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(home: Path, versions: FakeVersions) -> Iterator[httpx.Client]:
    bounds = {"body_seconds": BODY_SECONDS, "idle_seconds": IDLE_SECONDS, "max_concurrent": 20}
    with endpoint(home, versions, **bounds) as one:
        yield one


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def head(length: int | None = None, *, path: str = "/predict") -> bytes:
    rest = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{rest}\r\n\r\n".encode()


def everything(one: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := one.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_a_dribbled_body_is_served_in_time_and_refused_after(client: httpx.Client) -> None:
    with connect(client) as one:
        one.sendall(head(len(BODY)))
        for byte in range(0, len(BODY), 20):
            one.sendall(BODY[byte : byte + 20])
            time.sleep(0.02)
        assert one.recv(100).startswith(b"HTTP/1.1 200 ")
    with connect(client) as one:
        begun = time.monotonic()
        one.sendall(head(len(BODY)) + BODY[:10])
        answer = everything(one)
        assert BODY_SECONDS - 0.1 < time.monotonic() - begun < BODY_SECONDS + 3
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b"EVERFIT_BODY_SECONDS" in answer


def test_whole_answers_keep_to_the_connection(client: httpx.Client) -> None:
    """Three requests at once, each answered in its turn with its own id; the last one ends the connection, as an
    HTTP/1.0 client's one request does."""
    ids, last = (b"one", b"two", b"three"), b"connection: close\r\n"
    first = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%bx-request-id: %b\r\n\r\n%b"
    asked = [first % (len(BODY), last if name == b"three" else b"", name, BODY) for name in ids]
    with connect(client) as one:
        one.sendall(b"".join(asked))
        answers = everything(one).split(b"HTTP/1.1 200 OK\r\n")
    assert answers[0] == b""
    for name, answer in zip(ids, answers[1:], strict=True):
        told, body = answer.split(b"\r\n\r\n")
        fields = [tuple(line.split(b": ", 1)) for line in told.split(b"\r\n")]
        assert sorted(key for key, _ in fields if key != b"connection") == [
            b"content-length",
            b"content-type",
            b"date",
            b"x-content-type-options",
            b"x-request-id",
        ]
        assert (dict(fields)[b"x-request-id"], int(dict(fields)[b"content-length"])) == (name, len(body))
        assert (b"connection", b"close") in fields or name != b"three"
    with connect(client) as one:
        one.sendall(b"POST /predict HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))
        answer = everything(one)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_bytes_that_never_stop_coming_are_too_slow_all_the_same(client: httpx.Client, path: str) -> None:
    with connect(client) as one:
        one.sendall(head(len(BODY), path=path))
        begun = time.monotonic()
        for byte in BODY:
            if time.monotonic() - begun > BODY_SECONDS + 0.3:
                break
            one.sendall(bytes([byte]))
            time.sleep(0.05)
        assert one.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_body_longer_than_announced_is_no_second_request(client: httpx.Client) -> None:
    with connect(client) as one:
        one.sendall(head(len(BODY)) + BODY + b"more that nobody asked for\r\n\r\n")
        answers = everything(one)
    assert answers.startswith(b"HTTP/1.1 ")
    assert answers.count(b"HTTP/1.1 200 ") <= 1
    assert b" 500 " not in answers


def test_a_body_shorter_than_announced_and_chunks_without_an_end(client: httpx.Client) -> None:
    for announced, sent in ((len(BODY) + 1, BODY), (None, b"%x\r\n%b\r\n" % (len(BODY), BODY))):
        with connect(client) as one:
            one.sendall(head(announced) + sent)
            assert everything(one).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 5\r\ncontent-length: 6",
        b"content-length: 5\r\ntransfer-encoding: chunked",
        b"content-length: -5",
        b"content-length: 0x10",
        b"transfer-encoding: chunked, identity",
        b"bad header: x",
    ],
)
def test_heads_that_could_be_read_in_two_ways_are_refused(client: httpx.Client, lines: bytes) -> None:
    with connect(client) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n\r\n" + b"5\r\nhello\r\n0\r\n\r\n")
        assert everything(one).startswith(b"HTTP/1.1 400 ")
    assert client.post("/predict", json=ROW).status_code == 200


def test_a_head_that_never_ends_and_a_silent_client_are_closed(client: httpx.Client) -> None:
    for sent in (b"", b"POST /predict HTTP/1.1\r\nhost:"):
        with connect(client) as one:
            begun = time.monotonic()
            one.sendall(sent)
            assert everything(one) == b""
            assert IDLE_SECONDS - 0.2 < time.monotonic() - begun < IDLE_SECONDS + 3


def pour(one: socket.socket, parts: Iterator[bytes], pause: float) -> bool:
    """Whether the other side stopped taking them."""
    try:
        for part in parts:
            one.sendall(part)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


def test_a_head_that_is_dribbled_without_an_end_is_closed(client: httpx.Client) -> None:
    with connect(client) as one:
        one.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx: ")
        assert pour(one, iter([b"y"] * int((IDLE_SECONDS + 5) / 0.05)), 0.05)


def test_a_large_head_is_refused(client: httpx.Client) -> None:
    line = b"x: " + b"y" * 10_000 + b"\r\n"
    with connect(client) as one:
        pour(one, iter([b"GET /health/live HTTP/1.1\r\nhost: x\r\n", *[line] * 50]), 0.005)
        assert one.recv(100).startswith(b"HTTP/1.1 431 ")
        assert pour(one, iter([line] * 500), 0.01)


@pytest.mark.parametrize("depth", [100, 990, 1022, 1023, 1024, 5000])
@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_nesting_is_bounded(client: httpx.Client, home: Path, path: str, depth: int) -> None:
    """Deep lists as the body, as a row, as a value, in a column nobody knows: an error, and nothing that the log cannot
    read afterwards."""
    deep = b"[" * depth + b"]" * depth
    row = BODY[:-1]
    many = b'{"rows":[' + b"{}," * 200 + deep + b"]}"
    for body in (deep, b"[" + deep + b"]", many, row + b',"more":' + deep + b"}", b'{"amount":' + deep + b"}"):
        response = client.post(path, content=body)
        assert response.status_code in (400, 422), (body[:30], response.text[:200])
    assert list((home / "journal" / "handmade").glob("*.damaged")) == []


def test_brackets_in_text_are_no_nesting(client: httpx.Client) -> None:
    assert client.post("/predict", json={**ROW, "carrier": "[{" * 500}).status_code == 200
    assert client.post("/predict", json=[{**ROW, "more": [{"a": [1]}]}] * 60).status_code == 200


def test_too_many_at_once_get_a_503_at_once(client: httpx.Client) -> None:
    with ExitStack() as open_:
        slow = [open_.enter_context(connect(client)) for _ in range(20)]
        for one in slow:
            one.sendall(head(len(BODY)))
        time.sleep(0.1)
        refused = client.post("/predict", json=ROW)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "EVERFIT_MAX_CONCURRENT" in refused.json()["detail"]
        assert client.get("/health/live").status_code == 200
        for one in slow:
            one.sendall(BODY)
        assert all(one.recv(100).startswith(b"HTTP/1.1 200 ") for one in slow)
    assert client.post("/predict", json=ROW).status_code == 200


def test_two_thousand_idle_connections_hold_up_nobody(client: httpx.Client, versions: FakeVersions) -> None:
    with ExitStack() as open_:
        for _ in range(2_000):
            open_.enter_context(connect(client))
        begun = time.monotonic()
        for _ in range(20):
            assert client.post("/predict", json=ROW).status_code == 200
        assert time.monotonic() - begun < 5


def test_headers_are_safe(client: httpx.Client) -> None:
    for response in (client.post("/predict", json=ROW), client.post("/predict", content=b"{"), client.get("/nowhere")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
    for path in ("/model", "/metrics", "/health/ready", "/openapi.json", "/docs"):
        response = client.get(path)
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-frame-options"] == "DENY"
    assert client.get("/docs/static/swagger-ui.css").headers.get("cache-control") != "no-store"


def test_other_sites_are_let_in_nowhere(client: httpx.Client) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    for path in ("/predict", "/feedback", "/model", "/metrics"):
        answers = [client.options(path, headers=asked), client.get(path, headers={"origin": "https://evil.example"})]
        assert answers[0].status_code == 405
        assert not [name for answer in answers for name in answer.headers if name.startswith("access-control-")]


def test_what_a_client_sent_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test.without_values")
    log.addFilter(without_values)
    sent = "a secret value"
    try:
        raise ValueError(sent)
    except ValueError:
        log.exception("it failed\n")
    assert "secret value" not in caplog.text
    assert "ValueError" in caplog.text
    assert "test_what_a_client_sent" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder / "one")


def test_tls(tmp_path: Path, versions: FakeVersions, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with endpoint(tmp_path, versions, tls_cert=cert, tls_key=key) as client:
        assert client.base_url.scheme == "https"
        assert client.post("/predict", json=ROW).status_code == 200
        plain = f"http://127.0.0.1:{client.base_url.port}/health/live"
        with pytest.raises(httpx.TransportError):
            httpx.get(plain, trust_env=False)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{client.base_url}/health/live", trust_env=False)


def test_certificates_that_cannot_serve(
    tmp_path: Path,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cert, key = certificate
    other = make_certificate(tmp_path / "other")[1]
    (tmp_path / "text").write_text("no PEM")
    locked = tmp_path / "locked.pem"
    command = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", str(key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    for one, two, why in (
        (cert, other, "do not belong together"),
        (tmp_path / "text", key, "not PEM"),
        (tmp_path / "nowhere", key, "nowhere: cannot be read"),
        (cert, locked, "the key is encrypted"),
    ):
        with pytest.raises(InputError, match=why):
            check_tls(Settings(home=tmp_path, tls_cert=one, tls_key=two))
    check_tls(Settings(home=tmp_path, tls_cert=cert, tls_key=key))
    with pytest.raises(ValueError, match="set EVERFIT_TLS_KEY too"):
        Settings(home=tmp_path, tls_cert=cert)
    for name, value in (("HOME", tmp_path), ("TLS_CERT", cert), ("TLS_KEY", other)):
        monkeypatch.setenv(f"EVERFIT_{name}", str(value))
    assert main(["handmade"]) == 2
    assert "do not belong together" in capsys.readouterr().err


def test_told_to_end_under_load_it_breaks_no_connection(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Until its port is closed every request is answered; each answer is in the log."""
    remember(tmp_path, bundles["good"])
    acknowledged: list[str] = []
    broken: list[str] = []
    refused: list[str] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
            while not refused:
                try:
                    answer = client.post("/predict", json=[ROW, ROW])
                    acknowledged.extend(one["id"] for one in answer.json()["predictions"])
                except httpx.ConnectError as error:
                    refused.append(str(error))
                except (httpx.HTTPError, LookupError, ValueError) as error:
                    broken.append(repr(error))

    with process(tmp_path) as (server, url):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(acknowledged) > 100)
        before = len(acknowledged)
        os.kill(server.pid, signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{url}/health/ready", trust_env=False).status_code == 503, 5)
        assert httpx.get(f"{url}/v2/health/ready", trust_env=False).json() == {"ready": False}
        for thread in threads:
            thread.join()
        server.wait(timeout=30)
    assert broken == []
    assert len(acknowledged) > before, "it answers on while others are told"
    assert set(acknowledged) == set(log_of(tmp_path).frame(columns=[])["__id__"])
    assert not any((tmp_path / "journal" / "handmade").iterdir())
