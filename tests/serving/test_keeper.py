"""The keeper: from journal to inference log, exactly once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import StoreError
from registry.inference_log import InferenceLog
from serving.champion import Served
from serving.journal import Journal, segment_path, segments
from serving.keeper import Run, count_records, predictions_of
from serving.rows import micros
from tests.serving.conftest import ROW

NOW = micros("2024-06-01T00:00:00")


@pytest.fixture
def log(tmp_path: Path) -> InferenceLog:
    return InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade")


def write(journal: Journal, served: Served, ids: list[str], sent: Any = None) -> None:
    rows = [ROW] * len(ids)
    answer = served.answers.write(ids, served.scorer.run(served.reader.many(rows)))
    body = orjson.dumps(sent if sent is not None else {"rows": rows, "ids": ids})
    content = b'{"received":%d,"answer":%b,"sent":%b}' % (NOW, answer, body)
    journal.append(served.version, served.record, content, len(ids))


@pytest.fixture
def served(bundles: dict[str, ModelBundle]) -> Served:
    return Served.load(bundles["good"], "7", "handmade")


@pytest.mark.parametrize("sent", [ROW, [ROW], {"rows": [ROW]}, {**ROW, "more": {"deep": [1]}}])
def test_a_record_becomes_a_prediction(served: Served, tmp_path: Path, log: InferenceLog, sent: Any) -> None:
    """Whatever form the request had, the log gets the schema's columns, the event time and the outputs."""
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write(journal, served, ["a"], sent)
    run = Run(journal.folder)
    while run.drain(log, alive=True):
        pass
    (row,) = log.frame().to_dict("records")
    assert row["__id__"] == "a"
    assert row["__time__"] == datetime(2024, 3, 1, 10)
    assert row["__received__"] == datetime(2024, 6, 1)
    assert row["__version__"] == "7"
    assert row["__prediction__"] in ("yes", "no")
    assert sum(row["__scores__"]) == pytest.approx(1)
    assert set(row["__set__"]) <= {0, 1}
    assert "more" not in row
    assert row["carrier"] == "AA"
    assert (run.at, run.records) == (journal.position, 1)
    journal.close()


def test_regression_has_an_interval_and_no_set(bundles: dict[str, ModelBundle]) -> None:
    served = Served.load(bundles["regression"], "1", "handmade")
    answer = served.answers.write(["a"], served.scorer.run(served.reader.one(ROW)))
    content = {"received": NOW, "answer": orjson.loads(answer), "sent": {**ROW, "when": None}}
    (one,) = predictions_of(content, orjson.loads(served.record))
    assert one.conformal is None
    assert one.scores[0] <= one.prediction <= one.scores[1]
    assert one.time == one.received


def test_nothing_is_lost_or_doubled_when_the_store_fails(
    served: Served, tmp_path: Path, log: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.journal.SEGMENT_BYTES", 2_000)
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    for number in range(20):
        write(journal, served, [f"{number}-a", f"{number}-b"])
    journal.close()

    class Failing(InferenceLog):
        def append(self, predictions: Any) -> int:
            super().append(predictions)
            raise StoreError("the answer to the commit was lost")

    run = Run(journal.folder)
    with pytest.raises(StoreError):
        run.drain(Failing(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade"))
    again = Run(journal.folder)
    while again.drain(log):
        pass
    assert segments(journal.folder) == []
    assert sorted(log.frame()["__id__"]) == sorted(f"{number}-{end}" for number in range(20) for end in "ab")


def test_a_record_that_cannot_be_read_holds_up_nothing(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write(journal, served, ["before"])
    journal.append(served.version, served.record, b'{"received":0,"answer":{"model":{}},"sent":{}}', 1)
    write(journal, served, ["after"])
    run = Run(journal.folder)
    while run.drain(log, alive=True):
        pass
    assert sorted(log.frame()["__id__"]) == ["after", "before"]
    assert run.records == 3
    assert len(list((tmp_path / "journal").glob("*.damaged"))) == 1
    journal.close()


def test_a_damaged_segment_is_set_aside(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    """The records before the damage are stored; the file is kept for a person to look at."""
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write(journal, served, ["good"])
    write(journal, served, ["bad"])
    journal.close()
    path = segment_path(journal.folder, 1)
    path.write_bytes(path.read_bytes().replace(b'"bad"', b'"bXd"'))
    assert count_records(journal.folder) == 1
    run = Run(journal.folder)
    while run.drain(log):
        pass
    assert list(log.frame()["__id__"]) == ["good"]
    assert len(list((tmp_path / "journal").glob("*.damaged"))) == 1
