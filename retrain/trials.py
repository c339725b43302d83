"""The trials of a finished search as the card needs them, and what can be said of them: best so far, what a random
search would have found, and which trials no other one beats in quality and cost at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from registry.metrics import Array
from registry.plurals import counted
from registry.task import Objective

LEAST_DRAWS = 5
"""Fewer random trials say too little of what random search finds."""
FIRST = 10
"""So many trials outside the portfolio stand for random ones where the strategy is another: model-based strategies
draw their first ones at random."""

HARDLY = 2
"""So few networks that were trained to the end are no choice."""


def hardly_any(complete: int, waited: float, seconds: float) -> str:
    """A sentence for a search that had time for hardly a network: `waited` of its seconds its workers were starting.

    >>> hardly_any(1, 18, 30)
    'Only 1 network was trained to the end in the time there was; the start of the workers took 18 of the 30 s.'
    """
    was = "were" if complete != 1 else "was"
    start = f"; the start of the workers took {waited:.0f} of the {seconds:.0f} s" if 3 * waited >= seconds > 0 else ""
    return f"Only {counted(complete, 'network')} {was} trained to the end in the time there was{start}."


class Costed(Protocol):
    """A trial with what its network reached and costs."""

    @property
    def score(self) -> float: ...
    @property
    def cpu(self) -> float: ...
    @property
    def parameters(self) -> int: ...
    @property
    def latency_ms(self) -> float | None: ...


@dataclass(frozen=True)
class Tried:
    """A finished trial of a search: its number, its best validation score, where its candidate came from ("portfolio",
    "prior", "fresh" or "sampled", when it was first tried), whether it trained to the end, and whether it is in the
    ensemble. `cpu` are the CPU-seconds it took; `parameters` (0: not counted) and `latency_ms` (one row) are what its
    network costs. `again`: it goes on with a paused one. `allowed`: its network is quick enough for the
    task's limit of latency. `inherited`: it began with the weights of a former model or of another trial."""

    number: int
    score: float
    origin: str = "sampled"
    complete: bool = True
    chosen: bool = False
    cpu: float = 0.0
    parameters: int = 0
    latency_ms: float | None = None
    again: bool = False
    allowed: bool = True
    inherited: bool = False


@dataclass(frozen=True)
class Importances:
    """How much each dimension mattered for being among the `best` of so many `trials`: shares that sum to 1, the
    largest first. Without any, `reason` says why."""

    shares: tuple[tuple[str, float], ...] = ()
    trials: int = 0
    best: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Searched:
    """What a search did, and what it took.

    So many candidates `diverged`, `relapsed` of them after a pause; so many trainings were `interrupted` by the end of
    their worker and have no result: most of these ran again. `wall` are the seconds in which at least one trial
    ran, `busy` the seconds of all trials added up. `architectures` counts the distinct ones tried, `novel` those of
    them that stand in no portfolio. `validation` is the metric of the whole model on the validation rows. `refused`
    counts the candidates that were too large to be trained, `slow` the trained networks that answer a row too slowly to
    be in the model; None where the task sets no such limit. `how` says how the strategy chooses, `planned` how many
    candidates there might have been, `teachers` whose studies taught the strategy. `waited` are
    the seconds from the study's being ready to its first trial.
    """

    strategy: str
    families: tuple[str, ...]
    workers: int
    tried: tuple[Tried, ...]
    diverged: int = 0
    relapsed: int = 0
    interrupted: int = 0
    wall: float = 0.0
    busy: float = 0.0
    architectures: int = 0
    novel: int = 0
    validation: float | None = None
    importances: Importances = field(default_factory=Importances)
    objectives: tuple[Objective, ...] = ("quality",)
    refused: int | None = None
    slow: int | None = None
    how: str = ""
    planned: int = 0
    teachers: tuple[str, ...] = ()
    waited: float = 0.0

    @property
    def ordered(self) -> tuple[Tried, ...]:
        """The finished trials in the order in which they were begun."""
        return tuple(sorted(self.tried, key=lambda one: one.number))

    @property
    def screened(self) -> bool:
        """Whether some trials went on with paused ones."""
        return any(one.again for one in self.tried)

    @property
    def candidates(self) -> int:
        """How many candidates have a result or diverged: trials that go on with a paused one are of the same."""
        return sum(not one.again for one in self.tried) + self.diverged - self.relapsed

    @property
    def complete(self) -> int:
        """How many trials trained to the end."""
        return sum(one.complete for one in self.tried)

    def counts(self) -> dict[str, int]:
        """How the candidates ended, JSON-able, and the trainings that were interrupted; where the task sets limits,
        also how many candidates broke them; where hardly any was trained, how many more were allowed and how
        long the workers' start took."""
        limits = {"refused": self.refused, "slow": self.slow}
        broken = {name: count for name, count in limits.items() if count is not None}
        ended = {"complete": self.complete, "pruned": self.candidates - self.complete - self.diverged}
        hurried = {"unbegun": self.planned - self.candidates, "waited": round(self.waited)} if self.hurried else {}
        return {**ended, "diverged": self.diverged, "interrupted": self.interrupted, **broken, **hurried}

    @property
    def hurried(self) -> bool:
        """Whether time ended the search with hardly a network trained to the end."""
        return self.complete <= HARDLY and self.candidates < min(self.planned, 3 * HARDLY)

    @property
    def chosen(self) -> tuple[Tried, ...]:
        """The trials whose networks are in the model."""
        return tuple(one for one in self.ordered if one.chosen)


