"""The share of the rows that are out of distribution, as answers say it of each (`registry/novelty.py`)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from monitor.dependence import Dependence
from monitor.measurements import Measurement
from monitor.shares import share
from monitor.values import Marks, Names, Numbers
from monitor.views import Measure, Side, View
from registry.novelty import Familiar


class OutOfDistribution(Measure):
    """Of the rows that the champion answered. What moved is said by others: the columns' ranges and categories apart,
    disagreement, uncertainty."""

    name: ClassVar[str] = "out_of_distribution"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        known = view.once("what is familiar", lambda: _familiar(view))
        before = view.once(self.name, lambda: _strange(view.reference, known))
        now = _strange(view.window, known)
        if not len(now):
            return [Measurement(name=self.name, note="no rows of this version")]
        dependence = view.once(f"dependence of {self.name}", lambda: Dependence(before[:, None]))
        effect = dependence.over_windows(len(now), stride=view.stride, lasting=True).effect
        counted = [(int(np.count_nonzero(one)), len(one)) for one in (now, before)]
        return [share(self.name, None, counted[0], counted[1], effect=effect)]


def _familiar(view: View) -> Familiar:
    return Familiar(view.manifest.data_schema, np.asarray(view.reference.scores.disagreement, dtype=np.float64))


def _strange(side: Side, known: Familiar) -> Marks:
    """Which of the rows that the version in question answered are, (m,)."""
    marks = np.zeros(len(side), dtype=np.bool_)
    for name, low, high in known.ranges:
        if isinstance(values := side.column(name), Numbers):
            marks[values.outside(low, high)] = True
    for name, categories in known.categories:
        if isinstance(values := side.column(name), Names):
            familiar = {*categories, ""}
            new = np.array([one not in familiar for one in values.names.tolist()], dtype=np.bool_)
            if new.any():
                marks |= np.append(new, False)[values.codes]  # code -1, missing, is the last
    mine = marks if side.own.all() else marks[side.own]
    return mine | (np.asarray(side.scores.disagreement, dtype=np.float64) > known.most)
