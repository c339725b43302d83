"""What a client sent becomes what a measure can read: nothing crashes, everything is counted."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import pytest

from monitor.measures import measure_all
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.inference_log import Feedback, InferenceLog, Prediction
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

AT = datetime(2024, 3, 4)
SOUND = {"when": "2024-03-04T00:00:00", "amount": 1.5, "weight": 2, "member": True, "carrier": "AA"}
ONE = Prediction("", AT, AT, "1", "champion", SOUND, "no", [0.6, 0.4], [0, 1], 0.6, 0.0)


def log_features(log: InferenceLog, *changes: dict) -> None:
    log.append([dataclasses.replace(ONE, id=str(i), features={**SOUND, **one}) for i, one in enumerate(changes)])


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("amount", "much"),
        ("amount", [1, 2]),
        ("weight", {"kg": 2}),
        ("member", "perhaps"),
        ("member", 7),
        ("when", "yesterday"),
        ("carrier", ["AA"]),
    ],
)
def test_values_of_a_wrong_type_are_counted_and_become_missing(
    bundle: ModelBundle, log: InferenceLog, column: str, bad: object
) -> None:
    log_features(log, {}, {column: bad}, {column: None}, {})
    side = window_side(log.frame(), "1", bundle.manifest)
    assert side.broken.keys() == {column}
    assert (side.broken[column].rows, side.broken[column].example) == (1, repr(bad))
    assert side.inputs[column].isna().tolist() == [False, True, True, False]
    made = measure_all(View(side, reference_side(bundle), bundle.manifest))
    by_name = {one.name: one for one in made if one.subject == column}
    assert by_name["broken"].value == 0.25
    assert by_name["missing"].value == 0.25


def test_what_json_makes_of_sound_values_is_read(bundle: ModelBundle, log: InferenceLog) -> None:
    log_features(log, {"amount": 3}, {"amount": "4.5"}, {"member": "yes"}, {"when": "2024-03-04T01:00:00+01:00"})
    side = window_side(log.frame(), "1", bundle.manifest)
    assert not side.broken
    assert side.inputs["amount"].tolist() == [3, 4.5, 1.5, 1.5]
    assert side.inputs["when"].nunique() == 1


def test_a_vanished_column_is_missing_throughout(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(60))
    logged = log.frame().drop(columns=["weight", "when", "carrier"])
    side = window_side(logged, "1", bundle.manifest)
    assert side.inputs[["weight", "when", "carrier"]].isna().all(axis=None)
    made = measure_all(View(side, reference_side(bundle), bundle.manifest))
    missing = {one.subject: one.value for one in made if one.name == "missing"}
    assert missing == {"when": 1, "amount": 0, "weight": 1, "member": 0, "carrier": 1}


def test_labels_of_an_unknown_class_are_counted_apart(bundle: ModelBundle, log: InferenceLog) -> None:
    log_features(log, {}, {}, {})
    log.add_feedback([Feedback(str(i), label, AT, AT) for i, label in enumerate(("yes", "perhaps"))])
    side = window_side(log.frame(), "1", bundle.manifest)
    assert side.labelled.tolist() == [True, False, False]
    assert side.novel == 1


def test_logged_outputs_are_the_graphs(bundle: ModelBundle, log: InferenceLog) -> None:
    frame = make_frame(50, start="2024-02-25", seed=99)
    write_rows(log, bundle, frame.head(20))
    side, reference = window_side(log.frame(), "1", bundle.manifest), reference_side(bundle)
    assert side.scores.prediction.shape == (20,)
    assert side.scores.sets.shape == (20, 2)
    assert side.scores.sets.any(axis=1).all()
    assert side.scores.scores.sum(axis=1) == pytest.approx(1)
    assert reference.labelled.all()
