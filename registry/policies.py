"""When to act, and what a new model must show: the policies and the gate that a task's YAML can hold, and the
false-alarm budget that alarms are paid from."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from registry.durations import Duration, format_duration
from registry.errors import unknown
from registry.schema import Frozen


class FalseAlarms(Frozen):
    """A budget: so many false alarms in so many windows, or in so long a time, at most.

    Written `1 per 90d` or `2 per 500 windows`.
    """

    number: int = Field(ge=1)
    windows: int | None = Field(None, ge=2)
    span: Duration | None = None

    def windows_each(self, every: timedelta) -> float:
        """How many windows one false alarm is paid from, if a window takes `every`; 2 at least.

        >>> parse_false_alarms("1 per 90d").windows_each(timedelta(days=1))
        90.0
        """
        whole = self.windows if self.span is None else self.span / every
        return max(2.0, (whole or 0) / self.number)


def parse_false_alarms(value: object) -> object:
    """A budget from its writing; anything but a string is passed on."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([1-9]\d*)\s+per\s+(?:([1-9]\d*)\s+windows?|(\d+\s*[smhdw]))\s*", value)
    if match is None:
        raise ValueError(f"expected such as '1 per 90d' or '1 per 500 windows', got {value!r}")
    return FalseAlarms(number=int(match[1]), windows=match[2], span=match[3])


def format_false_alarms(value: FalseAlarms) -> str:
    """The writing that `parse_false_alarms` reads back."""
    span = f"{value.windows} windows" if value.span is None else format_duration(value.span)
    return f"{value.number} per {span}"


Budget: TypeAlias = Annotated[FalseAlarms, BeforeValidator(parse_false_alarms), PlainSerializer(format_false_alarms)]


Rung: TypeAlias = Literal["recalibrate", "follow", "fine_tune", "research", "search"]
"""A remedy that makes a challenger, cheapest first."""


class PerformancePolicy(Frozen):
    """Degraded performance triggers; shift only explains.

    The model is degraded when its metric is worse than its references by more than `tolerate` (as a share of the
    reference), with evidence that adds up over windows and is paid from `false_alarms`: the budget of all verdicts on
    all columns, segments, measures and looks together. Half of it is for performance, the rest for shifts, early
    signs and broken data.
    """

    kind: Literal["performance"] = "performance"
    tolerate: float = Field(0.02, ge=0, lt=1)
    false_alarms: Budget = FalseAlarms(number=1, span=timedelta(days=90))
    warmup: int = Field(1, ge=0, description="windows after a promotion in which nothing is triggered")
    cooldown: int = Field(2, ge=0, description="windows after a remedy in which none is triggered")
    refresh: int | None = Field(
        None, ge=1, description="windows after which a challenger is tried though nothing is degraded; none: never"
    )
    ladder: tuple[Rung, ...] = ("recalibrate", "follow", "fine_tune", "research")
    worth: float | None = Field(
        None, gt=0, description="CPU-seconds that one percent of the metric, for one window, is worth; none: any number"
    )

    @field_validator("ladder", mode="before")
    @classmethod
    def _named(cls, ladder: object) -> object:
        """Rungs may be written as one word, `fine_tune+research`, where there is no room for a list."""
        rungs = re.split(r"[+,\s]+", ladder.strip()) if isinstance(ladder, str) else ladder
        if not isinstance(rungs, (list, tuple)) or not rungs:
            raise ValueError(f"expected a list of one or more of {', '.join(get_args(Rung))}")
        for one in rungs:
            if one not in get_args(Rung):
                raise ValueError(unknown("remedy", str(one), get_args(Rung)))
        return rungs

    @field_validator("ladder")
    @classmethod
    def _climb(cls, ladder: tuple[Rung, ...]) -> tuple[Rung, ...]:
        order = [get_args(Rung).index(rung) for rung in ladder]
        if order != sorted(set(order)):
            raise ValueError(f"expected each rung once, cheapest first ({', '.join(get_args(Rung))})")
        return ladder

    def timeless(self) -> PerformancePolicy:
        """The same for rows without times, of which nobody can tell which labels are new: none follows."""
        ladder = tuple(rung for rung in self.ladder if rung != "follow")
        return self.model_copy(update={"ladder": ladder}) if ladder else self


class NeverPolicy(Frozen):
    """Watches and writes the ledger, and never acts."""

    kind: Literal["never"] = "never"


class PeriodicPolicy(Frozen):
    """Asks for a remedy every so many windows, whatever was measured: the baseline to beat."""

    kind: Literal["periodic"] = "periodic"
    every: int = Field(4, ge=1)
    remedy: Rung = "research"


class DriftPolicy(Frozen):
    """Asks for a re-search whenever inputs or outputs have moved, whether that costs anything or not: what most tools
    of drift detection amount to, and a baseline too. `false_alarms` as in `PerformancePolicy`."""

    kind: Literal["drift"] = "drift"
    false_alarms: Budget = FalseAlarms(number=1, span=timedelta(days=90))
    warmup: int = Field(1, ge=0)
    cooldown: int = Field(2, ge=0)


PolicySpec: TypeAlias = Annotated[
    PerformancePolicy | NeverPolicy | PeriodicPolicy | DriftPolicy, Field(discriminator="kind")
]


class Canary(Frozen):
    """A challenger that the gate would promote answers a share of the live requests first."""

    share: float = Field(0.1, gt=0, le=0.5, description="share of the requests, by the key that routes them")
    windows: int = Field(2, ge=1, description="windows that pass before it is promoted, or let go if it is worse")


class Gate(Frozen):
    """What a challenger must show on fresh rows before it is promoted."""

    confidence: float = Field(0.9, gt=0.5, lt=1, description="one-sided confidence of the paired comparison")
    min_gain: float = Field(0.0, ge=0, description="gain in the metric that must be exceeded with that confidence")
    min_rows: int = Field(200, ge=30)
    segment_tolerance: float = Field(0.05, ge=0, description="how much worse the worst segment may become")
    calibration_tolerance: float = Field(0.03, ge=0, description="how much ECE may grow")
    coverage_tolerance: float = Field(0.05, ge=0, description="how far coverage may fall below what is promised")
    latency_ratio: float = Field(3.0, gt=0, description="how many times slower a single row may become")
    bake: int = Field(4, ge=0, description="windows in which a new champion that is worse is rolled back; 0: none")
    canary: Canary | None = Field(None, description="the share that a proven challenger answers before it is promoted")
