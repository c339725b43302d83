"""The yardstick: it sees age and not hard weeks, knows its error, and never looks ahead."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from monitor.attainable import LEAST_ROWS, Attainable, fit_fresh
from monitor.measurements import Measurement
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.inference_log import InferenceLog
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

PAST, ROWS = 3_000, 1_000


def measured(bundle: ModelBundle, log: InferenceLog, frame: pd.DataFrame, *, rows: int = ROWS) -> Measurement:
    """The measure over the last rows of a logged frame, as the watch pass would see them."""
    write_rows(log, bundle, frame)
    cut = frame["when"].iloc[-rows].to_pydatetime()
    past = log.frame(end=cut, labels_by=cut, labelled_only=True)
    assert (past["__label_time__"] <= cut).all()
    manifest = bundle.manifest
    window = window_side(log.frame(start=cut), "1", manifest)
    fresh = fit_fresh(window_side(past, None, manifest), manifest)
    view = View(window, reference_side(bundle), manifest, fresh)
    (found,) = Attainable().measure(view)
    return found


def test_a_champion_as_good_as_new_is_at_what_is_attainable(bundle: ModelBundle, log: InferenceLog) -> None:
    found = measured(bundle, log, make_frame(PAST + ROWS))
    assert found.value is not None
    assert found.reference is not None
    assert found.error is not None
    assert abs(found.value - found.reference) < 4 * found.error + 0.01


def test_an_aged_champion_is_far_below_it(bundle: ModelBundle, log: InferenceLog) -> None:
    found = measured(bundle, log, make_frame(PAST + ROWS, flip=1.0))
    assert found.value is not None
    assert found.reference is not None
    assert found.error is not None
    assert found.value - found.reference > 0.2
    assert found.value - found.reference > 10 * found.error


def test_it_never_looks_ahead(bundle: ModelBundle, log: InferenceLog) -> None:
    """The relation turns round at the window's beginning: who had seen the window's labels would know."""
    old, new = make_frame(PAST, seed=1), make_frame(ROWS, seed=2, flip=1.0)
    new["when"] += old["when"].iloc[-1] - new["when"].iloc[0] + timedelta(minutes=10)
    found = measured(bundle, log, pd.concat([old, new], ignore_index=True))
    assert found.value is not None
    assert found.value < 0.2


def test_a_column_that_has_had_no_value_for_so_long_is_no_accident(bundle: ModelBundle, log: InferenceLog) -> None:
    """A sensor died: the yardstick's rows have nothing of it, and trees cannot cut nothing into bins."""
    found = measured(bundle, log, make_frame(PAST + ROWS).assign(weight=np.nan, member=None))
    assert found.value is not None
    assert found.value > 0.6


def test_too_few_labels_make_no_yardstick(bundle: ModelBundle, log: InferenceLog) -> None:
    found = measured(bundle, log, make_frame(LEAST_ROWS))
    assert found.value is None
    assert "too few" in found.note
