"""Whole small searches over real worker processes, and what is left of them after kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from registry.bundle import ModelBundle
from registry.cores import cores
from registry.errors import BusyError, DataError, OutsideError, TaskError
from registry.metrics import Problem
from registry.scoring import Scorer
from registry.task import TaskSpec
from retrain.boosted import fit_boosted
from retrain.search import plan as plans
from retrain.search.ahead import Ahead
from retrain.search.asking import FINISHES, ORIGIN, PARENT
from retrain.search.budget import SPENT, Budget, kept_seconds, read_spent, write_spent
from retrain.search.crew import SPARE, Crew
from retrain.search.forkserver import MODULE
from retrain.search.journal import JOURNAL, KernelLock, cut_torn_line, open_study, together
from retrain.search.material import gather, hash_frame
from retrain.search.progress import Progress, beginning, silent
from retrain.search.question import fingerprint
from retrain.search.session import Session, search
from retrain.search.shelf import PAUSED, take
from retrain.search.tally import recover
from retrain.search.worker import Worker
from tests.handmade import make_frame, make_task
from tests.processes import children

ROWS = 600
SEARCH = {"families": ["mlp"], "workers": 2, "max_epochs": 3}


def small_task(problem: Problem = "binary", **more: object) -> TaskSpec:
    return make_task(problem, search={**SEARCH, **more})


def only(folder: Path) -> Path:
    (home,) = [path for path in folder.iterdir() if path.is_dir()]
    return home


def test_a_search_ends_in_a_bundle_that_works(tmp_path: Path) -> None:
    """Of several classes; binary and regression searches are in the tests of remedies."""
    problem: Problem = "multiclass"
    task, frame, seen = small_task(problem), make_frame(ROWS, problem=problem), []
    bundle = search(
        task, frame, folder=tmp_path / "study", out=tmp_path / "bundle", trials=3, seconds=60, seed=0,
        parent_version="7", progress=seen.append,
    )  # fmt: skip
    _check_bundle(bundle, frame, task)
    begun = [one for one in seen if one.stage == "search" and not one.finished]
    assert begun, "a search that has only begun is told of"
    assert all(one.message in {"workers are starting", beginning(1), beginning(2)} for one in begun)
    assert list(dict.fromkeys(one.stage for one in seen))[:2] == ["preparation", "search"]
    assert (max(one.finished for one in seen), seen[-1].metric) == (3, task.metric)
    results = plans.read_results(only(tmp_path / "study"))
    assert len(results) == 3
    assert all(one.cpu > 0 and one.parameters > 100 and one.latency_ms > 0 for one in results)


def _check_bundle(bundle: ModelBundle, frame: object, task: TaskSpec) -> None:
    manifest = bundle.manifest
    assert sum(manifest.lineage.rows.values()) == ROWS
    assert manifest.lineage.parent_version == "7"
    assert manifest.lineage.known_until == make_frame(ROWS)["when"].max().to_pydatetime()
    assert set(manifest.metrics) == {"champion", "boosted"}
    good = {"auc": 0.7, "rmse": 2.0}[task.metric]
    assert (manifest.reference.value < good) == (task.metric == "rmse")
    assert manifest.naive.value == 0.5
    assert manifest.weakness is None
    assert manifest.validation.rows == manifest.lineage.rows["validation"]
    assert manifest.validation.error > 0
    assert sum(member["weight"] for member in bundle.candidates["members"]) == pytest.approx(1)
    assert all(0 < one["candidate"]["parameters"] < one["candidate"]["flops"] for one in bundle.candidates["members"])
    assert bundle.candidates["study"][0]["origin"] == "portfolio"
    assert manifest.lineage.cpu_seconds > 0
    assert sum(bundle.candidates["search"].values()) == 3
    assert max(bundle.candidates["parity"].values()) < 1e-4
    pictures = {name.removeprefix("figures/") for name in manifest.files if name.startswith("figures/")}
    assert {"network-1.png", "search.png", "pareto.png"} <= pictures
    shown = (bundle.folder / "card.md").read_text(encoding="utf-8")
    assert all(f"](figures/{name})" in shown for name in pictures)
    assert "## The ten criteria" in shown
    Scorer.load(bundle).self_test()


def test_the_end_of_a_search_is_inside_its_budget(tmp_path: Path) -> None:
    """The trials' deadline is earlier than the end of what the user gave; both know what a killed session has used."""
    seen: list[Progress] = []
    tmp_path.joinpath(SPENT).write_text("10.00 3.00")
    budget = Budget(time.monotonic(), 3, 60.0, 0, 0, *kept_seconds(60.0, refit=False))
    session = Session(small_task(), tmp_path, budget, None, seen.append)
    assert (session.end - budget.begin, session.deadline - budget.begin) == pytest.approx((50.0, 44.0))
    session.stage("export", "one graph")
    assert seen[0].seconds_left == pytest.approx(50.0, abs=1.0)
    assert budget.told == "; the last 6 s are kept for ensemble, graph and card"
    assert Budget(0.0, 3, 60.0, 0).told == ""
    assert kept_seconds(10.0, refit=False)[0] == 2.0


