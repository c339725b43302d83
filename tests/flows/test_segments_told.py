"""A fault in one segment, planted in logged rows, as it reaches people: the verdict, a webhook in fields, the pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from flows.channels import SCHEMA_VERSION, Message
from flows.status_page import page
from flows.status_snapshot import read
from flows.watch import watch
from flows.workplace import Workplace
from tests.flows.conftest import fill
from tests.flows.test_alerting import Receiver
from tests.handmade import make_frame

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise's, on 3.11

MONITOR = {"windows": {"kind": "time", "every": "7d"}, "segments": ["carrier"], "report": "alarms"}


def test_a_fault_in_one_segment_is_told_with_it_in_fields_and_on_the_pages(
    make_place: Callable[..., Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(monitor=MONITOR)
    frame = make_frame(2016, seed=5, start="2024-03-02")
    wrong = frame["late"].map({"yes": "no", "no": "yes"})
    fill(place.log, frame.assign(late=np.where(frame["carrier"] == "BB", wrong, frame["late"])), tmp_path / "bundle")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Receiver() as receiver:
        monkeypatch.setenv("EVERFIT_ALERT_URLS", f"http://127.0.0.1:{receiver.port}/")
        assert watch.fn("handmade", as_of=datetime(2024, 3, 16), repair=False)["severity"] == "degraded"
    (message,) = receiver.messages
    told = message["diagnosis"]
    assert isinstance(told, dict)
    assert (message["schema_version"], message["severity"]) == (SCHEMA_VERSION, "degraded")
    assert told["sentence"] in message["reasons"]
    assert (told["kind"], told["shape"], told["recurs"]) == ("concept drift", "abrupt", None)
    assert told["onset_from"] <= told["onset"] <= told["onset_to"]
    assert "carrier=BB" in told["segments"]
    cost = told["cost"]
    assert (cost["metric"], cost["labelled"]) == ("auc", True)
    assert cost["loss"] == pytest.approx(cost["reference"] - cost["value"])
    assert cost["loss"] > cost["tolerated"] > 0
    figures = {(one["measure"], one["subject"]): one for one in told["figures"]}
    segment = figures["segment_performance", "carrier=BB"]
    assert segment["value"] < 0.3 < 0.8 < segment["reference"]
    assert figures["gap", None]["value"] > 0
    assert Message.model_validate(message).model_dump(mode="json") == message
    shown = page(read(place))
    assert '<tr class="named"><th>carrier=BB</th>' in shown
    assert "<th>carrier=AA</th>" in shown
    (report,) = place.reports.glob("*.html")
    assert "<th>carrier=BB</th>" in report.read_text(encoding="utf-8")


def test_a_task_that_watches_no_segment_has_no_empty_table(place: Workplace, tmp_path: Path) -> None:
    fill(place.log, make_frame(1008, seed=5, start="2024-03-02").iloc[:300], tmp_path / "bundle")
    watch.fn("handmade", as_of=datetime(2024, 3, 16), repair=False)
    assert "<h2>Segments" not in page(read(place))
