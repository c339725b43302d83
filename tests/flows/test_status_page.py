"""The status page: what it says, what it never does, and the chart on it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from flows.chart import NARROW, WIDTH, Mark, Point, line_chart, ticks
from flows.overview import task_lines
from flows.status_page import create_app
from flows.status_snapshot import meant, read
from flows.workplace import Workplace, register_task
from monitor.measurements import Measurement
from monitor.policy import decide
from registry.inference_log import Feedback
from registry.ledger import Entry
from registry.policies import PerformancePolicy
from tests.handmade import make_task
from tests.logged_rows import Prediction, append
from tests.monitor.records import performance, record

START = datetime(2024, 3, 1)


def points(*values: float) -> list[Point]:
    days = (START + timedelta(days=7 * number) for number in range(len(values)))
    return [Point(day, value, value - 0.02, value + 0.02, 0.75, "1") for day, value in zip(days, values, strict=True)]


class Client:
    """Asks the application without a server."""

    def __init__(self, place: Workplace, host: str = "127.0.0.1") -> None:
        self._transport, self._url = httpx.ASGITransport(create_app(place.settings)), f"http://{host}"

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url=self._url) as client:
                return await client.request(method, path)

        return asyncio.run(ask())


@pytest.fixture
def client(place: Workplace) -> Client:
    return Client(place)


def window(place: Workplace, number: int, value: float | None, *more: dict[str, object], version: str = "1") -> None:
    """A record of one window in the ledger."""
    start = START + timedelta(days=7 * number)
    span = {"index": number, "start": start.isoformat(), "end": (start + timedelta(days=7)).isoformat(), "rows": 500}
    measured = {"name": "performance", "value": value, "reference": 0.75, "rows": 500}
    measured |= {} if value is None else {"low": value - 0.01, "high": value + 0.01}
    details = {"window": span, "version": version, "metric": "auc", "measurements": [measured, *more]}
    place.ledger.write(Entry(task="handmade", kind="window", at=start + timedelta(days=7), details=details))


def test_an_empty_home_has_a_page(client: Client) -> None:
    page = client.get("/")
    assert client.get("/health", "HEAD").status_code == 200
    assert page.status_code == 200
    for text in (
        "not answering",
        "no decision yet",
        "no window measured yet",
        "no challenger made by a remedy",
        "No window has been measured",
        "Nothing has been",
    ):
        assert text in page.text


def test_rows_without_a_window_that_is_over_are_not_called_ok(client: Client, place: Workplace) -> None:
    details, seen = {"window": None}, ("no window is complete yet",)
    entry = Entry(task="handmade", kind="decision", at=START, version="1", severity="ok", outcome="none")
    place.ledger.write(entry.model_copy(update={"reasons": seen, "details": details}))
    text = client.get("/").text
    assert "nothing judged yet" in text
    assert 'class="card ok"' not in text
    lines = task_lines(place)
    assert lines[:2] == ["handmade: version 1 is the champion, nothing was judged yet", "    no window is complete yet"]
    assert " ok " not in "\n".join(lines)


def test_the_page_shows_the_newest_of_each_window_and_escapes_what_it_shows(client: Client, place: Workplace) -> None:
    for number, value in ((0, 0.7), (1, 0.61), (0, 0.7312)):
        window(place, number, value)
    evil = "<script>alert('x')</script>"
    place.ledger.write(
        Entry(task="handmade", kind="decision", at=START, severity="degraded", outcome="research", reasons=(evil,))
    )
    place.ledger.write(Entry(task="handmade", kind="promotion", at=START + timedelta(days=9), version="2"))
    text = client.get("/").text
    assert "0.7312" in text
    assert "0.7000" not in text
    assert 'class="card degraded"' in text
    assert ">v2</text>" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_begins_with_the_newest_window(client: Client, place: Workplace) -> None:
    """By the data's time, called by where it begins: a replay of older rows is judged later."""
    for start, severity in ((START + timedelta(days=7), "ok"), (START, "degraded")):
        end = start + timedelta(days=7)
        span = {"index": 0, "start": start.isoformat(), "end": end.isoformat()}
        place.ledger.write(
            Entry(
                task="handmade",
                kind="decision",
                at=end,
                version="1",
                severity=severity,
                outcome="none",
                details={"window": span},
            )
        )
    window(place, 1, 0.7312)
    text = client.get("/").text
    assert 'class="card ok"' in text
    assert 'class="card degraded"' not in text
    assert text.count("window from <time>2024-03-08</time>") == 2
    assert "none; version 1, window from <time>2024-03-08</time>, as of <time>2024-03-15</time> 00:00" in text
    assert "version 1 on 500 labels, window from" in text
    assert "window from 2024-03-08 00:00, version 1: auc 0.7312" in text
    assert ">08 Mar 2024</text>" in text


