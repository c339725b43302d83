"""What serving keeps to itself: the journal's files, the lines of its logs, and rows that nobody says how to hide."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import TaskError
from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.privacy import Privacy, Vault
from registry.task import LogColumns
from serving.champion import Served
from serving.discretion import Discretion, write_private
from serving.journal import Journal
from serving.runs import Run
from serving.shadow import Shadow
from tests.handmade import make_bundle, make_task
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for

SECRET = "zz-secret"
KEY = "a secret of the installation, 1234"


@pytest.fixture
def careless() -> Iterator[None]:
    """A process whose files are everybody's unless it says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> set[tuple[str, int]]:
    found = [folder, *folder.rglob("*")]
    return {("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode)) for path in found}


@pytest.mark.usefixtures("careless")
def test_the_journal_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "journal" / "handmade"
    folder.mkdir(parents=True)
    journal = Journal(folder, max_bytes=10**6)
    write_private(folder / "a-record.damaged", b"{}")
    assert modes(folder) == {("folder", 0o700), ("file", 0o600)}
    journal.close()


def write(journal: Journal, served: Served, one: str) -> None:
    answer = served.answers.write([one], served.scorer.run(served.reader.one(ROW)))
    body = b'{"received":0,"answer":%b,"sent":%b}' % (answer, orjson.dumps({**ROW, "carrier": SECRET}))
    journal.append(served.version, served.record, body, 1)


def test_rows_follow_the_registered_task_or_else_their_models_and_wait_while_it_cannot_be_read(tmp_path: Path) -> None:
    served = Served.load(make_bundle(tmp_path / "bundle", rows=100, log={"drop": ["carrier"]}), "7", "handmade")
    journal, file = Journal(tmp_path / "journal", max_bytes=10**6), tmp_path / "handmade.yaml"
    vault = Vault(KEY)
    run = Run(journal.folder, discretion=Discretion("handmade", vault, file))
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    log = InferenceLog(engine, "handmade", Privacy(vault=vault))

    def logged(one: str) -> LogColumns | None:
        write(journal, served, one)
        while run.drain(log, alive=True):
            pass
        found: LogColumns | None = log.frame(columns=[]).set_index("__id__")["__private__"][one]
        return found

    assert logged("model's") == LogColumns(drop=("carrier",))
    file.write_bytes(orjson.dumps(make_task(log={"encrypt": ["carrier"]}).model_dump(mode="json")))
    assert logged("task's") == LogColumns(encrypt=("carrier",))
    file.write_text("log: {encrypt: [carrier")
    with pytest.raises(TaskError, match="not valid YAML"):
        logged("waiting")
    assert log.counts().predictions == 2
    file.write_bytes(orjson.dumps(make_task().model_dump(mode="json")))
    assert logged("plain") is None
    assert log.frame(columns=["carrier"])["carrier"].fillna("").tolist() == ["", SECRET, SECRET, SECRET]
    journal.close()


def test_what_a_shadow_could_not_answer_is_not_quoted(bundles: dict[str, ModelBundle]) -> None:
    shadow = Shadow("2", bundles["good"].folder)
    answered = Batch("1", "champion", ["a"], [0], [0], [ROW], ["yes"], [[0.1, 0.9]], [[1]], [0.3], [0.0])
    assert shadow.beside([{**ROW, "amount": SECRET}], answered) == []
    assert shadow.report()["last_error"] == "a value in column 'amount' does not fit"


def test_no_line_of_the_log_and_no_state_quotes_a_request(
    tmp_path: Path, bundles: dict[str, ModelBundle], caplog: pytest.LogCaptureFixture
) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    caplog.set_level(logging.DEBUG)
    with endpoint(tmp_path, versions) as client:
        known = client.post("/predict", json={"rows": [{**ROW, "carrier": SECRET, SECRET: SECRET}], "ids": [SECRET]})
        assert known.status_code == 200
        for body in ({**ROW, "amount": SECRET}, {**ROW, "when": SECRET}, {"rows": SECRET}, [SECRET]):
            refused = client.post("/predict", json=body)
            assert refused.status_code in (400, 422)
        assert client.post("/predict", content=f'{{"{SECRET}').status_code == 400
        label = {"labels": [{"id": "a", "label": SECRET}]}
        client.post("/feedback", json=label)
        log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade")
        wait_for(lambda: log.counts().predictions == 1)
        told = [client.get(path).text for path in ("/model", "/metrics", "/health/ready", "/models")]
    assert not any(SECRET in text for text in (*told, caplog.text))
    assert caplog.records
