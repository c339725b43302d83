"""The card states what is true of the bundle, and says who wins whoever wins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from registry.bundle import Estimate, Manifest
from registry.metrics import Problem
from registry.schema import LeftOut
from registry.scoring import Scorer
from retrain.boosted import Boosted, evaluate
from retrain.card import card
from retrain.finding import Finding
from retrain.paired import Interval
from retrain.story import Story, compare, who_wins
from tests.handmade import make_bundle, make_frame

METRIC = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
MEMBER = {"family": "resnet", "choices": {"depth": 2, "dropout": 0.123456}, "seed": 1, "score": 0.71234, "epochs": 9}
COSTS = {"parameters": 5_945, "flops": 11_264}
TOLD = {
    "members": [
        {"candidate": MEMBER, "weight": 0.25},
        {"candidate": {**MEMBER, **COSTS, "family": "mlp"}, "weight": 0.75},
    ]
}


def tell(tmp_path: Path, problem: Problem = "binary", other: float = 0.5) -> tuple[Manifest, Story]:
    """A bundle's manifest and story; `other` is the quality of the model that stands for the boosted trees."""
    bundle, rival = (
        make_bundle(tmp_path / name, problem=problem, quality=quality, metric=METRIC[problem])
        for name, quality in (("mine", 1.0), ("other", other))
    )
    frame = make_frame(2_000, problem=problem, seed=7, start="2024-03-02")
    labels = bundle.manifest.target.encode(frame["late"])
    scores, theirs = Scorer.load(bundle).predict(frame), Scorer.load(rival).predict(frame).scores
    boosted = Boosted(evaluate(labels, theirs, problem), theirs, rounds=33, seconds=1.25)
    metrics = {"champion": evaluate(labels, scores.scores, problem), "boosted": boosted.metrics}
    manifest = bundle.manifest.model_copy(update={"metrics": metrics})
    return manifest, Story(
        scores, labels, frame["when"].to_numpy(), boosted, TOLD, figures=("calibration.png", "network-1.png")
    )


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_every_part_is_there_with_its_numbers(problem: Problem, tmp_path: Path) -> None:
    manifest, story = tell(tmp_path, problem)
    text = card(manifest, story)
    assert text.startswith("# handmade\n\nPredicts `late`, ")
    assert "| train | 1,000 |" in text
    assert "| numeric | `amount`, `weight` |" in text
    assert "`carrier` (3 of 3 values learnt)" in text
    assert "| 1 | 0.75 | mlp | 0.7123 | 5,945 | 11,264 |\n| 2 | 0.25 | resnet | 0.7123 |  |  |\n" in text
    assert "- Choices of network 1\n  - depth 2, dropout 0.123\n" in text
    assert text.index("| 0.75 | mlp") < text.index("| 0.25 | resnet")
    assert f"{manifest.metrics['champion'][METRIC[problem]]:.4f}" in text
    assert "promised 90%" in text
    assert "![Network 1 of the ensemble as a graph](figures/network-1.png)" in text
    assert text.index("network-1.png") < text.index("## Performance") < text.index("figures/calibration.png")
    assert "## Search" not in text
    assert "criteria" not in text
    assert "33 rounds" in text
    assert "None" not in text
    assert "nan" not in text


