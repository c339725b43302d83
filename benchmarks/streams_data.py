"""Real streams in time order for the prequential benchmark, as both interpreters read them: pandas and numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

FIRST = 0.20
"""Share of the rows that are there from the beginning."""
BLOCK, LEAST_BLOCK = 0.01, 30

FILES = {
    "elec2": ("elec2", "classes"),
    "gas_sensor": ("gas_sensor", "classes"),
    "noaa_weather": ("noaa_weather", "classes"),
    "covtype": ("covtype_100k", "classes"),
    "spam": ("spam_text_bow", "classes"),
    "flights": ("nycflights13", "classes"),
    "airlines": ("airlines_100k", "classes"),
    "car_loan": ("nannyml_car_loan_SYNTHETIC", "classes"),
    "intrusions": ("kddcup99_test_corrected", "classes"),
    "usenet1": ("usenet1", "classes"),
    "usenet2": ("usenet2", "classes"),
    "keystroke": ("keystroke", "classes"),
    "bike_sharing": ("bike_sharing_hour", "numbers"),
    "chicago": ("chicago_ridership", "numbers"),
}
THINNED = {"flights": 3, "intrusions": 6}
"""One row in so many is used."""
UNSEEN = ["timestamp", "date", "id", "y_pred_proba", "y_pred", "batch", "orig_row", "concentration_ppm"]
"""Columns that no model may see: moments, places in the file, another model's answers, what is known later."""
LATE_MINUTES = 15
TARGET = "target"


@dataclass(frozen=True)
class StreamData:
    """Inputs and target of a stream in time order; rows per block, and where the first block begins."""

    name: str
    inputs: pd.DataFrame
    target: pd.Series
    regression: bool
    size: int
    begin: int

    @property
    def blocks(self) -> list[slice]:
        """Whole blocks after the first rows."""
        count = (len(self.target) - self.begin) // self.size
        return [slice(self.begin + k * self.size, self.begin + (k + 1) * self.size) for k in range(count)]


def read(folder: Path, name: str) -> StreamData:
    """A stream: numbers as float64, everything else as text; columns that do not vary among the first rows are left
    out, as `everfit init` proposes."""
    file, kind = FILES[name]
    raw = pd.read_parquet(folder / "streams" / f"{file}.parquet").iloc[:: THINNED.get(name, 1)].reset_index(drop=True)
    begin, size = int(FIRST * len(raw)), max(LEAST_BLOCK, round(BLOCK * len(raw)))
    if name == "flights":
        raw[TARGET] = (raw[TARGET] > LATE_MINUTES).astype(np.int64)
    raw = raw.drop(columns=[column for column in UNSEEN if column in raw])
    inputs = {column: _plain(raw[column]) for column in raw if column != TARGET}
    used = {column: values for column, values in inputs.items() if values.iloc[:begin].nunique() > 1}
    target = raw[TARGET].astype("float64") if kind == "numbers" else raw[TARGET].astype(str)
    return StreamData(name, pd.DataFrame(used), target, kind == "numbers", size, begin)


def _plain(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values):
        return values.astype("float64")
    return values.astype(object).where(values.notna(), None)


def scores(truth: np.ndarray, said: np.ndarray, blocks: list[slice], *, regression: bool) -> dict[str, object]:
    """Accuracy or R2 over all blocks together (the prequential figure), and by block the accuracy or squared error."""
    rows = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
    if regression:
        errors = (truth.astype(float) - said.astype(float)) ** 2
        spread = float(((truth[rows].astype(float) - truth[rows].astype(float).mean()) ** 2).mean())
        return {
            "score": 1 - float(errors[rows].mean()) / spread,
            "by_block": [float(errors[block].mean()) for block in blocks],
        }
    hits = (truth == said).astype(float)
    return {"score": float(hits[rows].mean()), "by_block": [float(hits[block].mean()) for block in blocks]}
