"""Clients that mean harm, or leave at the wrong moment: on the short way and beside it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from registry.bundle import ModelBundle
from registry.settings import Settings
from serving.app import create_app
from serving.batching import Batcher
from serving.champion import Served, Slot
from serving.guard import LOOK_SECONDS
from serving.keys import add_key, revoke_key
from serving.logbook import Logbook, LogSettings
from serving.metrics import Counts
from serving.prediction import Ids
from serving.server import LAST_SECONDS
from serving.singles import Singles
from tests.serving.conftest import ROW, FakeVersions, serve, wait_for
from tests.serving.test_express import BODY, BODY_SECONDS, Client, Line, asked, head, line_of, one_answer, plain


@pytest.fixture(scope="module")
def line(bundles: dict[str, ModelBundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with line_of(bundles["good"], tmp_path_factory.mktemp("adversaries")) as one:
        yield one


def test_the_rest_of_a_head_is_no_request(line: Line) -> None:
    """The first bytes of a head come with the request before it; the rest looks like a request whose head is known."""
    ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"
    with line.connect() as one, line.connect() as other:
        asked(other, head() + BODY)
        line.taken.clear()
        one.sendall(ask + b"\r\n" + ask + b"x-note: ")
        assert b'{"live":true}' in one_answer(one)
        time.sleep(0.05)
        one.sendall(head() + BODY)  # a header, two more, and the bytes of a body
        assert b'{"live":true}' in one_answer(one)
        assert line.taken == []


def test_nobody_without_a_key_takes_a_place(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    secret = add_key(Settings(home=tmp_path).key_file, "one", ["predict"])
    ours, theirs = (head(len(BODY), f"authorization: Bearer {key}") for key in (secret, "nobody"))
    with line_of(bundles["good"], tmp_path, max_concurrent=1) as line, line.connect() as one, line.connect() as other:
        assert asked(other, theirs + BODY)[0].startswith(b"HTTP/1.1 401 ")
        for _ in range(3):  # the head is known
            assert asked(other, theirs)[0].startswith(b"HTTP/1.1 401 ")
            assert line.app.inside == 0
            other.sendall(BODY)
            time.sleep(0.05)
        assert asked(one, ours + BODY)[0].startswith(b"HTTP/1.1 200 ")
        one.sendall(ours)
        wait_for(lambda: line.app.inside == 1)
        assert asked(other, theirs)[0].startswith(b"HTTP/1.1 401 ")
        assert asked(one, BODY)[0].startswith(b"HTTP/1.1 200 ")


def test_a_key_that_is_revoked_opens_no_known_head(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    file = Settings(home=tmp_path).key_file
    secret = add_key(file, "one", ["predict"])
    ours = head(len(BODY), f"authorization: Bearer {secret}") + BODY
    with line_of(bundles["good"], tmp_path) as line, line.connect() as one:
        assert [asked(one, ours)[0][:13] for _ in range(3)] == [b"HTTP/1.1 200 "] * 3
        revoke_key(file, "one")
        time.sleep(LOOK_SECONDS + 0.1)
        assert [asked(one, ours)[0][:13] for _ in range(2)] == [b"HTTP/1.1 401 "] * 2


def test_a_head_that_waits_is_answered_at_the_end(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "poll_seconds": 0.05, "drain_seconds": 0.0})
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    app = create_app(settings, "handmade", versions=versions)
    with serve(app, settings) as client:
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        one = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10)
        asked(one, head() + BODY)
        one.sendall(head())
        late = threading.Timer(2 * LAST_SECONDS, lambda: one.sendall(BODY))  # the server is about to end by then
        late.start()
    with one:
        told, body = one_answer(one)
    assert b"connection: close" in told
    assert plain(body)["predictions"]


def test_who_never_reads_is_not_waited_for(line: Line) -> None:
    rows = orjson.dumps([ROW] * 3_000)
    with line.connect() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        for _ in range(40):  # until the system keeps no more of their answers
            one.sendall(head(len(rows)) + rows)
            time.sleep(0.1)
            if line.app.inside:
                break
        begun = time.monotonic()
        wait_for(lambda: line.app.inside == 0, 10)
        assert time.monotonic() - begun < 3 * BODY_SECONDS


def test_those_behind_one_another_are_told_that_their_client_left(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    request = head(len(BODY), "x-request-id: 7") + BODY
    for _ in range(5):
        with line.connect() as one:
            one.sendall(request * 50)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    wait_for(lambda: line.app.inside == 0)
    time.sleep(0.1)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_the_rest_of_a_refused_body_is_no_head(line: Line) -> None:
    body = b"[" + b" " * 600_000 + b"]"
    with line.connect() as one:
        told, _ = asked(one, head(len(body), path="/models/nobody/predict") + body[:10])
        assert told.startswith(b"HTTP/1.1 404 ")
        one.sendall(body[10:])
        time.sleep(0.05)
        assert asked(one, head() + BODY)[0].startswith(b"HTTP/1.1 200 ")


def some_request(rng: random.Random) -> tuple[bytes, bytes, float | None]:
    """A request, the status of its answer, and the amount of its row, if it is answered."""
    amount = round(rng.random(), 2)
    body, wrong = (orjson.dumps({**ROW, "amount": one}) for one in (amount, "x"))
    inner = head() + BODY
    chunked = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    kinds: list[tuple[bytes, bytes, float | None]] = [
        (b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n", b"200", None),
        (head(len(wrong)) + wrong, b"422", None),
        (head(len(inner), path="/models/nobody/predict") + inner, b"404", None),
        (head(len(body), "x-request-id: 7") + body, b"200", amount),
        (chunked % (len(body), body), b"200", amount),
    ]
    return rng.choice([*kinds, *[(head(len(body)) + body, b"200", amount)] * len(kinds)])


@pytest.mark.parametrize("seed", range(3))
def test_requests_cut_anywhere_are_answered_each_and_in_turn(line: Line, seed: int) -> None:
    rng, told = random.Random(seed), dict[float, float]()
    line.taken.clear()
    for _ in range(15):
        requests = [some_request(rng) for _ in range(rng.randrange(1, 12))]
        data, borders = b"", set[int]()
        for request, _, _ in requests:
            borders |= {len(data), len(data) + request.find(b"\r\n\r\n") + 4}
            data += request
        cuts = [cut for cut in borders if rng.random() < 0.5] + rng.choices(range(len(data)), k=rng.randrange(9))
        places = sorted({0, len(data), *cuts})
        with line.connect() as one, one.makefile("rb") as answers:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for begin, end in itertools.pairwise(places):
                one.sendall(data[begin:end])
                time.sleep(rng.choice([0, 0, 0.001]))
            for _, status, amount in requests:
                lines = list(iter(answers.readline, b"\r\n"))
                assert lines[0].split()[1] == status
                (length,) = (int(each[15:]) for each in lines if each.startswith(b"content-length:"))
                body = answers.read(length)
                if amount is not None:
                    (found,) = orjson.loads(body)["predictions"]
                    assert told.setdefault(amount, found["probabilities"]["yes"]) == pytest.approx(
                        found["probabilities"]["yes"], abs=1e-6
                    )
    assert line.taken


class Gone(Client):
    """One whose connection fails when it is told."""

    def answer(self, body: bytes) -> None:
        raise RuntimeError("the handler is closed")


def test_a_connection_that_fails_is_none_of_the_others(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    served, counts = Served.load(bundles["good"], "1", "handmade"), Counts()
    clients = [Client(), Gone(), Client()]

    async def ask() -> None:
        logbook = Logbook(LogSettings("handmade", tmp_path, "", synced=False, max_bytes=10_000))
        logbook.append_all = lambda *_: None
        singles = Singles(Slot("handmade", served), logbook, counts, Ids(), Batcher(8), 10_000)
        assert all(singles.take(one, BODY) for one in clients)
        await asyncio.sleep(0.05)
        assert singles.inside == 0

    asyncio.run(ask())
    assert [len(one.told) for one in clients] == [1, 0, 1]
    assert counts.predictions["1"] == 3
