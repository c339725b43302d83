"""Everfit's ladder on real streams, prequentially, beside models that are always retrained.

    EVERFIT_DATA=FOLDER python -m benchmarks.streams [--rivals-python PATH] [--streams elec2 ...] [--seeds 0 1 2]
                                 [--ladder follow+research] [--champions FOLDER] [--out FILE]

The first 20 % of a stream's rows are there from the beginning; then come blocks of 1 % (30 rows at least): each is
predicted, and its labels come one block late. Accuracy over all blocks; R2 for the two with numbers. Everfit searches
once on the first rows and is then left to its own flows without HTTP, as in a back-test: every block is a window, the
policy is the same for all streams (below). What it costs is counted apart: the first search; the remedies with their
gates; the watching. A retraining of Everfit's is a challenger that was trained, whether it was promoted or not, or a
step of a champion that follows. The procedure of the rung `follow` is also played alone, from the first block on and
without a gate.

Rivals (in an interpreter with scikit-learn and river, one thread): boosted trees fitted anew before every block on
the newest fifth, the newest five blocks or all rows; an MLP that sees every block twice; trees fitted anew when ADWIN
rings; river's adaptive random forest with labels as late as everybody's; trees and MLP that never learn again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.streams_data import FILES, TARGET, StreamData, read, scores
from flows.backtest import first_champion, place_of, prepare, progress_of, run
from flows.spending import KINDS, spending
from flows.workplace import Workplace
from monitor.measurements import WindowRecord
from registry.bundle import ModelBundle
from registry.energy import cpu_seconds
from registry.policies import FalseAlarms, Gate, PerformancePolicy
from registry.scoring import Scorer
from registry.task import FileSource, Monitor, Research, RowWindows, Search, Splits, TaskSpec
from retrain.following import Trail, follow, lessons
from retrain.renewal import Request

MOMENT = "moment"
START = np.datetime64("2024-01-01T00:00:00", "us")
POLICY = PerformancePolicy(tolerate=0.01, false_alarms=FalseAlarms(number=1, windows=100), refresh=8)
PIECE = 10
"""Steps whose answers a race surely remembers: blocks of 1 % of half a million rows."""
RIVALS = Path(__file__).with_name("streams_rivals.py")
ALWAYS = "each block"
EVERFIT, FROZEN, UNGATED = "Everfit, ladder", "Everfit, frozen", "Everfit, follow ungated"


def task_of(data: StreamData, path: Path, seed: int, policy: PerformancePolicy = POLICY) -> TaskSpec:
    """The task of a stream: one policy and one budget for all."""
    classes = data.target.iloc[: data.begin].nunique()
    problem = "regression" if data.regression else "binary" if classes == 2 else "multiclass"
    return TaskSpec(
        name=data.name.replace("_", "-"),
        source=FileSource(path=str(path)),
        target=TARGET,
        time=MOMENT,
        problem=problem,
        metric="r2" if data.regression else "accuracy",
        columns={"exclude": (MOMENT,)},
        search=Search(trials=12, seconds=45, seed=seed),
        research=Research(
            trials=6,
            seconds=20,
            splits=Splits(validation=0.08, calibration=0.05, test=0.04, spread=3.0),
            max_fresh_rows=max(200, 3 * data.size),
        ),
        monitor=Monitor(windows=RowWindows(rows=data.size), min_labels=20, report="never", yardstick_rows=0),
        policy=policy,
        gate=Gate(min_rows=60, calibration_tolerance=0.1, latency_ratio=10),
    )


def everfit(
    data: StreamData, folder: Path, seed: int, policy: PerformancePolicy = POLICY, champions: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The ladder, and the first champion left alone, on a stream. The first champion is taken from `champions` where it
    is there, so that several ladders begin with the same one; else it is searched, and left there."""
    moments = START + np.timedelta64(1, "m") * np.arange(len(data.target))
    path = folder / "rows.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    data.inputs.assign(**{TARGET: data.target, MOMENT: moments}).to_parquet(path, index=False)
    start, delay = moments[data.begin].item(), timedelta(minutes=data.size)
    task = task_of(data, path, seed, policy)
    plan = prepare(folder / "backtest", task, {"ladder": policy}, start=start, delay=delay)
    first, kept = folder / "backtest" / "first", champions and champions / f"{data.name}-{seed}"
    if kept is not None and kept.is_dir():
        shutil.copytree(kept, first)
    champion = first_champion(folder / "backtest", plan, lambda progress: None)
    if kept is not None and not kept.is_dir():
        shutil.copytree(first, kept)
    run(folder / "backtest", plan, parallel=1, tell=lambda name, judged: None)
    place, progress = place_of(folder / "backtest", plan, 0), progress_of(folder / "backtest", 0)
    assert progress is not None
    truth = data.target.to_numpy()
    said = np.empty(len(truth), dtype=float if data.regression else object)
    logged = place.log.frame(columns=[])
    places = ((logged["__time__"].to_numpy() - START) / np.timedelta64(1, "m")).astype(int)
    said[places] = logged["__prediction__"].to_numpy()
    frozen = said.copy()
    frozen[data.begin :] = (
        Scorer.load(champion)
        .predict(data.inputs.iloc[data.begin :].assign(**{MOMENT: moments[data.begin :]}))
        .prediction
    )
    remedies = place.ledger.read(kinds={"remedy"})
    steps = [one for one in place.ledger.read(kinds={"follow"}) if one.outcome == "continued"]
    made = [one.details["remedy"] for one in remedies if one.outcome == "registered"]
    spent = spending(place.ledger.costs(KINDS)).cpu
    watching = sum(step.cpu for step in progress.steps) - spent
    promoted = place.ledger.read(kinds={"promotion"})[1:]
    by_version = {one.version: one.details["remedy"] for one in remedies}
    told = {
        "fits": sum(one != "recalibrate" for one in made) + len(steps),
        "steps": len(steps),
        "cpu": spent,
        "watching": watching,
        "search": champion.manifest.lineage.seconds,
        "made": {name: made.count(name) for name in dict.fromkeys(made)},
        "promoted": [by_version.get(one.version, "?") for one in promoted],
        "blocks": [step.index for step in progress.steps if step.champion != step.version],
        "coverage": coverage(place),
        "severities": "".join(step.severity[:1] for step in progress.steps),
    }
    alone, cpu = ungated(data, champion, moments, folder / "alone.safetensors")
    steps_alone = {"fits": len(data.blocks) - 1, "cpu": cpu}
    return {
        UNGATED: {**scores(truth, alone, data.blocks, regression=data.regression), **steps_alone},
        EVERFIT: {**scores(truth, said, data.blocks, regression=data.regression), **told},
        FROZEN: {**scores(truth, frozen, data.blocks, regression=data.regression), "fits": 0, "cpu": 0.0},
    }


