"""MLflow's webhook wakes the endpoint; what is not signed does not."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from registry.bundle import ModelBundle
from serving.problems import UnsignedError
from serving.webhook import PATH, check_signature
from tests.serving.conftest import FakeVersions, endpoint, wait_for

BODY = '{"entity": "model_version_alias", "action": "created", "data": {"name": "handmade", "alias": "champion"}}'


def signed(secret: str, body: str = BODY, when: float | None = None) -> dict[str, str]:
    """The headers that MLflow sends."""
    sent = str(int(time.time() if when is None else when))
    return {
        "X-MLflow-Delivery-Id": "d-1",
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": _generate_hmac_signature(secret, "d-1", sent, body),
    }


def test_a_signed_webhook_makes_the_endpoint_look(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """With a poll once an hour, and a key: the webhook needs none."""
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    versions.champion = "1"
    changes = {"poll_seconds": 3600, "webhook_secret": "s3cret", "api_key": "key"}
    with endpoint(tmp_path, versions, **changes) as client:
        versions.champion = "2"
        refused = client.post(PATH, content=BODY, headers=signed("another"))
        assert (refused.status_code, "s3cret" in refused.text) == (401, False)
        assert client.post(PATH, content=BODY, headers=signed("s3cret")).status_code == 204
        own = {"authorization": "Bearer key"}
        wait_for(lambda: client.get("/model", headers=own).json()["version"] == "2", seconds=10)


def test_without_a_secret_there_is_no_route(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        assert client.post(PATH, content=BODY, headers=signed("s3cret")).status_code == 404


@pytest.mark.parametrize("headers", [{}, signed("s3cret", "other"), signed("s3cret", when=time.time() - 1000)])
def test_what_is_not_signed_now_is_refused(headers: dict[str, str]) -> None:
    given = {name: value.encode() for name, value in httpx.Headers(headers).items()}
    with pytest.raises(UnsignedError, match="X-MLflow"):
        check_signature(given, BODY.encode(), "s3cret", now=time.time())
