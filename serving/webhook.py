"""`POST /registry/changed`: MLflow's registry says that something changed, so that the endpoint looks at once.

The webhook only wakes: what is true is read from the registry, so that a forged, lost or repeated one changes nothing.
It passes without a key, by its signature: HMAC-SHA256 of `ID.TIME.BODY` under EVERFIT_WEBHOOK_SECRET, as MLflow signs
its webhooks (the scheme of standardwebhooks.com). Without a secret there is no such route.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from serving.body import read_body
from serving.hosts import Hosts
from serving.problems import UnsignedError

PATH = "/registry/changed"
MAX_BYTES = 65_536
FRESH_SECONDS = 300
"""How old a webhook may be: one that was listened to cannot be sent again later."""


def add_webhook(app: FastAPI, hosts: Hosts, secret: str) -> None:
    """The route, for webhooks signed with this secret."""

    @app.post(PATH, status_code=204, summary="MLflow's webhook: the registry changed", tags=["MLflow"])
    async def changed(request: Request) -> Response:
        body = await read_body(request.scope, request.receive, MAX_BYTES)
        headers = {name.decode("latin-1"): value for name, value in request.scope["headers"]}
        check_signature(headers, body, secret, now=time.time())
        for host in hosts:
            host.follower.wake()
        return Response(status_code=204)


def check_signature(headers: dict[str, bytes], body: bytes, secret: str, *, now: float) -> None:
    """Raise `UnsignedError` unless the headers sign this body with this secret, and were written not long ago."""
    sent, number = headers.get("x-mlflow-timestamp", b""), headers.get("x-mlflow-delivery-id", b"")
    if not sent.isdigit() or abs(now - int(sent[:20])) > FRESH_SECONDS:
        raise UnsignedError("X-MLflow-Timestamp: expected a moment of the last five minutes, in seconds since 1970")
    digest = hmac.digest(secret.encode(), b"%b.%b.%b" % (number, sent, body), hashlib.sha256)
    if not hmac.compare_digest(headers.get("x-mlflow-signature", b""), b"v1," + base64.b64encode(digest)):
        raise UnsignedError("X-MLflow-Signature: expected that of this body under EVERFIT_WEBHOOK_SECRET")
