"""Conformed columns to the arrays a network reads, learnt on the training part and kept as JSON.

    numeric (n, d) float32      scaled numbers | gaps of numbers | calendar parts | gaps of moments
    categories (n, c) int64     0 unknown or rare, 1 missing, 2... the schema's categories in their order
    images (n, channels, size, size) uint8, where the task has them: as they are; a network scales them itself

A text is so many numbers (`registry/texts.py`), scaled like others. A gap is 1 where a value is missing, 0 elsewhere; a
column has one only where training had missing values. `export.py` writes the same formulas as ONNX nodes; tests hold
that both agree.

What it does not know: a column that does not vary in training tells nothing and gives no feature, and a calendar part
is used only when training spans its whole cycle: a model of January and February never sees what July is like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from registry.images import Pixels
from registry.schema import Frozen, Schema
from registry.scoring import MISSING_TIME
from registry.texts import TextNumbers
from retrain.image_source import ImageSource

Array: TypeAlias = npt.NDArray[np.float64]
Moments: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]

BOUND = 1e4
"""Scaled numbers are cut here before they become float32: the smooth clip has long reached its limit."""

FAR = 1e300
NEVER = 1 / FAR
"""Factor of a column that only its gaps tell something about: its values give 0."""

_HEIGHTS = np.r_[-3.0, np.linspace(-2.7, 2.7, 30), 3.0]
_SHARES = np.r_[0.0, [NormalDist().cdf(z) for z in _HEIGHTS[1:-1]], 1.0]

Source: TypeAlias = tuple[str, int | None]
"""A column, and which of a text's numbers."""

DAY = 86_400_000_000
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 31_556_952_000_000}
"""Microseconds of the calendar's cycles; the year is the Gregorian mean."""


class Robust(Frozen):
    """z = (x - centre) * factor, then z / sqrt(1 + (z / 3)^2), which is z near 0 and never beyond 3.

    `centre` is the median; `factor` is 1 / (q75 - q25), or 2 / (max - min) where those quartiles are equal
    (Holzmüller et al. 2024, RealMLP).
    """

    kind: Literal["robust"] = "robust"
    centre: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()

    def apply(self, values: Array) -> Floats:
        """(n, d) numbers without NaN to (n, d) in [-3, 3]."""
        with np.errstate(over="ignore"):
            z = np.clip((values - self.centre) * self.factor, -BOUND, BOUND).astype(np.float32)
        return np.asarray(z / np.sqrt(1 + z * z * np.float32(1 / 9)), dtype=np.float32)


class Quantile(Frozen):
    """A piecewise linear map of training quantiles to those of a normal distribution: base + a sum of clipped ramps,

        y(x) = base + sum_k rise_k * clip((x - start_k) * slope_k, 0, 1)

    All matrices are (d, knots - 1); ramps that ties have made superfluous rise by 0.
    """

    kind: Literal["quantile"] = "quantile"
    base: tuple[float, ...] = ()
    start: tuple[tuple[float, ...], ...] = ()
    slope: tuple[tuple[float, ...], ...] = ()
    rise: tuple[tuple[float, ...], ...] = ()

    def apply(self, values: Array) -> Floats:
        """(n, d) numbers without NaN to (n, d) in [-3, 3]."""
        out = np.broadcast_to(np.asarray(self.base, dtype=np.float32), values.shape).copy()
        with np.errstate(over="ignore"):
            for start, slope, rise in zip(*(np.transpose(m) for m in (self.start, self.slope, self.rise)), strict=True):
                out += np.clip((values - start) * slope, 0, 1).astype(np.float32) * rise.astype(np.float32)
        return out


Scaling: TypeAlias = Annotated[Robust | Quantile, Field(discriminator="kind")]
ScalingName: TypeAlias = Literal["robust", "quantile"]


class NumberColumn(Frozen):
    """A numeric or boolean column, or one number of a text (`place`): what stands for a missing value, and whether a
    gap feature tells of it."""

    name: str
    fill: float
    gap: bool
    place: int | None = None


class TextSource(Frozen):
    """A text column and its learnt words (`registry/texts.py`)."""

    name: str
    words: tuple[str, ...]


class MomentColumn(Frozen):
    """A datetime column: the cycles whose phase is a feature (as sine and cosine), and whether it has a gap feature."""

    name: str
    cycles: tuple[Literal["day", "week", "year"], ...]
    gap: bool


