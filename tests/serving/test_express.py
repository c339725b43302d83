"""The short way of a single row: the same answers, log and counts as the long way, and nothing that opens by it."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.errors import StoreError
from registry.settings import Settings
from serving.app import Endpoint, create_app
from serving.batching import Batcher
from serving.champion import Served, Slot
from serving.express import KNOWN_HEADS
from serving.keys import add_key
from serving.logbook import Logbook, LogSettings
from serving.metrics import Counts
from serving.prediction import Ids
from serving.rows import Row, RowReader
from serving.singles import Singles
from tests.serving.conftest import ROW, FakeVersions, serve, wait_for
from tests.serving.test_faults import log_of

BODY = orjson.dumps(ROW)
BODY_SECONDS, IDLE_SECONDS = 1.0, 1.5


@dataclass
class Line:
    """An endpoint, a client of it, and what went its short way."""

    app: Endpoint
    client: httpx.Client
    home: Path
    taken: list[bytes] = field(default_factory=list)

    def connect(self) -> closing[socket.socket]:
        url = self.client.base_url
        return closing(socket.create_connection((url.host, url.port or 0), timeout=10))

    def metric(self, line: str) -> float:
        text = self.client.get("/metrics", headers=self.client.headers).text
        found = [one for one in text.splitlines() if one.startswith(line) and "/feedback" not in one]
        return sum(float(one.rpartition(" ")[2]) for one in found)


@contextmanager
def line_of(bundle: ModelBundle, home: Path, **changes: object) -> Iterator[Line]:
    versions = FakeVersions(v1=bundle)
    versions.champion = "1"
    bounds = {"poll_seconds": 0.05, "body_seconds": BODY_SECONDS, "idle_seconds": IDLE_SECONDS}
    settings = Settings.model_validate({"home": home, **bounds, **changes})
    app = create_app(settings, "handmade", versions=versions)
    assert isinstance(app, Endpoint)
    with serve(app, settings) as client:
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        line, express = Line(app, client, home), app.express
        assert express is not None
        take = express.take

        def noted(connection: Any, body: bytes, head: Any) -> None:
            line.taken.append(body)
            take(connection, body, head)

        express.take = noted  # type: ignore[method-assign]
        yield line
        assert (express.inside, app.inside) == (0, 0)


@pytest.fixture(scope="module")
def line(bundles: dict[str, ModelBundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with line_of(bundles["good"], tmp_path_factory.mktemp("express")) as one:
        yield one


def head(length: int = len(BODY), *more: str, path: str = "/predict") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "host: x", *more, f"content-length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def one_answer(one: socket.socket) -> tuple[bytes, bytes]:
    """The next answer's head and body, and nothing of what comes behind it."""
    told, body = b"", b""
    while not told.endswith(b"\r\n\r\n"):
        part = one.recv(1)
        assert part, "the connection was closed"
        told += part
    found = re.search(rb"content-length: (\d+)", told)
    assert found is not None
    while missing := int(found[1]) - len(body):
        part = one.recv(missing)
        assert part, "the connection was closed"
        body += part
    return told.removesuffix(b"\r\n\r\n"), body


