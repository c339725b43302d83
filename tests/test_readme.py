"""The READMEs are true: examples run, settings are those there are, what is named exists, every file is named."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import SecretStr, TypeAdapter

from flows.cli import main
from monitor.acts import Act
from monitor.measurements import WindowRecord
from monitor.policy import Assessment, assess
from monitor.views import View, reference_side, window_side
from registry.database import open_engine
from registry.decisions import Remedy
from registry.inference_log import InferenceLog
from registry.metrics import Problem
from registry.policies import PerformancePolicy
from registry.settings import Settings
from tests.handmade import make_bundle, make_frame
from tests.monitor.logged import write_rows
from tests.monitor.records import end_of, weeks

ROOT = Path(__file__).parent.parent
ROOMS = ("flows", "monitor", "retrain", "serving", "registry")
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", *(f"{folder}/README.md" for folder in (*ROOMS, "deployment")))
}
README, TEXT = PAGES["README.md"], "\n".join(PAGES.values())
MOST_LINES = 650
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)
SHELL = [line.split("#")[0].strip() for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]
CODE = [*SPANS, *SHELL]
FOLDERS = (*ROOMS, "tests", "benchmarks", "deployment")
NO_SETTINGS = {"EVERFIT_DEBUG", "EVERFIT_TRITON_PYTHON", "EVERFIT_KSERVE_PYTHON"}

Example = Callable[[str], ModuleType]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """Writes the README's example of a name to a file, and imports it as a user's own module."""

    def load(name: str) -> ModuleType:
        (code,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
        module = ModuleType(f"readme_{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        path = tmp_path / f"{module.__name__}.py"
        path.write_text(code, encoding="utf-8")
        exec(compile(code, path, "exec"), module.__dict__)
        return module

    return load


def test_the_parts_come_in_their_order() -> None:
    wanted = ["The two commands", "Using it on your own data", "The lifecycle", "Commands", "The rooms", "Settings"]
    wanted.append("Limits")
    assert [title for title in re.findall(r"^## (.+)$", README, re.MULTILINE) if title in wanted] == wanted
    assert README.index("flows/      orders") < README.index("make demo") < README.index("make test")
    assert len(README.splitlines()) <= MOST_LINES


def test_lines_are_no_wider_than_the_code() -> None:
    wide = [line for line in TEXT.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
    assert wide == []


def test_the_strategy_passes_the_contract(example: Example) -> None:
    from tests.retrain import test_strategies as contract

    greedy = example("strategy").Greedy
    contract.test_draws_new_candidates_of_the_space(greedy)
    contract.test_is_the_same_by_seed(greedy)
    contract.test_takes_the_queue_first(greedy)
    contract.test_finds_what_random_search_does_not(greedy)


def test_the_family_passes_the_contract(example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from retrain.families import catalogue
    from tests.retrain import test_families as contract

    family = example("family").Linear()
    monkeypatch.setattr(catalogue, "FAMILIES", (*catalogue.FAMILIES, family))
    for shape in contract.SHAPES:
        contract.test_gives_the_outputs_asked_for(family, *shape)
    contract.test_every_parameter_learns(family)
    contract.test_is_the_same_by_seed(family)
    contract.test_rows_do_not_meet_in_evaluation(family)
    contract.test_names_the_parts_a_warm_start_matches(family)


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_the_measure_measures(example: Example, problem: Problem, tmp_path: Path) -> None:
    measure = example("measure").Confidence()
    bundle = make_bundle(tmp_path / "bundle", problem=problem)
    engine = open_engine(f"sqlite:///{tmp_path / 'everfit.db'}")
    log = InferenceLog(engine, "handmade")
    empty = window_side(log.frame(), "1", bundle.manifest)
    write_rows(log, bundle, make_frame(200, problem=problem))
    full = window_side(log.frame(), "1", bundle.manifest)
    engine.dispose()
    (nothing,), (found,) = (measure.measure(View(s, reference_side(bundle), bundle.manifest)) for s in (empty, full))
    assert (nothing.value, nothing.rows) == (None, 0)
    if problem == "regression":
        assert (found.value, found.note) == (None, "no probabilities")
    else:
        assert 1 / 3 < found.value <= 1
        assert found.value == pytest.approx(found.reference, abs=0.1)
        assert found.rows == 200


def test_the_policy_decides(example: Example) -> None:
    policy = example("policy")
    spec = TypeAdapter(policy.FloorPolicy).validate_python({"kind": "floor", "least": 0.7})

    def remedy(history: list[WindowRecord], *acts: Act, seen: Assessment | None = None) -> Remedy:
        judged = seen or assess(PerformancePolicy(), history, "1")
        decision = policy.on_floor(spec, judged, history, acts)
        assert decision.reasons
        return Remedy(decision.remedy)

    assert remedy([]) is Remedy.NONE
    assert remedy(weeks([0.72])) is Remedy.NONE
    assert remedy(weeks([0.69])) is Remedy.NONE
    assert remedy(weeks([0.65])) is Remedy.RESEARCH
    assert remedy(weeks([0.65], rows=20)) is Remedy.NONE
    assert remedy(weeks([0.65, 0.65]), Act(kind="remedy", at=end_of(1))) is Remedy.NONE
    assert remedy(weeks([0.65, 0.65]), Act(kind="remedy", at=end_of(0))) is Remedy.RESEARCH
    assert remedy(weeks([0.65]), seen=Assessment("faulty", ("x: broken",))) is Remedy.ALERT


def test_every_python_block_is_python() -> None:
    blocks = [code for kind, code in BLOCKS if kind == "python"]
    assert len(blocks) == 8
    for code in blocks:
        compile(code, "README.md", "exec")


def settings_table() -> list[str]:
    """The table as it must stand, from the fields."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        rows.append(f"| `EVERFIT_{name.upper()}` | {default} | {field.description} |")
    return rows


