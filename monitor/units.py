"""A column that comes in another unit: it is not the reference's, but it is once it is converted back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitor.binned import distance_of_column, known_column
from monitor.distribution import Distance
from monitor.measurements import Measurement
from monitor.values import Numbers, spaced
from monitor.views import Measure, View
from registry.metrics import Array
from registry.watched import SeenColumn

FAR = 0.2
"""Distance from which a column is looked at."""

NEAR = 0.2
"""The share of its distance that a converted column may keep: a shift is often a little nearer for some factor."""

APART = 0.9
"""Distance from which a mere offset is taken for a conversion: below, a column may have moved by that much."""

COINCIDENCE = 0.1
"""Share of the columns that have moved, and are not converted, of which one would expect to look so by chance: sensors
that age drift by a factor."""

MOST_ROWS = 5_000
"""Rows of a window that are converted back, evenly spread over its time."""

FARTHEST = Distance(1.0, 0.0)

ALIKE = 1e-3
"""The least p-value of its being the reference's once it is converted."""


@dataclass(frozen=True)
class Conversion:
    """What was done to a number: `factor * x + offset`."""

    factor: float
    offset: float
    name: str

    def undo(self, values: Array) -> Array:
        """The numbers as they were."""
        return (values - self.offset) / self.factor


_FACTORS = {
    "miles as kilometres": 1.609344,
    "metres as feet": 1 / 0.3048,
    "centimetres as inches": 1 / 2.54,
    "kilograms as pounds": 1 / 0.45359237,
    "litres as gallons": 1 / 3.785411784,
    "metres a second as kilometres an hour": 3.6,
    "bars as pounds a square inch": 14.503774,
    "hours as days": 1 / 24,
    "minutes as hours": 1 / 60,
    "times 10": 10.0,
    "times 100": 100.0,
    "times 1,000": 1_000.0,
    "times 1,000,000": 1_000_000.0,
    "with its sign turned": -1.0,
}

CONVERSIONS: tuple[Conversion, ...] = (
    *(Conversion(factor, 0.0, name) for name, factor in _FACTORS.items()),
    *(Conversion(1 / factor, 0.0, f"{name}, undone") for name, factor in _FACTORS.items() if factor > 0),
    Conversion(1.8, 32.0, "degrees Celsius as Fahrenheit"),
    Conversion(1 / 1.8, -32 / 1.8, "degrees Fahrenheit as Celsius"),
    Conversion(1.0, 273.15, "degrees Celsius as kelvins"),
    Conversion(1.0, -273.15, "kelvins as degrees Celsius"),
)
"""The conversions that happen between systems."""


class Rescaled(Measure):
    """By how much nearer to the reference a numeric column comes when a conversion of units is undone: 0 for the most
    part, the column's whole shift when it came in another unit. The p-value is that of the shift, Bonferroni over the
    conversions. Of a column with one value in most of the reference's rows nothing is said, its bins tell no unit; nor
    where so many columns have moved that some look converted by chance (`COINCIDENCE`)."""

    name: ClassVar[str] = "rescaled"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a numeric column."""
        columns = view.manifest.data_schema.of("numeric")
        found = {one.name: _converted(view, one.name) for one in columns if not isinstance(one, SeenColumn)}
        converted = sum(one is not None and one.closer > 0 for one in found.values())
        moved = sum(one is not None and one.far for one in found.values())
        by_chance = converted <= COINCIDENCE * (moved - converted)
        return [self._measurement(view, name, one, by_chance) for name, one in found.items()]

    def _measurement(self, view: View, name: str, one: _Converted | None, by_chance: bool) -> Measurement:
        if one is None:
            return Measurement(name=self.name, subject=name, note="no values to compare")
        believed, rows = one.closer > 0 and not by_chance, view.window.column(name).there
        return Measurement(
            name=self.name,
            subject=name,
            value=one.closer if believed else 0.0,
            reference=0.0,
            p_value=min(1.0, len(CONVERSIONS) * one.p_value) if believed else 1.0,
            rows=rows,
            note=one.note if believed else "",
        )


@dataclass(frozen=True)
class _Converted:
    """Whether a column is far from the reference, with which chance, and how much nearer the best conversion brings
    it: 0 where it is not the reference's even then."""

    far: bool
    p_value: float = 1.0
    closer: float = 0.0
    note: str = ""


def _converted(view: View, name: str) -> _Converted | None:
    known = known_column(view, name)
    distance = distance_of_column(view, name)
    if distance is None:
        return None
    if distance.value < FAR or view.reference.column(name).most_frequent() is not None:
        return _Converted(far=distance.value >= FAR)
    present = view.window.column(name).present
    values = np.asarray(present[spaced(len(present), MOST_ROWS)], dtype=np.float64)
    tried = [one for one in CONVERSIONS if one.factor != 1 or distance.value >= APART]
    undone = (known.count(Numbers(one.undo(values))) for one in tried)
    left = [known.distance(counts, doubt=view.doubt, stride=view.stride) or FARTHEST for counts in undone]
    best = min(range(len(left)), key=lambda place: left[place].value)
    alike = left[best].value <= NEAR * distance.value and left[best].p_value >= ALIKE
    closer = distance.value - left[best].value if alike else 0.0
    return _Converted(True, distance.p_value, closer, tried[best].name)
