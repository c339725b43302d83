"""What happened, from what was found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitor.comparison import EXPECTED, Level, Worse, compare
from monitor.diagnosis import FIGURES, Degradation, diagnose, input_distance, pooled, possible
from monitor.findings import Finding
from monitor.measurements import Measurement, WindowRecord
from tests.monitor.records import START, WEEK, end_of, record

COSTLY = Measurement(name="shift", subject="dew", value=0.4, cost=0.05, cost_error=0.01, p_value=0.0, rows=900)
FREE = COSTLY.model_copy(update={"subject": "noise", "cost": 0.001})
LABELS = Measurement(name="label_shift", value=0.3, p_value=0.0, rows=900)


def gap(value: float, name: str = "gap") -> Measurement:
    return Measurement(name=name, value=value, error=0.01, rows=900)


def fall(*measurements: Measurement, scores: tuple[float, ...] = (0.0, 0.1, 5.0, 5.0)) -> Degradation:
    """A fall since the third of so many windows."""
    records = [record(i, *(measurements if i >= 2 else ())) for i in range(len(scores))]
    return Degradation(
        tuple(records), 2, 1, 2, scores, compare("auc", Level(0.6, 0.01, 900), Level(0.7, 0.01, 0), "", 0)
    )


def found(*made: Measurement) -> list[Finding]:
    return [Finding(one, 2.0) for one in made]


def test_all_in_order_is_no_diagnosis() -> None:
    assert diagnose("ok", None, [], []) is None


def test_broken_data_come_before_the_model() -> None:
    broken = Measurement(name="missing", subject="dew", value=0.5, reference=0.0, p_value=0.0, rows=900)
    told = diagnose("faulty", fall(gap(0.1)), found(broken), found(COSTLY))
    assert told is not None
    assert (told.kind, told.columns, told.onset) == ("data fault", ("dew",), None)


@pytest.mark.parametrize(
    ("made", "moved", "kind"),
    [
        ((gap(0.1), gap(0.1, "prior_gap")), (), "concept drift"),
        ((gap(0.1), gap(0.1, "prior_gap")), (LABELS,), "concept drift"),
        ((gap(0.1), gap(0.0, "prior_gap")), (LABELS,), "prior shift"),
        ((gap(0.1), gap(0.0, "prior_gap")), (), "concept drift"),  # the classes' shares are what they were
        ((gap(0.01),), (COSTLY,), "covariate shift"),
        ((), (COSTLY,), "covariate shift"),
        ((gap(0.0),), (), "unexplained"),
    ],
)
def test_the_kind_of_change(made: tuple[Measurement, ...], moved: tuple[Measurement, ...], kind: str) -> None:
    told = diagnose("degraded", fall(*made), [], found(*moved))
    assert told is not None
    assert told.kind == kind
    assert told.sentence.startswith(kind.capitalize())


def test_onset_columns_segments_and_sentence() -> None:
    segment = Measurement(name="segment_performance", subject="carrier=B6", value=0.5, rows=300)
    worst = [Worse("auc", segment, compare("auc", Level(0.5, 0.01, 300), Level(0.7, 0.01, 0), "", 0.0))]
    told = diagnose("degraded", fall(gap(0.0)), [], found(COSTLY, FREE), worst)
    assert told is not None
    assert (told.onset, told.onset_from, told.onset_to) == (end_of(1), START + WEEK, end_of(2))
    assert (told.columns, told.segments) == (("dew",), ("carrier=B6",))
    assert told.sentence == (
        "Covariate shift, abrupt, since 2024-01-15 00:00; auc 0.600 instead of 0.700; through dew; worst in carrier=B6"
    )


@pytest.mark.parametrize(
    ("metric", "value", "reference", "told", "loss"),
    [("rmse", 5.0, -23.1, 0.0, 5.0), ("auc", 0.6, 1.2, 1.0, 0.4), ("r2", 0.1, -4.0, -4.0, -4.1)],
)
def test_a_reference_that_cannot_be_is_told_as_the_bound(
    metric: str, value: float, reference: float, told: float, loss: float
) -> None:
    """The evidence is of what was compared."""
    compared = compare(metric, Level(value, 0.1, 900), Level(reference, 0.1, 900), EXPECTED, 0.02)
    found = possible(metric, compared)
    assert (found.reference.value, found.loss) == (told, pytest.approx(loss))
    assert found.deviation == compared.deviation
    assert (f"cut to what {metric} can be" in found.against) is (told != reference)


def test_a_harmless_shift_says_what_it_costs() -> None:
    dear, free = (diagnose("shifted", None, [], found(one)) for one in (COSTLY, FREE))
    assert dear is not None
    assert free is not None
    assert dear.sentence.endswith("no fall of performance is sure, but a cost is estimated")
    assert free.sentence.endswith("no fall of performance is sure, and no cost is estimated")


def test_what_moved_without_a_column_is_named_for_what_it_is() -> None:
    coverage = Measurement(name="coverage", value=0.7, reference=0.9, p_value=0.0, rows=900)
    told = [diagnose("shifted", None, [], found(one)) for one in (LABELS, coverage)]
    assert [one and one.kind for one in told] == ["prior shift", "unexplained"]
    assert [one and one.sentence.split(";")[0] for one in told] == ["Moved: label", "Moved: coverage"]


@pytest.mark.parametrize(
    ("after", "shape"),
    [
        ((5.0,) * 6, "abrupt"),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "gradual"),
        ((3.0, 6.0), "abrupt"),
        ((6.0, 3, 2, 1), "abrupt"),
    ],
)
def test_the_shape_is_gradual_where_it_goes_on_growing(after: tuple[float, ...], shape: str) -> None:
    told = diagnose("degraded", fall(scores=(0.0, math.nan, *after)), [], [])
    assert told is not None
    assert told.shape == shape


def counted(index: int, *counts: int) -> WindowRecord:
    return record(index, Measurement(name="shift", subject="x", value=0.1, counts=counts, rows=sum(counts)))


def test_a_regime_that_comes_back_is_recognised() -> None:
    winter, summer = (90, 10, 0), (5, 15, 80)
    regimes = [winter, winter, summer, summer, winter, winter, summer]
    records = tuple(counted(i, *counts) for i, counts in enumerate(regimes))
    comparison = compare("auc", Level(0.6, 0.01, 900), Level(0.7, 0.01, 0), "", 0)
    told = diagnose("degraded", Degradation(records, 6, 6, 6, (0.0,) * 6 + (5.0,), comparison), [], [])
    assert told is not None
    assert told.recurs == records[3].window.start
    assert "inputs as in the window of 2024-01-22" in told.sentence
    new = diagnose("degraded", Degradation(records[:3], 2, 2, 2, (0.0, 0.0, 5.0), comparison), [], [])
    assert new is not None
    assert new.recurs is None


def test_distance_of_inputs_is_over_columns_that_both_have() -> None:
    assert input_distance(counted(0, 10, 0), counted(1, 0, 10)) == pytest.approx(1.0)
    assert input_distance(counted(0, 10, 5), counted(1, 20, 10)) == pytest.approx(0.0)
    assert input_distance(counted(0, 10, 5), record(1)) == 1.0


def test_gaps_are_pooled_by_rows() -> None:
    made = [record(0, gap(0.1)), record(1, gap(0.4).model_copy(update={"rows": 1_800})), record(2)]
    value, error = pooled(made, "gap") or (0.0, 0.0)
    assert value == pytest.approx(0.3)
    assert error == pytest.approx(np.hypot(0.01, 0.02) / 3)
    assert pooled(made[2:], "gap") is None


def test_figures_are_so_many_at_most_and_of_every_kind() -> None:
    def worse(name: str) -> Worse:
        made = Measurement(name="segment_performance", subject=name, value=0.5, rows=300)
        return Worse("auc", made, compare("auc", Level(0.5, 0.01, 300), Level(0.7, 0.01, 0), "", 0.0))

    shift = Measurement(name="segment_shift", subject="carrier=a:b", value=0.4, reference=0.1, p_value=0.0, rows=300)
    worst, parts = [worse(f"carrier={place}") for place in range(9)], found(*[shift] * 9)
    told = diagnose("degraded", fall(gap(0.0)), [], found(*[COSTLY] * 30), worst, parts, "auc")
    assert told is not None
    assert len(told.figures) == FIGURES
    assert {one.measure for one in told.figures} == {"gap", "shift", "segment_performance", "segment_shift"}
    assert "through dew, above all in carrier=a:b; worst in carrier=0" in told.sentence
    assert told.cost is not None
    assert (told.cost.metric, told.cost.value, told.cost.reference) == ("auc", 0.6, 0.7)
