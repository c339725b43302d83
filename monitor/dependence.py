"""How much less rows say that depend on their neighbours: the design effect, learnt from the reference in time order.

Rows of one day share their weather: the mean of n of them varies more than that of n independent ones, by a factor that
grows with n (Kish 1965, ch. 5: 1 + (n - 1) rho). It is seen in the reference cut into stretches as long as the window.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

LEAST_BLOCKS = 8
"""Fewest stretches that show how they vary."""

_PARTS = (2, 4)
"""Of the longest stretch: shorter ones, which are more, where a longer one is asked for."""

_MOST_KEPT = 256  # windows' sizes that are remembered
_SURE = 0.9
_SHOWN = 0.01
_TINY = 1e-12


class Luck(NamedTuple):
    """How luck that rows share weighs: the design effect, and the degrees of freedom with which it is known."""

    effect: float
    freedom: float


class Dependence:
    """What k quantities (m, k) on reference rows in time order say of how these depend on their neighbours. Sums up to
    each row are kept: to look at stretches costs as much as there are stretches, not rows."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        centred = np.asarray(values, dtype=np.float64) - values.mean(axis=0) if len(values) else np.empty((0, 1))
        self._rows, self._known = len(centred), dict[int, float]()
        self._found = dict[tuple[int, float, bool, bool], Luck]()
        self._sums = np.vstack([np.zeros(centred.shape[1]), centred.cumsum(axis=0)])
        self._squares = np.append(0.0, np.einsum("ij,ij->i", centred, centred).cumsum())

    def effect(self, rows: int, *, stride: float = 1.0, lasting: bool = True) -> float:
        """How many times the variance of a mean of `rows` consecutive rows is that of independent ones; at least 1.

        There is one reference row in `stride` rows of the stream; the quantities' effects are averaged, weighted by
        variance. Where the reference is thinned, or too short for stretches as long, the correlation of rows in shorter
        ones is taken to hold further out; unless it is `lasting`, only as far as they reach: longer ones count as made
        of independent ones. Few stretches tell it badly: the excess over 1 is the one that is exceeded with a
        probability of 10 % only, by the chi-squared law. `LEAST_BLOCKS` stretches may show none by chance, and any
        longer window would be told from the reference for ever: what their halves and quarters show counts too, as far
        as the whole ones reach, where that law holds it for real at 1 %, and the largest effect is taken.

        >>> rng = np.random.default_rng(0)
        >>> Dependence(rng.normal(size=(10_000, 1))).effect(500) < 1.5
        True
        >>> 5 < Dependence(np.repeat(rng.normal(size=(1_000, 1)), 10, axis=0)).effect(500) < 25
        True
        """
        return self._luck(rows, stride, lasting).effect

    def over_windows(self, rows: int, *, stride: float = 1.0, lasting: bool = False, cautious: bool = True) -> Luck:
        """The effect with which windows of `rows` rows, one after another, can each be judged as if alone.

        Luck that outlasts a window is the next one's too, and the deviations of k windows add up to that of k `rows`
        rows. So the largest effect counts among stretches of one window, of two, of four, as long as the reference has
        `LEAST_BLOCKS` of them: the variance in the long run. Longer stretches are fewer: they count where the
        chi-squared law holds what they show for real at 1 %; unless `cautious`, without the allowance for few
        stretches, where tests are careful enough themselves.

        Of the variance the excess alone is estimated, from B stretches. With the degrees of freedom of Satterthwaite
        (1946), (B - 1) (effect / excess)^2, a deviation follows Student's t about as well.
        """
        asked = rows, stride, lasting, cautious
        if asked not in self._found:
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            self._found[asked] = self._over_windows(*asked)
        return self._found[asked]

    @cached_property
    def whole(self) -> float:
        """The effect of all these rows, as far as stretches of them show one for real, at 1 %: the largest among those
        of an eighth of the rows, a sixteenth and so on. 1 where none does."""
        found, block = [1.0], self._rows // LEAST_BLOCKS
        while block > 1:
            found += [1 + self._excess(block)] if self._shown(block) else []
            block //= 2
        return max(found)

    def _over_windows(self, rows: int, stride: float, lasting: bool, cautious: bool) -> Luck:
        found, most = [self._luck(rows, stride, lasting)], self._rows // LEAST_BLOCKS
        while 0 < (rows := 2 * rows) / stride <= most:
            if self._shown(max(2, round(rows / stride))):
                found.append(self._luck(rows, stride, lasting=False, cautious=cautious))
        return max(found)

    def _luck(self, rows: int, stride: float, lasting: bool, *, cautious: bool = True) -> Luck:
        asked, most = max(2, round(rows / stride)), self._rows // LEAST_BLOCKS
        block = min(asked, most)
        if rows < 2 or block < 2:
            return Luck(1.0, math.inf)
        reach = min(rows, block * stride)
        found = [(block, rows if lasting else reach)]
        if lasting and asked > most:
            found += [(part, reach) for part in (most // share for share in _PARTS) if part > 1 and self._shown(part)]
        return max(self._of_stretches(part, far, cautious) for part, far in found)

    def _of_stretches(self, block: int, reach: float, cautious: bool) -> Luck:
        """For `reach` rows, by stretches of so many of the reference."""
        count = self._rows // block
        beyond = (unsure(count) if cautious else 1.0) * self._excess(block) * max(0.0, reach - 1) / (block - 1)
        return Luck(1 + beyond, (count - 1) * (1 + 1 / beyond) ** 2 if beyond > 0 else math.inf)

    def _shown(self, block: int) -> bool:
        """Whether stretches of so many reference rows vary by more than independent rows may make them."""
        count = self._rows // block
        return (1 + self._excess(block)) * (count - 1) > _exceeded(count - 1, _SHOWN)

    def _excess(self, block: int) -> float:
        """Of the effect over 1 in stretches of so many reference rows, as they show it."""
        if block not in self._known:
            self._known[block] = self._seen(block)
        return self._known[block]

    def _seen(self, block: int) -> float:
        count = self._rows // block
        used = count * block
        power, mean = float(self._squares[used]) / used, self._sums[used] / used
        spread = power - float(mean @ mean)
        if not spread > _TINY * power:
            return 0.0
        ends = self._sums[: used + 1 : block]
        apart = (ends[1:] - ends[:-1]) / block - mean
        return max(0.0, block * float(np.vdot(apart, apart)) / (count - 1) / spread - 1)


def unsure(count: int) -> float:
    """How many times larger a variance may be than the one that `count` values show: with a probability of 10 % it is.

    >>> round(unsure(20), 2), round(unsure(200), 2)
    (1.63, 1.14)
    """
    return (count - 1) / _exceeded(count - 1, _SURE)


@lru_cache(maxsize=4096)
def _exceeded(freedom: int, chance: float) -> float:
    """What the chi-squared law exceeds with this chance: asked again and again of the same few stretches."""
    return float(chdtri(freedom, chance))
