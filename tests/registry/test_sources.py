"""Every kind of source gives the same frame; every fault is a `SourceError` that names place and remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import date
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


@pytest.mark.parametrize("limit", [None, 2])
def test_what_pandas_took_for_an_index_is_a_column(tmp_path: Path, limit: int | None) -> None:
    frame = FRAME.set_index(pd.date_range("2024-01-01", periods=3, name="when"))
    found = sources.read(write(tmp_path, "a.parquet", frame), limit=limit)
    assert found["when"].dt.day.tolist() == [1, 2, 3][:limit]
    assert [*found.columns] == ["when", *FRAME.columns]
    assert [*sources.read(write(tmp_path, "b.parquet", FRAME.iloc[::-1])).columns] == [*FRAME.columns]


def test_names_of_two_levels_are_those_that_the_file_has(tmp_path: Path) -> None:
    frame = pd.DataFrame({("a", "low"): [1, 2], ("a", "high"): [3, 4]})
    found = sources.read(write(tmp_path, "a.parquet", frame))
    assert found["('a', 'high')"].tolist() == [3, 4]


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


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("damage", ["no footer", "a wrong footer", "zeroed pages"])
def test_a_damaged_parquet_file_is_named_once_on_one_line(tmp_path: Path, damage: str, limit: int | None) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"x": range(10_000), "y": ["a"] * 10_000}).to_parquet(path)
    whole = path.read_bytes()
    damaged = {
        "no footer": whole[:-20],
        "a wrong footer": whole[:-60] + b"\xff" * 52 + whole[-8:],
        "zeroed pages": whole[:4] + bytes(1_000) + whole[1_004:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(SourceError) as caught:
        sources.read(FileSource(path=str(path)), limit=limit)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert (said.count(path.name), said.count("\n")) == (1, 0)


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
        ("reindex", "gives no rows"),
        ("attach 'new.db' as other", "got one to attach"),
        ("pragma journal_mode = wal", "got one to pragma"),
        ("select 1; drop table rows", "at a time..; one statement that gives rows is expected"),
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


@pytest.fixture
def kept(empty_postgres: str) -> Iterator[str]:
    """A database of PostgreSQL with a table, a sequence and functions that write; afterwards they are as before."""
    engine = sa.create_engine(empty_postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept AS SELECT 1 AS one; CREATE SEQUENCE numbers")
        for name, more in (("writes", ""), ("owner_writes", "SECURITY DEFINER")):
            body = "INSERT INTO kept VALUES (2) RETURNING one"
            connection.exec_driver_sql(f"CREATE FUNCTION {name}() RETURNS int LANGUAGE sql {more} AS '{body}'")
    yield empty_postgres
    with engine.begin() as connection:
        relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
        assert connection.exec_driver_sql(relations).scalars().all() == ["kept", "numbers"]
        assert connection.exec_driver_sql("SELECT one FROM kept").scalars().all() == [1]
        assert connection.exec_driver_sql("SELECT is_called FROM numbers").scalar() is False
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_largeobject_metadata").scalar() == 0
    engine.dispose()


@pytest.mark.postgres
def test_a_query_of_postgresql_only_reads(kept: str) -> None:
    """Its drivers send several statements as they are: one that ends the transaction must not be followed by others."""
    one, alone = "read-only transaction.; queries are run read-only", "one statement that gives rows is expected"
    expected = {
        "select 1 as a; commit; drop table kept; select 1 as a": alone,
        "commit; drop table kept; select 1 as a": alone,
        "set transaction read write; delete from kept; commit; select 1 as a": alone,
        "select 1; select 2": alone,
        "select * into other from kept": alone,
        "do $$ begin commit; drop table kept; end $$": alone,
        "copy kept to program 'true'": alone,
        "-- nothing": alone,
        "with gone as (delete from kept returning one) select * from gone": one,
        "select writes() as a": one,
        "select owner_writes() as a": one,
        "select nextval('numbers')": one,
        "explain analyze delete from kept": one,
        "select set_config('transaction_read_only', 'off', false), writes()": "must be set before any query",
        "selct 1": 'syntax error at or near "selct"',
    }
    for query, words in expected.items():
        for limit in (None, 1):
            with pytest.raises(SourceError, match=words):
                sources.read(SqlSource(url=kept, query=query), limit=limit)
    assert sources.read(SqlSource(url=kept, query="select lo_create(7)")).size == 1  # which is not committed


@pytest.mark.postgres
def test_what_a_query_of_postgresql_gives(kept: str) -> None:
    """Whatever stands in it, with the types that the driver has for them; of many rows as many as are asked for."""
    query = """select 'a;b' as text, 1.5 as number, $$;'%$$ as odd, date '2024-05-01' as "day;", one from kept; -- 1"""
    frame = sources.read(SqlSource(url=kept, query=query))
    assert frame.iloc[0].tolist() == ["a;b", 1.5, ";'%", date(2024, 5, 1), 1]
    many = SqlSource(url=kept, query="select generate_series(2, 100000, 2) as number")
    assert sources.read(many, limit=3)["number"].tolist() == [2, 4, 6]
    assert len(sources.read(SqlSource(url=kept, query="table kept"))) == 1


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
