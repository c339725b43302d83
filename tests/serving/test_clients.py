"""Others' own clients, each in the environment that it asks for: its packages are not ours.

`EVERFIT_TRITON_PYTHON` and `EVERFIT_KSERVE_PYTHON` name interpreters with `tritonclient[http]` and `kserve`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from tests.serving.conftest import FakeVersions, endpoint

CLIENTS = Path(__file__).parent / "clients"


@pytest.mark.parametrize("client", ["triton", "kserve"])
def test_a_client_is_answered_and_its_rows_are_logged(
    client: str, tmp_path: Path, bundles: dict[str, ModelBundle]
) -> None:
    variable = f"EVERFIT_{client.upper()}_PYTHON"
    if (python := os.environ.get(variable)) is None:
        pytest.skip(f"{variable} names no interpreter with that client")
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as own:
        address = f"{own.base_url.host}:{own.base_url.port}"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        asked = subprocess.run(
            [python, str(CLIENTS / f"ask_{client}.py"), address],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
    assert asked.returncode == 0, asked.stderr
    ids = json.loads(asked.stdout.splitlines()[-1])
    frame = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade").frame()
    assert sorted(frame["__id__"]) == sorted(ids)
    assert len(set(ids)) == len(ids) > 3
