"""Every kind of source gives the same frame; every fault is a `SourceError` that names place and remedy."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from registry import sources
from registry.errors import SourceError
from registry.task import FileSource, SqlSource

FRAME = pd.DataFrame({"number": [1, 2, 3], "text": ["a", None, "c"], "truth": [True, False, True]})


def write(folder: Path, name: str, frame: pd.DataFrame = FRAME) -> FileSource:
    path = folder / name
    frame.to_parquet(path) if ".parquet" in name or ".pq" in name else frame.to_csv(path, index=False)
    return FileSource(path=str(path))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.pq", "A.CSV"])
def test_a_file_of_each_kind(tmp_path: Path, name: str) -> None:
    frame = sources.read(write(tmp_path, name))
    assert frame["number"].tolist() == [1, 2, 3]
    assert frame["text"].isna().tolist() == [False, True, False]
    assert frame["truth"].dtype == bool


@pytest.mark.parametrize("path", ["part", "part/*.csv", "**/*.csv"])
def test_folder_and_glob_are_read_in_order_of_names(tmp_path: Path, path: str) -> None:
    (tmp_path / "part").mkdir()
    write(tmp_path / "part", "2.csv", FRAME.assign(number=[4, 5, 6]))
    write(tmp_path / "part", "1.csv")
    (tmp_path / "part" / "notes.txt").write_text("not data")
    frame = sources.read(FileSource(path=path), base=tmp_path)
    assert frame["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert frame.index.tolist() == list(range(6))


@pytest.mark.parametrize("name", ["1.csv", "1.parquet"])
def test_limit_reads_at_most_so_many_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    write(tmp_path, name.replace("1", "2"))
    assert len(sources.read(FileSource(path=str(tmp_path)), limit=2)) == 2
    assert len(sources.read(FileSource(path=str(tmp_path)), limit=5)) == 5


def test_a_late_text_makes_the_whole_column_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 200_000 + "oops\n")
    frame = sources.read(FileSource(path=str(tmp_path / "a.csv")))
    assert {type(value) for value in frame["x"]} == {str}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"x,y\n", "no rows"),
        ("a.csv", b"x,temp,y,temp\n1,2,3,4\n", "column 'temp' comes more than once"),
        ("a.csv", b"x;y\n1;2\n", "its separator seems to be ';'"),
        ("a.csv", b"x;y\n1,5;2\n1,5;2,5\n", "its separator seems to be ';'"),
        ("a.csv", b"x\ty\n1\t2\n", r"its separator seems to be '.t'"),
        ("a.csv", b"x\n\xff\xfe\n", "not UTF-8"),
        ("a.csv", b'x,y\n1,2\n3,4,5\n"', "damaged"),
        ("a.parquet", b"PAR1 no parquet", "damaged"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.xlsx", b"x", "unknown kind of file, expected one of .csv"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=expected) as caught:
        sources.read(FileSource(path=name), base=tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("none.csv", "no such file"), ("*.csv", "no file matches"), (".", "the folder holds no .csv")],
)
def test_nothing_there(tmp_path: Path, path: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        sources.read(FileSource(path=path), base=tmp_path)


def test_images_that_lie_in_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "17.png").write_bytes(b"")
    with pytest.raises(SourceError, match="images lie in the folder itself; one sub-folder a class is expected"):
        sources.read(FileSource(path=str(tmp_path)))


def test_differing_columns_name_the_file_and_the_columns(tmp_path: Path) -> None:
    write(tmp_path, "1.csv")
    write(tmp_path, "2.csv", FRAME.rename(columns={"text": "words"}))
    with pytest.raises(SourceError, match=r"2\.csv.*lacks text and has words besides"):
        sources.read(FileSource(path=str(tmp_path)))


def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        FRAME.to_sql("rows", connection, index=False)
    connection.close()
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_sql_with_a_variable_in_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHTS_DB", database(tmp_path).removeprefix("sqlite:///"))
    source = SqlSource(url="sqlite:///${FLIGHTS_DB}", query="select * from rows where text like '%' order by number")
    assert sources.read(source)["number"].tolist() == [1, 3]
    assert len(sources.read(source, limit=1)) == 1


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(SourceError, match="variable NO_SUCH is not set"):
        sources.read(SqlSource(url="postgresql://me:${NO_SUCH}@db/x", query="select 1"))


def test_a_failed_query_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such table: absent"):
        sources.read(SqlSource(url=database(tmp_path), query="select * from absent"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("drop table rows", "a query that gives rows is expected .*, got one to drop"),
        ("-- all\n/* of\nit */ DELETE from rows", "got one to delete"),
        ("with gone as (select 1) delete from rows returning *", "readonly database.; queries are run read-only"),
        ("attach ':memory:' as other", "gives no rows"),
    ],
)
def test_a_query_only_reads(tmp_path: Path, query: str, expected: str) -> None:
    url = database(tmp_path)
    before = (tmp_path / "a.db").read_bytes()
    for limit in (None, 1):
        with pytest.raises(SourceError, match=expected):
            sources.read(SqlSource(url=url, query=query), limit=limit)
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_query_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.db: no such file"):
        sources.read(SqlSource(url=f"sqlite:///{tmp_path / 'none.db'}", query="select 1"))
    assert not list(tmp_path.iterdir())


@pytest.mark.postgres
def test_a_query_of_postgresql_only_reads(empty_postgres: str) -> None:
    engine = sa.create_engine(empty_postgres)
    with engine.begin() as connection:
        connection.execute(sa.text("create table kept as select 1 as one"))
    engine.dispose()
    query = "with gone as (delete from kept returning one) select * from gone"
    with pytest.raises(SourceError, match="read-only transaction"):
        sources.read(SqlSource(url=empty_postgres, query=query))
    assert sources.read(SqlSource(url=empty_postgres, query="select * from kept"))["one"].tolist() == [1]


def test_a_column_that_comes_twice(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'number' comes more than once"):
        sources.read(SqlSource(url=database(tmp_path), query="select number, number from rows"))


@pytest.mark.parametrize("url", ["nosuch://me:${SECRET}@db/x", "postgresql://me:${SECRET}@127.0.0.1:1/x"])
def test_no_error_prints_a_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(SourceError) as caught:
        sources.read(SqlSource(url=url, query="select 1"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or "hunter2" not in str(caught.value.__cause__)
