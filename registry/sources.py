"""Where rows come from: CSV or Parquet (a file, a folder, a glob), a folder of images with one sub-folder a class, or a
SQL query, read into one frame. Relative paths of images in a file start at that file's folder.

Errors are `SourceError`s that name the path or the masked URL and what to do. No password is ever part of one.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from registry.errors import SourceError, did_you_mean
from registry.images import EXTENSIONS as IMAGES
from registry.images import is_path
from registry.parquet import read_parquet
from registry.task import FileSource, Source, SqlSource

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

CSV = (".csv", ".csv.gz", ".csv.zip", ".csv.bz2", ".csv.xz")
PARQUET = (".parquet", ".pq")
EXTENSIONS = CSV + PARQUET
SEPARATORS = (";", "\t", "|")
"""Those that a CSV file is seen to have in the place of the comma."""
IMAGE, CLASS = "image", "label"
"""Columns of a folder of images: the path of each, and the name of the sub-folder that it is in."""


def read(source: Source, *, base: Path | None = None, limit: int | None = None) -> pd.DataFrame:
    """The rows of a source, at most `limit` of them. Relative paths start at `base` (default: the working folder).

    Raises `SourceError`: nothing there, unreadable, empty, unknown extension, differing columns, a missing variable.
    """
    frame = _read_files(source, base, limit) if isinstance(source, FileSource) else _read_sql(source, limit)
    where = describe(source)
    if frame.empty:
        raise SourceError(f"{where}: no rows (columns: {', '.join(map(str, frame.columns)) or 'none'})")
    frame.columns = pd.Index([str(name) for name in frame.columns])  # several levels of names, too
    if not frame.columns.is_unique:
        raise SourceError(f"{where}: column {frame.columns[frame.columns.duplicated()][0]!r} comes more than once")
    return frame


def describe(source: Source) -> str:
    """A source in words fit for messages: the path, or the URL as written (variables unfilled, password masked)."""
    return source.path if isinstance(source, FileSource) else mask_url(source.url)


def files_of(source: FileSource, *, base: Path | None = None) -> list[Path]:
    """The files a source names, sorted by path. Raises `SourceError` when there is none."""
    path = (base or Path()) / Path(source.path).expanduser()
    if path.is_dir():
        found = [one for one in sorted(path.iterdir()) if _extension(one) and not one.name.startswith((".", "_"))]
        if not found:
            if any(is_path(one.name) for one in path.iterdir()):
                raise SourceError(f"{path}: images lie in the folder itself; one sub-folder a class is expected")
            images = ", ".join(IMAGES)
            raise SourceError(
                f"{path}: the folder holds no {', '.join(EXTENSIONS)} file, nor sub-folders with {images} files"
            )
        return found
    if path.is_file():
        return [path]
    if glob.has_magic(source.path):
        found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True)) if Path(one).is_file()]
        if not found:
            raise SourceError(f"{path}: no file matches this pattern")
        return found
    near = did_you_mean(path.name, [one.name for one in path.parent.glob("*")])
    raise SourceError(f"{path}: no such file or folder{near}")


def mask_url(url: str) -> str:
    """A URL with its password, and every query value whose name speaks of a secret, replaced by ***.

    >>> mask_url("postgresql://me:hunter2@db/flights?password=x")
    'postgresql://me:***@db/flights?password=***'
    """
    url = re.sub(r"(://[^:/@]*:)[^@]+(?=@)", r"\1***", url)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]+", r"\1***", url)


def _extension(path: Path) -> str | None:
    return next((known for known in EXTENSIONS if path.name.lower().endswith(known)), None)


def _read_files(source: FileSource, base: Path | None, limit: int | None) -> pd.DataFrame:
    if (images := _images_of((base or Path()) / Path(source.path).expanduser())) is not None:
        return (
            images
            if limit is None
            else images.iloc[np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int)]
        )
    frames: list[pd.DataFrame] = []
    rows = 0
    for path in files_of(source, base=base):
        frame = _resolved(_read_file(path, None if limit is None else limit - rows), path.parent)
        _same_columns(path, frame, frames)
        frames.append(frame)
        rows += len(frame)
        if limit is not None and rows >= limit:
            break
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0].reset_index(drop=True)


def _images_of(folder: Path) -> pd.DataFrame | None:
    """The images in the sub-folders of a folder that has no file of rows; None where there are none."""
    if not folder.is_dir() or any(_extension(one) for one in folder.iterdir()):
        return None
    classes = [one for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith((".", "_"))]
    found = [
        (str(path.absolute()), one.name)
        for one in classes
        for path in sorted(one.iterdir())
        if is_path(path.name) and not path.name.startswith(".")
    ]
    return pd.DataFrame(found, columns=[IMAGE, CLASS]) if found else None


def _resolved(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A file's rows, their relative paths of images as they are seen from its folder."""
    for place, name in enumerate(frame.columns):
        values = frame.iloc[:, place]
        if not (pd.api.types.is_object_dtype(values.dtype) or isinstance(values.dtype, pd.StringDtype)):
            continue
        first = values.dropna().head(20)
        if len(first) and all(map(is_path, first)) and any(os.path.isfile(folder / one) for one in first):
            frame[name] = values.map(lambda one: str((folder / one).absolute()), na_action="ignore")
    return frame


