"""What policies and gates return: a `Decision` names a remedy, a `Verdict` judges a challenger. Both carry reasons."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

from registry.errors import InputError, unknown
from registry.schema import Frozen

DISTANCE = 0.1
"""Distance between two distributions, on a scale from 0 to 1, from which measurements count as moved."""


class Remedy(StrEnum):
    """The ladder of remedies, cheapest first."""

    NONE = "none"
    ALERT = "alert"
    RECALIBRATE = "recalibrate"
    FOLLOW = "follow"
    FINE_TUNE = "fine_tune"
    RESEARCH = "research"
    SEARCH = "search"


TRAINS = (Remedy.RECALIBRATE, Remedy.FOLLOW, Remedy.FINE_TUNE, Remedy.RESEARCH, Remedy.SEARCH)
"""The remedies that make a challenger, cheapest first."""


def parse_remedies(text: str) -> tuple[Remedy, ...]:
    """Remedies from their writing. Raises `InputError` for a word that is none.

    >>> parse_remedies("fine_tune, research")
    (<Remedy.FINE_TUNE: 'fine_tune'>, <Remedy.RESEARCH: 'research'>)
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"expected some of {', '.join(TRAINS)} with commas between them, got {text!r}")
    for word in words:
        if word not in TRAINS:
            raise InputError(unknown("remedy", word, [one.value for one in TRAINS]))
    return tuple(Remedy(word) for word in words)


Severity: TypeAlias = Literal["ok", "shifted", "faulty", "degraded"]


Kind: TypeAlias = Literal["data fault", "covariate shift", "prior shift", "concept drift", "unexplained"]
Shape: TypeAlias = Literal["abrupt", "gradual"]


class Evidence(Frozen):
    """A figure behind a diagnosis, as it was measured: of which measure, of which column or segment (None: of the whole
    window), beside which reference, and how probable as much is while nothing has changed. `cost` is what it alone is
    estimated to cost in the task's metric. `rows` is how many are behind it."""

    measure: str
    subject: str | None = None
    value: float | None = None
    reference: float | None = None
    error: float | None = None
    p_value: float | None = None
    cost: float | None = None
    cost_error: float | None = None
    rows: int = 0


class Cost(Frozen):
    """By how much the task's metric is worse, with its standard error. Of a fall that is sure: from `reference` to
    `value` since the onset, of which `tolerated` is; `labelled`: labels say so, not an estimate alone. Of what has only
    moved: what it is estimated to cost."""

    metric: str
    loss: float
    error: float | None = None
    value: float | None = None
    reference: float | None = None
    tolerated: float | None = None
    labelled: bool = False


class Diagnosis(Frozen):
    """What happened, as far as it can be told.

    `onset` is the begin of the window that it most probably began in, `onset_from` and `onset_to` the begin and the end
    of the stretch that it began in with a probability of 90 %; None where performance has not fallen. `recurs`: the
    begin of an earlier window whose inputs were the same. `segments`: where performance is worst, then where it moved.
    `evidence` are the figures behind the kind in words, `figures` what was found as numbers, `cost` what it costs, as
    far as that is sure.
    """

    kind: Kind
    sentence: str
    shape: Shape | None = None
    onset: datetime | None = None
    onset_from: datetime | None = None
    onset_to: datetime | None = None
    columns: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    recurs: datetime | None = None
    evidence: tuple[str, ...] = ()
    cost: Cost | None = None
    figures: tuple[Evidence, ...] = ()


class Decision(Frozen):
    """What a policy wants done about one window, and why. `then` are the remedies to go on to, should the first one's
    challenger not be proven.

    `severity`: `ok`; `shifted` (something moved, and no fall of performance is sure); `faulty` (the data are broken:
    never answered by training on them); `degraded` (performance fell beyond what is tolerated: this is what triggers).
    """

    remedy: Remedy
    severity: Severity
    reasons: tuple[str, ...]
    diagnosis: Diagnosis | None = None
    then: tuple[Remedy, ...] = ()


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


ROLLBACK = "rollback"
"""What becomes of a champion that turns out worse than the one before; also the ledger's kind for it."""


class Verdict(Frozen):
    """A gate's judgement of a challenger: the outcome, the reasons in words, and every check behind them."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
