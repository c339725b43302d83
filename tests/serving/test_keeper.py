"""The keeper: from journal to inference log, exactly once."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine, reading, writing
from registry.errors import StoreError
from registry.image_store import ImageStore
from registry.images import decode_sent, digest_of
from registry.inference_log import Feedback, InferenceLog
from registry.log_batch import Batch
from registry.log_ids import runs_of
from registry.privacy import Privacy, Vault
from registry.schema import ImageColumn
from serving.champion import Served
from serving.discretion import Discretion
from serving.journal import TABLE, Journal, Position, segment_path, segments
from serving.keeper import Keeper
from serving.prediction import Ids
from serving.records import read
from serving.rows import micros
from serving.runs import Run, count_records
from serving.shadow import Shadow
from serving.sightings import Album
from serving.tabled import payload
from serving.tables import table_of_lists
from tests.pictures import encoded, painted
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
    (found,) = read([content], orjson.loads(served.record))
    one = found.made
    ((low, high),) = one.scores
    assert one.conformal is None
    assert low <= float(one.predictions[0]) <= high
    assert one.times == one.received == [NOW]


@pytest.mark.parametrize("kind", ["good", "multiclass", "regression"])
def test_requests_by_columns_and_by_rows_are_logged_alike(
    bundles: dict[str, ModelBundle], tmp_path: Path, kind: str
) -> None:
    """Several requests by rows, which are read together, and one by columns, with the same rows: as a request with
    images is kept, and as all others are, which the keeper does not read."""
    served = Served.load(bundles[kind], "7", "handmade")
    rows = [{**ROW, "amount": number / 3, "carrier": carrier} for number, carrier in enumerate(("AA", None, "Zé"))]
    rows[1]["when"] = None
    scores = served.scorer.run(served.reader.many(rows))
    ids, frames = ["a", "b", "c"], []
    sent = {"columns": {name: [row[name] for row in rows] for name in ROW}}
    parts = [slice(0, 1), slice(1, 3)]
    by_rows = [(served.answers.write(ids[part], scores.take(part)), rows[part]) for part in parts]
    by_columns = [(served.answers.write_columns(served.answers.columns(ids, scores)), sent)]
    table = table_of_lists(sent["columns"], served.kinds, max_rows=3)
    for number, requests in enumerate((by_rows, by_columns, [])):
        journal = Journal(tmp_path / f"journal{number}", max_bytes=10**6)
        for answer, body in requests:
            content = b'{"received":%d,"answer":%b,"sent":%b}' % (NOW, answer, orjson.dumps(body))
            journal.append(served.version, served.record, content, 1)
        if not requests:
            record = payload(served.version, served.logged, runs_of(ids), table, scores, NOW)
            journal.append(served.version, served.record, record, 3, TABLE)
        log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/{number}.db"), "handmade")
        Run(journal.folder).drain(log, alive=True)
        frames.append(log.frame())
        journal.close()
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])
    assert frames[0]["__time__"].tolist() == [datetime(2024, 3, 1, 10)] * 2 + [datetime(2024, 6, 1)]
    assert frames[0].set_index("__id__")["amount"].to_dict() == {"a": 0, "b": 1 / 3, "c": 2 / 3}


def write_table(journal: Journal, served: Served, ids: list[str]) -> None:
    columns = {name: [value] * len(ids) for name, value in ROW.items()}
    table = table_of_lists({**columns, "more": [1] * len(ids)}, {**served.kinds, "more": "numeric"}, max_rows=len(ids))
    scores = served.scorer.run(served.reader.table(table))
    record = payload(served.version, served.logged, runs_of(ids), table, scores, NOW)
    journal.append(served.version, served.record, record, len(ids), TABLE)


def test_a_table_is_hidden_shadowed_and_stored_once_as_rows_are(
    served: Served, bundles: dict[str, ModelBundle], tmp_path: Path, log: InferenceLog
) -> None:
    """What the keeper moves unread is read where it has to be; a commit whose answer was lost doubles nothing."""
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write_table(journal, served, Ids().take(5))
    write_table(journal, served, ["a", "b"])
    run = Run(journal.folder, discretion=Discretion("handmade", Vault("x" * 32)))
    run.shadow = Shadow("8", bundles["good"].folder), Position(0, 0)
    run.drain(log, alive=True)
    assert (run.at, run.records) == (journal.position, 7)
    again = Run(journal.folder)
    again.drain(log, alive=True)
    assert log.counts(role=None).predictions == 14
    assert run.shadow[0].report()["agreed"] == 7
    assert set(log.frame().columns) >= set(served.logged.names)
    assert "more" not in log.frame().columns
    pd.testing.assert_frame_equal(
        log.frame().drop(columns="__version__"), log.frame(role="shadow").drop(columns="__version__")
    )
    told = orjson.loads(served.record) | {"log": {"drop": ["carrier"], "encrypt": ["amount"]}}
    journal.close()
    hidden = Journal(tmp_path / "hidden", max_bytes=10**6)
    write_table(hidden, replace(served, record=orjson.dumps(told)), ["c", "d"])
    other = InferenceLog(open_engine(f"sqlite:///{tmp_path}/other.db"), "handmade", Privacy(vault=Vault("x" * 32)))
    Run(hidden.folder, discretion=Discretion("handmade", Vault("x" * 32))).drain(other, alive=True)
    frame = other.frame()
    assert "carrier" not in frame.columns
    assert frame["amount"].tolist() == [ROW["amount"]] * 2
    with reading(open_engine(f"sqlite:///{tmp_path}/other.db")) as connection:
        (features,) = connection.exec_driver_sql("SELECT features FROM batches").scalars()
    assert set(orjson.loads(features)) == set(served.logged.names) - {"amount", "carrier"}
    hidden.close()


@pytest.mark.parametrize("order", ["rows first", "table first", "versions"])
def test_of_an_id_that_comes_twice_the_first_row_is_logged(
    served: Served, bundles: dict[str, ModelBundle], tmp_path: Path, log: InferenceLog, order: str
) -> None:
    """Within what the keeper stores at once too, whatever the form of the two requests and whoever answered them."""
    other = Served.load(bundles["good"], "8", "handmade")
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    if order == "rows first":
        write(journal, served, ["a"])
        write_table(journal, other, ["b", "a"])
    elif order == "table first":
        write_table(journal, served, ["a"])
        write(journal, other, ["b", "a"])
    else:
        write(journal, other, ["b"])
        write(journal, served, ["a"])
        write(journal, other, ["a"])
    write(journal, other, ["c"])
    Run(journal.folder).drain(log, alive=True)
    frame = log.frame(columns=())
    assert dict(zip(frame["__id__"], frame["__version__"], strict=True)) == {"a": "7", "b": "8", "c": "8"}
    journal.close()


@pytest.mark.parametrize("content", [b"", b"{}\n{}", b"{}\n{}\n{}\n{}\n{}", b"[1]\n\n\n\n", b"\xff\n\n\n\n"])
def test_a_table_that_cannot_be_read_is_set_aside(
    served: Served, tmp_path: Path, log: InferenceLog, content: bytes
) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write_table(journal, served, ["before"])
    journal.append(served.version, served.record, content, 1, TABLE)
    write_table(journal, served, ["after"])
    Run(journal.folder).drain(log, alive=True)
    assert sorted(log.frame()["__id__"]) == ["after", "before"]
    assert len(list((tmp_path / "journal").glob("*.damaged"))) == 1
    journal.close()


def test_what_is_stored_before_the_store_fails_is_not_stored_again(
    served: Served, tmp_path: Path, log: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.runs.BATCH_ROWS", 4)
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    ends = []
    for number in range(6):
        write(journal, served, [f"{number}-a", f"{number}-b"])
        ends.append(journal.position)
    sizes: list[int] = []

    class Full(InferenceLog):
        def append_batches(self, batches: Any) -> int:
            sizes.append(sum(map(len, batches)))
            if len(sizes) == 2:
                raise StoreError("database or disk is full")
            return super().append_batches(batches)

    full, run = Full(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade"), Run(journal.folder)
    with pytest.raises(StoreError):
        run.drain(full, alive=True)
    assert (run.at, run.records, log.counts().predictions) == (ends[1], 4, 4)
    while run.drain(full, alive=True):
        pass
    assert (run.at, run.records, log.counts().predictions) == (ends[5], 12, 12)
    assert [size for size in sizes if size] == [4, 4, 4, 4]
    journal.close()


def test_what_comes_while_it_stores_waits_for_the_next_look(served: Served, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    coming = iter(["later"])

    class Busy(InferenceLog):
        def append_batches(self, batches: Any) -> int:
            for one in coming:
                write(journal, served, [one])
            return super().append_batches(batches)

    log, run = Busy(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade"), Run(journal.folder)
    write(journal, served, ["first"])
    assert not run.drain(log, alive=True)
    assert log.frame()["__id__"].tolist() == ["first"]
    assert not run.drain(log, alive=True)
    assert log.counts().predictions == 2
    assert run.at == journal.position
    journal.close()


def test_nothing_is_lost_or_doubled_when_the_store_fails(
    served: Served, tmp_path: Path, log: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.journal.SEGMENT_BYTES", 2_000)
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    for number in range(20):
        write(journal, served, [f"{number}-a", f"{number}-b"])
    journal.close()

    class Failing(InferenceLog):
        def append_batches(self, batches: Any) -> int:
            super().append_batches(batches)
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
    write(journal, served, ["odd"], [ROW, ROW])
    write(journal, served, ["after"])
    run = Run(journal.folder)
    while run.drain(log, alive=True):
        pass
    assert sorted(log.frame()["__id__"]) == ["after", "before"]
    assert run.records == 4
    assert len(list((tmp_path / "journal").glob("*.damaged"))) == 2
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


IMAGE = ImageColumn(name="photo", size=8, channels=1, fill=(0,))


class Away(InferenceLog):
    def append_batches(self, batches: Any) -> int:
        raise StoreError("the store is away")


def write_image(journal: Journal, served: Served, one: str, photo: bytes | None) -> str | None:
    """A record of a row with an image; the image's digest."""
    told = orjson.loads(served.record) | {"image": IMAGE.model_dump(), "keep": True}
    record = orjson.dumps(told | {"columns": [*told["columns"], "photo"]})
    sent = None if photo is None else base64.b64encode(photo).decode()
    digest = None if sent is None else digest_of(decode_sent(sent, 8, 1))
    answer = served.answers.write([one], served.scorer.run(served.reader.one(ROW)))
    seen, row = orjson.dumps([[digest, [0.5] * 8]]), orjson.dumps({**ROW, "photo": sent})
    content = b'{"received":%d,"answer":%b,"seen":%b,"sent":%b}' % (NOW, answer, seen, row)
    journal.append(served.version, record, content, 1)
    return digest