def _same_columns(path: Path, frame: pd.DataFrame, others: list[pd.DataFrame]) -> None:
    if not others or set(frame.columns) == set(others[0].columns):
        return
    missing = sorted(map(str, set(others[0].columns) - set(frame.columns)))
    more = sorted(map(str, set(frame.columns) - set(others[0].columns)))
    differs = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(more)} besides"] * bool(more)
    raise SourceError(f"{path}: its columns differ from the first file's: it {' and '.join(differs)}")


def _read_file(path: Path, limit: int | None) -> pd.DataFrame:
    extension = _extension(path)
    if extension is None:
        raise SourceError(f"{path}: unknown kind of file, expected one of {', '.join(EXTENSIONS)}")
    try:
        return _unindexed(_read_parquet(path, limit)) if extension in PARQUET else _read_csv(path, limit)
    except pd.errors.EmptyDataError as error:
        raise SourceError(f"{path}: the file is empty; a header line and rows are expected") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8; with pandas, where "
            f"Windows wrote it: pd.read_csv({path.name!r}, encoding='cp1252').to_csv('new.csv', index=False)"
        ) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or _words(error)})") from error
    except ValueError as error:  # pandas' ParserError and pyarrow's ArrowInvalid are ValueErrors
        raise SourceError(f"{path}: damaged, or no {extension} file ({_words(error)})") from error


_LEAD = re.compile(r"^(?:Error tokenizing data\. C error: |Could not open Parquet input source '[^']*': )")


def _words(error: Exception) -> str:
    """A library's words on one line, without the path, which stands before them."""
    return " ".join(_LEAD.sub("", str(error)).split()).rstrip(" :.")


def _read_csv(path: Path, limit: int | None) -> pd.DataFrame:
    _require_header(path)
    # the whole column decides its type: chunk by chunk, a late text would leave numbers and texts in one column
    return pd.read_csv(path, nrows=limit, low_memory=False, encoding="utf-8-sig")


def _require_header(path: Path) -> None:
    """Raise `SourceError` for a header that names a column twice, which pandas would rename, or that another separator
    than the comma divides."""
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0].dropna()
    if header.duplicated().any():
        raise SourceError(f"{path}: column {header[header.duplicated()].iloc[0]!r} comes more than once; rename one")
    found = next((one for one in SEPARATORS if len(header) == 1 and one in header.iloc[0]), None)
    if found is not None:
        raise SourceError(
            f"{path}: its separator seems to be {found!r}; save it with commas between the columns, points in numbers; "
            f"with pandas: pd.read_csv({path.name!r}, sep={found!r}, decimal=',').to_csv('new.csv', index=False)"
        )


def _read_parquet(path: Path, limit: int | None) -> pd.DataFrame:
    if limit is None:
        return read_parquet(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches: list[Any] = []
    rows = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=min(limit, 65_536)):
            batches.append(batch)
            rows += batch.num_rows
            if rows >= limit:
                break
        schema = file.schema_arrow
    return cast(pd.DataFrame, pa.Table.from_batches(batches, schema).slice(0, limit).to_pandas())


def _unindexed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that pandas took for the frame's index, when it wrote the file, as columns again: of a series over
    time the moments, as a rule."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(named) if named else frame


