"""Ids of requests, the access log, and the server's own lines as JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.bundle import ModelBundle
from registry.settings import Settings
from serving.app import create_app
from serving.context import NOTES, SCOPE
from serving.log_lines import JsonLine, TextLine, without_values
from serving.watching import AccessLog
from tests.serving.conftest import ROW, FakeVersions, endpoint, serve, wait_for
from tests.serving.observed import metrics_of

KEY = "s3cret"
MADE = re.compile(r"[0-9a-f]{32}")


@pytest.fixture(scope="module")
def versions(bundles: dict[str, ModelBundle]) -> FakeVersions:
    found = FakeVersions(v1=bundles["good"])
    found.champion = "1"
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, versions: FakeVersions) -> Iterator[httpx.Client]:
    with endpoint(tmp_path_factory.mktemp("plain"), versions) as client:
        yield client


@pytest.fixture(scope="module")
def lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, versions: FakeVersions, lines: io.StringIO
) -> Iterator[httpx.Client]:
    settings = Settings(home=tmp_path_factory.mktemp("watched"), poll_seconds=0.05, api_key=KEY)
    app = create_app(settings, "handmade", versions=versions, watchers=[AccessLog(lines)])
    with serve(app, settings) as client:
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        client.headers["authorization"] = f"Bearer {KEY}"
        yield client


@pytest.mark.parametrize("path", ["/predict", "/feedback", "/model", "/nowhere", "/v2/models/handmade/infer"])
def test_a_client_s_id_is_echoed_on_every_answer(plain: httpx.Client, path: str) -> None:
    for body in (json.dumps(ROW).encode(), b"{"):
        response = plain.post(path, content=body, headers={"x-request-id": "order-17/b"})
        assert response.headers.get_list("x-request-id") == ["order-17/b"]


def test_a_problem_has_the_id_of_its_request(plain: httpx.Client) -> None:
    for headers in ({"x-request-id": "order-17"}, {}, {"x-request-id": "two words"}, {"x-request-id": "a" * 129}):
        response = plain.post("/predict", json={**ROW, "amount": "much"}, headers=headers)
        (told,) = response.headers.get_list("x-request-id")
        assert response.json()["request_id"] == told
        assert told == "order-17" if headers.get("x-request-id") == "order-17" else MADE.fullmatch(told)


def test_ids_made_here_are_unlike(plain: httpx.Client) -> None:
    made = [plain.get("/nowhere").headers["x-request-id"] for _ in range(20)]
    assert len(set(made)) == 20


def test_bounds_of_the_connection_name_the_request_too(tmp_path: Path, versions: FakeVersions) -> None:
    with endpoint(tmp_path, versions, body_seconds=0.3) as client:
        for head, status in (
            (b"POST /predict HTTP/1.1\r\nhost: a\r\nx-request-id: late\r\ncontent-length: 10\r\n\r\n", 408),
            (b"GET / HTTP/1.1\r\nx-request-id: late\r\nx: " + b"y" * 200_000, 431),
        ):
            with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
                connection.sendall(head)
                answer = connection.makefile("rb").read().decode()
            assert f" {status} " in answer
            told = re.findall(r"(?i)^x-request-id: (\S+)", answer, re.MULTILINE)
            assert told == ["late"] if status == 408 else MADE.fullmatch(told[0])
            assert json.loads(answer.partition("\r\n\r\n")[2])["request_id"] == told[0]


def entries(lines: io.StringIO, count: int) -> list[dict[str, object]]:
    """The newest lines, once there are so many; then none."""
    wait_for(lambda: lines.getvalue().count("\n") >= count)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return found[-count:]


def test_a_line_a_request_and_nothing_that_was_sent(watched: httpx.Client, lines: io.StringIO) -> None:
    wait_for(lambda: lines.getvalue() != "")
    lines.truncate(0)
    lines.seek(0)
    row = {**ROW, "carrier": "a secret value"}
    watched.post("/predict?fields=prediction", json=[row] * 3, headers={"x-request-id": "order-17"})
    watched.post("/models/handmade/predict", json=row)
    watched.post("/feedback", json=[{"id": "a", "label": "yes"}, {"id": "b", "label": "a secret value"}])
    watched.get("/model", headers={"authorization": "Bearer a secret value"})
    watched.post("/invocations", json={"instances": [row]})
    first, second, third, fourth, fifth = entries(lines, 5)
    assert first.keys() == {"time", "request_id", "method", "path", "status", "seconds", "rows", "version", "key"}
    assert (first["method"], first["path"], first["status"]) == ("POST", "/predict", 200)
    assert (first["request_id"], first["rows"], first["version"], first["key"]) == (
        "order-17",
        3,
        "1",
        "EVERFIT_API_KEY",
    )
    assert 0 < float(str(first["seconds"])) < 10
    assert (second["path"], second["rows"]) == ("/models/handmade/predict", 1)
    assert MADE.fullmatch(str(second["request_id"]))
    assert (third["status"], third["rows"], third["version"]) == (422, None, None)
    assert (fourth["status"], fourth["key"]) == (401, None)
    assert (fifth["path"], fifth["rows"], fifth["version"]) == ("/invocations", 1, "1")
    assert "secret" not in lines.getvalue()
    assert KEY not in lines.getvalue()


def test_a_watched_answer_has_one_id(watched: httpx.Client) -> None:
    for response in (watched.post("/predict", json=ROW), watched.get("/nowhere"), watched.get("/health/live")):
        (told,) = response.headers.get_list("x-request-id")
        assert MADE.fullmatch(told)
        if response.status_code == 404:
            assert response.json()["request_id"] == told


def test_pipelined_requests_are_told_apart(watched: httpx.Client, lines: io.StringIO) -> None:
    """The second begins in the context of the first."""
    body = json.dumps([ROW] * 2).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n"
    first = head.encode() + b"x-request-id: one\r\n\r\n" + body
    second = f"GET /nowhere HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n".encode()
    with socket.create_connection((watched.base_url.host, watched.base_url.port), timeout=10) as connection:
        connection.sendall(first + second)
        answers = connection.makefile("rb").read().decode()
    told = re.findall(r"(?i)^x-request-id: (\S+)", answers, re.MULTILINE)
    assert told[0] == "one"
    assert MADE.fullmatch(told[1])
    wait_for(lambda: told[1] in lines.getvalue())
    (line,) = (json.loads(line) for line in lines.getvalue().splitlines() if told[1] in line)
    assert (line["path"], line["rows"], line["status"]) == ("/nowhere", None, 404)


class Stuck(io.StringIO):
    """A stream whose reader stands still until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(30)
        return super().write(text)


