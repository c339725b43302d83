"""How long one monitoring pass takes, beside Evidently's drift preset over the same rows.

    python -m benchmarks.watching [--rows 50000] [--columns 20] [--repeat 5] [--long ROWS ...] [--hours 12]

Fills an inference log on SQLite by `append_batches`, a label for every row, then runs each contender in fresh
processes, in turn. What is timed: Everfit reads the log, measures every window, writes the ledger and decides (no
HTML); Evidently gets the same rows as a frame that is already in memory, and judges drift alone.

With --long it is Everfit alone instead, on logs of so many rows, one a second, in windows of half a day (43,200 rows)
or of so many hours. A pass over all of it, then one that finds a window more, each in a process of its own: seconds and
peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper
from sqlalchemy import Engine

from registry.bundle import LABEL, Estimate, Lineage, Manifest, ModelBundle
from registry.database import open_engine, to_micros
from registry.inference_log import Feedback, InferenceLog
from registry.ledger import Ledger
from registry.log_batch import Batch
from registry.schema import CategoricalColumn, Column, NumericColumn, Schema
from registry.target import Target
from registry.task import TaskSpec

TASK, START, END = "watching", datetime(2024, 1, 1), datetime(2024, 2, 1)
REFERENCE_ROWS = 5_000
SECOND, HALF_DAY, HOUR = timedelta(seconds=1), 43_200, 3_600


def make_rows(rows: int, columns: int, seed: int) -> pd.DataFrame:
    """A fifth of the columns categorical, the others numeric with 2 % missing; the label follows the first."""
    rng = np.random.default_rng(seed)
    names = [f"c{number:02d}" for number in range(columns)]
    data = {name: rng.normal(size=rows) for name in names}
    for name in names[1:]:
        data[name][rng.random(rows) < 0.02] = np.nan
    frame = pd.DataFrame(data)
    for name in names[-(columns // 5) :]:
        frame[name] = rng.choice([f"value-{k}" for k in range(12)], rows)
    frame["p"] = 1 / (1 + np.exp(-2 * frame[names[0]]))
    frame["label"] = np.where(rng.random(rows) < frame["p"], "yes", "no")
    return frame


def make_bundle(folder: Path, frame: pd.DataFrame, every: str = "7d") -> ModelBundle:
    """A sealed bundle around reference rows; its graph is never run."""
    folder.mkdir()
    names = [name for name in frame if name not in ("p", "label")]
    schema = Schema(columns=tuple(_column(name, frame[name]) for name in names))
    outputs = {"prediction": np.where(frame["p"] > 0.5, "yes", "no"), "probabilities": _pairs(frame["p"])}
    outputs |= {"set": [[True, True]] * len(frame), "uncertainty": frame["p"], "disagreement": 0.01 * frame["p"]}
    frame[names].assign(**{LABEL: frame["label"], **outputs}).to_parquet(folder / "reference.parquet")
    info = helper.make_tensor_value_info
    node, inputs, results = (
        helper.make_node("Identity", ["x"], ["y"]),
        info("x", TensorProto.FLOAT, [1]),
        info("y", TensorProto.FLOAT, [1]),
    )
    onnx.save(helper.make_model(helper.make_graph([node], "none", [inputs], [results])), folder / "model.onnx")
    for name in ("weights.safetensors", "candidates.json", "card.md"):
        (folder / name).write_text("{}")
    lineage = Lineage(data_hash="0" * 64, rows={}, code_version="", seed=0, seconds=0, trials=0)
    task = TaskSpec.model_validate(
        {
            "name": TASK,
            "source": {"kind": "file", "path": "none.csv"},
            "target": "label",
            "problem": "binary",
            "metric": "auc",
            "monitor": {"windows": {"kind": "time", "every": every}, "report": "never"},
        }
    )
    manifest = Manifest(
        task=task,
        data_schema=schema,
        target=Target(problem="binary", classes=("no", "yes")),
        reference=Estimate(value=0.87, error=0.005, rows=len(frame)),
        headroom=Estimate(value=0.003, error=0.002, rows=len(frame)),
        metrics={"champion": {"auc": 0.87}, "boosted": {"auc": 0.86}},
        conformal_radius=0.8,
        lineage=lineage,
    )
    return ModelBundle.seal(folder, manifest)


def _column(name: str, values: pd.Series) -> Column:
    if pd.api.types.is_numeric_dtype(values):
        return NumericColumn(name=name, low=float(values.min()), high=float(values.max()), missing=0.02)
    return CategoricalColumn(name=name, categories=tuple(values.value_counts().index), distinct=values.nunique())


def _pairs(positive: pd.Series) -> list[list[float]]:
    return np.column_stack([1 - positive, positive]).tolist()


def fill(log: InferenceLog, frame: pd.DataFrame, first: int = 0, step: timedelta | None = None) -> None:
    """Log all rows in batches, with a label each: between START and END, or the `first` of them so many steps after
    START."""
    names = [name for name in frame if name not in ("p", "label")]
    records = frame[names].astype(object).where(frame[names].notna(), None).to_dict("records")
    step = step or (END - START) / len(frame)
    numbers = range(first, first + len(frame))
    times = [START + number * step for number in numbers]
    labels = [Feedback(str(i), label, at, at) for i, at, label in zip(numbers, times, frame["label"], strict=True)]
    for start in range(0, len(frame), 5_000):
        part = slice(start, start + 5_000)
        log.append_batches([_batch(numbers[part], times[part], records[part], frame["p"].tolist()[part])])
        log.add_feedback(labels[part])


def _batch(numbers: range, times: list[datetime], records: list[dict[str, Any]], positive: list[float]) -> Batch:
    """The champion's answers to so many rows."""
    at, said = [to_micros(one) for one in times], ["yes" if p > 0.5 else "no" for p in positive]
    scores, errors = [[1 - p, p] for p in positive], [0.01 * p for p in positive]
    sets = [[0, 1]] * len(at)
    return Batch("1", "champion", list(map(str, numbers)), at, at, records, said, scores, sets, positive, errors)


