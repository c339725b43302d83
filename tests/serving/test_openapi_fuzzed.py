"""The endpoint holds to its own OpenAPI document: no 5xx whatever schemathesis asks, and answers as described."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from registry.bundle import ModelBundle
from tests.serving.conftest import FakeVersions, endpoint

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
EXAMPLES = 8


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, ModelBundle]) -> Iterator[httpx.Client]:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path_factory.mktemp("home"), versions) as one:
        yield one


# A thread of the endpoint, or of a library, that draws a number meanwhile looks to Hypothesis as if a strategy had.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_every_operation_holds_to_its_description(client: httpx.Client) -> None:
    from schemathesis import checks

    wanted = [checks.not_a_server_error, checks.response_schema_conformance, checks.content_type_conformance]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {"/predict", "/feedback", "/model", "/metrics", "/health/ready"} <= {one.path for one in operations}
    for operation in operations:
        for mode in modes if operation.body else modes[:1]:  # what has no body cannot be asked wrongly
            _ask(client, operation, mode, wanted)


def _ask(client: httpx.Client, operation: object, mode: object, checks: list[object]) -> None:
    """Bodies that fit the description, or that do not."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def one(case: object) -> None:
        case.call_and_validate(base_url=str(client.base_url), checks=checks)

    one()
