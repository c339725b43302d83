"""The served model against the frozen first champion: from real graphs and a real log."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.comparison import Comparison, action, compare, logged_parts, table
from flows.picture import draw
from flows.replay import Judged, Progress
from flows.stream import Stream, open_stream, steps
from registry.bundle import Manifest, ModelBundle
from registry.database import open_engine
from registry.errors import StateError
from registry.inference_log import InferenceLog
from registry.metrics import binary_auc
from registry.scoring import Scorer
from tests.handmade import make_bundle, make_frame, make_task
from tests.logged_rows import Prediction, append

START = datetime(2024, 3, 4)  # a Monday


class Shelf:
    """Bundles by version: what the comparison needs of a registry."""

    def __init__(self, **bundles: ModelBundle) -> None:
        self._bundles = bundles

    def fetch(self, task: str, version: str) -> ModelBundle:
        """The bundle of a version."""
        return self._bundles[f"v{version}"]

    def manifest(self, task: str, version: str) -> Manifest:
        """What the bundle of a version tells of itself."""
        return self.fetch(task, version).manifest


def predictions(stream: Stream, bundle: ModelBundle, version: str, start: int, stop: int) -> list[Prediction]:
    scores = Scorer.load(bundle).predict(stream.rows.iloc[start:stop])
    found = zip(stream.ids(start, stop), stream.times[start:stop].tolist(), scores.prediction, strict=True)
    regression = scores.probabilities is None
    listed = (scores.interval if regression else scores.probabilities).tolist()
    return [
        Prediction(
            one, when, when, version, "champion", {}, float(value) if regression else str(value), row, None, 0.1, 0.0
        )
        for (one, when, value), row in zip(found, listed, strict=True)
    ]


LAST_WEEKS = (START + timedelta(weeks=1), START + timedelta(weeks=3))


def played(
    folder: Path,
    *,
    problem: str = "binary",
    qualities: tuple[float, float] = (-1.0, 1.0),
    period: tuple[datetime, datetime] | None = LAST_WEEKS,
    share: float = 0.0,
    tolerate: float = 0.02,
) -> Comparison:
    """Three weeks, of which version 1 served the first and version 2 the others; of the first week version 2 answered a
    share already, as a canary."""
    first = make_bundle(folder / "1", problem=problem, quality=qualities[0])
    second = make_bundle(folder / "2", problem=problem, quality=qualities[1])
    stream = open_stream(make_frame(504, every="1h", start=str(START), problem=problem), make_task(problem), name="x")
    log = InferenceLog(open_engine(f"sqlite:///{folder / 'log.db'}"), "handmade")
    weeks = steps(stream.times, make_task().monitor.windows)
    assert len(weeks) == 3
    begins = round(weeks[0].stop * (1 - share))
    append(log, predictions(stream, first, "1", 0, begins))
    append(log, predictions(stream, second, "2", begins, len(stream)))
    judged = [
        Judged(
            index=week.index,
            begin=week.begin,
            end=week.end,
            rows=week.stop - week.start,
            version="1" if week.index == 0 else "2",
            champion="2",
            severity="degraded" if week.index == 0 else "ok",
            remedy="research" if week.index == 0 else "none",
            outcome="promote" if week.index == 0 else "",
        )
        for week in weeks
    ]
    progress = Progress(key=stream.key, task="handmade", first_version="1", steps=judged)
    task = make_task(problem, policy={"kind": "performance", "tolerate": tolerate})
    return compare(stream, progress, task=task, log=log, versions=Shelf(v1=first, v2=second), period=period)


def test_each_window_has_both_models_on_the_same_rows(tmp_path: Path) -> None:
    found = played(tmp_path)
    assert [one.version for one in found.windows] == ["1", "2", "2"]
    assert [one.rows for one in found.windows] == [168, 168, 168]
    assert found.windows[0].served == found.windows[0].frozen
    for one in found.windows[1:]:
        assert one.served == pytest.approx(1 - one.frozen, abs=1e-6)  # its weights are the first's, reversed
        assert one.gain == one.served - one.frozen > 0.3
    assert found.references.keys() == {"1", "2"}


def test_a_canary_that_answers_most_rows_is_no_champion_and_no_promotion(tmp_path: Path) -> None:
    found = played(tmp_path, share=0.9)
    first, *others = found.windows
    assert (first.version, first.champion, first.promoted) == ("1", "2", True)
    assert not any(one.promoted for one in others)
    assert first.served != first.frozen  # what users were answered, by whichever version


def test_what_is_tolerated_is_what_the_task_was_judged_by(tmp_path: Path) -> None:
    assert played(tmp_path, tolerate=0.3).tolerate == 0.3  # the first version's own task knows nothing of it


def test_the_log_is_read_in_parts_and_no_row_of_others_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(tmp_path / "whole")
    monkeypatch.setattr("flows.comparison._AT_ONCE", 50)
    assert played(tmp_path / "parts") == whole
    stream = open_stream(make_frame(504, every="1h", start=str(START)), make_task(), name="x")
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path / 'parts' / 'log.db'}"), "handmade")
    other = open_stream(make_frame(504, every="1h", start=str(START)), make_task(), name="other")
    append(log, predictions(other, ModelBundle.load(tmp_path / "parts" / "1"), "1", 0, 504))
    parts = [(part, set(rows.index)) for part, rows in logged_parts(stream, log)]
    assert [part for part, _ in parts] == [slice(n, min(n + 50, 504)) for n in range(0, 504, 50)]
    assert all(found == set(stream.ids(part.start, part.stop)) for part, found in parts)


def test_a_remedy_that_was_not_run_says_so(tmp_path: Path) -> None:
    found = played(tmp_path).windows[-1]
    ended = found.model_copy(update={"remedy": "research", "not_run": "the replay ended"})
    assert action(ended) == "research: decided, not run: the replay ended"
    assert action(found.model_copy(update={"remedy": "research"})) == "research: decided, not run"
    assert action(found.model_copy(update={"remedy": "alert"})) == "alert"


def test_the_headline_pools_the_rows_of_its_period(tmp_path: Path) -> None:
    found = played(tmp_path)
    frame = make_frame(504, every="1h", start=str(START)).iloc[168:]
    truth = (frame["late"] == "yes").to_numpy(np.int64)
    scores = Scorer.load(ModelBundle.load(tmp_path / "2")).predict(frame).scores
    assert found.pooled.rows == 336
    assert found.pooled.served == pytest.approx(binary_auc(truth, scores[:, 1]), abs=1e-9)


def test_windows_of_the_period_count_alike(tmp_path: Path) -> None:
    found = played(tmp_path)
    _, *last = found.windows
    each = found.by_window
    assert each is not None
    assert (each.windows, each.changed, each.ahead) == (2, 2, 2)
    assert each.served == pytest.approx(np.mean([one.served for one in last]))
    assert each.frozen == pytest.approx(np.mean([one.frozen for one in last]))
    assert each.gain == pytest.approx(each.served - each.frozen)
    whole = played(tmp_path / "whole", period=None).by_window
    assert whole is not None
    assert (whole.windows, whole.changed, whole.ahead) == (3, 2, 2)  # in the first week the first champion served
    day = (LAST_WEEKS[0] + timedelta(days=1), LAST_WEEKS[0] + timedelta(days=2))
    assert played(tmp_path / "day", period=day).by_window is None  # no window begins in it


def test_regression_gains_are_positive_when_the_error_falls(tmp_path: Path) -> None:
    found = played(tmp_path, problem="regression", qualities=(0.2, 1.0))
    assert found.metric == "rmse"
    assert found.pooled.served < found.pooled.frozen
    assert found.pooled.gain > 0


def test_the_table_and_the_picture_show_it(tmp_path: Path) -> None:
    found = played(tmp_path)
    lines = table(found).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("2024-03-04")
    assert lines[1].endswith("degraded  research: version 2 promoted")
    assert lines[2].endswith("ok")
    picture = draw(found, tmp_path / "deep" / "picture.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_step_of_a_champion_that_follows_is_no_promotion(tmp_path: Path) -> None:
    week = played(tmp_path).windows[0]
    learnt = week.model_copy(update={"outcome": "", "by": "", "stepped": True, "promoted": False, "champion": "3"})
    assert action(learnt) == "research: decided, not run; version 3 has learnt on"
    learnt = learnt.model_copy(update={"remedy": "none"})
    assert action(learnt) == "version 3 has learnt on"
    held = learnt.model_copy(update={"by": "research", "outcome": "hold"})
    assert action(held) == "research: hold; version 3 has learnt on"
    idle = learnt.model_copy(update={"stepped": False, "champion": "2", "no_step": "one class alone"})
    assert action(idle) == "no step of follow: one class alone"
    assert action(week.model_copy(update={"by": "follow", "outcome": "rollback"})) == "follow: version 2 is back"


def test_a_period_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no labelled row"):
        played(tmp_path, period=(datetime(2030, 1, 1), datetime(2031, 1, 1)))
