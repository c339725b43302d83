"""The command line: help, messages and exit codes. Real processes where start and exit count, else click's runner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.commands_search import beside, first_sentence, found_lines
from flows.commands_watch import when_judged
from flows.door import Door, _warn
from flows.offered import offered
from flows.overview import task_lines
from flows.publishing import figures_of
from flows.workplace import Workplace, changing, find_task, register_task, registered_for_search, task_names
from registry.bundle import Estimate, ModelBundle
from registry.errors import BusyError, StoreError, TaskError
from registry.proposal import to_yaml, write
from registry.settings import Settings
from registry.task import RowWindows, TimeWindows, load
from tests.handmade import make_bundle, make_frame, make_task

COMMANDS = tuple(main.commands)


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Commands put the settings into their process's environment; here that process is the tests'."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    os.environ["EVERFIT_HOME"] = str(tmp_path / "home")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from flows.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_help_starts_at_once_and_loads_nothing_heavy(tmp_path: Path) -> None:
    began = time.monotonic()
    done = process("--help", cwd=tmp_path)
    assert time.monotonic() - began < 2  # benchmarks/cli_start.py has the figure; this is a busy machine's bound
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    code = "import sys, flows.cli; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("pandas", "numpy", "torch", "mlflow", "prefect", "pydantic", "sklearn", "matplotlib"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "x.yaml", "--strategy", "tpee"), ", tpe (did you mean 'tpe'?)"),
        (("search", "x.yaml", "--stopping", "halve"), "(did you mean 'halving'?)"),
        (("search", "x.yaml", "--space", "resnt"), ", resnet (did you mean 'resnet'?)"),
        (("improve", "x", "--remedies", "finetune"), "search (did you mean 'fine_tune'?)"),
    ],
)
def test_a_word_that_is_wrong_is_told_before_the_libraries_are_loaded(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code = "import sys; from flows.cli import main; main(standalone_mode=False)"
    seen = f"{code}; print(sorted(set(sys.modules) & {{'torch', 'mlflow', 'prefect', 'pandas'}}))"
    done = subprocess.run([sys.executable, "-c", seen, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert words in done.stderr
    assert done.stdout == "[]\n"


def test_the_names_that_are_offered_are_those_of_the_catalogues() -> None:
    from retrain.families.catalogue import FAMILIES
    from retrain.search.stopping.catalogue import STOPPING
    from retrain.search.strategies.catalogue import STRATEGIES

    assert offered("retrain.families") == tuple(sorted(one.name for one in FAMILIES))
    assert offered("retrain.search.strategies") == tuple(sorted(one.name for one in STRATEGIES))
    assert offered("retrain.search.stopping") == tuple(sorted(one.name for one in STOPPING))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Example:\n" in done.output
    assert f"everfit {command}" in done.output


def test_init_writes_a_task_that_reads_back(home: Path) -> None:
    (home / "data").mkdir()
    make_frame(1200, every="1h").to_csv(home / "data" / "rows.csv", index=False)
    done = run("init", "data/rows.csv", "--target", "late", "--time", "when", "--output", "data/rows.yaml")
    assert done.exit_code == 0, done.output
    assert "binary problem" in done.output
    task = load(home / "data" / "rows.yaml")
    assert (task.name, task.target, task.time, task.source.path) == ("rows", "late", "when", "rows.csv")


def test_a_column_that_tells_the_target_can_be_left_out_in_the_file_that_init_writes(home: Path) -> None:
    frame = make_frame(1200)
    frame.assign(told=frame["late"].map({"no": 0.0, "yes": 1.0})).to_csv(home / "rows.csv", index=False)
    done = run("init", "rows.csv", "--target", "late")
    assert done.exit_code == 2
    assert "wrote rows.yaml; correct it" in done.stdout
    assert "column 'told': it predicts the target alone" in done.stderr
    assert load(home / "rows.yaml").target == "late"


def test_init_names_the_column_that_may_be_the_time(home: Path) -> None:
    make_frame(1200, every="1h").to_csv(home / "rows.csv", index=False)

    unsaid, said = (
        run("init", "rows.csv", "--target", "late", *more) for more in ((), ("--time", "when", "--name", "timed"))
    )

    assert "note: no column was named as the rows' time" in unsaid.stderr
    assert "where 'when' is that time, delete rows.yaml and say `--time when`" in unsaid.stderr
    assert "note:" not in said.stderr


def test_init_never_overwrites(home: Path) -> None:
    make_frame(1200).to_csv(home / "rows.csv", index=False)
    (home / "rows.yaml").write_text("mine\n")
    done = run("init", "rows.csv", "--target", "late")
    assert done.exit_code == 2
    assert "rows.yaml: already exists; name another file (--output), or delete it first" in done.stderr
    assert (home / "rows.yaml").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "rows.csv", "--target", "lat"), "no column 'lat' (did you mean 'late'?)"),
        (("init", "rows.csv", "--target", "late", "--time", "wen"), "(did you mean 'when'?)"),
        (("init", "gone.csv", "--target", "late"), "gone.csv: no such file"),
        (("init", "row.csv", "--target", "late"), "row.csv: no such file or folder (did you mean 'rows.csv'?)"),
        (("init", "broken.parquet", "--target", "late"), "broken.parquet"),
        (("init", "single.csv", "--target", "late"), "late"),
        (("init", "sqlite:///x.db", "--target", "late"), "--query"),
        (("init", "mysql://me:hunter2@db/x", "--query", "select 1", "--target", "late"), "mysql://me:${NAME}@"),
        (("search", "wrong.yaml"), "polcy: unknown key (did you mean 'policy'?)"),
        (("search", "gone.yaml"), "gone.yaml: cannot be read"),
        (("search", "nobody"), "unknown task 'nobody'"),
        (("search", "right.ymal"), "there is neither a file nor a task 'right.ymal': no task is registered in"),
        (("search", "right.ymal"), "(did you mean 'right.yaml'?)"),
        (("serve", "rihgt"), "unknown task 'rihgt': no task is registered in"),
        (("serve", "rihgt"), "(did you mean 'right.yaml'?)"),
        (("search", "rows.csv"), "rows.csv: a task's file ends in .yaml; of data, `everfit init rows.csv --target "),
        (("search", "right.yaml", "--strategy", "tpee"), "unknown strategy 'tpee'"),
        (("search", "right.yaml", "--stopping", "ashes"), "unknown stopping policy 'ashes': expected one of asha, "),
        (("search", "right.yaml", "--space", "mlp, resnt"), "unknown family 'resnt': expected one of "),
        (
            ("search", "right.yaml", "--space", "mlp,mlp"),
            "expected families that differ from one another, got mlp, mlp",
        ),
        (("search", "right.yaml", "--space", ""), "unknown family ''"),
        (("init", "rows.csv", "--target", "late", "--name", "my rows!"), "name: expected lower case letters, digits"),
        (("search", "tabbed.yaml"), "tabbed.yaml:\n  line 2, column 1: a tab, where YAML wants spaces"),
        (("search", "unclosed.yaml"), "unclosed.yaml:\n  line 2, column 1: not valid YAML from here on: look here"),
        (("serve", "nobody"), "unknown task 'nobody'"),
        (("monitor", "nobody"), "unknown task 'nobody'"),
        (("alerts", "nobody"), "unknown task 'nobody'"),
        (("report", "nobody"), "unknown task 'nobody'"),
        (("promote", "nobody", "1"), "unknown task 'nobody'"),
        (("rollback", "nobody"), "unknown task 'nobody'"),
        (("canary", "nobody", "0.1"), "unknown task 'nobody'"),
        (("canary", "nobody", "10%"), "unknown task 'nobody'"),
        (("improve", "nobody"), "unknown task 'nobody'"),
        (("replay", "rows.csv", "--task", "nobody"), "unknown task 'nobody'"),
        (("status", "nobody"), "unknown task 'nobody'"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(home: Path, arguments: tuple[str, ...], words: str) -> None:
    frame = make_frame(300)
    frame.to_csv(home / "rows.csv", index=False)
    frame.assign(late="yes").to_csv(home / "single.csv", index=False)
    (home / "broken.parquet").write_bytes(b"PAR1 no")
    (home / "wrong.yaml").write_text(
        "name: wrong\nsource: {path: rows.csv}\ntarget: late\nproblem: binary\nmetric: auc\npolcy: {}\n"
    )
    (home / "tabbed.yaml").write_text("monitor:\n\treport: never\n")
    (home / "unclosed.yaml").write_text("columns: {kinds: {\n")
    (home / "right.yaml").write_text(
        "name: right\nsource: {kind: file, path: rows.csv}\ntarget: late\nproblem: binary\nmetric: auc\n"
    )
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert not (home / "home" / "tasks").exists()
    told = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]  # a busy machine is waited for
    assert told[0].startswith("everfit: ")
    assert "Traceback" not in done.stderr
    assert not list(home.glob("gone*"))


@pytest.mark.parametrize("share", ["110%", "1.1", "nan", "a tenth", "%"])
def test_a_share_that_is_none_is_told_what_it_may_be(home: Path, share: str) -> None:
    done = run("canary", "nobody", share)
    assert done.exit_code == 2
    assert f"from 0 to 1 as 0.1 or 10%, got {share!r}" in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("columns: {exclude: [amount,\n    carier]}", "line 8: columns.exclude: the data have no column 'carier'"),
        ("columns:\n  kinds:\n    amont: numeric", "line 9: columns.kinds: the data have no column 'amont' (did you"),
        ("monitor: {segments: [carier]}", "line 7: column 'carier': the data have no such column (did you mean"),
        ("search:\n  strategy: tpee", "right.yaml: line 8: search.strategy: unknown strategy 'tpee'"),
        ("search:\n  trials: 3\n  stopping: ashes", "line 9: search.stopping: unknown stopping policy 'ashes'"),
        ("search: {choices: {\n  depht: {only: [2]}}}", "line 8: search.choices: unknown dimension 'depht'"),
        ("columns: {kinds: {carrier: image}}\nsearch: {families: [resnet]}", "line 8: search.families: 'resnet'"),
        ("search: {families: [mlp, convnet]}", "line 7: search.families: 'convnet' reads images, and the task has no"),
        ("search: {objectives: [quality, size]}", "line 7: search.objectives: 'auto' looks for quality alone"),
    ],
)
def test_what_the_data_or_the_means_show_is_told_with_its_line(home: Path, more: str, words: str) -> None:
    """Nothing is registered, and the ledger has no search that failed."""
    make_frame(300).to_csv(home / "rows.csv", index=False)
    head = "name: right\nsource: {kind: file, path: rows.csv}\ntarget: late\ntime: when\nproblem: binary\nmetric: auc\n"
    (home / "right.yaml").write_text(f"{head}{more}\n")
    done = run("search", "right.yaml")
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert not (home / "home" / "tasks").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("init",),
        ("init", "x.csv"),
        ("search",),
        ("search", "x", "--trials", "0"),
        ("search", "x", "--seconds", "inf"),
        ("search", "x", "--seconds", "nan"),
        ("search", "x", "--seed", "-1"),
        ("quiet", "x", "--seconds", "inf"),
        ("demo", "--seed", "-1"),
        ("replay", "x", "--delay", "soon"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_strategies_policies_and_spaces_are_listed_without_task_or_home(home: Path) -> None:
    from retrain.families.catalogue import FAMILIES
    from retrain.search.stopping.catalogue import STOPPING
    from retrain.search.strategies.catalogue import STRATEGIES

    done = run("search", "--list")
    assert done.exit_code == 0
    spaces = done.output[done.output.index("Spaces") : done.output.index("Dimensions")]
    assert [line.split()[0] for line in spaces.splitlines()[1:] if line[2:3].strip()] == [one.name for one in FAMILIES]
    flat = " ".join(done.output.split())
    for one in (*STRATEGIES, *STOPPING, *FAMILIES):
        assert f"{one.name} {first_sentence(one.__doc__ or '')}" in flat
        assert not one.paper or f"[{one.paper}]" in flat
    assert "mlp, table depth: a whole number from 1 to 5" in flat
    told = _dimensions_told(done.output)
    assert list(told)[:2] == ["training, table", "training, image"]
    assert "cutout" in told["training, image"]
    assert "cutout" not in told["training, table"]
    assert all("jitter: " in told[f"training, {reads}"] for reads in ("table", "image"))
    for family in FAMILIES:
        assert {name for name in told if name.startswith(f"{family.name},")} == {
            f"{family.name}, {reads}" for reads in family.reads
        }
        for reads in family.reads:
            assert all(one.name in told[f"{family.name}, {reads}"] for one in family.parameters_for(reads))
    assert "category_cap" in told["cell, table"]
    assert "category_cap" not in told["cell, image"]
    assert not (home / "home").exists()


def _dimensions_told(output: str) -> dict[str, str]:
    """By name: the lines of the dimensions, joined."""
    lines, told, name = output[output.index("`jitter`, `swap_noise`") :].splitlines()[1:], {}, ""
    for line in lines:
        if found := re.match(r"  (\w+, \w+) +(.*)", line):
            name = found[1]
        told[name] = f"{told.get(name, '')} {found[2] if found else line.strip()}"
    return told


def test_the_first_sentence_ends_where_it_ends() -> None:
    assert first_sentence("Trees (Falkner et al. 2018),\n    joint. More.") == "Trees (Falkner et al. 2018), joint."
    assert first_sentence("One alone") == "One alone"


def test_wrong_settings_name_their_variable(home: Path) -> None:
    os.environ["EVERFIT_PORT"] = "seventy"
    done = run("status")
    assert done.exit_code == 2
    assert "EVERFIT_PORT" in done.stderr
    assert "'seventy'" in done.stderr


def test_an_open_door_without_a_key_is_refused(home: Path) -> None:
    os.environ["EVERFIT_HOST"] = "0.0.0.0"
    done = run("status")
    assert done.exit_code == 2
    assert "EVERFIT_API_KEY" in done.stderr


def test_a_key_for_a_task_that_is_none_is_told_with_the_nearest(home: Path) -> None:
    """It is made all the same: a task may be registered later, or in another home of the same registry."""
    (home / "home" / "tasks").mkdir(parents=True)
    (home / "home" / "tasks" / "rides.yaml").touch()
    done = run("key", "add", "shop", "--scope", "predict", "--task", "ride")
    assert done.exit_code == 0
    assert "no task 'ride' is registered here (did you mean 'rides'?)" in done.output
    assert "warning" not in run("key", "add", "other", "--scope", "predict", "--task", "rides").output


def test_status_of_an_empty_home_says_how_to_begin(home: Path) -> None:
    done = run("status")
    assert done.exit_code == 0
    assert "no task yet" in done.output
    assert "none running" in done.output


def test_down_without_services_is_no_error(home: Path) -> None:
    done = run("down")
    assert done.exit_code == 0
    assert "nothing was running" in done.output


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_bug_is_one_line_unless_tracebacks_are_asked_for(tmp_path: Path, debug: str) -> None:
    code = (
        "import sys, flows.cli\n"
        "def broken(): raise ZeroDivisionError('not foreseen')\n"
        "flows.cli.main.commands['down'].callback = broken\n"
        "sys.exit(flows.cli.main(['down']))\n"
    )
    environment = {"PATH": "", "EVERFIT_DEBUG": debug, "EVERFIT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == (debug == "1")
    if debug == "0":
        assert "bug: ZeroDivisionError: not foreseen" in done.stderr
        assert "EVERFIT_DEBUG=1" in done.stderr


def test_a_file_of_somebody_else_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    @click.group(cls=Door)
    def group() -> None:
        pass

    @group.command()
    @click.argument("file")
    def look(file: str) -> None:
        Path(file).is_file()

    nobody, me = 65_534, os.geteuid()
    with TemporaryDirectory() as folder:
        assert CliRunner().invoke(group, ["look", f"{folder}/task.yaml"]).exit_code == 0
        Path(folder).chmod(0o000)
        os.seteuid(nobody if me == 0 else me)
        try:
            done = CliRunner().invoke(group, ["look", f"{folder}/task.yaml"])
        finally:
            os.seteuid(me)
            Path(folder).chmod(0o755)
    assert done.exit_code == 4
    assert done.stderr == f"everfit: {folder}/task.yaml: Permission denied\n"


@pytest.mark.parametrize("meanwhile", ["raise", "raise ValueError('Task run is not set')", "time.sleep(60)"])
def test_an_interrupted_command_says_how_to_go_on_and_ends_soon(meanwhile: str, tmp_path: Path) -> None:
    """Also where libraries take long to be taken down, as torch does (here an object that would take a minute), make
    another error of the interruption, or swallow it."""
    code = (
        "import signal, sys, time, flows.cli\n"
        "from flows.door import resumable\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "class Slow:\n"
        "    def __del__(self, sleep=time.sleep): sleep(60)\n"
        "slow = Slow()\n"
        "def broken():\n"
        "    with resumable('run it again'):\n"
        "        try: print('on', flush=True), time.sleep(60)\n"
        f"        except KeyboardInterrupt: {meanwhile}\n"
        "flows.cli.main.commands['down'].callback = broken\n"
        "sys.exit(flows.cli.main(['down']))\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=50)
    assert (process.returncode, told) == (130, "everfit: interrupted: run it again\n")


def test_an_edited_task_holds_without_a_search(place: Workplace, tmp_path: Path) -> None:
    """But for what a model is made for."""
    edited = place.task.model_copy(update={"gate": place.task.gate.model_copy(update={"bake": 1})})
    file = tmp_path / "edited.yaml"
    write(edited, file)
    done = CliRunner().invoke(main, ["apply", str(file)])
    assert (done.exit_code, done.stdout) == (0, "handmade: gate.bake (4 -> 1) changed\n")
    assert find_task(place.settings, "handmade").gate.bake == 1
    text = file.read_text()
    file.write_text(text.replace("hash: []", "hash: [nobody]"))
    refused = CliRunner().invoke(main, ["apply", str(file)])
    assert refused.exit_code == 2
    assert "nobody" in refused.output
    assert find_task(place.settings, "handmade").log.hash == ()
    file.write_text(text.replace("segments: []", "segments: [carrier, amount]"))
    refused = CliRunner().invoke(main, ["apply", str(file)])
    line = 1 + file.read_text().splitlines().index("  segments: [carrier, amount]")
    said = f"edited.yaml: line {line}: monitor.segments: 'amount': a categorical or boolean column is expected"
    assert (refused.exit_code, said in refused.stderr) == (2, True)
    assert find_task(place.settings, "handmade").monitor.segments == ()
    file.write_text(text.replace("stopping: asha", "stopping: ashes"))
    refused = CliRunner().invoke(main, ["apply", str(file)])
    line = 1 + file.read_text().splitlines().index("  stopping: ashes")
    assert f"line {line}: search.stopping: unknown stopping policy 'ashes'" in refused.output
    assert find_task(place.settings, "handmade").search.stopping == "asha"
    file.write_text(text.replace("metric: auc", "metric: accuracy"))
    refused = CliRunner().invoke(main, ["apply", str(file)])
    assert refused.exit_code == 2
    assert "metric changed: a model must be found for that" in refused.output
    assert find_task(place.settings, "handmade").metric == "auc"


@pytest.mark.parametrize(
    ("key", "wrong", "said"),
    [
        ("\n  exclude: []", "\n  exclude: [carier]", "columns.exclude: the data have no column 'carier' (did you mean"),
        ("\n  segments: []", "\n  segments: [amount]", "column 'amount': a categorical or boolean column is expected"),
        ("\n  strategy: auto", "\n  strategy: atuo", "search.strategy: unknown strategy 'atuo'"),
        ("rows.csv", "rwos.csv", "rwos.csv"),
    ],
)
def test_a_task_that_is_not_registered_is_checked_by_apply(home: Path, key: str, wrong: str, said: str) -> None:
    """Its mistakes come first; without any, what comes next."""
    make_frame(300).to_csv(home / "rows.csv", index=False)
    assert run("init", "rows.csv", "--target", "late", "--time", "when").exit_code == 0
    text = (home / "rows.yaml").read_text()
    assert key in text
    (home / "rows.yaml").write_text(text.replace(key, wrong))
    refused = run("apply", "rows.yaml")
    assert (refused.exit_code, said in refused.stderr) == (2, True), refused.output
    (home / "rows.yaml").write_text(text)
    sound = run("apply", "rows.yaml")
    assert sound.exit_code == 3
    assert "rows.yaml: no mistake is found in it, with its 300 rows; task 'rows' is not registered yet" in sound.stderr
    assert "next: everfit search rows.yaml" in sound.stderr
    assert not (home / "home" / "tasks").exists()


def test_a_task_whose_data_lack_a_column_is_not_registered(home: Path) -> None:
    make_frame(300).to_csv(home / "rows.csv", index=False)
    (home / "task.yaml").write_text(
        "name: mine\nsource: {kind: file, path: rows.csv}\ntarget: late\nproblem: binary\nmetric: auc\n"
        "log: {hash: [airlines]}\n"
    )
    done = run("search", "task.yaml")
    assert done.exit_code == 2, done.output
    assert "airlines" in done.stderr
    assert "correct `log` in the task" in done.stderr
    assert not (home / "home" / "tasks").exists()


def test_a_search_that_is_refused_leaves_the_task_that_stood_before(place: Workplace, tmp_path: Path) -> None:
    """The live one, to which the right file still fits; of a new task, nothing."""
    before = place.settings.task_file("handmade").read_bytes()
    text = to_yaml(place.task).replace("\n  kinds: {}", "\n  kinds: {carrier: numeric}")
    text = text.replace("\n  segments: []", "\n  segments: [amount]")
    for name in ("handmade", "other"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("name: handmade", f"name: {name}").replace("mode: auto", "mode: observe"))
        done = CliRunner().invoke(main, ["search", str(file), "--seconds", "5"])
        assert done.exit_code == 2, done.output
        assert "the data cannot be used:" in done.stderr
        assert "column 'carrier'" in done.stderr
        assert place.settings.task_file("handmade").read_bytes() == before
        assert task_names(place.settings) == ("handmade",)
        assert f"{file}: the data cannot be used:\n" in done.stderr
        line = 1 + file.read_text().splitlines().index("  kinds: {carrier: numeric}")
        assert f"line {line}: column 'carrier': row " in done.stderr
        assert "column 'amount': a categorical or boolean column is expected, it is numeric; correct" in done.stderr
    refused = CliRunner().invoke(main, ["apply", str(tmp_path / "handmade.yaml")])
    assert "columns.kinds.carrier changed: a model must be found for that" in refused.stderr
    (tmp_path / "handmade.yaml").write_text(to_yaml(place.task))
    assert CliRunner().invoke(main, ["apply", str(tmp_path / "handmade.yaml")]).stdout == "handmade: nothing changed\n"


def test_a_search_that_the_outside_ends_leaves_its_task(place: Workplace) -> None:
    edited = place.task.model_copy(update={"mode": "observe"})
    with pytest.raises(StoreError), registered_for_search(place.settings, edited):
        raise StoreError("gone")
    assert find_task(place.settings, "handmade") == edited

    def edit_and_fail() -> None:
        register_task(place.settings, edited)  # somebody else, meanwhile
        raise TaskError("wrong")

    with pytest.raises(TaskError), registered_for_search(place.settings, place.task):
        edit_and_fail()
    assert find_task(place.settings, "handmade") == edited


def test_two_who_search_one_task_by_their_files_lose_nothing(place: Workplace) -> None:
    """The second is told that it has to wait, before its file takes the place of the first one's; what the first, which
    is refused after that, puts back is what stood before both. In the end the task can be searched again."""
    mine, other = (place.task.model_copy(update={"mode": mode}) for mode in ("observe", "approve"))

    def one_beside_the_other() -> None:
        for spec in (other, mine):  # the same words, too
            busy = pytest.raises(BusyError, match="a search of task handmade by its file")
            with busy, registered_for_search(place.settings, spec):
                pytest.fail("two at once")
            assert find_task(place.settings, "handmade") == mine
        raise TaskError("wrong")

    with pytest.raises(TaskError), registered_for_search(place.settings, mine):
        one_beside_the_other()
    assert find_task(place.settings, "handmade") == place.task
    with registered_for_search(place.settings, other):
        pass
    assert find_task(place.settings, "handmade") == other


def test_what_was_applied_during_a_search_that_is_refused_stays(place: Workplace, tmp_path: Path) -> None:
    """In the very words of the search's own file, too."""
    edited = place.task.model_copy(update={"mode": "observe"})
    (tmp_path / "handmade.yaml").write_text(to_yaml(edited))

    def apply_and_fail() -> None:
        done = CliRunner().invoke(main, ["apply", str(tmp_path / "handmade.yaml")])
        assert done.output == "handmade: nothing changed\n"
        raise TaskError("wrong")

    with pytest.raises(TaskError), registered_for_search(place.settings, edited):
        apply_and_fail()
    assert find_task(place.settings, "handmade") == edited