class CategoryColumn(Frozen):
    """A categorical column and its learnt categories, code 2 onwards."""

    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a network reads: `numeric` (n, d) float32, `categories` (n, c) int64, and `images` (n, channels, size, size)
    uint8, None for a task without them."""

    numeric: Floats
    categories: Moments
    images: Pixels | None = None

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: npt.NDArray[Any] | slice) -> Prepared:
        """These rows only."""
        images = None if self.images is None else self.images[rows]
        return Prepared(self.numeric[rows], self.categories[rows], images)


class Preparation(Frozen):
    """What was learnt of the columns on the training part."""

    numbers: tuple[NumberColumn, ...] = ()
    scaling: Scaling
    moments: tuple[MomentColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    texts: tuple[TextSource, ...] = ()
    image: ImageSource | None = None

    @classmethod
    def fit(cls, conformed: pd.DataFrame, schema: Schema, scaling: ScalingName = "robust") -> Preparation:
        """Learn from conformed training rows. Columns that do not vary and are never missing are left out."""
        texts = [TextSource(name=column.name, words=column.words) for column in schema.columns if column.kind == "text"]
        columns: dict[Source, Array] = {
            (column.name, None): conformed[column.name].to_numpy(dtype=np.float64)
            for column in schema.of("numeric", "boolean")
        }
        for text in texts:
            columns |= {(text.name, place): values for place, values in enumerate(_table(conformed, text).T)}
        told = {source: values for source, values in columns.items() if _varies(values) or _sometimes_missing(values)}
        boolean: set[Source] = {(column.name, None) for column in schema.of("boolean")}
        moments = [_fit_moment(column.name, as_moments(conformed[column.name])) for column in schema.of("datetime")]
        return cls(
            numbers=tuple(_fit_number(source, values, source in boolean) for source, values in told.items()),
            scaling=(_fit_robust if scaling == "robust" else _fit_quantile)(told, boolean),
            moments=tuple(moment for moment in moments if moment.cycles or moment.gap),
            categories=tuple(
                CategoryColumn(name=column.name, categories=column.categories)
                for column in schema.columns
                if column.kind == "categorical"
            ),
            texts=tuple(texts),
            image=None if schema.image is None else ImageSource.fit(conformed[schema.image.name], schema.image),
        )

    @property
    def d_numeric(self) -> int:
        """Width of the numeric array."""
        gaps = sum(column.gap for column in self.numbers) + sum(column.gap for column in self.moments)
        return len(self.numbers) + gaps + 2 * sum(len(column.cycles) for column in self.moments)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical column, unknown and missing included."""
        return tuple(len(column.categories) + 2 for column in self.categories)

    def apply(self, conformed: pd.DataFrame) -> Prepared:
        """The arrays of conformed rows; no value of any row gives NaN."""
        n = len(conformed)
        blocks = [*self._numbers(conformed), *self._moments(conformed)]
        codes = [_codes(conformed[column.name], column) for column in self.categories]
        numeric = np.concatenate([np.empty((n, 0)), *blocks], axis=1, dtype=np.float32)
        images = None if self.image is None else self.image.apply(conformed[self.image.name])
        return Prepared(numeric, np.stack(codes, axis=1) if codes else np.empty((n, 0), dtype=np.int64), images)

    def _numbers(self, conformed: pd.DataFrame) -> list[Floats]:
        if not self.numbers:
            return []
        raw = np.empty((len(conformed), len(self.numbers)))
        whole = [place for place, column in enumerate(self.numbers) if column.place is None]
        raw[:, whole] = conformed[[self.numbers[place].name for place in whole]].to_numpy(dtype=np.float64)
        tables = {text.name: _table(conformed, text) for text in self.texts}
        for place, column in enumerate(self.numbers):
            if column.place is not None:
                raw[:, place] = tables[column.name][:, column.place]
        missing = np.isnan(raw)
        filled = np.where(missing, [column.fill for column in self.numbers], raw)
        gaps = [index for index, column in enumerate(self.numbers) if column.gap]
        return [self.scaling.apply(filled), missing[:, gaps].astype(np.float32)]

    def _moments(self, conformed: pd.DataFrame) -> list[Floats]:
        raw = {column.name: as_moments(conformed[column.name]) for column in self.moments}
        waves = [
            wave(raw[column.name], cycle, shift)
            for shift in (0.0, np.pi / 2)
            for column in self.moments
            for cycle in column.cycles
        ]
        gaps = [(raw[column.name] == MISSING_TIME).astype(np.float32) for column in self.moments if column.gap]
        return [each[:, None] for each in (*waves, *gaps)]