def test_no_more_workers_than_cores(tmp_path: Path) -> None:
    budget = Budget(time.monotonic(), 3, 60.0, 0)
    for asked, started in ((1, 1), (10_000, cores())):
        assert Session(small_task(workers=asked), tmp_path, budget, None, silent).workers == started


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_no_more_workers_than_cores_that_the_process_is_held_to(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        session = Session(small_task(workers=2), tmp_path, Budget(time.monotonic(), 3, 60.0, 0), None, silent)
        assert session.workers == 1
    finally:
        os.sched_setaffinity(0, before)


def test_what_is_made_ahead_is_what_the_end_would_make(tmp_path: Path) -> None:
    """The boosted reference of a table, by a thread; images have to wait for the graph."""
    task = small_task()
    material = gather(task, make_frame(ROWS), ())
    made = Ahead(material, seed=0).boosted()
    own = fit_boosted(material.frame, material.schema, material.target, task.target, material.parts, seed=0)
    assert made is not None
    assert (made.metrics, made.rounds) == (own.metrics, own.rounds)


def test_a_search_that_is_interrupted_does_not_wait_for_what_is_made_ahead() -> None:
    """And what goes wrong there is raised where it is asked for."""
    material = gather(small_task(), make_frame(ROWS), ())
    ahead = Ahead(replace(material, frame=material.frame.drop(columns=material.task.target)), seed=0)
    assert all(one.daemon for one in threading.enumerate() if one.name == "ahead")
    with pytest.raises(KeyError, match=material.task.target):
        ahead.boosted()


def test_what_paused_ends_as_if_it_never_had_though_its_worker_dies(tmp_path: Path) -> None:
    """The portfolio's networks under halving and without early stopping: those that are finished are the same, to the
    last bit of their weights. One worker dies as it has just come to the second rung; one paused training is lost."""
    trials, frame = 6, make_frame(ROWS)

    def prepared(stopping: str) -> Worker:
        session = Session(
            small_task(stopping=stopping, max_epochs=30, choices={"epochs": {"fixed": 30}}),
            tmp_path / stopping,
            Budget(time.monotonic(), trials, 600.0, 0),
            None,
            silent,
        )
        session.folder.mkdir()
        session._ready(gather(session.task, frame, ()))
        return Worker(session.folder, 0)

    prepared("none").run()
    worker = prepared("halving")
    while (asked := worker._ask()) and asked[0].user_attrs[ORIGIN] == "portfolio":
        worker._try(*asked, time.monotonic())
    trial, candidate = asked
    first = trial.user_attrs[FINISHES]
    seed = worker.plan.seed * 10_000 + first
    assert worker._train(trial, candidate, worker._network(trial, candidate, seed)[0], seed, take(worker.folder, first))
    kept = sorted(int(path.stem) for path in (worker.folder / PAUSED).iterdir())
    assert len(kept) == trials
    (worker.folder / PAUSED / f"{next(one for one in kept if one != first)}.safetensors").write_bytes(b"torn")
    recover(worker.study, worker.folder, [os.getpid()])
    worker.run()

    whole = {one.seed: one for one in plans.read_results(tmp_path / "none")}
    went_on = [one for one in plans.read_results(worker.folder) if one.origin == "finish"]
    assert {one.state for one in went_on} == {"pruned", "complete"}
    assert {len(one.history) for one in went_on if one.state == "pruned"} == {6}
    for one in went_on:
        same = whole[one.seed]
        assert one.history == same.history[: len(one.history)]
        if one.state == "complete":
            assert (one.history, one.score, one.best_epoch) == (same.history, same.score, same.best_epoch)
            paused, never = (
                (plans.trial_folder(tmp_path / name, number) / plans.WEIGHTS).read_bytes()
                for name, number in (("halving", one.number), ("none", same.number))
            )
            assert paused == never
            assert take(worker.folder, one.seed) is None


def test_a_child_begins_with_the_weights_of_a_parent_that_began_with_its_own(tmp_path: Path) -> None:
    """A child's child does not, however alike the networks are."""
    task = small_task(stopping="none", max_epochs=1, workers=1)
    session = Session(task, tmp_path / "study", Budget(time.monotonic(), 9, 600.0, 0), None, silent)
    session.folder.mkdir()
    session._ready(gather(task, make_frame(200), ()))
    worker = Worker(session.folder, 0)
    first, *others = worker.study.trials
    params, count = first.system_attrs["fixed_params"], len(others) + 1
    for decay, parent in ((0.1, 0), (0.2, count), (0.3, 0)):
        worker.study.enqueue_trial({**params, "weight_decay": decay}, user_attrs={PARENT: parent})
    worker.run()
    inherited = [one.inherited for one in plans.read_results(session.folder)]
    assert inherited == [False] * count + [True, False, True]


def test_a_dead_worker_is_replaced_and_its_trial_runs_again(tmp_path: Path) -> None:
    task, frame, killed = small_task(), make_frame(ROWS), []

    def kill_one(progress: Progress) -> None:
        if progress.stage == "search" and progress.finished >= 1 and not killed:
            for server in children(MODULE):
                workers = server.children()
                workers[0].kill()
                killed.append(workers[0].pid)

    session = Session(task, tmp_path / "study", Budget(time.monotonic(), 8, 90.0, 0), None, kill_one)
    session.run(frame)
    assert killed
    assert len(plans.read_results(tmp_path / "study")) == 8


_SEARCH_IN_A_PROCESS = """
import sys
from pathlib import Path
from retrain.search.session import search
from tests.handmade import make_frame
from tests.retrain.test_session import ROWS, small_task
folder = Path(sys.argv[1])
search(small_task(), make_frame(ROWS), folder=folder, out=folder / "bundle", trials=400, seconds=300, seed=0)
"""


def test_a_killed_search_resumes_with_all_it_had_finished(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _SEARCH_IN_A_PROCESS, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        results = _wait_for_results(tmp_path, process)
        with pytest.raises(BusyError, match=str(process.pid)):
            search(small_task(), make_frame(ROWS), folder=tmp_path, out=tmp_path / "other", trials=1, seconds=1, seed=0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {result.number: result for result in plans.read_results(only(tmp_path))}
    assert set(results) <= set(before)
    budget = len(before) + 2
    home = only(tmp_path)
    spent = read_spent(home)
    assert min(spent) > 0
    Session(small_task(), home, Budget(time.monotonic(), budget, 300.0, 0), None, silent).run(make_frame(ROWS))
    assert all(now > then for now, then in zip(read_spent(home), spent, strict=True))
    after = {result.number: result for result in plans.read_results(home)}
    assert {number: after[number] for number in before} == before
    assert len(after) >= budget


def test_a_queue_that_a_kill_left_half_filled_is_filled_anew(tmp_path: Path) -> None:
    queues = []
    for name in ("whole", "killed"):
        session = Session(small_task(), tmp_path / name, Budget(time.monotonic(), 9, 60.0, 0), None, silent)
        session.folder.mkdir()
        material = gather(session.task, make_frame(ROWS))
        if name == "killed":
            begun = open_study(session.folder, greater_is_better=True)
            begun.enqueue_trial(queues[0][0])
        study = session._ready(material)
        queues.append([one.system_attrs["fixed_params"] for one in study.trials])
    assert len(queues[0]) > 1
    assert queues[0] == queues[1]
    study.ask()
    assert len(session._ready(material).trials) == len(queues[1]) + 1, "one that was begun is gone on with"


def _wait_for_results(folder: Path, process: subprocess.Popen[bytes]) -> list[int]:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        found = [int(path.parent.name) for path in folder.glob("*/trials/*/result.json") if path.parent.name.isdigit()]
        if len(found) >= 2:
            return found
        time.sleep(0.05)
    raise AssertionError("the search gave no results")


def test_other_data_and_other_questions_begin_a_fresh_study() -> None:
    task, frame = small_task(), make_frame(100)
    names = {
        fingerprint(task, hash_frame(frame), 0, None),
        fingerprint(task, hash_frame(frame.iloc[1:]), 0, None),
        fingerprint(task, hash_frame(frame.assign(amount=frame["amount"] + 1e-9)), 0, None),
        fingerprint(small_task(max_epochs=4), hash_frame(frame), 0, None),
        fingerprint(task, hash_frame(frame), 1, None),
    }
    assert len(names) == 5
    assert fingerprint(small_task(workers=5, trials=2), hash_frame(frame.copy()), 0, None) in names


def test_fatal_findings_stop_before_any_training(tmp_path: Path) -> None:
    frame = make_frame(200).assign(late="yes")
    with pytest.raises(DataError, match="late"):
        search(small_task(), frame, folder=tmp_path, out=tmp_path / "out", trials=1, seconds=5, seed=0)
    assert children(MODULE) == []
    assert not (tmp_path / "out").exists()


def test_an_unknown_strategy_or_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="unknown strategy"):
        search(
            small_task(strategy="tpee"),
            make_frame(10),
            folder=tmp_path,
            out=tmp_path / "o",
            trials=1,
            seconds=1,
            seed=0,
        )
    with pytest.raises(TaskError, match="unknown stopping policy"):
        search(
            small_task(stopping="ahsa"),
            make_frame(10),
            folder=tmp_path,
            out=tmp_path / "o",
            trials=1,
            seconds=1,
            seed=0,
        )


def test_what_was_spent_is_kept_beside_the_study(tmp_path: Path) -> None:
    assert read_spent(tmp_path) == (0.0, 0.0)
    (tmp_path / SPENT).write_text("12.50")  # a study of an earlier version
    assert read_spent(tmp_path) == (12.5, 0.0)
    write_spent(tmp_path, 20.0, 7.25)
    assert read_spent(tmp_path) == (20.0, 7.25)


def test_a_crew_that_keeps_dying_says_what_it_died_of(tmp_path: Path) -> None:
    crew = Crew(tmp_path, 0)
    (tmp_path / "workers" / "0.log").write_text("MemoryError\n")
    with pytest.raises(OutsideError, match="MemoryError"):
        crew.replace(SPARE + 1)


def test_choices_and_marks_are_written_at_once_and_in_their_order(tmp_path: Path) -> None:
    """Another process sees none of them until they are written; what is told in between comes after them."""
    mine = open_study(tmp_path, greater_is_better=True)
    other = open_study(tmp_path, greater_is_better=True)
    with together(mine):
        first = mine.ask()
        assert first.suggest_int("depth", 1, 3) in (1, 2, 3)
        first.set_user_attr("run", "a")
        assert [(one.params, one.user_attrs) for one in other.trials] == [({}, {})]
        mine.tell(first, state=TrialState.FAIL)
        assert other.trials[0].params == first.params
        assert (other.trials[0].state.name, other.trials[0].user_attrs) == ("FAIL", {"run": "a"})
        second = mine.ask()
        second.suggest_float("rate", 0.0, 1.0)
        theirs = other.ask()
        theirs.suggest_int("depth", 1, 3)
        assert (second.number, theirs.number) == (1, 2)
    again = open_study(tmp_path, greater_is_better=True).trials
    assert [one.params for one in again] == [first.params, second.params, theirs.params]


def test_a_torn_line_is_cut_from_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / JOURNAL
    journal.write_bytes(b'{"op": 1}\n{"op": ')
    lock = KernelLock(journal)
    lock.acquire()
    lock.release()
    assert journal.read_bytes() == b'{"op": 1}\n'
    cut_torn_line(journal)
    assert json.loads(journal.read_text()) == {"op": 1}