def _fill_in(url: str) -> tuple[str, list[str]]:
    """A URL with its ${NAME}s filled from the environment, and the values filled in: they are secrets."""
    names = re.findall(r"\$\{([^}]*)\}", url)
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise SourceError(f"{mask_url(url)}: the environment variable {missing[0]} is not set; export it first")
    return re.sub(r"\$\{([^}]*)\}", lambda match: os.environ[match[1]], url), [os.environ[name] for name in names]


def _read_sql(source: SqlSource, limit: int | None) -> pd.DataFrame:
    from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError

    if (writes := _WRITES.match(source.query)) is not None:
        word = writes["word"].lower()
        raise SourceError(
            f"{mask_url(source.url)}: a query that gives rows is expected (select ...), got one to {word}"
        )
    url, secrets = _fill_in(source.url)
    secrets += re.findall(r"://[^:/@]*:([^@]+)@", url)
    try:
        return _query(url, source.query, limit)
    except ResourceClosedError:
        raise SourceError(f"{mask_url(source.url)}: the query gives no rows; one such as select ... does") from None
    except (SQLAlchemyError, pd.errors.DatabaseError) as error:
        text = _words_of(error)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        said = next((words for pattern, words in _REMARKS.items() if re.search(pattern, text)), "")
        # `from None`: the driver's own error may hold the password
        raise SourceError(f"{mask_url(source.url)}: the query failed ({text}){said}") from None
    except ModuleNotFoundError as error:
        hint = "pip install 'everfit[postgres]'" if "psycopg2" in str(error) else f"pip install {error.name}"
        raise SourceError(f"{mask_url(source.url)}: its driver {error.name} is not installed; {hint}") from error


def _words_of(error: BaseException) -> str:
    """The first line of what the driver said, which pandas and SQLAlchemy put into their own words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0]


_REMARKS = {
    "read-?only (database|transaction)": "; queries are run read-only",
    "cannot open .* as cursor|one statement at a time": "; one statement that gives rows is expected (select ...)",
}
"""What is said beside a driver's words."""

_WRITES = re.compile(
    r"(?:\s|--.*?(?:\n|$)|/\*[\s\S]*?\*/|;)*"
    r"(?P<word>alter|attach|call|create|delete|drop|grant|insert|merge|pragma|rename|replace|revoke|truncate|update"
    r"|vacuum)\b",
    re.IGNORECASE,
)
"""A query that is meant to change something, after comments. It would fail anyway, but for databases that have no
way of reading only, and for files that SQLite makes and rewrites all the same."""

_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
"""What a new connection is told before a query runs in it, by dialect."""

_CURSOR = "everfit"


def _query(url: str, query: str, limit: int | None) -> pd.DataFrame:
    """The rows that a query gives; it reads only, and nothing is ever committed."""
    from sqlalchemy import create_engine, event

    engine: Engine = create_engine(url)
    file = engine.url.database or ":memory:"
    if engine.dialect.name == "sqlite" and not file.startswith((":memory:", "file:")) and not os.path.isfile(file):
        raise SourceError(f"{mask_url(url)}: no such file")  # SQLite would make an empty one
    if (told := _READ_ONLY.get(engine.dialect.name)) is not None:
        event.listen(engine, "connect", lambda connection, _: connection.cursor().execute(told))
    on_postgresql = engine.dialect.name == "postgresql"
    only = {"postgresql_readonly": True} if on_postgresql else {}
    try:
        with engine.connect().execution_options(no_parameters=True, **only) as connection:
            if on_postgresql:
                query = _opened(connection, query, limit)
            if limit is None:
                return pd.read_sql_query(query, connection)
            chunks: Iterator[pd.DataFrame] = pd.read_sql_query(query, connection, chunksize=limit)
            return next(chunks)
    finally:
        engine.dispose()


_OPEN = f"""DO $$ DECLARE asked refcursor := '{_CURSOR}';
BEGIN OPEN asked FOR EXECUTE current_setting('everfit.query'); END $$"""


def _opened(connection: Connection, query: str, limit: int | None) -> str:
    """What gives the rows of a query on PostgreSQL, whose drivers send a text of several statements as it is: one
    that commits would leave the transaction that only reads. The server takes one statement for a cursor."""
    from sqlalchemy import text

    settings = "SELECT set_config('everfit.query', :query, true), set_config('cursor_tuple_fraction', '1', true)"
    connection.execute(text(settings), {"query": query})
    connection.exec_driver_sql(_OPEN)
    return f"FETCH {'ALL' if limit is None else limit} FROM {_CURSOR}"