@dataclass(frozen=True)
class Draws:
    """Trials that stand for random ones: their scores, their mean CPU-seconds, and in words which they are."""

    scores: Array
    cpu: float
    which: str


def random_draws(searched: Searched) -> Draws | None:
    """The trials that stand for random ones; None where there are fewer than `LEAST_DRAWS`, and where the best of the
    draws were trained further after a screening: their scores are of unlike trainings.

    Those outside the portfolio and the prior, all of them where the strategy is random search, else the first `FIRST`,
    of which the strategy may have chosen some: that makes the reference too good rather than too bad. Trials that were
    stopped early count with what they had reached, as they would in a random search that stops the weak ones too.
    """
    outside = [one for one in searched.ordered if one.origin in ("sampled", "fresh")]
    uniform = searched.strategy == "random"
    used = outside if uniform else outside[:FIRST]
    if len(used) < LEAST_DRAWS or searched.screened:
        return None
    which = f"all {len(used)} random trials" if uniform else f"the first {len(used)} trials outside the portfolio"
    return Draws(np.array([one.score for one in used]), float(np.mean([one.cpu for one in used])), which)


def why_no_draws(searched: Searched) -> str:
    """Why a search has no trials that stand for random ones, in words."""
    if searched.screened:
        return "candidates were screened, and only the best of them trained to the end"
    return f"too few random trials (it takes {LEAST_DRAWS} from outside the portfolio)"


def expected_best(draws: Array, counts: Sequence[int], *, greater_is_better: bool) -> Array:
    """The expected best of k random trials, for each k: the expected maximum (minimum where less is better) of k draws
    with replacement from the scores seen,

        E[max of k] = sum over i of v_(i) ((i / N)^k - ((i - 1) / N)^k)        with v_(1) <= ... <= v_(N)

    (Dodge et al. 2019, "Show Your Work: Improved Reporting of Experimental Results", the expected validation
    performance). It never exceeds the best score seen, so beyond N it is too low.

    >>> expected_best(np.array([0.0, 1.0]), (1, 2), greater_is_better=True)
    array([0.5 , 0.75])
    """
    ordered = np.sort(draws if greater_is_better else -draws)
    k, n = np.asarray(counts)[:, None], len(ordered)
    ranks = np.arange(n + 1) / n
    expected = (np.diff(ranks**k, axis=1) * ordered).sum(axis=1)
    return np.asarray(expected if greater_is_better else -expected)


def best_so_far(ordered: Sequence[Tried], *, greater_is_better: bool) -> Array:
    """The best score after each trial, of those that trained to the end if any did; NaN before the first."""
    any_complete = any(one.complete for one in ordered)
    scores = np.array([one.score if one.complete or not any_complete else np.nan for one in ordered])
    return np.asarray(np.fmax.accumulate(scores) if greater_is_better else np.fmin.accumulate(scores))


def front(scores: Array, costs: Array, *, greater_is_better: bool) -> npt.NDArray[np.int64]:
    """Positions of the Pareto front, cheapest first: nothing else is as cheap and as good, and better in one of them.

    >>> front(np.array([0.7, 0.9, 0.8]), np.array([1.0, 2.0, 3.0]), greater_is_better=True)
    array([0, 1])
    """
    gains = scores if greater_is_better else -scores
    order = np.lexsort((-gains, costs))
    best = np.maximum.accumulate(gains[order])
    ahead = np.concatenate([[True], best[1:] > best[:-1]])
    return np.asarray(order[ahead], dtype=np.int64)


def values_of(one: Costed, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """A trial's value of each objective: the score as it is, costs as they were measured (infinite where they were
    not)."""
    latency = float("inf") if one.latency_ms is None else one.latency_ms
    known = {"quality": one.score, "latency": latency, "size": float(one.parameters), "energy": one.cpu}
    return tuple(known[name] for name in objectives)


def nondominated(costs: Array) -> npt.NDArray[np.bool_]:
    """Which of n points (n, k), less being better in each of k objectives, no other one dominates: is as good in all of
    them and better in one. Equal points do not dominate one another.

    >>> nondominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]])).tolist()
    [True, True, False]
    """
    as_good = (costs[:, None, :] <= costs[None, :, :]).all(axis=-1)
    better = (costs[:, None, :] < costs[None, :, :]).any(axis=-1)
    return np.asarray(~(as_good & better).any(axis=0))


def unbeaten(
    trials: Sequence[Costed], objectives: Sequence[Objective], *, greater_is_better: bool
) -> npt.NDArray[np.bool_]:
    """Which of these trials no other one dominates in the objectives (Deb et al. 2002, section III A)."""
    values = np.array([values_of(one, objectives) for one in trials]).reshape(len(trials), len(objectives))
    values[:, 0] *= -1 if greater_is_better else 1
    return nondominated(values)
