"""What a card tells beside the manifest, and who is ahead on the test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.bundle import FIGURES, Manifest
from registry.metrics import METRICS, Labels, metrics_for
from registry.scoring import Scores
from retrain.boosted import Boosted
from retrain.finding import Finding
from retrain.paired import Interval, blocks_of, clustered
from retrain.trials import Searched

CONFIDENCE = 0.95
HIGHER = {metric.name: metric.greater_is_better for metric in METRICS} | {"ece": False}
"""Whether more is better, by metric."""


@dataclass(frozen=True)
class Story:
    """What a card tells beside the manifest, all of it on the test rows: the model's answers, their labels and times
    (None without a time column), the boosted reference (None where none was fitted); `told` is the content of
    `candidates.json`; `findings` are those of the data checks; `figures` the names of the pictures; `searched` what
    the search did (None for a model that comes from no search)."""

    scores: Scores
    labels: Labels
    times: npt.NDArray[np.datetime64] | None
    boosted: Boosted | None
    told: Mapping[str, Any]
    findings: Sequence[Finding] = ()
    figures: Sequence[str] = field(default=())
    searched: Searched | None = None

    def picture(self, name: str, what: str) -> Iterator[str]:
        """The Markdown of a picture where there is one: `what` is read where it cannot be seen."""
        if name in self.figures:
            yield from ("", f"![{what}]({FIGURES}/{name})")


def compare(manifest: Manifest, story: Story, boosted: Boosted) -> Interval:
    """The model's gain over the boosted trees on the same rows, with bounds that take days or runs as blocks."""
    metric = metrics_for(manifest.task.problem)[manifest.task.metric]
    mine, theirs = story.scores.scores, boosted.scores
    gain = metric.gain(metric.value(story.labels, mine), metric.value(story.labels, theirs))
    sign = 1 if metric.greater_is_better else -1
    influence = sign * (metric.influence(story.labels, mine) - metric.influence(story.labels, theirs))
    return clustered(influence, blocks_of(story.times, len(story.labels)), gain, confidence=CONFIDENCE)


def who_wins(manifest: Manifest, gain: Interval) -> str:
    """One sentence on who is ahead, and whether that is sure."""
    metric = manifest.task.metric
    if not np.isfinite(gain.low):
        return f"Nobody can be called ahead: {metric} or its error is undefined on these rows."
    bounds = f"the difference in {metric} is {gain.value:+.4f}, between {gain.low:+.4f} and {gain.high:+.4f} with 90 %"
    if gain.low > 0:
        return f"This model is ahead of boosted trees: {bounds} confidence."
    if gain.high < 0:
        return f"**Boosted trees are ahead of this model**: {bounds} confidence."
    return f"Neither is surely ahead: {bounds} confidence."