def test_lines_that_nobody_reads_are_dropped_and_counted(tmp_path: Path, versions: FakeVersions) -> None:
    """A reader that stands still holds up no request, and nothing that was taken is lost."""
    stream = Stuck()
    log = AccessLog(stream, most=3)
    settings = Settings(home=tmp_path, poll_seconds=0.05)
    with serve(create_app(settings, "handmade", versions=versions, watchers=[log]), settings) as client:
        for _ in range(10):
            assert client.get("/health/live").status_code == 200
        dropped = metrics_of(client)["everfit_access_log_dropped_total{}"]
        assert 6 <= dropped <= 7
        stream.free.set()
    assert log.dropped >= dropped
    assert stream.getvalue().count("\n") >= 3


def record(message: str = "it failed", **more: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, message, (), more.get("exc_info"))  # type: ignore[arg-type]


def test_log_lines_name_the_request() -> None:
    text = TextLine("%(levelprefix)s %(message)s", use_colors=False)
    assert text.format(record()) == "ERROR:    it failed"
    token = SCOPE.set({"request_id": "order-17"})
    try:
        found = json.loads(JsonLine().format(record()))
        assert text.format(record()) == "ERROR:    it failed (request order-17)"
    finally:
        SCOPE.reset(token)
    assert (found["level"], found["logger"], found["message"]) == ("error", "uvicorn.error", "it failed")
    assert found["request_id"] == "order-17"
    assert "request_id" not in json.loads(JsonLine().format(record()))


def test_a_json_line_of_an_exception_holds_no_value() -> None:
    sent = "a secret value"
    try:
        raise ValueError(sent)
    except ValueError:
        one = record(exc_info=sys.exc_info())
    assert "a secret value" in json.loads(JsonLine().format(one))["exception"]
    assert without_values(one)
    line = JsonLine().format(one)
    assert "\n" not in line
    assert "a secret value" not in line
    assert "ValueError" in json.loads(line)["message"]


def test_nothing_is_noted_where_nobody_watches(plain: httpx.Client) -> None:
    assert plain.post("/predict", json=ROW).status_code == 200
    assert "x-request-id" not in plain.post("/predict", json=ROW).headers
    assert NOTES.get() is None