def test_images_are_kept_once_their_rows_are_logged(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    digests = [write_image(journal, served, str(row), encoded(painted(8, 8, row))) for row in range(3)]
    write_image(journal, served, "none", None)
    run = Run(journal.folder, Album(ImageStore(tmp_path / "images", 10**6)))
    with pytest.raises(StoreError):
        run.drain(Away(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade"), alive=True)
    assert not (tmp_path / "images").exists()
    while run.drain(log, alive=True):
        pass
    assert {path.stem for path in (tmp_path / "images").rglob("*.png")} == set(digests)
    logged = log.frame().set_index("__id__")["photo"]
    assert logged[["0", "1", "2"]].tolist() == digests
    assert pd.isna(logged["none"])
    journal.close()


def test_a_disk_that_takes_no_images_holds_up_no_row(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    journal, folder = Journal(tmp_path / "journal", max_bytes=10**6), tmp_path / "images"
    folder.write_text("no folder can be made here")
    album = Album(ImageStore(folder, 10**6))
    run = Run(journal.folder, album)
    write_image(journal, served, "lost", encoded(painted(8, 8)))
    while run.drain(log, alive=True):
        pass
    assert album.fault is not None
    assert album.fault.startswith("images of logged rows are not kept: ")
    folder.unlink()
    write_image(journal, served, "kept", encoded(painted(8, 8, 1)))
    while run.drain(log, alive=True):
        pass
    assert album.fault is None
    assert sorted(log.frame()["__id__"]) == ["kept", "lost"]
    assert len(list(folder.rglob("*.png"))) == 1
    journal.close()


def test_the_endpoint_hears_of_images_that_are_not_kept(served: Served, tmp_path: Path) -> None:
    journal, folder = Journal(tmp_path / "journal", max_bytes=10**6), tmp_path / "images"
    folder.write_text("no folder can be made here")
    write_image(journal, served, "a", encoded(painted(8, 8)))
    ours, theirs = socket.socketpair()
    opening = {"store": f"sqlite:///{tmp_path}/everfit.db", "task": "handmade", "folder": str(journal.folder)}
    with ours, theirs:
        keeper = Keeper({**opening, "durable": False, "images": [str(folder), 10**6]}, theirs)
        assert keeper.turn()
        *_, last = ours.recv(1 << 16).splitlines()
    assert orjson.loads(last)["fault"] is None
    assert orjson.loads(last)["images"].startswith("images of logged rows are not kept: ")
    journal.close()


def test_what_a_shadow_cannot_answer_costs_it_no_other_request(
    served: Served, bundles: dict[str, ModelBundle], tmp_path: Path, log: InferenceLog
) -> None:
    """Single rows are read together; one of them lacks a column that the champion does not read."""
    told = orjson.loads(served.record)
    record = orjson.dumps(told | {"columns": [name for name in told["columns"] if name != "amount"]})
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    run = Run(journal.folder)
    run.shadow = Shadow("8", bundles["good"].folder), Position(0, 0)
    for one in ("a", "b", "c"):
        row = {name: value for name, value in ROW.items() if one != "b" or name != "amount"}
        answer = served.answers.write([one], served.scorer.run(served.reader.one(ROW)))
        content = b'{"received":%d,"answer":%b,"sent":%b}' % (NOW, answer, orjson.dumps(row))
        journal.append(served.version, record, content, 1)
    run.drain(log, alive=True)
    assert log.frame()["__id__"].tolist() == ["a", "b", "c"]
    assert log.frame(role="shadow")["__id__"].tolist() == ["a", "c"]
    assert (run.shadow[0].report()["rows"], run.shadow[0].report()["failed"]) == (2, 1)
    journal.close()


def test_it_loads_no_pandas(bundles: dict[str, ModelBundle]) -> None:
    """A quarter of its memory; not even with a challenger in the shadow."""
    program = (
        "import sys; from pathlib import Path; from serving.keeper import Shadow, hide_pandas; hide_pandas(); "
        "Shadow('2', Path(sys.argv[1])); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(bundles["good"].folder)]).returncode == 0


def test_what_was_stored_row_by_row_is_joined(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    """By whoever keeps the journal next, and no more often than it is worth."""
    journal, ids = Journal(tmp_path / "journal", max_bytes=10**6), [f"r{number:02d}" for number in range(40)]
    run = Run(journal.folder)
    for one in ids:
        write(journal, served, [one])
        run.drain(log, alive=True)
    before = log.frame()
    assert before["__id__"].tolist() == ids
    ours, theirs = socket.socketpair()
    opening = {"store": f"sqlite:///{tmp_path}/everfit.db", "task": "handmade", "folder": str(journal.folder)}
    with ours, theirs, reading(open_engine(opening["store"])) as connection:
        keeper = Keeper({**opening, "durable": False}, theirs)
        assert keeper.turn()
        assert connection.exec_driver_sql("SELECT count(*) FROM batches").scalar_one() == 1
    pd.testing.assert_frame_equal(log.frame(), before)
    journal.close()


def test_labels_that_an_older_endpoint_did_not_count_are(served: Served, tmp_path: Path, log: InferenceLog) -> None:
    """By the keeper of the next one, as it begins."""
    journal = Journal(tmp_path / "journal", max_bytes=10**6)
    write(journal, served, ["a", "b"])
    Run(journal.folder).drain(log)
    at = datetime(2024, 6, 1)
    log.add_feedback([Feedback(one, "yes", at, at) for one in "abc"])
    ours, theirs = socket.socketpair()
    opening = {"store": f"sqlite:///{tmp_path}/everfit.db", "task": "handmade", "folder": str(journal.folder)}
    with writing(open_engine(opening["store"])) as connection:
        connection.exec_driver_sql("DELETE FROM tallies")
    with ours, theirs:
        assert log.counts().labelled == 0
        assert Keeper({**opening, "durable": False}, theirs).turn()
    assert log.counts().labelled == 2
    journal.close()


def test_what_cannot_be_joined_does_not_hold_up_labels(
    tmp_path: Path, log: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and tried again later."""
    for number in range(16):
        log.append_batches([Batch("1", "champion", [f"{number}"], [NOW], [NOW], [{}], ["no"], [[1]], [[0]], [0], [0])])
    with open_engine(f"sqlite:///{tmp_path}/everfit.db").begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET outputs = '{' WHERE number = 7")
    journal = Journal(tmp_path / "journal" / "handmade", max_bytes=10**6)
    opening = {"store": f"sqlite:///{tmp_path}/everfit.db", "task": "handmade", "folder": str(journal.folder)}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keeper = Keeper({**opening, "durable": False}, theirs)
        assert not keeper.turn()
        assert b"unexpected end of data" in ours.recv(10_000)
        monkeypatch.setattr(keeper, "_retry_at", 0.0)
        assert keeper.turn()
    journal.close()
