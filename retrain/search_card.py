"""The card's part on the search: what it cost, how it went beside random search, quality against cost, what mattered.

All scores in it are of the validation part, by which trials were chosen: they are too good for the ones chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.bundle import Manifest
from registry.energy import WATTS, watt_hours
from registry.metrics import metrics_for
from retrain.search_figures import SHOWN
from retrain.story import Story
from retrain.trials import (
    Importances,
    Searched,
    best_so_far,
    expected_best,
    hardly_any,
    random_draws,
    why_no_draws,
)

PARETO = "pareto.png"
ORIGINS = {
    "portfolio": "from the defaults that open a search",
    "prior": "handed down by former studies",
    "fresh": "fresh beside those",
    "sampled": "from the strategy",
}
SURE = 50
"""Fewer trials than this tell little of a dozen choices."""


def search_part(manifest: Manifest, story: Story) -> Iterator[str]:
    """The lines of the part; none for a model that comes from no search."""
    searched = story.searched
    if searched is None or not searched.tried:
        return
    yield "## Search"
    yield ""
    yield f"Strategy `{searched.strategy}` on {_spaces(searched)}. All scores here are on validation rows."
    yield from (searched.how,) if searched.how else ()
    if searched.teachers:
        names = ", ".join(f"`{name}`" for name in searched.teachers)
        yield f"Studies of {names} were the prior of its process, in place of any ranking, as long as no defaults were"
        yield "better than what these studies promised."
    yield from _origins(searched)
    yield ""
    yield from _costs(manifest, searched)
    yield ""
    if searched.hurried:
        few = hardly_any(searched.complete, searched.waited, manifest.lineage.seconds)
        yield f"{few} Another search with more `search.seconds` is likely to find a better"
        yield "model."
        yield ""
    yield from _against_random(manifest, searched)
    yield from story.picture("search.png", "The score of each trial, the best so far, and random search")
    yield ""
    if PARETO in story.figures:
        yield from _front(searched)
        yield from story.picture(PARETO, "The score of each trial against the cost of its network")
        yield ""
    yield from _importances(searched.importances, story)


def _origins(searched: Searched) -> Iterator[str]:
    """Where the candidates came from."""
    first = [one for one in searched.tried if not one.again]
    counts = {origin: sum(one.origin == origin for one in first) for origin in ORIGINS}
    told = [f"{counts[origin]} {what}" for origin, what in ORIGINS.items() if counts[origin]]
    inherited = sum(one.inherited for one in first)
    weights = f"; {inherited} began with the weights of a network like theirs" if inherited else ""
    yield f"Candidates with a result: {', '.join(told)}{weights}."


def _front(searched: Searched) -> Iterator[str]:
    if not all(one.allowed for one in searched.tried):
        yield "Crosses are networks that answer a row more slowly than `constraints.latency_ms`: they are on no front."
    if len(searched.objectives) == 1:
        yield "Below, each dot is a trial. On the line are those that no other one beats in quality and cost at once"
        yield "(the Pareto front). Rings mark the networks of the model: they are chosen for what they reach together,"
        yield "and not for their cost."
        return
    yield f"The search looked for {', '.join(searched.objectives)} at once. Below, each dot is a trial; blue are those"
    yield "that no other one beats in all of these (the Pareto front), of which the networks of the model, ringed, were"
    yield "chosen on quality."


def _spaces(searched: Searched) -> str:
    names = ", ".join(f"`{name}`" for name in searched.families)
    return f"the space {names}" if len(searched.families) == 1 else f"the spaces {names}"


def _costs(manifest: Manifest, searched: Searched) -> Iterator[str]:
    lineage, counts = manifest.lineage, searched.counts()
    cpu = lineage.cpu_seconds
    trials = sum(one.cpu for one in searched.tried)
    yield "| what the search cost | |"
    yield "|---|---:|"
    yield f"| candidates | {searched.candidates:,} |"
    yield f"| of them trained to the end | {counts['complete']:,} |"
    yield f"| stopped early | {counts['pruned']:,} |"
    yield f"| diverged | {counts['diverged']:,} |"
    if searched.interrupted:
        yield f"| trainings interrupted, most of them run again | {searched.interrupted:,} |"
    if searched.refused is not None:
        yield f"| candidates too large to be trained (`constraints.size_mb`) | {searched.refused:,} |"
    if searched.slow is not None:
        yield f"| trained networks too slow for the model (`constraints.latency_ms`) | {searched.slow:,} |"
    yield f"| wall-clock | {lineage.seconds:,.0f} s |"
    if cpu is None:
        yield "| CPU-time | not measured |"
        return
    yield f"| CPU-time, all processes | {cpu:,.0f} s |"
    yield f"| of it in trainings | {trials:,.0f} s |"
    yield f"| energy, estimated at {WATTS:g} W a busy core | {watt_hours(cpu):.2g} Wh |"


def _against_random(manifest: Manifest, searched: Searched) -> Iterator[str]:
    metric, draws = metrics_for(manifest.task.problem)[manifest.task.metric], random_draws(searched)
    if draws is None:
        yield f"There is no comparison with random search: {why_no_draws(searched)}."
        return
    count, better = len(searched.tried), metric.greater_is_better
    best = float(best_so_far(searched.ordered, greater_is_better=better)[-1])
    (expected,) = expected_best(draws.scores, (count,), greater_is_better=better)
    yield f"The best network reached {metric.name} {best:.4f}; of random search with as many trials ({count})"
    yield f"{expected:.4f} was to be expected. That is the expected best of {count} draws with replacement from the"
    yield f"scores of {draws.which} (expected validation performance, Dodge et al. 2019)."
    if searched.strategy != "random":
        yield "The strategy may have chosen these itself, which makes the reference harder to beat."
    if count > len(draws.scores):
        yield f"Beyond {len(draws.scores)} draws (dotted) it is too low: it cannot exceed the best score drawn."


def _importances(found: Importances, story: Story) -> Iterator[str]:
    if not found.shares:
        yield f"Which choices mattered is not known: {found.reason or 'not measured'}."
        return
    yield f"What set the best {found.best} of {found.trials} trials apart from all of them, as shares of all that was"
    yield "found (PED-ANOVA, Watanabe et al. 2023; trials stopped early count as behind those that trained to the end)."
    yield "A choice that only some trials have counts by those."
    if found.trials < SURE:
        yield f"Of fewer than {SURE} trials it is a hint, no proof."
    yield from story.picture("importances.png", "The share of each choice in the importance")
    yield ""
    yield "| choice | share |"
    yield "|---|---:|"
    yield from (f"| `{name}` | {share:.1%} |" for name, share in found.shares[:SHOWN])
    if rest := found.shares[SHOWN:]:
        yield f"| {len(rest)} more | {sum(share for _, share in rest):.1%} |"
