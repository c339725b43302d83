"""A fault of ours on a hot route: a problem for the client, a count, an exception for the server's log."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import orjson
import pytest

from serving.champion import Slot
from serving.hot import HotRoute, Reply
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