def test_whoever_applies_waits_for_another_change(place: Workplace, tmp_path: Path) -> None:
    """What it compares with, and replaces, is what that one has left."""
    asks = place.task.model_copy(update={"metric": "accuracy"})
    (tmp_path / "handmade.yaml").write_text(to_yaml(place.task.model_copy(update={"mode": "observe"})))
    with ThreadPoolExecutor(1) as pool:
        with changing(place.settings, "handmade"):
            applied = pool.submit(CliRunner().invoke, main, ["apply", str(tmp_path / "handmade.yaml")])
            time.sleep(0.3)
            assert not applied.done()
            register_task(place.settings, asks)
        assert "metric changed: a model must be found for that" in applied.result().stderr
    assert find_task(place.settings, "handmade") == asks


def test_a_search_says_how_good_its_model_is(place: Workplace, tmp_path: Path) -> None:
    metric, role, card = found_lines(place, "1")
    value = place.versions.fetch("handmade", "1").manifest.metrics["champion"]["auc"]
    assert metric.startswith(f"auc on the test rows: {value:.4f}")
    assert role == "it is the champion"
    assert Path(card.removeprefix("card: ")).is_file()
    second = place.versions.publish(make_bundle(tmp_path / "second"))
    _, than, serve, _ = found_lines(place, second)
    assert than == f"version 1, the champion, has auc {value:.4f} on the same rows: this one is as good there"
    assert serve == "to serve it: everfit promote handmade 2"
    manifest = place.versions.fetch("handmade", second).manifest
    for auc, word in ((0.01, "worse"), (0.999, "better")):
        found = manifest.model_copy(update={"metrics": {"champion": {"auc": auc}}})
        assert beside(found, "1", manifest).endswith(f"this one is {word} there")
    older = manifest.model_copy(update={"lineage": manifest.lineage.model_copy(update={"data_hash": "b" * 64})})
    assert (
        beside(manifest, "1", older)
        == "version 1, the champion, was tested on other rows: their figures do not compare"
    )


