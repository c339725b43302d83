"""What is in `deployment/` fits a running endpoint: every metric of the dashboard and the alerts is really shown."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events import DeploymentEventTrigger as EventTrigger

from flows.deployments import of_any_task, watch_of
from registry.bundle import ModelBundle
from registry.settings import Settings
from tests.handmade import make_bundle
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for
from tests.serving.observed import metrics_of, watch_weeks

ROOT = Path(__file__).parent.parent / "deployment"
RULES = yaml.safe_load((ROOT / "prometheus" / "alerts.yml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "grafana" / "everfit.json").read_text())
OF_PROMETHEUS = {"up"}
PROMTOOL = shutil.which("promtool")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in ALERTS)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["expr"] for one in DASHBOARD["annotations"]["list"])
    yield from (one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query")


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it is asked for."""
    bare = re.sub(r"\bby \([^)]*\)|\bon\([^)]*\)", " ", expression)
    for name, braces in re.findall(r"\b((?:everfit|process)_\w+|up)\b(\{[^}]*\})?", bare):
        yield name, set(re.findall(r"(\w+)\s*[=!]~?\s*\"", braces))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "good", rows=100)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, bundle: ModelBundle) -> dict[str, set[str]]:
    """The metrics of a running endpoint, and their labels."""
    home = tmp_path_factory.mktemp("home")
    watch_weeks(home, bundle)
    versions = FakeVersions(v1=bundle)
    versions.champion = "1"
    with endpoint(home, versions, ledger_seconds=0.1) as client:
        assert client.post("/predict", json=ROW).status_code == 200
        wait_for(lambda: 'everfit_window_rows{task="handmade"}' in metrics_of(client))
        found: dict[str, set[str]] = {}
        for key in metrics_of(client):
            name, _, labels = key.partition("{")
            found.setdefault(name, {"job", "instance"}).update(re.findall(r'(\w+)="', labels))
    return found


def test_a_work_pool_has_the_deployments_that_one_process_serves() -> None:
    """Of `deployment/prefect.yaml`: the same flows, which take what they are given, on the same event."""
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    served = [watch_of("{{ $EVERFIT_TASK }}", Settings()), *of_any_task()]
    assert [one["name"] for one in written] == [one.name for one in served]
    for mine, theirs in zip(written, served, strict=True):
        module, _, name = mine["entrypoint"].partition(":")
        assert f"{module}.{name}" == theirs.entrypoint
        assert mine.get("parameters", {}) == theirs.parameters
        taken = inspect.signature(getattr(import_module(module), name)).parameters
        triggers = [EventTrigger.model_validate(one) for one in mine.get("triggers", ())]
        assert set(mine.get("parameters", {})).union(*(one.parameters or {} for one in triggers)) <= set(taken)
        kept = {"name", "enabled", "match", "expect", "parameters"}
        assert [one.model_dump(include=kept) for one in triggers] == [
            one.model_dump(include=kept) for one in theirs.triggers
        ]


def test_every_metric_and_label_named_is_shown(shown: dict[str, set[str]]) -> None:
    asked = [one for expression in expressions() for one in selectors(expression) if one[0] not in OF_PROMETHEUS]
    assert len(asked) > 60
    assert {name for name, _ in asked} - shown.keys() == set()
    assert [(name, labels) for name, labels in asked if not labels <= shown[name]] == []


def test_alerts_name_what_they_are_about() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
    wanted = {"NotReady", "Errors", "Slow", "LogBacklog", "LogFault", "RegistryAway", "Degraded", "NoLabels"}
    wanted |= {"PassesStopped", "NoRequests"}
    assert {f"Everfit{name}" for name in wanted} <= set(names)


def test_panels_do_not_overlap_and_ask_something() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        mine = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not mine & places, panel["title"]
        assert max(x for x, _ in mine) < 24
        places |= mine
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize("words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], cwd=ROOT / "prometheus", capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_reads_what_the_dashboard_asks(tmp_path: Path) -> None:
    """As rules, which it can check: Grafana's words replaced as Grafana does."""
    assert PROMTOOL is not None
    asked = [one for one in expressions() if not one.startswith("label_values(")]
    plain = [one.replace("$__rate_interval", "1m").replace("$task", "flights") for one in asked]
    assert not [one for one in plain if "$" in one]
    rules = [{"record": f"asked:{number}", "expr": one} for number, one in enumerate(plain)]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    command = [PROMTOOL, "check", "rules", str(tmp_path / "asked.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert f"{len(plain)} rules found" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