def ungated(data: StreamData, champion: ModelBundle, moments: np.ndarray, trail: Path) -> tuple[np.ndarray, float]:
    """What the models that follow a champion answer to each block, and the CPU-seconds of that. A race remembers its
    newest answers alone, so it is played in pieces, from trail to trail."""
    began, rows = cpu_seconds(), slice(data.begin, data.blocks[-1].stop)
    known = {TARGET: data.target.iloc[rows], MOMENT: moments[rows]}
    frame = data.inputs.iloc[rows].assign(**known).reset_index(drop=True)
    windows = np.arange(len(frame)) // data.size + 1
    arrived = moments[rows] + np.timedelta64(data.size, "m")
    ends = [moments[block.start] for block in data.blocks]
    asked = Request(champion.manifest.task, champion, "1", frame, Path("unused"))
    steps, before = lessons(windows, arrived, ends), None
    said = np.empty(len(data.target), dtype=float if data.regression else object)
    for begin in range(0, len(steps), PIECE):
        chain = follow(asked, steps[begin : begin + PIECE], before=before)
        said[data.begin + chain.answered] = chain.answers.prediction
        chain.keep(trail, champion, moments[rows][-1].item())
        before = Trail.load(trail, champion)
    return said, cpu_seconds() - began


def coverage(place: Workplace) -> float:
    """The share of labels inside of the sets or intervals that were served, over all windows (their last records)."""
    entries = place.ledger.read(kinds={"window"})
    records = {one.details["window"]["index"]: WindowRecord.model_validate(one.details) for one in entries}
    found = [one for record in records.values() for one in record.named("coverage") if one.value is not None]
    return sum(one.rows * (one.value or 0.0) for one in found) / max(1, sum(one.rows for one in found))


