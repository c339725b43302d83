"""What a search has to show for itself under the ten criteria of "Automated Deep Learning: Neural Architecture Search
Is Not the End" (Dong, Kedziora, Musial, Gabrys 2021, arXiv 2112.09245): for each of them what was measured of this very
search, or that nothing was."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version

import numpy as np

from registry.bundle import Manifest
from registry.energy import WATTS, watt_hours
from registry.golden import GOLDEN_ROWS
from registry.metrics import Metric, metrics_for
from registry.scoring import TOLERANCE
from retrain.export import PARITY, PARITY_ROWS
from retrain.story import Story, compare
from retrain.trials import Searched, best_so_far, expected_best, random_draws, why_no_draws

NOT_MEASURED = "not measured"
STABLE = 5
"""The best trials whose spread is looked at."""
NINETY = 1.645
"""Standard errors on either side of a 90 % interval."""

Evidence = Callable[[Manifest, Story, Searched], str]


def criteria(manifest: Manifest, story: Story) -> Iterator[str]:
    """The lines of the card's part; none for a model that comes from no search."""
    searched = story.searched
    if searched is None or not searched.tried:
        return
    yield "## The ten criteria of automated deep learning"
    yield ""
    yield "Those of the survey arXiv 2112.09245, with what was measured of this search. No grade is given."
    yield ""
    yield "| criterion | measured |"
    yield "|---|---|"
    for name, evidence in CRITERIA.items():
        yield f"| {name} | {evidence(manifest, story, searched)} |"


def novelty(manifest: Manifest, story: Story, searched: Searched) -> str:
    """Architectures that stand in no portfolio of defaults."""
    chosen = searched.chosen
    new = sum(one.origin != "portfolio" for one in chosen)
    found = f"{searched.novel} of {searched.architectures} distinct architectures tried are in no portfolio of defaults"
    return f"{found}; of the {len(chosen)} trials in the model {new} came from outside it"


def solution_quality(manifest: Manifest, story: Story, searched: Searched) -> str:
    """The test metric beside the boosted baseline."""
    estimate, name = manifest.reference, manifest.task.metric
    reach = NINETY * estimate.error
    low, high = estimate.value - reach, estimate.value + reach
    said = f"{name} {estimate.value:.4f} on {estimate.rows:,} test rows, 90 % interval {low:.4f} to {high:.4f}"
    if story.boosted is None:
        return f"{said}; no baseline was fitted"
    gain = compare(manifest, story, story.boosted)
    if not np.isfinite([gain.value, gain.low, gain.high]).all():
        return f"{said}; the difference to boosted trees is undefined"
    return f"{said}; gain over boosted trees {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def efficiency(manifest: Manifest, story: Story, searched: Searched) -> str:
    """What it took to the best network, and how random search compares."""
    metric, ordered = _metric(manifest), searched.ordered
    best = best_so_far(ordered, greater_is_better=metric.greater_is_better)
    at = int(np.argmax(best == best[-1]))
    spent = np.cumsum([one.cpu for one in ordered])
    cpu = f"after {spent[at]:,.0f} of {spent[-1]:,.0f} CPU-seconds of trials" if spent[-1] else "CPU-time not measured"
    said = f"best network at trial {at + 1} of {len(ordered)}, {cpu}"
    if (draws := random_draws(searched)) is None:
        return f"{said}; {why_no_draws(searched)}: not compared with random search"
    (expected,) = expected_best(draws.scores, (len(ordered),), greater_is_better=metric.greater_is_better)
    gain = metric.gain(float(best[-1]), float(expected))
    return f"{said}; gain over random search's expected best {gain:+.4f} on validation"