def everfit(folder: Path, number: int) -> dict[str, float]:
    """One pass over the log, with a ledger in which no window has been measured."""
    from monitor.watching import watch

    bundle, log = ModelBundle.load(folder / "bundle"), InferenceLog(_store(folder / "log.db"), TASK)
    ledger = Ledger(_store(folder / f"ledger{number}.db"), TASK)
    began, cpu = time.perf_counter(), time.process_time()
    found = watch(bundle.manifest.task, bundle, "1", log, ledger, as_of=END + timedelta(days=7))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "windows": len(found.records), "run": number}


def long_pass(folder: Path, number: int) -> dict[str, float]:
    """A pass that is due after so many rows, with the ledger of the passes before."""
    from monitor.watching import watch

    bundle, log = ModelBundle.load(folder / "bundle"), InferenceLog(_store(folder / "log.db"), TASK)
    ledger, before = Ledger(_store(folder / "ledger.db"), TASK), _peak()
    began = time.perf_counter()
    found = watch(bundle.manifest.task, bundle, "1", log, ledger, as_of=START + number * SECOND)
    seconds, rows = time.perf_counter() - began, sum(record.window.rows for record in found.records)
    return {"seconds": seconds, "windows": len(found.records), "rows": rows, "before": before, "peak": _peak()}


def _peak() -> float:
    """Most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def long_history(folder: Path, rows: int, columns: int, hours: int) -> None:
    """Both passes on a log of so many rows and one window more."""
    make_bundle(folder / "bundle", make_rows(REFERENCE_ROWS, columns, 0), every=f"{hours}h")
    log, window = InferenceLog(_store(folder / "log.db"), TASK), hours * HOUR
    rows = -(-rows // window) * window
    for seed, first in enumerate(range(0, rows + window, HALF_DAY), start=1):
        fill(log, make_rows(min(HALF_DAY, rows + window - first), columns, seed), first, SECOND)
    for name, until in (("all of it", rows), ("a window more", rows + window)):
        found = _alone("long", folder, until)
        print(
            f"{found['rows']:>9,.0f} of {until:,} rows ({name}): {found['windows']:.0f} windows, "
            f"{found['seconds']:.1f} s, peak memory {found['peak']:,.0f} MiB, {found['before']:,.0f} before it",
            flush=True,
        )


def evidently(folder: Path, number: int) -> dict[str, float]:
    """Evidently's drift preset over the same rows and the same reference, from memory; its import is not timed."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    current, reference = (
        pd.read_parquet(folder / f"{name}.parquet").drop(columns=["p", "label"]) for name in ("rows", "reference")
    )
    numeric = [name for name in current if pd.api.types.is_numeric_dtype(current[name])]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=[n for n in current if n not in numeric])
    began, cpu = time.perf_counter(), time.process_time()
    sides = [Dataset.from_pandas(one, data_definition=definition) for one in (current, reference)]
    Report([DataDriftPreset()]).run(*sides).dict()
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "run": number}


def _store(path: Path) -> Engine:
    return open_engine(f"sqlite:///{path}")


def _alone(name: str, folder: Path, number: int) -> dict[str, float]:
    """One contender in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.watching",
        "--contender",
        name,
        str(folder),
        str(number),
    ]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "DO_NOT_TRACK": "true"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def prepare(folder: Path, rows: int, columns: int) -> None:
    """Bundle, log and frames in a folder."""
    reference, current = make_rows(REFERENCE_ROWS, columns, 0), make_rows(rows, columns, 1)
    reference.to_parquet(folder / "reference.parquet")
    current.to_parquet(folder / "rows.parquet")
    make_bundle(folder / "bundle", reference)
    fill(InferenceLog(_store(folder / "log.db"), TASK), current)


def show(name: str, runs: list[dict[str, float]]) -> float:
    """Print a contender's spread; returns its median."""
    seconds = [run["seconds"] for run in runs]
    middle = statistics.median(seconds)
    cpu = statistics.median(run["cpu"] for run in runs)
    print(
        f"{name:28} min {min(seconds):6.2f} s   median {middle:6.2f} s   max {max(seconds):6.2f} s   CPU {cpu:6.2f} s"
    )
    return middle


def main() -> None:
    """Run the benchmark, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--long", nargs="+", type=int, default=[], metavar="ROWS")
    parser.add_argument("--hours", type=int, default=12, help="of a window in a long history")
    parser.add_argument("--contender", nargs=3, metavar=("NAME", "FOLDER", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    contenders = {"everfit": everfit, "evidently": evidently}
    if options.contender:
        name, folder, number = options.contender
        print(json.dumps({**contenders, "long": long_pass}[name](Path(folder), int(number))))
        return
    for rows in options.long:
        with tempfile.TemporaryDirectory() as made:
            long_history(Path(made), rows, options.columns, options.hours)
    if options.long:
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder, options.rows, options.columns)
        runs = [{name: _alone(name, folder, number) for name in contenders} for number in range(options.repeat)]
    windows = int(runs[0]["everfit"]["windows"])
    print(f"{options.rows:,} rows x {options.columns} columns, {windows} windows, {options.repeat} runs in turn")
    ours = show("Everfit, watch pass", [run["everfit"] for run in runs])
    theirs = show("Evidently, DataDriftPreset", [run["evidently"] for run in runs])
    print(f"Evidently / Everfit: {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