def rivals(python: Path, folder: Path, name: str, seed: int) -> dict[str, dict[str, Any]]:
    """All rivals on a stream, in their interpreter."""
    command = [str(python), "-W", "ignore", "-m", "benchmarks.streams_rivals", str(folder), name, str(seed)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """By stream and contender: score, spread over seeds, fits and CPU-seconds; then what the ladder reached."""
    lines = [f"{'stream':<13} {'contender':<31} {'score':>7} {'+/-':>6} {'fits':>6} {'CPU-s':>8}"]
    for stream in dict.fromkeys(one["stream"] for one in found):
        for name in dict.fromkeys(one["contender"] for one in found if one["stream"] == stream):
            runs = [one for one in found if (one["stream"], one["contender"]) == (stream, name)]
            values = [one["score"] for one in runs]
            spread = f"{stdev(values):.4f}" if len(values) > 1 else ""
            fits, cpu = (fmean(one[key] for one in runs) for key in ("fits", "cpu"))
            lines.append(f"{stream:<13} {name:<31} {fmean(values):>7.4f} {spread:>6} {fits:>6.1f} {cpu:>8.1f}")
    return "\n".join([*lines, "", *verdict(found)])


def verdict(found: Sequence[dict[str, Any]]) -> list[str]:
    """On how many streams the ladder is where it should be."""
    mean: dict[tuple[str, str], dict[str, float]] = {}
    for key in dict.fromkeys((one["stream"], one["contender"]) for one in found):
        runs = [one for one in found if (one["stream"], one["contender"]) == key]
        mean[key] = {what: fmean(one[what] for one in runs) for what in ("score", "fits", "cpu")}
    streams = [stream for stream, name in mean if name == EVERFIT]
    best, cheap, forest, static, frozen = 0, 0, 0, 0, []
    for stream in streams:
        mine = mean[stream, EVERFIT]
        always = [one for (other, name), one in mean.items() if other == stream and ALWAYS in name]
        frozen.append(mine["score"] - mean[stream, FROZEN]["score"])
        if not always:
            continue
        top = max(always, key=lambda one: one["score"])
        best += mine["score"] >= top["score"]
        cheap += mine["fits"] <= top["fits"] / 5 and mine["cpu"] <= top["cpu"] / 5
        forest += mine["score"] > mean[stream, "ARF"]["score"]
        static += mine["score"] >= mean[stream, "trees, static"]["score"] - 0.01
    n = len(streams)
    return [
        f"gain over its own first champion: {fmean(frozen):+.4f} on average, {min(frozen):+.4f} at least",
        f"at least as good as the best always-retrained rival: {best} of {n}; at a fifth of its fits and CPU: {cheap}",
        f"above ARF with labels as late: {forest} of {n}; at most a point below static trees: {static} of {n}",
    ]


def main() -> None:
    """Streams by seeds."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rivals-python", type=Path)
    asked.add_argument("--streams", nargs="+", choices=FILES, default=list(FILES))
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--ladder", help="its rungs, with + between them, instead of the default ones")
    asked.add_argument("--champions", type=Path, help="where first champions are left, and taken from")
    asked.add_argument("--out", type=Path, help="results, a JSON object a line: added to")
    given = asked.parse_args()
    policy = PerformancePolicy(
        **POLICY.model_dump(exclude={"ladder"}), **({"ladder": given.ladder} if given.ladder else {})
    )
    if not (home := os.environ.get("EVERFIT_DATA")):
        print("streams: skipped, EVERFIT_DATA names no folder of data")
        return
    found: list[dict[str, Any]] = []
    for name in given.streams:
        for seed in given.seeds:
            data = read(Path(home), name)
            with tempfile.TemporaryDirectory() as made:
                results = everfit(data, Path(made), seed, policy, given.champions)
            if given.rivals_python:
                results |= rivals(given.rivals_python, Path(home), name, seed)
            new = [{"stream": name, "seed": seed, "contender": one, **told} for one, told in results.items()]
            found += new
            print(table(new).split("\n\n")[0], file=sys.stderr, flush=True)
            if given.out:
                with given.out.open("a") as file:
                    file.writelines(json.dumps(one) + "\n" for one in new)
    print(table(found))


if __name__ == "__main__":
    main()