def stability(manifest: Manifest, story: Story, searched: Searched) -> str:
    """How far apart the best trials are."""
    metric = _metric(manifest)
    scores = sorted((one.score for one in searched.tried if one.complete), reverse=metric.greater_is_better)[:STABLE]
    if len(scores) < 2:
        return NOT_MEASURED
    spread, deviation = abs(scores[0] - scores[-1]), float(np.std(scores, ddof=1))
    said = f"the best {len(scores)} trials, each with its own seed, lie within {spread:.4f} of {metric.name}"
    return f"{said} on validation (standard deviation {deviation:.4f}); one network under several seeds: {NOT_MEASURED}"


def interpretability(manifest: Manifest, story: Story, searched: Searched) -> str:
    """What can be looked at."""
    drawn = sum(name.startswith("network-") for name in story.figures)
    named = [f"`{name}` {share:.0%}" for name, share in searched.importances.shares[:3]]
    mattered = f"what mattered most: {', '.join(named)}" if named else "importances of choices not known"
    return f"{drawn} of {len(story.told.get('members', []))} networks drawn; {mattered}"


def reproducibility(manifest: Manifest, story: Story, searched: Searched) -> str:
    """Seed, data, versions."""
    lineage = manifest.lineage
    parts = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna", "onnxruntime"))
    what = f"seed {lineage.seed}, data `{lineage.data_hash[:16]}`, Everfit {lineage.code_version}, {parts}"
    return f"{what}, Python {platform.python_version()}; a budget in seconds or several workers may end otherwise"


def engineering_quality(manifest: Manifest, story: Story, searched: Searched) -> str:
    """Whether what is served is what was found."""
    equal = f"difference of graph and torch {NOT_MEASURED}"
    if parity := story.told.get(PARITY):
        rows = min(PARITY_ROWS, len(story.labels))
        equal = f"graph and torch differ by at most {max(parity.values()):.1e} on {rows:,} rows (allowed {TOLERANCE:g})"
    failed = f"{searched.diverged} of {searched.candidates} candidates diverged"
    checks = f"loading checks every file's SHA-256, serving {GOLDEN_ROWS} golden rows"
    return f"{equal}; {failed}; {checks}"


def scalability(manifest: Manifest, story: Story, searched: Searched) -> str:
    """Rows, workers, and what the workers gained."""
    said = f"{manifest.lineage.rows.get('train', 0):,} training rows, {searched.workers} workers"
    if not searched.wall:
        return f"{said}; speed-up {NOT_MEASURED}"
    busy = sum(one.cpu for one in searched.tried) / searched.wall
    return f"{said}; {searched.busy / searched.wall:.2f} trials ran at once, on {busy:.2f} busy cores"


def generalizability(manifest: Manifest, story: Story, searched: Searched) -> str:
    """The gap between the rows that chose and the rows that nothing has seen."""
    test, metric = manifest.reference.value, _metric(manifest)
    if searched.validation is None:
        return NOT_MEASURED
    gap = metric.gain(test, searched.validation)
    said = f"{metric.name} {searched.validation:.4f} on validation, {test:.4f} on test: {gap:+.4f}"
    return f"{said} (below 0: worse than on the rows it was chosen by); other data sets: {NOT_MEASURED}"


def eco_friendliness(manifest: Manifest, story: Story, searched: Searched) -> str:
    """Energy, as far as it can be told."""
    cpu = manifest.lineage.cpu_seconds
    if cpu is None:
        return NOT_MEASURED
    energy = f"{watt_hours(cpu):.2g} Wh, estimated from {cpu:,.0f} CPU-seconds at {WATTS:g} W a busy core"
    return f"{energy}; CO2 not estimated: the carbon intensity of the electricity is not known here"


CRITERIA: dict[str, Evidence] = {
    "novelty": novelty,
    "solution quality": solution_quality,
    "efficiency": efficiency,
    "stability": stability,
    "interpretability": interpretability,
    "reproducibility": reproducibility,
    "engineering quality": engineering_quality,
    "scalability": scalability,
    "generalizability": generalizability,
    "eco-friendliness": eco_friendliness,
}
"""The survey's criteria in its order."""


def _metric(manifest: Manifest) -> Metric:
    return metrics_for(manifest.task.problem)[manifest.task.metric]
