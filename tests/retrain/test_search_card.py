"""The card's parts on the search say what was measured, and plainly what was not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from registry.bundle import Manifest
from retrain.card import card
from retrain.criteria import CRITERIA, NOT_MEASURED
from retrain.export import PARITY
from retrain.story import Story
from retrain.trials import Importances, Searched
from tests.retrain.test_card import tell
from tests.retrain.test_trials import made

PICTURES = ("search.png", "pareto.png", "importances.png", "network-1.png", "network-2.png")


@pytest.fixture
def told(tmp_path: Path) -> tuple[Manifest, Story]:
    """A manifest and a story of a model that a search found."""
    manifest, story = tell(tmp_path)
    lineage = manifest.lineage.model_copy(update={"cpu_seconds": 300.0, "seconds": 160.0, "trials": 40})
    parity = {"probabilities": 3e-7, "prediction": 0.0}
    story = replace(story, told={**story.told, PARITY: parity}, figures=PICTURES, searched=made())
    return manifest.model_copy(update={"lineage": lineage}), story


def rows_of(text: str) -> dict[str, str]:
    """The table of criteria."""
    found = dict(re.findall(r"^\| ([a-z -]+) \| (.+) \|$", text[text.index("## The ten criteria") :], re.MULTILINE))
    return {name: found[name] for name in CRITERIA}


def test_what_the_search_cost(told: tuple[Manifest, Story]) -> None:
    text = card(*told)
    assert "Strategy `tpe` on the space `mlp`. All scores here are on validation rows." in text
    assert "How it chooses." not in text
    assert "Studies of" not in text
    assert "\nStudies of `a`, `b` were" in card(
        told[0], replace(told[1], searched=replace(made(), teachers=("a", "b")))
    )
    chosen = replace(made(), how="How it chooses.", tried=(*made().tried, replace(made().tried[-1], inherited=True)))
    words = card(told[0], replace(told[1], searched=chosen))
    assert "validation rows.\nHow it chooses.\nCandidates with a result: " in words
    assert "from the strategy; 1 began with the weights of a network like theirs." in words
    for row in ("| candidates | 41", "of them trained to the end | 27", "stopped early | 13", "diverged | 1",
                "wall-clock | 160 s", "CPU-time, all processes | 300 s", "a busy core | 1 Wh"):  # fmt: skip
        assert f"{row} |" in text
    for name in PICTURES:
        assert text.count(f"](figures/{name})") == 1
    assert "None" not in text
    assert "nan" not in text


def test_a_search_that_had_time_for_hardly_a_network_says_so(told: tuple[Manifest, Story]) -> None:
    """Not one that was asked for no more, nor one that found enough (`planned` is 0 then)."""
    manifest, story = told
    few = replace(made(), tried=made().tried[:1], diverged=0)
    for planned, said in ((40, True), (1, False), (0, False)):
        searched = replace(few, planned=planned)
        text = card(manifest, replace(story, searched=searched))
        assert ("Only 1 network was trained to the end in the time there was. Another search" in text) is said
        assert searched.counts().get("unbegun") == (39 if said else None)
    assert not replace(made(), planned=100).hurried
    slow = card(manifest, replace(story, searched=replace(few, planned=40, waited=80.0)))
    assert "in the time there was; the start of the workers took 80 of the 160 s. Another search" in slow


def test_networks_above_the_limit_of_latency_are_told_from_the_front(told: tuple[Manifest, Story]) -> None:
    manifest, story = told
    slow = replace(made().tried[0], allowed=False)
    assert "`constraints.latency_ms`: they are on no front" not in card(manifest, story)
    shown = replace(story, searched=replace(made(), tried=(slow, *made().tried[1:])))
    assert "`constraints.latency_ms`: they are on no front" in card(manifest, shown)


def test_the_reference_says_how_it_was_estimated(told: tuple[Manifest, Story]) -> None:
    manifest, story = told
    text = card(manifest, story)
    assert "the first 10 trials outside the portfolio (expected validation performance, Dodge et al. 2019)" in text
    assert "The strategy may have chosen these itself" in text
    assert "Beyond 10 draws (dotted) it is too low" in text
    uniform = card(manifest, replace(story, searched=made(40, "random")))
    assert "all 32 random trials" in uniform
    assert "may have chosen" not in uniform
    assert "There is no comparison with random search" in card(manifest, replace(story, searched=made(10)))


def test_importances_are_a_table_or_a_reason(told: tuple[Manifest, Story]) -> None:
    manifest, story = told
    text = card(manifest, story)
    assert "What set the best 5 of 40 trials apart" in text
    assert "| `mlp.depth` | 60.0% |\n| `adamw_rate` | 30.0% |" in text
    assert "it is a hint, no proof" in text
    without = replace(story.searched, importances=Importances(reason="4 trials trained to the end"))
    text = card(manifest, replace(story, searched=without))
    assert "Which choices mattered is not known: 4 trials trained to the end." in text
    assert rows_of(text)["interpretability"] == "2 of 2 networks drawn; importances of choices not known"


def test_ten_criteria_with_their_figures(told: tuple[Manifest, Story]) -> None:
    rows = rows_of(card(*told))
    assert len(rows) == 10
    assert rows["novelty"].startswith("12 of 20 distinct architectures tried are in no portfolio")
    assert re.match(r"auc 0\.\d{4} on 600 test rows, 90 % interval .*; gain over boosted", rows["solution quality"])
    assert "CPU-seconds of trials; gain over random search's expected best +0.0" in rows["efficiency"]
    assert "the best 5 trials, each with its own seed, lie within 0.0" in rows["stability"]
    assert rows["interpretability"].endswith("what mattered most: `mlp.depth` 60%, `adamw_rate` 30%, `family` 10%")
    assert "seed 0, data `0000000000000000`, Everfit test, torch " in rows["reproducibility"]
    said = rows["engineering quality"]
    assert "differ by at most 3.0e-07 on 1,000 rows (allowed 0.0001); 1 of 41 candidates diverged" in said
    assert rows["scalability"] == "1,000 training rows, 2 workers; 1.90 trials ran at once, on 2.00 busy cores"
    assert "auc 0.8100 on validation, " in rows["generalizability"]
    assert "1 Wh, estimated from 300 CPU-seconds" in rows["eco-friendliness"]


def test_what_was_not_measured_says_so(told: tuple[Manifest, Story]) -> None:
    manifest, story = told
    bare = Searched("tpe", ("mlp",), 1, made(4).tried[:1])
    bare = replace(bare, tried=(replace(bare.tried[0], cpu=0.0),))
    lineage = manifest.lineage.model_copy(update={"cpu_seconds": None})
    shown = replace(story, searched=bare, boosted=None, told={"members": []}, figures=())
    text = card(manifest.model_copy(update={"lineage": lineage}), shown)
    rows = rows_of(text)
    assert "| CPU-time | not measured |" in text
    assert rows["stability"] == rows["generalizability"] == rows["eco-friendliness"] == NOT_MEASURED
    assert rows["solution quality"].endswith("no baseline was fitted")
    assert "CPU-time not measured; too few random trials" in rows["efficiency"]
    assert rows["engineering quality"].startswith("difference of graph and torch not measured")
    assert rows["scalability"].endswith("speed-up not measured")