def test_a_model_that_is_worth_nothing_is_told(place: Workplace, tmp_path: Path) -> None:
    """Worse than the mean is no rare thing on the newest rows of a series whose level moves."""
    made, naive = make_bundle(tmp_path / "weak"), Estimate(value=0.95, error=0.02, rows=600)
    bundle = ModelBundle.seal(made.folder, made.manifest.model_copy(update={"naive": naive}))
    version = place.versions.publish(bundle, metrics=figures_of(bundle))
    place.versions.promote("handmade", version)
    value = bundle.manifest.reference.value
    said = f"weak: auc {value:.4f} on the test rows is not surely better than the 0.9500 of always answering"
    assert any(line.startswith(said) for line in found_lines(place, version))
    assert any(line.startswith(f"  version {version} is {said}") for line in task_lines(place))
    place.versions.promote("handmade", "1")
    assert not any("weak" in line for line in (*found_lines(place, "1"), *task_lines(place)))


def test_a_fall_from_validation_to_test_is_told(place: Workplace, tmp_path: Path) -> None:
    made, chosen_by = make_bundle(tmp_path / "fallen"), Estimate(value=0.999, error=0.001, rows=600)
    bundle = ModelBundle.seal(made.folder, made.manifest.model_copy(update={"validation": chosen_by}))
    version, value = place.versions.publish(bundle), bundle.manifest.reference.value
    said = "warning: surely worse on the test rows than on the validation rows, by which it was chosen: "
    assert any(line.startswith(f"{said}auc {value:.4f} after 0.9990") for line in found_lines(place, version))
    assert not any("warning" in line for line in found_lines(place, "1"))