def wave(moments: Moments, cycle: str, shift: float) -> Floats:
    """The phase of (n,) moments in a cycle as a sine, shifted by `shift` (a quarter turn makes the cosine); 0 where
    missing. Week and year advance by whole days, so that the hour is told by the day's cycle alone."""
    period = CYCLES[cycle]
    start = moments if period == DAY else moments - np.mod(moments, DAY)
    phase = np.mod(start, period).astype(np.float32) * np.float32(2 * np.pi / period) + np.float32(shift)
    return np.where(moments == MISSING_TIME, 0, np.sin(phase)).astype(np.float32)


def as_moments(values: pd.Series[Any]) -> Moments:
    """A conformed datetime column as (n,) microseconds since 1970, `MISSING_TIME` where missing."""
    return values.to_numpy(dtype="datetime64[us]").view(np.int64)


def _table(conformed: pd.DataFrame, text: TextSource) -> Array:
    return TextNumbers(text.words).table(conformed[text.name].to_list())


def _known(values: Array) -> Array:
    return np.clip(values[np.isfinite(values)], -FAR, FAR)


def _varies(values: Array) -> bool:
    known = _known(values)
    return known.size > 0 and bool(known.min() < known.max())


def _sometimes_missing(values: Array) -> bool:
    missing = np.isnan(values)
    return bool(missing.any() and not missing.all())


def _fit_number(source: Source, values: Array, boolean: bool) -> NumberColumn:
    name, place = source
    fill = 0.5 if boolean else float(np.median(_known(values)))
    return NumberColumn(name=name, fill=fill, gap=not place and _sometimes_missing(values), place=place)


def _fit_robust(columns: Mapping[Source, Array], boolean: set[Source]) -> Robust:
    pairs = [(0.5, 2.0) if name in boolean else _centre_and_factor(_known(values)) for name, values in columns.items()]
    return Robust(centre=tuple(centre for centre, _ in pairs), factor=tuple(factor for _, factor in pairs))


def _centre_and_factor(known: Array) -> tuple[float, float]:
    low, q25, centre, q75, high = np.quantile(known, [0, 0.25, 0.5, 0.75, 1])
    spread = q75 - q25 if q75 > q25 else (high - low) / 2
    return float(centre), 1 / float(np.clip(spread, NEVER, FAR)) if spread > 0 else NEVER


def _fit_quantile(columns: Mapping[Source, Array], boolean: set[Source]) -> Quantile:
    fitted = [
        _ramps(np.array([0.0, 1.0]), np.array([-1.0, 1.0])) if name in boolean else _quantile_ramps(_known(values))
        for name, values in columns.items()
    ]
    rows = [[tuple(map(float, matrix)) for matrix in ramps[1:]] for ramps in fitted]
    start, slope, rise = zip(*rows, strict=True) if rows else ((), (), ())
    return Quantile(base=tuple(float(ramps[0]) for ramps in fitted), start=start, slope=slope, rise=rise)


def _quantile_ramps(known: Array) -> tuple[float, Array, Array, Array]:
    """Ties share one knot, at the mean height of the knots that fell together."""
    knots, group = np.unique(np.quantile(known, _SHARES), return_inverse=True)
    heights = np.bincount(group, weights=_HEIGHTS) / np.bincount(group)
    return _ramps(knots, heights)


def _ramps(knots: Array, heights: Array) -> tuple[float, Array, Array, Array]:
    spare = len(_HEIGHTS) - len(knots)
    widths = np.clip(np.diff(knots), NEVER, FAR)
    start, slope, rise = knots[:-1], 1 / widths, np.diff(heights)
    pad = [np.concatenate([part, np.full(spare, rest)]) for part, rest in ((start, 0.0), (slope, 1.0), (rise, 0.0))]
    return float(heights[0]), pad[0], pad[1], pad[2]


def _fit_moment(name: str, moments: Moments) -> MomentColumn:
    known = moments[moments != MISSING_TIME]
    span = int(known.max()) - int(known.min()) if known.size else 0
    cycles = [cycle for cycle, period in CYCLES.items() if span >= period and np.ptp(wave(known, cycle, 0.0)) > 0]
    return MomentColumn(name=name, cycles=tuple(cycles), gap=0 < known.size < moments.size)


def _codes(values: pd.Series[Any], column: CategoryColumn) -> Moments:
    found = pd.Index(column.categories, dtype=object).get_indexer(pd.Index(values, dtype=object)).astype(np.int64)
    codes = np.where(found < 0, 0, found + 2)
    return np.asarray(np.where(values.isna(), 1, codes), dtype=np.int64)
