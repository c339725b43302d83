"""What a client sent becomes what a measure can read: nothing crashes, everything is counted."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import pandas as pd
import pytest

from monitor.measures import measure_all
from monitor.quality import Constant
from monitor.views import View, reference_side, window_side
from registry.bundle import TIME, ModelBundle
from registry.inference_log import Feedback, InferenceLog
from registry.schema import NumericColumn, Schema
from tests.handmade import make_frame, make_schema
from tests.logged_rows import Prediction, append
from tests.monitor.logged import write_rows

AT = datetime(2024, 3, 4)
SOUND = {"when": "2024-03-04T00:00:00", "amount": 1.5, "weight": 2, "member": True, "carrier": "AA"}
ONE = Prediction("", AT, AT, "1", "champion", SOUND, "no", [0.6, 0.4], [0, 1], 0.6, 0.0)


def log_features(log: InferenceLog, *changes: dict) -> None:
    append(log, [dataclasses.replace(ONE, id=str(i), features={**SOUND, **one}) for i, one in enumerate(changes)])


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


class Timed(ModelBundle):
    """A bundle whose model does not read its task's time column."""

    def reference(self) -> pd.DataFrame:
        """The rows with their times apart, in no order."""
        return super().reference().rename(columns={"when": TIME}).sample(frac=1, random_state=0, ignore_index=True)


def test_rows_are_in_time_order_though_no_model_reads_the_time(bundle: ModelBundle, log: InferenceLog) -> None:
    """Where it is not known which rows come together, a month that stands still would look like a fault."""
    manifest = bundle.manifest
    schema = Schema(columns=(*manifest.data_schema.of("numeric", "boolean"), NumericColumn(name="month")))
    side = reference_side(
        Timed(bundle.folder, manifest.model_copy(update={"data_schema": Schema(columns=make_schema().columns[1:])}))
    )
    assert side.times is not None
    assert side.times.is_monotonic_increasing
    rows = make_frame(300, start="2024-04-02")
    write_rows(log, bundle, rows)
    window = window_side(log.frame(), "1", manifest)
    assert window.times is not None
    assert window.times.tolist() == rows["when"].tolist()
    known, now = (
        dataclasses.replace(one, columns=one.inputs.assign(month=float(month)))
        for one, month in ((side, 3), (window, 4))
    )
    known.inputs.loc[: len(known) // 2, "month"] = 2.0
    view = View(now, known, manifest.model_copy(update={"data_schema": schema}))
    still = next(one for one in Constant().measure(view) if one.subject == "month")
    assert (still.value, still.reference) == (1.0, 0.0)
    assert still.p_value is not None
    assert still.p_value > 0.1