def test_the_winner_is_named_whoever_it_is(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    swapped = replace(story, boosted=replace(story.boosted, scores=1 - story.scores.scores))
    assert compare(manifest, swapped, swapped.boosted).value > 0.5
    assert "This model is ahead" in who_wins(manifest, compare(manifest, swapped, swapped.boosted))
    same = replace(story, boosted=replace(story.boosted, scores=story.scores.scores))
    assert "Neither is surely ahead" in who_wins(manifest, compare(manifest, same, same.boosted))
    assert "**Boosted trees are ahead" in who_wins(manifest, Interval(-0.02, -0.03, -0.01))
    assert "Nobody can be called ahead" in who_wins(manifest, Interval(0.1, float("nan"), float("nan")))


def test_the_better_figure_is_bold(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    worse = {
        name: value + (0.1 if name in ("log_loss", "brier", "ece") else -0.1)
        for name, value in manifest.metrics["champion"].items()
    }
    behind = replace(story.boosted, metrics=worse, scores=1 - story.scores.scores)
    text = card(manifest, replace(story, boosted=behind))
    rows = [line for line in text.splitlines() if "is better)" in line]
    assert rows[0].startswith("| auc (higher is better) | **")
    assert all("**" in row.split("|")[2] and "**" not in row.split("|")[3] for row in rows)


def test_warm_start_left_out_columns_and_findings(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    heritage = {"handed": 5, "tried": 3, "refused": 2, "guard_fired": True, "weights": "inherited where shapes agree"}
    finding = Finding(level="warning", column="x", message="7 of 9 rows", remedy="mend them", rows=7)
    schema = manifest.data_schema.model_copy(update={"left_out": (LeftOut(name="row", reason="identifier-like"),)})
    lineage = manifest.lineage.model_copy(update={"parent_version": "4"})
    manifest = manifest.model_copy(update={"data_schema": schema, "lineage": lineage})
    text = card(manifest, replace(story, told={**TOLD, "heritage": heritage}, findings=(finding,)))
    assert "Warm start from version 4: 5 candidates handed down, 3 tried." in text
    assert "2 of its candidates were dropped" in text
    assert "- left out: `row` (identifier-like)" in text
    assert "- column 'x': 7 of 9 rows; mend them" in text
    assert "- parent: version 4" in text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5, "Always answering the training rows' class shares gives auc 0.5000."),
        (0.97, "**The model is weak: auc 0."),
    ],
)
def test_what_one_that_knows_nothing_reaches_is_told(tmp_path: Path, value: float, said: str) -> None:
    manifest, story = tell(tmp_path)
    assert said in card(manifest.model_copy(update={"naive": Estimate(value=value, error=0.01, rows=600)}), story)


def test_no_figure_is_bold_where_neither_is_surely_ahead(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    mine = manifest.metrics["champion"]
    same = replace(story.boosted, scores=story.scores.scores, metrics={name: one + 1e-3 for name, one in mine.items()})
    text = card(manifest, replace(story, boosted=same))
    assert "Neither is surely ahead" in text
    assert not any("**" in line for line in text.splitlines() if "is better)" in line)


def test_a_fall_from_validation_to_test_stands_at_the_top(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    value, error = manifest.reference.value, manifest.reference.error
    for better, said in ((value + 10 * error, True), (value + 2 * error, False), (value - 10 * error, False)):
        chosen_by = Estimate(value=better, error=error, rows=600)
        text = card(manifest.model_copy(update={"validation": chosen_by}), story)
        warning = "**Warning: the model is surely worse on the test rows than on the validation rows, by which"
        assert (warning in text[: text.index("## Data")]) is said
    assert "Warning" not in card(manifest, story)


def test_without_time_the_card_warns(tmp_path: Path) -> None:
    manifest, story = tell(tmp_path)
    lineage = manifest.lineage.model_copy(update={"known_until": None})
    task = manifest.task.model_copy(update={"time": None})
    text = card(manifest.model_copy(update={"task": task, "lineage": lineage}), replace(story, times=None))
    assert "stratified" in text
    assert "if they drift, these figures are too good" in text
    assert np.isfinite(compare(manifest, replace(story, times=None), story.boosted).low)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"recalibrated": "7"}, "those of version 7: no weight was trained"),
        ({"tuned": 2, "diet": "newer rows", "kept": 1}, "'newer rows'; of its own 1 are kept"),
    ],
)
def test_a_renewed_model_says_what_was_done(tmp_path: Path, told: dict[str, object], said: str) -> None:
    manifest, story = tell(tmp_path)
    told_of = replace(story, boosted=None, told={**story.told, "heritage": told})
    text = card(manifest.model_copy(update={"metrics": {"champion": manifest.metrics["champion"]}}), told_of)
    assert said in text
    assert "No boosted trees were fitted beside it" in text
    assert "Warm start" not in text
    assert "| auc (higher is better) | 0." in text
