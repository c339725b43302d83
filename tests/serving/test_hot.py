"""What hot routes have in common: a fault of ours is a problem for the client, a count, an exception for the server's
log; large bodies wait for one another, small ones for nobody."""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import orjson
import pytest
from onnx import TensorProto, helper

from serving.body import AT_ONCE
from serving.champion import Slot
from serving.hot import LARGE_AT_ONCE, THREAD_BYTES, HotRoute, Reply
from serving.lean import Tidy, mapped_code
from serving.metrics import Counts


class Faulty(HotRoute):
    name: ClassVar[str] = "/faulty"

    async def reply(self, scope: Any, body: bytes) -> Reply:
        raise ZeroDivisionError("a secret of the row")


def test_a_fault_is_answered_counted_and_raised() -> None:
    counts, sent = Counts(), []
    route = Faulty(Slot("handmade"), counts, max_bytes=100, max_rows=1)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(route({"type": "http", "path": "/faulty", "headers": []}, receive, send))
    start, body = sent
    assert (start["status"], route.inside) == (500, 0)
    assert counts.requests["/faulty", 500] == 1
    told = orjson.loads(body["body"])
    assert told["status"] == 500
    assert "secret" not in str(told)


class Slow(HotRoute):
    name: ClassVar[str] = "/predict"
    large = small = most_large = most_small = 0

    async def reply(self, scope: Any, body: bytes) -> Reply:
        if len(body) < THREAD_BYTES:
            self.small += 1
            self.most_small = max(self.most_small, self.small)
            await asyncio.sleep(0.01)
            self.small -= 1
        else:
            self.large += 1
            self.most_large = max(self.most_large, self.large)
            await asyncio.sleep(0.01)
            self.large -= 1
        return Reply(b"{}")


def test_few_large_bodies_are_worked_on_at_once() -> None:
    route, answered = Slow(Slot("handmade"), Counts(), max_bytes=2 * THREAD_BYTES, max_rows=1), []

    async def ask(body: bytes) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            answered.append(message.get("status"))

        await route({"type": "http", "path": "/predict", "headers": []}, receive, send)

    async def all_at_once() -> None:
        await asyncio.gather(*(ask(b" " * size) for size in (THREAD_BYTES, 10) for _ in range(20)))

    asyncio.run(all_at_once())
    assert answered.count(200) == 40
    assert (route.most_large, route.most_small) == (LARGE_AT_ONCE, 20)


def test_compressed_bodies_count_as_large_where_they_are_unpacked() -> None:
    """A few kilobytes may become a hundred thousand rows: they wait, and no event loop unpacks them."""

    class Unpacking(Slow):
        unpacks: ClassVar[bool] = True

    for kind, expected in ((Unpacking, LARGE_AT_ONCE), (Slow, 20)):
        route = kind(Slot("handmade"), Counts(), max_bytes=100, max_rows=1)
        scope = {"type": "http", "path": "/predict", "headers": [(b"content-encoding", b"gzip")]}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"packed", "more_body": False}

        async def send(message: Any) -> None:
            """Nobody reads it."""

        async def all_at_once(route: Slow = route, scope: Any = scope) -> None:
            await asyncio.gather(*(route(scope, receive, send) for _ in range(20)))

        asyncio.run(all_at_once())
        assert route.most_small == expected


def test_an_answer_that_can_leave_at_once_does() -> None:
    """A connection that takes whole answers is given one; where it refuses, ASGI is spoken."""
    for takes, expected in ((True, []), (False, ["http.response.start", "http.response.body"])):
        route, whole, sent = Slow(Slot("handmade"), Counts(), max_bytes=100, max_rows=1), list[bytes](), list[str]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any, sent: list[str] = sent) -> None:
            sent.append(message["type"])

        def at_once(body: bytes, whole: list[bytes] = whole, takes: bool = takes) -> bool:
            whole.append(body)
            return takes

        scope = {"type": "http", "path": "/predict", "headers": [], AT_ONCE: at_once}
        asyncio.run(route(scope, receive, send))
        assert (whole, sent) == ([b"{}"], expected)


def test_a_large_body_that_is_refused_is_tidied_up_after_too(monkeypatch: pytest.MonkeyPatch) -> None:
    later = list[Tidy]()
    monkeypatch.setattr(Tidy, "later", lambda tidy: later.append(tidy))
    route = Faulty(Slot("handmade"), Counts(), max_bytes=THREAD_BYTES, max_rows=1)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b" " * THREAD_BYTES, "more_body": False}

    async def send(_message: Any) -> None:
        """Nobody reads it."""

    with pytest.raises(ZeroDivisionError):
        asyncio.run(route({"type": "http", "path": "/faulty", "headers": []}, receive, send))
    assert len(later) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_what_large_requests_took_is_given_back() -> None:
    async def requests() -> None:
        tidy, held = Tidy(0.05), [b"x" * 50_000 for _ in range(600)]
        last = b"y" * 50_000  # what is freed below it stays, unless it is asked for
        del held
        before = megabytes()
        for _ in range(3):
            tidy.later()
        while megabytes() > before - 20:
            await asyncio.sleep(0.01)
        assert last

    asyncio.run(asyncio.wait_for(requests(), 20))


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells of a process")
def test_code_of_libraries_that_nobody_calls_leaves_memory_and_comes_back_when_called() -> None:
    code = {one for one in mapped_code() if "onnxruntime_pybind11_state" in one.file}

    async def quiet() -> float:
        tidy = Tidy(0.01)
        before = megabytes()
        tidy.later()
        while megabytes() > before - 4:
            await asyncio.sleep(0.01)
        return before

    assert len(code) == 1
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [_number("x")], [_number("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    asyncio.run(asyncio.wait_for(quiet(), 20))
    assert session.run(None, {"x": np.array([-2.0], dtype=np.float32)})[0].tolist() == [2.0]
    assert {one for one in mapped_code() if one in code} == code


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells of a process")
def test_code_of_a_file_whose_name_is_no_text_is_no_fault(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.so"
    with open(path, "w+b") as file:
        file.write(b"\0" * 4096)
        file.flush()
        with mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC):
            assert any("caf" in one.file for one in mapped_code())


def _number(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
