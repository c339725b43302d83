"""Requests that are counted: against a small real server that fails as it is told."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.traffic import Counts, Endpoint, background
from registry.errors import InputError, OutsideError
from tests.certificates import make_certificate


class Moody(ThreadingHTTPServer):
    """Answers with the next of `moods`, and 200 when there is none left; keeps the bodies it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.moods: list[int] = []
        self.bodies: list[object] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """One request of `Moody`."""

    protocol_version = "HTTP/1.1"
    server: Moody

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(json.loads(body))
        self.server.paths.append(self.path)
        status = self.server.moods.pop(0) if self.server.moods else 200
        content = json.dumps({"detail": "row 0, column 'amount'", "status": status}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Moody]:
    with Moody() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def endpoint(server: Moody) -> Iterator[Endpoint]:
    found = Endpoint(server.url)
    yield found
    found.close()


def test_a_server_error_is_tried_again_and_counted(server: Moody, endpoint: Endpoint) -> None:
    server.moods = [500, 503]
    assert endpoint.post("/predict", {"rows": []})["status"] == 200
    assert endpoint.counts == Counts(sent=1, retried=2, failed=0)
    assert server.bodies == [{"rows": []}] * 3


def test_one_of_several_tasks_is_asked_under_its_name(server: Moody) -> None:
    endpoint = Endpoint(server.url, "flights")
    endpoint.post("/feedback", {"labels": []})
    with endpoint.meanwhile([{"rows": []}]) as counts:
        while len(server.paths) < 2:
            time.sleep(0.01)
    endpoint.close()
    assert set(server.paths) == {"/models/flights/feedback", "/models/flights/predict"}
    assert counts.sent >= 1


def test_a_refusal_is_not_tried_again_and_says_why(server: Moody, endpoint: Endpoint) -> None:
    server.moods = [422]
    with pytest.raises(InputError, match="422 row 0, column 'amount'"):
        endpoint.post("/predict", {})
    assert endpoint.counts == Counts(sent=1, retried=0, failed=1)
    assert len(server.bodies) == 1


def test_who_has_no_key_is_told_which_one_is_sent(server: Moody, endpoint: Endpoint) -> None:
    server.moods = [401]
    with pytest.raises(InputError, match=r"401 .*EVERFIT_API_KEY"):
        endpoint.post("/predict", {})


def test_a_server_that_stays_away_is_outside() -> None:
    endpoint = Endpoint("http://127.0.0.1:9", retries=1)
    with pytest.raises(OutsideError, match="no answer"):
        endpoint.post("/predict", {})
    assert endpoint.counts == Counts(sent=1, retried=1, failed=1)
    endpoint.close()


def test_background_traffic_counts_what_is_dropped_and_goes_on(server: Moody) -> None:
    server.moods = [200, 503, 200]
    with background(lambda: Endpoint(server.url, retries=0), [{"row": 1}, {"row": 2}], rate=200) as counts:
        while len(server.bodies) < 8:
            time.sleep(0.005)
    assert counts.failed == 1
    assert counts.sent == len(server.bodies)
    assert server.bodies[:4] == [{"row": 1}, {"row": 2}, {"row": 1}, {"row": 2}]


def test_background_traffic_without_rows_is_none(server: Moody) -> None:
    with background(lambda: Endpoint(server.url, retries=0), []) as counts:
        pass
    assert counts == Counts()
    assert server.bodies == []


def test_the_wrong_scheme_is_told_with_the_right_one(server: Moody, tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=rf"it does not speak HTTPS: ask {server.url}"):
        Endpoint(server.url.replace("http", "https")).model(patient=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path / "own"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(OutsideError, match=rf"it speaks HTTPS: ask {server.url.replace('http', 'https')}"):
        Endpoint(server.url).model(patient=False)
    with pytest.raises(OutsideError, match="EVERFIT_TLS_CERT as the endpoint has it, and without --url"):
        Endpoint(server.url.replace("http", "https")).model(patient=False)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://localhost"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=rf"such as http://127.0.0.1:8000, got '{url}'"):
        Endpoint(url)
