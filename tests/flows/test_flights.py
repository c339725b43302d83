"""The demo's flights: the right months, in order, nothing in them that is known only after departure."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pandas as pd
import pytest

from flows import flights
from registry.errors import SourceError

KNOWN_LATER = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> flights.Flights:
    return flights.write_flights(tmp_path_factory.mktemp("flights") / "new")


def test_history_ends_before_the_stream_begins(written: flights.Flights) -> None:
    history, stream = pd.read_parquet(written.history), pd.read_parquet(written.stream)
    assert history["time_hour"].min() >= pd.Timestamp("2013-01-01")
    assert history["time_hour"].max() < pd.Timestamp("2013-03-01") <= stream["time_hour"].min()
    assert stream["time_hour"].max() < pd.Timestamp("2013-09-01")
    assert (len(history), len(stream)) == (49_855, 167_825)
    assert list(history.columns) == list(stream.columns)


def test_rows_are_in_time_order_and_zoneless(written: flights.Flights) -> None:
    stream = pd.read_parquet(written.stream)
    assert stream["time_hour"].is_monotonic_increasing
    assert str(stream["time_hour"].dtype) == "datetime64[us]"


def test_only_columns_known_before_departure(written: flights.Flights) -> None:
    history = pd.read_parquet(written.history)
    assert not KNOWN_LATER & set(history.columns)
    assert set(history["late"]) == {"yes", "no"}
    assert 0.2 < (history["late"] == "yes").mean() < 0.3
    assert history["temp"].notna().mean() > 0.99


def test_writing_twice_gives_the_same_bytes(written: flights.Flights, tmp_path: Path) -> None:
    again = flights.write_flights(tmp_path)
    assert again.history.read_bytes() == written.history.read_bytes()


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(flights, "distribution", absent)
    with pytest.raises(SourceError, match=r"pip install 'everfit\[demo\]'"):
        flights.read_flights()
