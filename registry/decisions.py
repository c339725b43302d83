"""What policies and gates return: a `Decision` names a remedy, a `Verdict` judges a challenger. Both carry reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from registry.schema import Frozen


class Remedy(StrEnum):
    """The ladder of remedies, cheapest first."""

    NONE = "none"
    ALERT = "alert"
    RESEARCH = "research"
    SEARCH = "search"


Severity: TypeAlias = Literal["ok", "shifted", "faulty", "degraded"]


class Decision(Frozen):
    """What a policy wants done about one window, and why.

    `severity`: `ok`; `shifted` (inputs moved, performance holds); `faulty` (the data are broken: never answered by
    training on them); `degraded` (performance fell beyond what is tolerated: this is what triggers).
    """

    remedy: Remedy
    severity: Severity
    reasons: tuple[str, ...]


class Check(Frozen):
    """One check of a gate: what was measured, against which bound, and whether it holds."""

    name: str
    passed: bool
    detail: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Outcome(StrEnum):
    """What becomes of a challenger."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


class Verdict(Frozen):
    """A gate's judgement of a challenger: the outcome, the reasons in words, and every check behind them."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
