"""Whether the champion's performance has fallen: what its windows say together, and how that is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from monitor.comparison import (
    BY_NAME,
    EXPECTED,
    TEST,
    Comparison,
    Level,
    Trail,
    compare,
    pool,
    realised,
    reference_level,
    trail_scores,
    trails,
)
from monitor.diagnosis import Degradation
from monitor.evidence import alarming, detect, onset
from monitor.measurements import WindowRecord
from monitor.told import sentence, share_of_alarm, telling, worse
from registry.metrics import Array


class Harm:
    """What the sound windows of the champion say together: by the trail with the most evidence, since its onset if the
    model is degraded, else in the newest window that the trail says anything of. One false alarm in `windows`."""

    def __init__(self, records: Sequence[WindowRecord], *, tolerate: float, windows: float, min_labels: int) -> None:
        self._records, self._windows, self._min_labels = records, windows, min_labels
        self._found = found = trails(records, tolerate, min_labels)
        scores = trail_scores(found) if found else np.empty((0, len(records)))
        evidence = detect(scores.T, cap=windows * len(found))[-1] if found else np.empty(0)
        evidence = evidence * [_fallen(records, *both, tolerate) for both in zip(found, scores, strict=True)]
        self.degraded = bool(alarming(evidence, windows).any())
        self._strength = float(evidence.mean()) / windows if found else 0.0
        self._trail: Trail = found[int(np.argmax(evidence))] if found else ()
        self._judged = [place for place, one in enumerate(self._trail) if one is not None]
        self._since = self._judged[onset(self._judged_scores).at :] if self.degraded else self._judged[-1:]

    def covers(self, newest: WindowRecord) -> bool:
        """Whether a window's labels are judged."""
        return any(one is newest for one in self._records) and realised(newest, self._min_labels) is not None

    @property
    def labelled(self) -> bool:
        """Whether any window since the onset has its labels."""
        return any(one.realised.labelled for one in self._comparisons)

    @property
    def loss(self) -> tuple[float, float, datetime]:
        """What the metric has lost since the onset, the same as a share of the reference's size, and the onset."""
        if not self.degraded:
            return 0.0, 0.0, datetime.max
        level, begun = self._level, self._records[self._since[0]].window.start
        return level.loss, level.loss / max(abs(level.reference.value), 1e-9), begun

    @property
    def degradation(self) -> Degradation | None:
        """The windows since when it is worse, for the diagnosis."""
        if not self.degraded:
            return None
        found = onset(self._judged_scores)
        since, first, last = (self._judged[place] for place in (found.at, found.first, found.last))
        scores = tuple(np.nan if one is None else one.score for one in self._trail)
        return Degradation(tuple(self._records), since, first, last, scores, self._level)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What there is to say, in figures."""
        if not self._since:
            return ()
        since = [self._records[place] for place in self._since]
        one, most = (self._level, None) if self.degraded else self._newest
        said = sentence(since, one, degraded=self.degraded, most=most)
        takes = f"{share_of_alarm(self._strength)} an alarm takes, at one false alarm in {self._windows:,.0f} windows"
        return (f"{said}; evidence of harm, all windows together: {takes}",)

    @property
    def worse(self) -> bool:
        """Whether the newest window that is judged is worse than is tolerated, and that is not sure."""
        return bool(self._since) and not self.degraded and any(one is not None and worse(one) for one in self._newest)

    @property
    def _newest(self) -> tuple[Comparison, Comparison | None]:
        """The newest window that is judged beside the test rows, where that can be, and beside the reference that
        most evidence is against, where that is another one and says that it is worse."""
        (most,) = self._comparisons
        test = next((one for trail in self._found if (one := trail[self._since[0]]) and one.against == TEST), most)
        return test, most if test is not most and telling(most) else None

    @property
    def _judged_scores(self) -> list[float]:
        return [one.score for one in self._trail if one is not None]

    @property
    def _comparisons(self) -> list[Comparison]:
        return [one for place in self._since if (one := self._trail[place]) is not None]

    @property
    def _level(self) -> Comparison:
        """Those comparisons as one. A reference that learns from the windows is taken as it was at the onset."""
        since = self._comparisons
        now, first = pool([one.realised for one in since]), since[0]
        against = pool([_weighted(one) for one in since]) if first.lasting else first.reference
        loss = BY_NAME[self._records[-1].metric].gain(against.value, now.value)
        return replace(first, realised=now, reference=against, loss=loss)


def _fallen(records: Sequence[WindowRecord], trail: Trail, scores: Array, tolerate: float) -> bool:
    """Whether performance, since the onset in a trail of these scores (T,), is below that on the test rows by more than
    is tolerated, errors apart. Only less than was expected of these very rows does not say so: they may be easier."""
    newest = next(one for one in reversed(trail) if one is not None)
    if newest.against != EXPECTED:
        return True
    judged = [(record, one) for record, one in zip(records, trail, strict=True) if one is not None]
    since = judged[onset(scores[[one is not None for one in trail]]).at :]
    test = reference_level(since[0][0])
    now = pool([one.realised for _, one in since])
    return test is None or compare(records[-1].metric, now, test, "", tolerate).deviation > 0


def _weighted(one: Comparison) -> Level:
    return Level(one.reference.value, one.reference.error, one.realised.rows)