def test_a_setting_that_is_nearly_one_is_told(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFIT_PROT", "8001")
    monkeypatch.setenv("EVERFIT_OF_MY_OWN", "1")
    _warn.cache_clear()
    told = run("alerts", "handmade").stderr
    assert told == "warning: EVERFIT_PROT is no setting (did you mean 'EVERFIT_PORT'?)\n"


def test_who_waits_for_the_first_window_is_told_when_it_is_judged(place: Workplace) -> None:
    told = run("monitor", "handmade").stdout.splitlines()
    assert told[:2] == ["handmade: nothing is judged yet, 0 windows measured", "  no window is complete yet"]
    assert told[-1] == f"  {when_judged(place.task)}"
    weekly = place.task.monitor.model_copy(update={"windows": TimeWindows(every=timedelta(days=7))})
    said = (
        "a window lasts 1w: it is measured once a row from after it has come, and judged once 30 labels of it are there"
    )
    timed = place.task.model_copy(update={"monitor": weekly, "time": "when"})
    assert when_judged(timed) == f"{said} (`monitor` in the task)"
    rows = place.task.monitor.model_copy(update={"windows": RowWindows(rows=500)})
    assert when_judged(place.task.model_copy(update={"monitor": rows})).startswith("a window is of 500 rows: it is ")


def test_an_improvement_that_is_refused_is_the_wrong_moment(place: Workplace) -> None:
    """There are no labels yet."""
    done = run("improve", "handmade", "--remedies", "recalibrate")
    assert done.exit_code == 3, done.output
    assert done.stdout.startswith("handmade: refused (no remedy, no version was made)\n  ")


def test_a_version_that_is_not_there_is_told_with_those_that_are(place: Workplace) -> None:
    done = run("promote", "handmade", "9")
    assert (done.exit_code, place.versions.get("handmade", "champion")) == (2, "1")
    assert "task 'handmade' has no version '9': expected one of 1; `everfit status handmade` lists" in done.stderr


def test_to_promote_the_champion_is_told_and_no_promotion(place: Workplace) -> None:
    """The ledger, from which policies count their warm-up, has one of it only when something changed."""
    second = place.versions.publish(place.versions.fetch("handmade", "1"))
    told = run("promote", "handmade", second).stdout.splitlines()
    assert told[0] == "handmade: version 2 is the champion (previous: 1)"
    assert told[1].startswith("  by itself it is tried, once 4 windows that end after ")
    for _ in range(2):
        done = run("promote", "handmade", second)
        assert done.stdout == "handmade: version 2 is the champion already, nothing changed (previous: 1)\n"
    assert [one.version for one in place.ledger.read(kinds={"promotion"})] == ["2"]


def test_a_version_of_a_task_that_has_none_yet_is_the_wrong_moment(settings: Settings) -> None:
    """No version could be right there: a search comes first."""
    register_task(settings, make_task(source={"kind": "file", "path": "/nowhere.csv"}))
    done = run("promote", "handmade", "1")
    assert done.exit_code == 3
    assert "has no version yet; run `everfit search` first" in done.stderr


def test_up_starts_nothing_for_a_task_without_a_champion(settings: Settings) -> None:
    register_task(settings, make_task(source={"kind": "file", "path": "/nowhere.parquet"}))
    done = run("up", "handmade")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "handmade has no champion yet; begin with: everfit search handmade" in done.stderr


def test_status_says_that_the_endpoint_is_down() -> None:
    """Where others run: it was killed, or the task has no champion yet."""
    from flows.overview import service_lines
    from flows.services import Running

    some = [Running(name, name, "", 7, started=False) for name in ("mlflow", "endpoint")]
    assert "not running" not in "".join(service_lines(some, []))
    assert service_lines(some, ["  endpoint here"])[2:] == ["  endpoint here"]
    assert service_lines(some[:1], [])[-1] == "  endpoint     not running: `everfit up TASK`"
    assert service_lines([], []) == ["services: none running (start them with `everfit up TASK`)"]
    assert service_lines([], ["  endpoint here"]) == ["services:", "  endpoint here"]


def test_a_state_begins_with_how_the_champion_is_judged() -> None:
    from flows.overview import judged_first, verdict
    from registry.ledger import Entry

    last = Entry(
        task="flights", kind="decision", at=datetime(2013, 9, 3), version="3", severity="degraded", outcome="none"
    )
    assert verdict("3", last) == "version 3 is the champion, degraded (as of 2013-09-03 00:00), remedy: none"
    window = {"index": 25, "start": "2013-08-26T00:00:00", "end": "2013-09-02T00:00:00"}
    known = last.model_copy(update={"details": {"window": window}})
    where = "degraded in the window from 2013-08-26 00:00 (version 3, as of 2013-09-03 00:00), remedy: none"
    assert verdict("4", known) == f"version 4 is the champion, {where}"
    assert verdict(None, None) == "no champion yet, nothing was judged yet"
    empty = last.model_copy(update={"severity": "ok", "details": {"window": None}})
    assert verdict("3", empty) == "version 3 is the champion, nothing was judged yet"
    assert (judged_first([last, empty]), judged_first([empty])) == ([last], [empty])