def asked(one: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    one.sendall(data)
    return one_answer(one)


def plain(answer: bytes) -> Any:
    """An answer but for its id."""
    found = orjson.loads(answer)
    del found["predictions"][0]["id"]
    return found


def test_answers_log_and_counts_are_those_of_the_long_way(line: Line) -> None:
    before, stored = line.metric('everfit_predictions_total{task="handmade"'), log_of(line.home).counts().predictions
    line.taken.clear()
    with line.connect() as one:
        answers = [asked(one, head() + BODY) for _ in range(5)]
    assert line.taken == [BODY] * 4  # the first one's head was not known yet
    assert len({plain(body)["predictions"][0]["uncertainty"] for _, body in answers}) == 1
    assert all(plain(body) == plain(answers[0][1]) for _, body in answers)
    without_date = [re.sub(rb"date: [^\r]*\r\n", b"", told) for told, _ in answers]
    assert set(without_date) == {without_date[0]}
    assert len({orjson.loads(body)["predictions"][0]["id"] for _, body in answers}) == 5
    assert line.metric('everfit_predictions_total{task="handmade"') == before + 5
    wait_for(lambda: log_of(line.home).counts().predictions == stored + 5)
    logged = log_of(line.home).frame().tail(5)
    assert set(logged["amount"]) == {ROW["amount"]}
    assert set(logged["__version__"]) == {"1"}


def test_warnings_ignored_columns_and_latencies_are_counted(line: Line) -> None:
    odd = orjson.dumps({**ROW, "amount": 1e6, "strange": 1})
    names = ("outside_range_total", "ignored_values_total", "request_duration_seconds_count")
    with line.connect() as one:
        first = asked(one, head(len(odd)) + odd)[1]
        before = [line.metric(f"everfit_{name}") for name in names]
        line.taken.clear()
        assert plain(asked(one, head(len(odd)) + odd)[1]) == plain(first)
    assert line.taken == [odd]
    assert plain(first)["warnings"][1] == "strange: is no column of the model, and was ignored"
    assert "outside the range" in plain(first)["warnings"][0]
    assert [line.metric(f"everfit_{name}") - old for name, old in zip(names, before, strict=True)] == [1, 1, 1]


def test_a_body_apart_from_its_head_in_pieces_and_never(line: Line) -> None:
    with line.connect() as one:
        asked(one, head() + BODY)
        line.taken.clear()
        for parts in ((head(), BODY), (head(), BODY[:9], BODY[9:]), (head()[:20], head()[20:] + BODY)):
            for part in parts:
                one.sendall(part)
                time.sleep(0.05)
            assert plain(one_answer(one)[1])["predictions"]
        assert line.taken == [BODY]  # the others were not whole with the second read
        begun = time.monotonic()
        one.sendall(head())
        told, body = one_answer(one)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert b"EVERFIT_BODY_SECONDS" in body
        assert BODY_SECONDS - 0.1 < time.monotonic() - begun < BODY_SECONDS + 3


def test_a_client_that_leaves_after_its_head_is_forgotten(line: Line) -> None:
    with line.connect() as one:
        asked(one, head() + BODY)
        one.sendall(head())
        time.sleep(0.05)
        assert line.app.inside == 1
    wait_for(lambda: line.app.inside == 0)


def test_requests_behind_one_another_are_answered_in_turn(line: Line) -> None:
    rows = [orjson.dumps({**ROW, "amount": amount}) for amount in (0.1, 0.2, 0.3)]
    wrong = orjson.dumps({**ROW, "amount": "x"})
    with line.connect() as one, line.connect() as _another:  # two: so that a row waits a turn of the loop
        for row in (*rows, wrong):
            asked(one, head(len(row)) + row)
        expected = [plain(asked(one, head(len(row)) + row)[1]) for row in rows]
        one.sendall(b"".join(head(len(row)) + row for row in rows))
        assert [plain(one_answer(one)[1]) for _ in rows] == expected
        for row in (wrong, rows[0]):
            one.sendall(head(len(row)) + row)
        assert one_answer(one)[0].startswith(b"HTTP/1.1 422 ")
        assert plain(one_answer(one)[1]) == expected[0]


def test_what_is_more_than_a_row_goes_the_long_way(line: Line) -> None:
    for body in (orjson.dumps([ROW]), orjson.dumps({"rows": [ROW, ROW]}), b"{", b"[]", b'{"when": 3}'):
        with line.connect() as one:
            answers = [asked(one, head(len(body)) + body) for _ in range(3)]
        heads = {told.split(b"\r\n")[0] for told, _ in answers}
        assert len(heads) == 1, body
    with line.connect() as one:
        assert line.app.express is not None
        one.sendall(head(len(BODY), "transfer-encoding: identity") + BODY)
        time.sleep(0.05)
        assert line.app.express.find(head(len(BODY), "transfer-encoding: identity") + BODY) is None


def test_a_request_may_be_called_otherwise_each_time(line: Line) -> None:
    """By its id and by a trace, which proxies give: the short way, and the id on its answer as on the long one."""
    with line.connect() as one:
        asked(one, head(len(BODY), "X-Request-Id: first", "traceparent: 00-ab-cd-01") + BODY)
        line.taken.clear()
        for number, more in enumerate(
            [["X-Request-Id: a-1"], ["x-request-id:\ttrailing \t"], ["traceparent: 00-ef-01-01"], []]
        ):
            told, body = asked(one, head(len(BODY), *more) + BODY)
            given = [value for value in ("a-1", "trailing") if any(value in line_ for line_ in more)]
            assert re.findall(rb"(?im)^x-request-id: ([^\r]*)", told) == [value.encode() for value in given]
            assert orjson.loads(body)["predictions"][0]["id"]
            assert len(line.taken) == number + 1
        one.sendall(head(len(BODY), "X-Request-Id: apart"))  # the body comes later
        time.sleep(0.05)
        told, _ = asked(one, BODY)
        assert b"x-request-id: apart" in told
        wrong = orjson.dumps({**ROW, "amount": "much"})
        told, body = asked(one, head(len(wrong), "X-Request-Id: wrong") + wrong)
        assert told.count(b"x-request-id: wrong") == 1
        assert orjson.loads(body)["request_id"] == "wrong"


def test_an_odd_name_of_a_request_goes_the_long_way(line: Line) -> None:
    """Named twice, folded, not visible, too long: what becomes of such the parser says, and no head is cut wrongly."""
    odd = (
        ["X-Request-Id: a", "X-Request-Id: b"],
        ["X-Request-Id: two words"],
        ["X-Request-Id:"],
        ["X-Request-Id : a"],
        ["X-Request-Id: a", " folded: b"],
        ["X-Request-Id: " + "a" * 600],
        ["X-Request-Id: a\x7f"],
    )
    with line.connect() as one:
        for _ in range(2):
            asked(one, head(len(BODY)) + BODY)
    assert line.app.express is not None
    for more in odd:
        assert line.app.express.find(head(len(BODY), *more) + BODY) is None, more
    found = line.app.express.find(head(len(BODY), "X-Request-Id: " + "a" * 129) + BODY)
    assert found is not None
    assert found.request is None  # not echoed on either way


def test_bytes_of_a_body_are_no_request(line: Line) -> None:
    """A request is refused before its body has come; that body looks like a request whose head is known."""
    inner = head() + BODY
    with line.connect() as one:
        asked(one, inner)
    line.taken.clear()
    with line.connect() as one:
        told, _ = asked(one, head(len(inner), path="/models/nobody/predict"))
        assert told.startswith(b"HTTP/1.1 404 ")
        one.sendall(inner)
        time.sleep(0.1)
        assert asked(one, inner)[0].startswith(b"HTTP/1.1 200 ")  # the first answer since then
    assert len(line.taken) <= 1


def test_it_stays_open_as_long_as_it_is_used(line: Line) -> None:
    with line.connect() as one:
        for _ in range(4):
            assert asked(one, head() + BODY)[0].startswith(b"HTTP/1.1 200 ")
            time.sleep(IDLE_SECONDS / 2)
        begun = time.monotonic()
        assert one.recv(1) == b""
        assert time.monotonic() - begun < IDLE_SECONDS + 1.5


def test_heads_that_are_known_are_few(line: Line) -> None:
    express = line.app.express
    assert express is not None
    with line.connect() as one:
        for number in range(KNOWN_HEADS + 3):
            one.sendall(head(len(BODY), f"x-number: {number}") + BODY)
            one_answer(one)
    assert express.find(head(len(BODY), "x-number: 0") + BODY) is None
    assert express.find(head(len(BODY), f"x-number: {KNOWN_HEADS + 2}") + BODY) is not None
    assert len(express._heads) <= KNOWN_HEADS


def test_keys_and_their_rates_hold(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    file = Settings(home=tmp_path).key_file
    secret = add_key(file, "few", ["predict"], rate=3.0)
    other = add_key(file, "other", ["feedback", "read"])
    wrong = orjson.dumps({**ROW, "amount": "x"})
    with line_of(bundles["good"], tmp_path) as line, line.connect() as one:
        line.client.headers["authorization"] = f"Bearer {other}"
        for key, status in ((other, b"403"), ("nobody", b"401")):
            for _ in range(2):
                told, body = asked(one, head(len(BODY), f"authorization: Bearer {key}") + BODY)
                assert told.split()[1] == status
                assert b"x-request-id" in told
                assert orjson.loads(body)["request_id"] in told.decode()
        known = [asked(one, head(len(row), f"authorization: Bearer {secret}") + row)[0] for row in (wrong, BODY)]
        time.sleep(1.1)  # the bucket is full again
        line.taken.clear()
        rows = (wrong, BODY, wrong, BODY, BODY)  # one that does not fit is asked for its key once
        known += [asked(one, head(len(row), f"authorization: Bearer {secret}") + row)[0] for row in rows]
        assert [told.split()[1] for told in known] == [b"422", b"200", b"422", b"200", b"422", b"429", b"429"]
        assert len(line.taken) == 3  # those that may pass


def test_too_many_at_once_are_refused(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    with line_of(bundles["good"], tmp_path, max_concurrent=2) as line, line.connect() as one:
        asked(one, head() + BODY)
        with line.connect() as first, line.connect() as second:
            for slow in (first, second):
                slow.sendall(head())
            time.sleep(0.1)
            assert line.app.inside == 2
            assert asked(one, head() + BODY)[0].startswith(b"HTTP/1.1 503 ")
            with line.connect() as third:
                assert asked(third, head())[0].startswith(b"HTTP/1.1 503 ")
        wait_for(lambda: line.app.inside == 0)
        assert asked(one, head() + BODY)[0].startswith(b"HTTP/1.1 200 ")


class Client:
    """A connection that remembers what it was told."""

    alone = False

    def __init__(self) -> None:
        self.told: list[bytes | None] = []

    def answer(self, body: bytes) -> None:
        self.told.append(body)

    def give_back(self) -> None:
        self.told.append(None)


class FullLogbook(Logbook):
    """A log that takes nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LogSettings("handmade", folder, "", synced=False, max_bytes=0))
        self.append_all = self._refuse

    def _refuse(self, version: str, model: bytes, contents: object) -> None:
        raise StoreError("the disk is full")


def test_nobody_is_answered_what_is_not_in_the_journal(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    served, counts, clients = Served.load(bundles["good"], "1", "handmade"), Counts(), [Client() for _ in range(3)]
    singles = Singles(Slot("handmade", served), FullLogbook(tmp_path), counts, Ids(), Batcher(8), 10_000)

    async def ask() -> None:
        assert all(singles.take(one, BODY) for one in clients)
        assert singles.inside == 3
        await asyncio.sleep(0.05)

    asyncio.run(ask())
    assert [one.told for one in clients] == [[None]] * 3
    assert (singles.inside, counts.predictions["1"]) == (0, 0)


class Short(RowReader):
    """Gives too few values."""

    def values(self, row: Row) -> list[Any]:
        return super().values(row)[:1]


def test_a_call_that_fails_goes_the_long_way(bundles: dict[str, ModelBundle], tmp_path: Path) -> None:
    served = Served.load(bundles["good"], "1", "handmade")
    broken = replace(served, reader=Short(bundles["good"].manifest.data_schema))
    singles = Singles(Slot("handmade", broken), FullLogbook(tmp_path), Counts(), Ids(), Batcher(8), 10_000)
    client = Client()

    async def ask() -> None:
        assert singles.take(client, BODY)
        await asyncio.sleep(0.05)

    asyncio.run(ask())
    assert client.told == [None]
