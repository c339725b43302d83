"""Realised performance: the champion's own rows, the labels that are there, and an error that is true."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from monitor.measures import measure_all
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.inference_log import InferenceLog
from registry.metrics import Problem, metrics_for
from tests.handmade import make_bundle, make_frame
from tests.monitor.logged import write_rows


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_it_is_the_metric_on_the_labels_that_arrived(
    bundle_of: Callable[[Problem], ModelBundle], log: InferenceLog, problem: Problem
) -> None:
    bundle = bundle_of(problem)
    write_rows(log, bundle, make_frame(500, seed=5, problem=problem, every="1h"), delay=1)
    logged = log.frame(labels_by=log.span()[1])
    side = window_side(logged, "1", bundle.manifest)
    made = measure_all(View(side, reference_side(bundle), bundle.manifest))[0]
    arrived = logged["__label__"].notna().to_numpy()
    assert 0 < made.rows == arrived.sum() == 476
    metric = metrics_for(problem)[bundle.manifest.task.metric]
    labels = bundle.manifest.target.encode(logged["__label__"][arrived])
    assert made.value == pytest.approx(metric.value(labels, side.scores.take(arrived).scores))
    assert made.reference == bundle.manifest.reference.value
    assert made.low < made.value < made.high


def test_rows_of_another_version_do_not_count(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(200, seed=1), version="1", tag="a")
    write_rows(log, bundle, make_frame(300, seed=2, flip=1.0, start="2024-01-03"), version="2", tag="b")
    by_version = {}
    for version in ("1", "2", "3"):
        side = window_side(log.frame(), version, bundle.manifest)
        assert len(side) == 500
        by_version[version] = measure_all(View(side, reference_side(bundle), bundle.manifest))[0]
    assert [by_version[version].rows for version in "123"] == [200, 300, 0]
    assert by_version["1"].value > 0.9
    assert by_version["2"].value < 0.1
    assert by_version["3"].value is None


def test_the_standard_error_is_the_spread_over_windows(bundle: ModelBundle) -> None:
    side, rng = reference_side(bundle), np.random.default_rng(0)
    metric = metrics_for("binary")["auc"]
    draws = [rng.integers(0, len(side), 300) for _ in range(200)]
    values = [metric.value(side.labels[rows], side.scores.take(rows).scores) for rows in draws]
    errors = [metric.standard_error(side.labels[rows], side.scores.take(rows).scores) for rows in draws]
    assert 1 <= np.mean(errors) / np.std(values) < 1.3  # the larger of two estimates


def test_segments_are_measured_apart(tmp_path, log: InferenceLog) -> None:
    monitor = {"windows": {"kind": "rows", "rows": 100}, "segments": ["carrier", "member"]}
    bundle = make_bundle(tmp_path / "bundle", monitor=monitor)
    frame = make_frame(900, seed=3)
    wrong = frame["carrier"] == "BB"
    frame.loc[wrong, "late"] = np.where(frame.loc[wrong, "late"] == "yes", "no", "yes")
    write_rows(log, bundle, frame)
    side = window_side(log.frame(), "1", bundle.manifest)
    made = measure_all(View(side, reference_side(bundle), bundle.manifest))
    by_name = {one.subject: one for one in made if one.name == "segment_performance"}
    assert by_name.keys() == {"carrier=AA", "carrier=BB", "carrier=CC", "member=0", "member=1"}
    assert by_name["carrier=BB"].value < 0.2 < 0.8 < by_name["carrier=BB"].reference
    assert by_name["carrier=AA"].value > 0.9
    assert sum(by_name[f"carrier={name}"].rows for name in ("AA", "BB", "CC")) == 900
