"""The task's YAML: what is accepted, and errors that name the key, the value and the nearest known key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registry.durations import format_duration, parse_duration
from registry.errors import TaskError
from registry.policies import PerformancePolicy
from registry.task import SqlSource, TaskSpec, TimeWindows, load
from tests.handmade import make_task


def write(folder: Path, **changes: object) -> Path:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**make_task().model_dump(mode="json"), **changes}))
    return path


def test_a_task_survives_yaml(tmp_path: Path) -> None:
    assert load(write(tmp_path)) == make_task()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serch": {}}, r"serch: unknown key \(did you mean 'search'\?\)"),
        ({"search": {"trails": 3}}, r"search.trails: unknown key \(did you mean 'trials'\?\)"),
        ({"monitor": {"windows": {"kind": "time", "evry": "7d"}}}, r"windows.evry: unknown key \(did you mean 'every'"),
        ({"policy": {"kind": "performance", "tolerat": 0.1}}, r"policy.tolerat: unknown key \(did you mean 'tolerate'"),
        ({"search": {"trials": -1}}, r"search.trials: .*greater than or equal to 1, got -1"),
        ({"monitor": {"windows": {"kind": "time", "every": "7 days"}}}, r"such as 7d, got '7 days'"),
        ({"monitor": {"windows": {"kind": "time", "every": "1000000000d"}}}, r"expected at most a thousand years, got"),
        ({"research": {"history": "99999999w"}}, r"research.history: expected at most a thousand years, got"),
        ({"search": {"seed": -1}}, r"search.seed: expected greater than or equal to 0, got -1"),
        ({"search": {"seconds": float("inf")}}, r"search.seconds: expected a finite number, got .inf"),
        ({"research": {"seconds": float("inf")}}, r"research.seconds: expected a finite number, got .inf"),
        ({"time": True}, r"line \d+: time: expected text, which stands in quotes .*, got true"),
        ({"target": 5}, r"target: expected text, which stands in quotes .*, got 5"),
        ({"monitor": {"report": True}}, r"monitor.report: expected 'alarms', 'always' or 'never', got true"),
        ({"monitor": {"report": "alway"}}, r"got 'alway'"),
        ({"mode": "aprove"}, r"mode: expected .* \(did you mean 'approve'\?\), got 'aprove'"),
        (
            {"gate": {"canary": True}},
            r"keys and values, such as {share: 0.1, windows: 2}, got true",
        ),
        ({"search": {"families": "mlp"}}, r"search.families: expected a list, such as \[mlp\], got 'mlp'"),
        ({"policy": {"kind": "performance", "ladder": []}}, r"policy.ladder: expected a list of one or more of recal"),
        ({"policy": {"kind": "performance", "ladder": True}}, r"policy.ladder: expected a list .*, got true"),
        ({"policy": {"kind": "performance", "ladder": "folow"}}, r"unknown remedy 'folow'.*did you mean 'follow'"),
        ({"policy": {"kind": "performnce"}}, r"policy: unknown kind: expected one of 'performance', 'never'"),
        ({"policy": {"kind": "performnce"}}, r"\(did you mean 'performance'\?\)"),
        ({"policy": "never"}, "policy: expected .*, got 'never'"),
        ({"metric": "acuracy"}, r"'acuracy' does not fit a binary problem.*did you mean 'accuracy'"),
        ({"target": "when"}, "target and time are the same column, 'when'"),
        ({"splits": {"test": 0.7}}, "must leave a fifth for training, got 0.90"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load(write(tmp_path, **changes))


def test_what_came_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as wrong:
        load(write(tmp_path, monitor={"windows": {"kind": "time", "every": "1 week"}}, search={"trials": "many"}))
    trials, durations = str(wrong.value).splitlines()[1:]
    assert durations.endswith("expected a number and a unit (s, m, h, d, w) such as 7d, got '1 week'")
    assert durations.count("got") == 1
    assert trials.endswith("search.trials: expected a whole number, got 'many'")


def test_a_mistake_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: a\nsource: {path: rows.csv, kind: file}\ntarget: late\nproblem: binary\nmetric: auc\n"
        "policy:\n  kind: performance\n  ladder: []\ngate:\n  canary: true\nsearch:\n  families: [mlp, 3]\n"
    )
    with pytest.raises(TaskError) as wrong:
        load(path)
    lines = str(wrong.value).splitlines()[1:]
    assert [line.split(":")[:2] for line in lines] == [
        ["  line 12", " search.families.1"],
        ["  line 8", " policy.ladder"],
        ["  line 10", " gate.canary"],
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("target: a\nproblem: regression\nmetric: auc\n", "line 5: metric 'auc' does not fit a regression problem: "),
        ("target: when\nproblem: binary\nmetric: auc\ntime: when\n", "line 3: target and time are the same column"),
        ("target: a\nproblem: binary\nmetric: auc\nlog: {drop: [b, a]}\n", "line 6: log: 'a' is the target column"),
    ],
)
def test_keys_that_do_not_go_together_have_the_line_of_one(tmp_path: Path, changes: str, said: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(f"name: a\nsource: {{path: rows.csv, kind: file}}\n{changes}")
    with pytest.raises(TaskError) as wrong:
        load(path)
    assert str(wrong.value).splitlines()[1].strip().startswith(said)


def test_broken_yaml_is_said_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("name: a\n  target: b\n")
    with pytest.raises(TaskError, match=r"task\.yaml:\n  line 2, column \d+: not valid YAML from here on"):
        load(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("name: a\n")
    with pytest.raises(TaskError, match="target: required key is missing"):
        load(path)


def test_a_key_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    """YAML itself takes the last and says nothing: an edit higher up would not hold."""
    path = tmp_path / "task.yaml"
    path.write_text("name: a\nmode: auto\ngate:\n  bake: 4\n  bake: 0\nmode: observe\n", encoding="utf-8")
    with pytest.raises(TaskError, match=r"line 5: 'bake' .*in line 4 too.*\n  line 6: 'mode' .*in line 2 too"):
        load(path)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected keys and values")])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"gone\.yaml: cannot be read"):
        load(tmp_path / "gone.yaml")
    (tmp_path / "keystroke.yaml").touch()
    with pytest.raises(TaskError, match=r"\(did you mean 'keystroke\.yaml'\?\)"):
        load(tmp_path / "keystrok.yaml")
    with pytest.raises(TaskError, match="cannot be read"):
        load(tmp_path / "no" / "folder.yaml")


@given(st.integers(1, 10**7))
def test_durations_are_read_back(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert parse_duration(format_duration(span)) == span


def test_a_task_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_task().name = "other"  # type: ignore[misc]


def test_windows_are_a_discriminated_union() -> None:
    assert make_task().monitor.windows == TimeWindows(every=timedelta(days=7))
    assert TaskSpec.model_validate(make_task().model_dump()) == make_task()


SECRETS = ["postgresql://me:hunter2@db/shop", "postgresql+psycopg2://me:p@hunter2@db/x", "mysql://:${PW}hunter2@db/x"]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_in_a_url_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(TaskError, match=r"://(me)?:\$\{NAME\}@") as direct:
        SqlSource(url=url, query="select 1")
    with pytest.raises(TaskError, match=r"task\.yaml:\n  source\.url: .*\$\{NAME\}") as loaded:
        load(write(tmp_path, source={"kind": "sql", "url": url, "query": "select 1"}))
    assert "hunter2" not in f"{direct.value}{loaded.value}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:${PW}@db:5432/shop",
        "postgresql://me:${A}${B}@db/shop",
        "postgresql://${LOGIN}@db/shop",
        "postgresql://me@db:5432/shop",
        "postgresql://db:5432/shop",
        "sqlite:///folder/a@b:c.db",
        "sqlite:////tmp/shop.db",
        "${URL}",
    ],
)
def test_a_url_without_a_written_password_is_taken(url: str) -> None:
    assert SqlSource(url=url, query="select 1").url == url


def test_a_ladder_is_climbed_from_below() -> None:
    found = make_task(policy={"kind": "performance", "ladder": "fine_tune+search"}).policy
    assert isinstance(found, PerformancePolicy)
    assert found.ladder == ("fine_tune", "search")
    assert PerformancePolicy().timeless().ladder == ("recalibrate", "fine_tune", "research")
    assert PerformancePolicy(ladder=("follow",)).timeless().ladder == ("follow",)  # said when it is tried
    assert make_task(policy={"kind": "performance", "ladder": ["research"]}).policy.ladder == ("research",)  # type: ignore[union-attr]
    for wrong in ("research+fine_tune", "research+research", "retrain", []):
        with pytest.raises(ValueError, match="ladder"):
            make_task(policy={"kind": "performance", "ladder": wrong})