def test_the_settings_table_is_that_of_the_settings() -> None:
    (table,) = re.findall(r"<!-- settings: begin -->\n(.*?)\n<!-- settings: end -->", TEXT, re.DOTALL)
    assert table.splitlines() == settings_table(), "put this there:\n" + "\n".join(settings_table())


def test_every_default_in_the_table_is_what_is_used() -> None:
    used = Settings()
    for row in settings_table()[2:]:
        name, default = re.match(r"\| `EVERFIT_(\w+)` \| `?([^`|]*?)`? \|", row).groups()
        value = getattr(used, name.lower())
        assert not isinstance(value, SecretStr)
        assert default == ("" if value is None else str(value))


def test_every_variable_named_is_a_setting() -> None:
    named = set(re.findall(r"EVERFIT_[A-Z_]+[A-Z]", TEXT))
    assert named - NO_SETTINGS == {f"EVERFIT_{name.upper()}" for name in Settings.model_fields}


def test_every_metric_named_is_shown() -> None:
    from serving.catalogue import METRICS

    named = {span for span in SPANS if re.fullmatch(r"everfit_[a-z_]+", span)}
    assert len(named) > 15
    assert named <= METRICS.keys()


def tree(page: str) -> Iterator[str]:
    """The paths in the annotated tree of files of a page."""
    title = "The rooms" if page == "README.md" else "Files"
    (block,) = re.findall(rf"^## {title}\n\n```text\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    above: list[str] = []
    for line in block.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 4, line.split()[0]
        above = [*above[:depth], name]
        yield f"{Path(page).parent / ''.join(above)}{'/' * name.endswith('/')}"


@pytest.mark.parametrize("path", tuple(path for page in PAGES for path in tree(page)))
def test_every_file_of_the_trees_exists(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_in_its_tree(room: str) -> None:
    """But for those of a folder with a file each, and a catalogue that names them."""
    block = PAGES[f"{room}/README.md"].partition("## Files\n")[2]
    files = [path for path in (ROOT / room).rglob("*.py") if not path.stem.startswith("__")]
    files = [path for path in files if path.parent.name not in ("strategies", "stopping")]
    assert [str(path.relative_to(ROOT)) for path in files if not re.search(rf"\b{path.name}", block)] == []


def test_every_file_named_exists() -> None:
    links = [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)]+)\)", text)]
    links = [(page, link) for page, link in links if "://" not in link]
    named = [span for span in SPANS if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", span)]
    assert len(links) >= 12
    assert len(named) >= 10
    assert [link for page, link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_target_of_make_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for code in CODE for name in re.findall(r"^make (\w+)", code)}
    assert {"demo", "test"} <= named <= targets


def test_every_command_and_option_named_exists() -> None:
    lines = [code for code in CODE if code.startswith("everfit ")]
    for line in lines:
        name, *words = shlex.split(line)[1:]
        assert name in main.commands, line
        command = main.commands[name]
        if isinstance(command, click.Group) and words:
            assert words[0] in command.commands, line
            command = command.commands[words[0]]
        known = {option for one in command.params if isinstance(one, click.Option) for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    assert {line.split()[1] for line in lines} == set(main.commands)


def test_every_exit_code_is_there() -> None:
    from flows import door
    from registry import errors

    codes = {0, 1, door.DEGRADED, door.INTERRUPTED}
    codes |= {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    (part,) = re.findall(r"^### Exit codes\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", part, re.MULTILINE)} == codes