def test_one_window_has_one_figure_in_tile_chart_and_sentence(client: Client, place: Workplace) -> None:
    """Of a window with labels still to come: what is judged, on all its rows, with the interval of its own rows."""
    known = performance(0.8192, error=0.05, rows=289, reference=0.8991)
    fused = Measurement(name="fused", value=0.813, error=0.016, null_error=0.1, rows=336)
    judged = record(0, known, fused)
    details = judged.model_dump(mode="json", exclude_defaults=True)
    place.ledger.write(Entry(task="handmade", kind="window", at=judged.window.end, version="1", details=details))
    decided = Entry(task="handmade", kind="decision", at=judged.window.end, version="1", severity="ok", outcome="none")
    reasons = decide(PerformancePolicy(), [judged]).reasons
    place.ledger.write(decided.model_copy(update={"reasons": reasons, "details": {"window": details["window"]}}))
    text = client.get("/").text
    assert '<p class="big">0.8130</p>' in text
    assert "on 289 labels and 47 rows estimated, window from" in text
    assert "</time>; 0.7169 to 0.9091, reference 0.8991" in text
    assert "auc 0.813 (0.717 to 0.909) on 289 labels and 47 rows estimated in the window from" in text
    assert "reference 0.899 +/- 0.010 (its test rows)" in text
    assert text.count("auc 0.8130 (0.7169 to 0.9091), on labels") == 2  # a broad and a narrow chart
    assert "0.8192" not in text
    assert text.count("95 % interval of its own rows") == 1


def test_several_tasks_have_a_page_each_and_one_together(client: Client, place: Workplace) -> None:
    """A task that is registered while the page runs is on it at once."""
    window(place, 0, 0.7312)
    assert "auc by window" in client.get("/").text
    other = place.task.model_copy(update={"name": "other"})
    register_task(place.settings, other)
    together = client.get("/").text
    assert re.findall(r'href="(/tasks/[^"]+)">', together) == ["/tasks/handmade", "/tasks/other"]
    assert (together.count("0.7312"), together.count("no window measured yet")) == (1, 1)
    assert "auc by window" not in together
    assert "0.7312" in client.get("/tasks/handmade").text
    assert "0.7312" not in client.get("/tasks/other").text
    assert client.get("/tasks/nobody").status_code == 404


