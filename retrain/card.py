"""The model card: what a model is, on which rows it stands, how good it is beside boosted trees, and what it cannot do.

Markdown, after Mitchell et al. 2019. Every figure of the model's quality comes from the test part, which nothing was
fitted to; those of the search are of its validation part, and say so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from registry.bundle import Manifest
from registry.plurals import counted
from registry.schema import Column
from retrain.boosted import Boosted
from retrain.contest import covered
from retrain.criteria import criteria
from retrain.families.parameters import is_int8
from retrain.search_card import search_part
from retrain.story import HIGHER, Story, compare, who_wins

SHOWN = 8
FEW_PLACES = 3
"""From so many choices of one kind on, by place of an architecture, they have a line of their own."""


def card(manifest: Manifest, story: Story) -> str:
    """The card as Markdown."""
    parts = (_task, _data, _members, _performance, _trust, search_part, criteria, _lineage, _limits)
    told = ([line.rstrip() for line in part(manifest, story)] for part in parts)
    return "\n\n".join("\n".join(lines) for lines in told if lines) + "\n"


def _task(manifest: Manifest, story: Story) -> Iterator[str]:
    task, target = manifest.task, manifest.target
    yield f"# {task.name}"
    yield ""
    what = f"one of {len(target.classes)} classes ({_some(target.classes)})" if target.classes else "a number"
    yield f"Predicts `{task.target}`, {what}, from {counted(len(manifest.data_schema.columns), 'column')}. "
    yield f"Made by Everfit {manifest.lineage.code_version}; chosen by {task.metric}."
    if manifest.fall is not None:
        yield ""
        yield f"**Warning: the model is {manifest.fall}.**"


def _data(manifest: Manifest, story: Story) -> Iterator[str]:
    schema, lineage, task = manifest.data_schema, manifest.lineage, manifest.task
    order = f"in the order of `{task.time}`" if task.time else "stratified, without order in time"
    yield "## Data"
    yield ""
    followed = _followed(story)
    yield f"{'Answered, then learnt,' if followed else 'Split'} {order}:"
    yield ""
    yield "| part | rows | used for |"
    yield "|---|---:|---|"
    uses = {
        "train": "weights, preparation, schema",
        "validation": "choice of candidates, epochs and ensemble",
        "calibration": "temperature and conformal radius",
        "test": "every figure of quality below but those of the search, looked at once",
    }
    if followed:
        uses["test"] = "every figure of quality below: answered before the label came, learnt since"
    elif manifest.refitted:
        uses |= {part: f"{uses[part]}; learnt since" for part in ("validation", "calibration", "test")}
    for part, rows in lineage.rows.items():
        yield f"| {part} | {rows:,} | {uses.get(part, '')} |"
    yield ""
    yield "| columns read | |"
    yield "|---|---|"
    for kind in ("numeric", "boolean", "datetime", "categorical", "text", "image"):
        if columns := schema.of(kind):
            yield f"| {kind} | {', '.join(_column(one) for one in columns)} |"
    left_out = {one.name for one in schema.left_out}
    notes = [f"- left out: `{one.name}` ({one.reason})" for one in schema.left_out]
    notes += [f"- {finding}" for finding in story.findings if finding.column not in left_out]
    yield from ("", *notes) if notes else ()


def _followed(story: Story) -> bool:
    """Whether the test rows were answered before they were learnt, and not held out."""
    return "pace" in (story.told.get("heritage") or {})


def _column(column: Column) -> str:
    if column.kind == "text":
        return f"`{column.name}` ({len(column.words):,} words learnt)"
    if column.kind == "image":
        return f"`{column.name}` ({column.size} x {column.size}, {'grey' if column.channels == 1 else 'colours'})"
    if column.kind != "categorical":
        return f"`{column.name}`"
    return f"`{column.name}` ({len(column.categories):,} of {column.distinct:,} values learnt)"


def _members(manifest: Manifest, story: Story) -> Iterator[str]:
    members = story.told.get("members", [])
    yield "## Model"
    yield ""
    yield from _origin(manifest, story, len(members))
    yield ""
    ordered = sorted(members, key=lambda one: -one["weight"])
    yield f"| network | weight | family | {manifest.task.metric} on validation | parameters | operations a row |"
    yield "|---:|---:|---|---:|---:|---:|"
    for number, member in enumerate(ordered, start=1):
        candidate = member["candidate"]
        score = candidate.get("score")
        shown = "" if score is None else f"{score:.4f}"
        costs = " | ".join(f"{candidate[name]:,}" if name in candidate else "" for name in ("parameters", "flops"))
        family = candidate.get("family", "?") + (", int8" if is_int8(candidate.get("choices", {})) else "")
        yield f"| {number} | {member['weight']:.2f} | {family} | {shown} | {costs} |"
    yield ""
    for number, member in enumerate(ordered, start=1):
        yield f"- Choices of network {number}"
        yield from (f"  - {line}" for line in choice_lines(member["candidate"].get("choices", {})))
    yield ""
    for number in range(1, len(members) + 1):
        yield from story.picture(f"network-{number}.png", f"Network {number} of the ensemble as a graph")
    yield from _warm_start(manifest, story)


def choice_lines(choices: Mapping[str, object]) -> list[str]:
    """Choices, those of places of an architecture a line for each kind of place.

    >>> choice_lines({"node_1": "wide", "width": 64, "node_2": "skip", "node_3": "pool", "weight_decay": 0.1})
    ['node: 1 wide, 2 skip, 3 pool', 'width 64, weight_decay 0.1']
    """
    placed = {name: re.fullmatch(r"([a-z]+)_(\d.*)", name) for name in choices}
    kinds = Counter(found[1] for found in placed.values() if found)
    lines: dict[str, list[str]] = {}
    for name, value in choices.items():
        found = placed[name]
        grouped = found is not None and kinds[found[1]] >= FEW_PLACES
        kind, place = (f"{found[1]}: ", found[2].replace("_", " ")) if found and grouped else ("", name)
        lines.setdefault(kind, []).append(f"{place} {_choice(value)}")
    return [f"{kind}{', '.join(told)}" for kind, told in sorted(lines.items(), key=lambda one: not one[0])]


def _origin(manifest: Manifest, story: Story, members: int) -> Iterator[str]:
    heritage, parent = story.told.get("heritage") or {}, manifest.lineage.parent_version
    ensemble = f"A weighted ensemble of {counted(members, 'network')}"
    took = f"in {manifest.lineage.seconds:.0f} s"
    if version := heritage.get("recalibrated"):
        yield f"{ensemble}, those of version {version}: no weight was trained. "
        yield f"They were brought to the level of newer labels, {took}:"
    elif pace := heritage.get("pace"):
        yield f"{ensemble}, those of version {parent} trained on by a window, {took}: "
        yield f"on the labels of the newest {pace[0]} windows, {'once' if pace[1] == 1 else f'{pace[1]} times'}:"
    elif "diet" in heritage:
        yield f"{ensemble}. Those of version {parent} were trained on, {took}, on "
        yield f"'{heritage['diet']}'; of its own {heritage.get('kept', 0)} are kept:"
    else:
        yield f"{ensemble}, chosen greedily on validation out of "
        yield f"{counted(manifest.lineage.trials, 'trial')} {took}:"


def _choice(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _warm_start(manifest: Manifest, story: Story) -> Iterator[str]:
    heritage = story.told.get("heritage") or {}
    if "handed" not in heritage:
        return
    yield ""
    parent = manifest.lineage.parent_version
    source = f"version {parent}" if parent else "a former model"
    handed, tried = heritage.get("handed", 0), heritage.get("tried", 0)
    yield f"Warm start from {source}: {counted(handed, 'candidate')} handed down, {tried} tried."
    yield f"Weights: {heritage.get('weights', 'not inherited')}."
    if elders := heritage.get("elders", 0):
        yield f"{elders} of the prior's networks stood for election to the ensemble beside the new ones."
    if heritage.get("guard_fired"):
        yield f"Fresh candidates beat the prior's: {heritage.get('refused', 0)} of its candidates were dropped."


def _performance(manifest: Manifest, story: Story) -> Iterator[str]:
    yield "## Performance on the test rows"
    yield ""
    yield from _alone(manifest) if story.boosted is None else _beside(manifest, story, story.boosted)
    estimate = manifest.reference
    known = f"{manifest.task.metric} {estimate.value:.4f}, standard error {estimate.error:.4f}"
    yield f"Monitoring holds the model against its own figure here: {known}."
    if manifest.refitted:
        yield "Measured were networks that had learnt training and validation rows; those that serve have learnt all."
    if manifest.weakness is not None:
        yield f"**The model is {manifest.weakness}.**"
    elif manifest.naive is not None:
        answer = "class shares" if manifest.target.classes else "mean"
        yield f"Always answering the training rows' {answer} gives {manifest.task.metric} {manifest.naive.value:.4f}."
    if story.boosted is None:
        yield "No boosted trees were fitted beside it: its parent's card has them."
        return
    yield "The boosted trees are scikit-learn's HistGradientBoosting on the same parts, "
    yield f"{counted(story.boosted.rounds, 'round')}, {story.boosted.seconds:.1f} CPU-seconds, one thread, not tuned."
    if manifest.data_schema.image is not None:
        yield "Of images they read the numbers that this model's graph gives, not the pixels."


def _sorted(manifest: Manifest) -> list[tuple[str, float]]:
    """The model's metrics, the task's own first."""
    champion = manifest.metrics["champion"]
    return sorted(champion.items(), key=lambda one: (one[0] != manifest.task.metric, one))


def _alone(manifest: Manifest) -> Iterator[str]:
    yield "| metric | this model |"
    yield "|---|---:|"
    for name, value in _sorted(manifest):
        yield f"| {name} ({'higher' if HIGHER.get(name, True) else 'lower'} is better) | {value:.4f} |"
    yield ""


def _beside(manifest: Manifest, story: Story, boosted: Boosted) -> Iterator[str]:
    yield "| metric | this model | boosted trees |"
    yield "|---|---:|---:|"
    gain = compare(manifest, story, boosted)
    sure = gain.low > 0 or gain.high < 0
    for name, mine in _sorted(manifest):
        theirs = boosted.metrics.get(name)
        if theirs is None:
            continue
        ahead = (mine > theirs) == HIGHER.get(name, True) if mine != theirs and sure else None
        pair = (f"{mine:.4f}", f"{theirs:.4f}")
        left, right = (_bold(text, ahead is wins) for text, wins in zip(pair, (True, False), strict=True))
        yield f"| {name} ({'higher' if HIGHER.get(name, True) else 'lower'} is better) | {left} | {right} |"
    yield ""
    yield who_wins(manifest, gain)


def _bold(text: str, wins: bool) -> str:
    return f"**{text}**" if wins else text


def _trust(manifest: Manifest, story: Story) -> Iterator[str]:
    task, share = manifest.task, float(covered(story.scores, story.labels).mean())
    what = "conformal set" if manifest.target.classes else "conformal interval"
    yield "## Calibration and coverage on the test rows"
    yield ""
    yield f"- The {what} holds the truth in {share:.1%} of rows; promised {task.coverage:.0%}."
    if story.scores.sets is not None:
        sizes = story.scores.sets.sum(axis=1)
        yield f"- A set holds {sizes.mean():.2f} of {len(manifest.target.classes)} classes on average."
        ece = manifest.metrics["champion"].get("ece", float("nan"))
        yield f"- Expected calibration error {ece:.4f}, after a temperature of {manifest.temperature:.3f}."
    elif story.scores.interval is not None:
        width = float(np.mean(story.scores.interval[:, 1] - story.scores.interval[:, 0]))
        yield f"- An interval is {width:.4g} wide on average."
    yield from story.picture("calibration.png", "What was said with a probability, and how often it came true")
    yield from story.picture("confusion.png", "Predicted against true classes")
    yield from story.picture("residuals.png", "True less predicted against predicted")


def _lineage(manifest: Manifest, story: Story) -> Iterator[str]:
    lineage = manifest.lineage
    yield "## Lineage"
    yield ""
    rows = "" if _followed(story) else f", {sum(lineage.rows.values()):,} rows"  # there a row may be in both parts
    yield f"- data: SHA-256 `{lineage.data_hash[:16]}...`{rows}"
    if lineage.known_until is not None:
        yield f"- newest row seen by any part: {lineage.known_until} UTC"
    yield f"- parent: {f'version {lineage.parent_version}' if lineage.parent_version else 'none'}"
    yield f"- Everfit {lineage.code_version}, seed {lineage.seed}"


def _limits(manifest: Manifest, story: Story) -> Iterator[str]:
    task = manifest.task
    yield "## Limits"
    yield ""
    if task.time:
        yield f"- Learnt from rows until {manifest.lineage.known_until}; the world after that is watched, not known."
    else:
        yield "- Rows have no order in time here: if they drift, these figures are too good."
    yield f"- Coverage of {task.coverage:.0%} is promised on average over rows like the calibration part's, not for"
    yield "  each segment, and not after drift."
    yield "- Categories that training hardly saw are all treated alike, as unknown."
    yield "- Only associations in the data are learnt: nothing here says what an intervention would do."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown
