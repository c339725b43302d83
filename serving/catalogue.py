"""The metrics that `GET /metrics` shows, one line each: what they count, and their labels. The README's table is this.

Names follow Prometheus: base units, `_total` for counters, `_seconds` and `_bytes` for what is not a number of things,
`_info` for texts. A gauge that has nothing to say, such as a window's performance without labels, is not there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Described(NamedTuple):
    """A metric in words."""

    help: str
    labels: tuple[str, ...] = ("task",)

    def kind(self, name: str) -> Kind:
        """Of which kind the metric of this name is."""
        if name in HISTOGRAMS:
            return "histogram"
        return "counter" if name.endswith("_total") else "gauge"


class Sample(NamedTuple):
    """One value of a metric. `labels` are the values of its labels behind the task."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


HISTOGRAMS = ("everfit_request_duration_seconds", "everfit_batch_rows")

_ROLE = ("task", "version", "role", "problem", "metric")
_WINDOW = ("task", "version", "metric")
_SEGMENT = ("task", "segment")

METRICS: dict[str, Described] = {
    "everfit_requests_total": Described(
        "requests to predict or to take labels, by answer", ("task", "route", "status")
    ),
    "everfit_request_duration_seconds": Described("time of those answered with 200", ("task", "route")),
    "everfit_predictions_total": Described("rows predicted and logged", ("task", "version")),
    "everfit_feedback_total": Described(
        "labels received, by what became of them: each counts once", ("task", "outcome")
    ),
    "everfit_requests_in_progress": Described("requests to predict that are not answered yet"),
    "everfit_batch_rows": Described("single rows that one call of the graph took together"),
    "everfit_batch_wait_seconds_total": Described("time in which such calls waited for further rows"),
    "everfit_batch_graph_seconds_total": Described("time in such calls"),
    "everfit_ignored_values_total": Described("values in columns that training has not seen"),
    "everfit_outside_range_total": Described("warnings about rows: values outside the range of training, or missing"),
    "everfit_refused_images_total": Described("requests refused for an image that cannot be read"),
    "everfit_ready": Described("whether a version is served"),
    "everfit_model_info": Described("1 for each version that is loaded: champion, canary, previous", _ROLE),
    "everfit_model_served_timestamp_seconds": Described("since when the champion is served"),
    "everfit_canary_share": Described("share of the requests that the canary answers"),
    "everfit_swaps_total": Described("how often another champion took the place of one"),
    "everfit_refused_versions_total": Described("how often a new champion could not be served"),
    "everfit_graph_bytes": Described("size of the graphs that are loaded"),
    "everfit_registry_up": Described("whether the registry answered at the last look"),
    "everfit_log_up": Described("whether the store takes predictions"),
    "everfit_log_backlog_records": Described("requests answered and not known to be in the store"),
    "everfit_log_backlog_bytes": Described("size of the journal that waits for the store"),
    "everfit_images_up": Described("whether images of logged rows are kept"),
    "everfit_shadow_rows_total": Described("rows that the challenger predicted in the shadow"),
    "everfit_shadow_failed_total": Described("rows that it failed at"),
    "everfit_shadow_agreed_total": Described("rows of the champion's class, or inside of its interval"),
    "everfit_shadow_seconds_total": Described("time that took"),
    "everfit_monitoring_up": Described("whether the ledger could be read at the last look"),
    "everfit_monitoring_age_seconds": Described("since when the values below were read from the ledger"),
    "everfit_pass_age_seconds": Described(
        "time since a pass of monitoring over the newest rows came to its end; absent until the first"
    ),
    "everfit_severity": Described(
        "1 for the severity of the newest window, 0 for the others; absent until a window is over", ("task", "severity")
    ),
    "everfit_alert_channel_up": Described(
        "1 for a channel of alerts that took the last message sent to it, 0 for one that did not", ("task", "channel")
    ),
    "everfit_decision_timestamp_seconds": Described("when the last decision was written"),
    "everfit_window_age_seconds": Described("time since the newest window was measured"),
    "everfit_window_end_timestamp_seconds": Described("its end, in event time"),
    "everfit_window_rows": Described("its rows"),
    "everfit_window_labelled_rows": Described("those of its rows whose label has arrived"),
    "everfit_window_columns": Described("its columns that were compared with the reference"),
    "everfit_window_shifted_columns": Described("those that moved by 0.1 or more, with p < 0.01"),
    "everfit_window_column_shift": Described(
        "how far a column moved, 0 to 1; of more than 100 the furthest", ("task", "column")
    ),
    "everfit_window_domain_shift": Described("how far all inputs together moved, 0 to 1"),
    "everfit_window_coverage": Described("share of labels inside the conformal sets, in the newest window with labels"),
    "everfit_window_coverage_promised": Described("share that is promised"),
    "everfit_window_calibration_error": Described("expected calibration error (ECE), on the same labels"),
    "everfit_window_calibration_error_expected": Described("what calibrated answers would show on as many by chance"),
    "everfit_window_out_of_distribution": Described("share of the rows answered that are out of distribution"),
    "everfit_segment_share": Described("share of the rows of a segment that is watched, of the first 20", _SEGMENT),
    "everfit_segment_shift": Described("how far the answers in it moved, 0 to 1", _SEGMENT),
    "everfit_segment_performance": Described("the task's metric in it, in the newest window with labels", _SEGMENT),
    "everfit_segment_coverage": Described("coverage in it, on the same labels", _SEGMENT),
    "everfit_segment_calibration_error": Described("expected calibration error in it, on the same labels", _SEGMENT),
    "everfit_performance": Described("the task's metric on the newest window with labels", _WINDOW),
    "everfit_performance_error": Described("its standard error", _WINDOW),
    "everfit_performance_reference": Described("the metric on the test rows", _WINDOW),
    "everfit_performance_age_seconds": Described("time since that window was measured, or its labels grew"),
    "everfit_performance_estimated": Described("the metric expected of the newest window without its labels", _WINDOW),
    "everfit_server_requests_in_progress": Described("requests in work, of all routes and tasks", ()),
    "everfit_server_requests_limit": Described("the most of them (`EVERFIT_MAX_CONCURRENT`)", ()),
    "everfit_refused_requests_total": Described(
        "requests that did not get to a route: no key, forbidden, rate, crowding", ("reason",)
    ),
    "everfit_access_log_dropped_total": Described("lines of the access log that nobody read in time", ()),
    "everfit_build_info": Described("1, with the version of Everfit", ("version",)),
}
"""By name, as they are shown."""