def test_what_is_not_there_is_a_page_with_the_tasks_that_are(client: Client) -> None:
    for path, said in (
        ("/tasks/<b>", "no task"),
        ("/nowhere", "Not Found"),
        ("/tasks/handmade/reports/x", "no report"),
    ):
        found = client.get(path)
        assert (found.status_code, found.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert said in found.text
        assert "<b>" not in found.text
        assert '<a href="/tasks/handmade">handmade</a>' in found.text


def test_the_ledger_has_both_times_in_the_order_of_writing(client: Client, place: Workplace) -> None:
    """A hand's promotion is about now; the decision of a replay after it is about a day long ago."""
    place.ledger.write(Entry(task="handmade", kind="promotion", at=datetime(2026, 1, 1), outcome="promoted"))
    late = place.ledger.write(Entry(task="handmade", kind="decision", at=START, outcome="none"))
    page = client.get("/").text
    assert page.index("<td>decision</td>") < page.index("<td>promotion</td>")
    assert f"<td>{late.written:%Y-%m-%d %H:%M:%S}</td><td>2024-03-01 00:00</td><td>decision</td>" in page
    assert "<th>written</th><th>about</th>" in page


def test_the_ledger_says_a_gate_s_sentence_once(client: Client, place: Workplace) -> None:
    for kind, reasons in (("gate", ("gain 2",)), ("promotion", ("by hand", "gain 2")), ("improvement", ("gain 2",))):
        place.ledger.write(Entry(task="handmade", kind=kind, at=START, version="2", reasons=reasons))
    place.ledger.write(Entry(task="handmade", kind="gate", at=START, version="3", reasons=("gain 2",)))
    page = client.get("/").text
    assert page.count("<td>gain 2</td>") == 2  # of each version's gate
    assert page.count("as said under gate") == 2
    assert "<summary>by hand</summary>as said under gate" in page


def test_the_page_asks_nobody_else_for_anything(client: Client) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(?:src|@import|url\()""", page.text)


def test_the_champion_is_the_newest_step_of_one_that_follows(client: Client, place: Workplace) -> None:
    """One that was stopped is none."""
    place.ledger.write(Entry(task="handmade", kind="promotion", at=START, version="2"))
    assert "champion: version 2" in client.get("/").text
    for version, outcome in (("3", "continued"), ("4", "stopped")):
        place.ledger.write(Entry(task="handmade", kind="follow", at=START, version=version, outcome=outcome))
    assert "champion: version 3" in client.get("/").text
    place.ledger.write(Entry(task="handmade", kind="rollback", at=START, version="1"))
    assert "champion: version 1" in client.get("/").text


def test_the_page_maps_what_moved_with_what_decisions_named_framed(client: Client, place: Workplace) -> None:
    assert "No window has been compared" in client.get("/").text
    window(place, 0, 0.7, {"name": "shift", "subject": "<age>", "value": 0.3})
    details = {"window": {"index": 0, "start": START.isoformat()}, "diagnosis": {"columns": ["<age>"]}}
    place.ledger.write(Entry(task="handmade", kind="decision", at=START, severity="shifted", details=details))
    text = client.get("/").text
    assert text.count('class="moved named"') == 2  # a broad and a narrow one
    assert "&lt;age&gt;, window from 2024-03-01 00:00, version 1: moved by 0.30" in text


def test_the_page_does_not_grow_with_a_task_s_age(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of windows and decisions the newest by their time are read."""
    for number in range(6):
        window(place, number, 0.7)
    monkeypatch.setattr("flows.status_snapshot._NEWEST", 4)
    assert [one.window.index for one in read(place).records] == [2, 3, 4, 5]


def test_labels_are_counted_as_they_come(place: Workplace) -> None:
    assert read(place).labelled == 0
    append(place.log, [Prediction("a", START, START, "1", "champion", {}, "no", (0.5, 0.5), (0,), 0.1, 0.0)])
    place.log.add_feedback([Feedback("a", "no", START, START)])
    found = read(place)
    assert (found.predictions, found.labelled) == (1, 1)


def test_only_loopback_names_are_answered(place: Workplace) -> None:
    stranger = Client(place, host="elsewhere.example")
    assert stranger.get("/").status_code == 400


def test_reports_are_served_and_nothing_else(client: Client, place: Workplace) -> None:
    place.reports.mkdir(parents=True)
    (place.reports / "window-1.html").write_text("<h1>shift</h1>")
    (place.reports.parent / "secret.html").write_text("secret")
    assert client.get("/tasks/handmade/reports/window-1.html").text == "<h1>shift</h1>"
    assert "report window-1" in client.get("/").text
    for name in ("none.html", "..%2Fsecret.html", "%2e%2e%2fsecret.html"):
        assert client.get(f"/tasks/handmade/reports/{name}").status_code == 404


def test_the_chart_is_sound_svg_with_every_window_and_mark_in_it() -> None:
    marks = [Mark(START - timedelta(days=1), "v1"), Mark(START + timedelta(days=40), "v<2>")]
    svg = ElementTree.fromstring(line_chart(points(0.74, 0.7, 0.72), marks, metric="auc"))
    circles = svg.findall("circle")
    assert len(circles) == 3
    heights = [float(one.attrib["cy"]) for one in circles]
    assert heights[0] < heights[2] < heights[1]
    assert [one.text for one in svg.findall("text[@class='mark']")] == ["v<2>"]
    assert all(0 <= float(one.attrib["x1"]) <= 960 for one in svg.findall("line"))
    assert len(svg.findall("line[@class='reference']")) == 1


def test_a_window_alone_has_its_interval_and_the_reference_across() -> None:
    svg = ElementTree.fromstring(line_chart(points(0.74), [], metric="auc"))
    (dot,), (line,) = svg.findall("circle"), svg.findall("line[@class='reference']")
    assert float(line.attrib["x1"]) + 300 < float(dot.attrib["cx"]) < float(line.attrib["x2"]) - 300
    corners = [one.split(",") for one in svg.find("polygon[@class='band']").attrib["points"].split()]
    assert len({x for x, _ in corners}) == len({y for _, y in corners}) == 2


def test_a_chart_is_not_squeezed_by_a_promotion_of_today_or_by_a_pause() -> None:
    """Data of other years keep their room, whatever is done today and however long nothing came in between."""
    days = points(*[0.7] * 10)
    later = [replace(one, at=one.at + timedelta(days=4000)) for one in days]
    today = Mark(START + timedelta(days=9000), "v2")
    svg = ElementTree.fromstring(line_chart([*days, *later], [today], metric="auc"))
    places = [float(one.attrib["cx"]) for one in svg.findall("circle")]
    steps = [after - before for before, after in pairwise(places)]
    assert steps[9] == pytest.approx(4 * steps[0], abs=0.2), "the pause"
    assert all(step == pytest.approx(steps[0], abs=0.2) for step in steps[:9] + steps[10:])
    assert float(svg.find("line[@class='mark']").attrib["x1"]) == pytest.approx(places[-1] + steps[0], abs=0.2)


def test_labels_of_promotions_do_not_lie_on_one_another() -> None:
    """Three within an hour have lines of their own and the label of the last."""
    marks = [Mark(START + timedelta(days=10, minutes=20 * number), f"v{number}") for number in range(2, 5)]
    svg = ElementTree.fromstring(line_chart(points(*[0.7] * 30), marks, metric="auc"))
    assert [one.text for one in svg.findall("text[@class='mark']")] == ["v4"]
    assert 1 <= len(svg.findall("line[@class='mark']")) <= 3


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_fifty_steps_can_be_read(width: int) -> None:
    """Ticks under the windows, apart; labels that do not lie on one another, the newest among them."""
    steps = [Mark(START + timedelta(days=7 * number, hours=1), f"v{number + 3}") for number in range(50)]
    svg = ElementTree.fromstring(line_chart(points(*[0.7] * 50), [], steps, metric="auc", width=width))
    places = [float(one.attrib["x1"]) for one in svg.findall("line[@class='step']")]
    labels = {one.text: float(one.attrib["x"]) for one in svg.findall("text[@class='step']")}
    assert len(places) == 50
    assert all(before - after >= 3 for before, after in pairwise(places))
    assert all(before - after >= 26 for before, after in pairwise(labels.values()))
    assert next(iter(labels)) == "v52"
    assert len(labels) >= 8
    lowest = max(float(one.attrib["cy"]) for one in svg.findall("circle"))
    assert all(float(one.attrib["y1"]) > lowest for one in svg.findall("line[@class='step']"))


def test_many_steps_are_bounded() -> None:
    steps = [Mark(START + timedelta(hours=number), f"v{number}") for number in range(3_000)]
    svg = ElementTree.fromstring(line_chart(points(*[0.7] * 18), [], steps, metric="auc"))
    assert 100 < len(svg.findall("line[@class='step']")) <= WIDTH / 3
    assert len(svg.findall("text[@class='step']")) <= WIDTH / 26


def test_the_steps_of_a_champion_that_follows_are_on_the_chart(client: Client, place: Workplace) -> None:
    """Those that were made; no room is taken, and nothing explained, where there is none."""
    window(place, 0, 0.7)
    window(place, 1, 0.7)
    assert 'class="step"' not in client.get("/").text
    for version, outcome in (("3", "continued"), ("4", "stopped")):
        at = START + timedelta(days=7)
        place.ledger.write(Entry(task="handmade", kind="follow", at=at, version=version, outcome=outcome))
    text = client.get("/").text
    assert text.count("<title>v3 has learnt what was known at 2024-03-08 00:00</title>") == 2
    assert ">v4</text>" not in text
    assert "a step: the champion has learnt on" in text


def test_an_interval_ends_where_the_metric_does(client: Client, place: Workplace) -> None:
    """No area under a curve is above 1."""
    window(place, 0, 0.99)
    window(place, 1, 0.999)
    assert re.findall(r"auc 0\.9990 \((0\.\d+) to (\d\.\d+)\)", client.get("/").text)[0][1] == "1.000"


def test_a_narrow_chart_has_everything_within_its_width_and_fewer_days() -> None:
    year = [replace(one, at=one.at + timedelta(days=200)) for one in points(*[0.7] * 30)]
    for width, days in ((WIDTH, 8), (NARROW, 3)):
        svg = ElementTree.fromstring(line_chart(year, [], metric="auc", width=width))
        assert svg.attrib["viewBox"] == f"0 0 {width} 300"
        assert all(0 <= float(one.attrib["cx"]) <= width for one in svg.findall("circle"))
        assert all(0 <= float(one.attrib["x2"]) <= width for one in svg.findall("line"))
        said = [one.text or "" for one in svg.findall("text[@text-anchor='middle']")]
        assert len(said) <= days
        assert said[0] == "17 Sep 2024"
        assert sum("2025" in one for one in said) == 1, "the year is said where it begins"


def test_a_metric_says_its_unit_and_which_way_is_better(place: Workplace) -> None:
    assert meant(place.task) == "higher is better"
    assert meant(make_task("regression")) == "in units of late, lower is better"


def test_of_many_reasons_the_first_is_seen(client: Client, place: Workplace) -> None:
    place.ledger.write(Entry(task="handmade", kind="gate", at=START, reasons=("a < b", "c", "d")))
    assert "<td><details><summary>a &lt; b</summary>c; d</details></td>" in client.get("/").text


def test_windows_whose_labels_are_to_come_are_hollow_and_not_joined() -> None:
    *known, last = points(0.74, 0.7, 0.72)
    svg = ElementTree.fromstring(line_chart([*known, replace(last, expected=True)], [], metric="auc"))
    assert [one.attrib.get("class") for one in svg.findall("circle")] == [None, None, "expected"]
    assert len((svg.find("polyline").attrib["points"]).split()) == 2
    (whisker,) = svg.findall("line[@class='expected']")
    assert float(whisker.attrib["y1"]) > float(whisker.attrib["y2"])
    assert "expected, labels to come" in (svg.findall("circle/title")[-1].text or "")


def test_what_is_expected_without_labels_is_drawn_after_what_came_true(client: Client, place: Workplace) -> None:
    """The newest window has an estimate alone; the gaps of those before are taken off it."""
    estimate = {"name": "estimated", "value": 0.8, "error": 0.01, "rows": 500}
    gap = {"name": "gap", "value": 0.1, "error": 0.01, "rows": 500}
    for number in range(5):
        window(place, number, 0.7, estimate, gap)
    window(place, 5, None, estimate)
    said = re.findall(r"auc (0\.\d+) \([^)]*\), expected", client.get("/").text)
    assert len(said) == 2, "in the broad chart and the narrow one"
    assert float(said[0]) == pytest.approx(0.7, abs=0.02)


def test_what_came_true_stays_until_the_labels_of_another_version_are_there(client: Client, place: Workplace) -> None:
    estimate = {"name": "estimated", "value": 0.8, "error": 0.01, "rows": 900}
    window(place, 0, 0.7, estimate)
    window(place, 0, None, estimate, version="2")  # which answered rows that came late
    assert "version 1: auc 0.7000" in client.get("/").text
    window(place, 0, 0.6, estimate, version="2")
    window(place, 0, 0.65, estimate, version="2")
    page = client.get("/").text
    assert "version 2: auc 0.6500" in page
    assert "version 1: auc" not in page


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5), (1e6, 2e6), (-3.0, 4.0)])
def test_the_chart_takes_any_values(values: tuple[float, ...]) -> None:
    bare = [Point(one.at, one.value, None, None, None, "1") for one in points(*values)]
    ElementTree.fromstring(line_chart(bare, [], metric="rmse"))


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3.0, 4.0) == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    assert ticks(1e6, 2e6)[0] == 1e6


def test_a_page_needs_no_folder_of_reports(client: Client, place: Workplace, tmp_path: Path) -> None:
    assert not place.reports.exists()
    assert "report " not in client.get("/").text
