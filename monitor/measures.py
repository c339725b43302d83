"""All measures, in the order in which their numbers are written. A new one is a class and a line here."""

from __future__ import annotations

from monitor.attainable import Attainable
from monitor.calibrated import Calibration
from monitor.domain import DomainShift, OutputShift
from monitor.estimated import Estimated
from monitor.fused import Fused
from monitor.gap import Gap, LogGap, Missed, PriorGap
from monitor.measurements import Measurement
from monitor.performance import Performance
from monitor.quality import (
    BrokenShare,
    Constant,
    Duplicates,
    MissingShare,
    NovelLabels,
    OutOfRange,
    UnseenShare,
    Unwatched,
    Volume,
)
from monitor.segments import SegmentCalibration, SegmentCoverage, SegmentPerformance, SegmentShare, SegmentShift
from monitor.shift import ColumnShift, LabelShift, PredictionShift, UncertaintyShift
from monitor.slices import FoundSlices
from monitor.strange import OutOfDistribution
from monitor.uncertainty import Coverage, Disagreement, SetSize, Uncertainty
from monitor.units import Rescaled
from monitor.views import Measure, View
from monitor.weighted import threads

MEASURES: tuple[Measure, ...] = (
    Performance(),
    Attainable(),
    Estimated(),
    Fused(),
    Gap(),
    Missed(),
    LogGap(),
    PriorGap(),
    SegmentPerformance(),
    FoundSlices(),
    Volume(),
    BrokenShare(),
    MissingShare(),
    UnseenShare(),
    OutOfRange(),
    Rescaled(),
    Constant(),
    Duplicates(),
    NovelLabels(),
    ColumnShift(),
    DomainShift(),
    OutputShift(),
    PredictionShift(),
    UncertaintyShift(),
    LabelShift(),
    Uncertainty(),
    Disagreement(),
    SetSize(),
    OutOfDistribution(),
    Coverage(),
    Calibration(),
    SegmentShare(),
    SegmentShift(),
    SegmentCoverage(),
    SegmentCalibration(),
    Unwatched(),
)
QUOTING = frozenset({"broken", "unseen", "constant", "shift"})
"""Those whose notes hold a value of the column."""

OF_OUTPUTS = frozenset(
    {
        "output_shift",
        "prediction_shift",
        "uncertainty_shift",
        "uncertainty",
        "disagreement",
        "set_size",
        "segment_shift",
    }
)
"""Those that hold the window's answers against the reference's."""

NAMES = tuple(measure.name for measure in MEASURES)


def measure_all(view: View) -> tuple[Measurement, ...]:
    """Every measure of one window, on one thread: with more, small matrices wait longer than they work."""
    with view.once("threads", threads).limit(limits=1):
        return tuple(_judged(_discreet(one, view), view) for measure in MEASURES for one in measure.measure(view))


def _judged(one: Measurement, view: View) -> Measurement:
    """Of answers only what they are, where the reference's are of networks that had learnt less: the networks that
    serve know its rows by now, and are surer of rows that are no different. Answers move with the inputs alone, which
    are judged as ever."""
    if one.name not in OF_OUTPUTS or not view.manifest.refitted:
        return one
    told = "; ".join(filter(None, [one.note, "not judged: the networks have learnt the reference's rows since"]))
    return one.model_copy(update={"p_value": None, "reference": None, "counts": (), "note": told})


def _discreet(one: Measurement, view: View) -> Measurement:
    """A measurement that goes into the ledger: it quotes no value of a column that the log has encrypted."""
    quotes = one.name in QUOTING and one.subject in view.sealed and one.value is not None
    return one.model_copy(update={"note": ""}) if quotes else one
