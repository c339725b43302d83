"""How near an estimate without labels comes to what comes true: Everfit's beside NannyML's CBPE and DLE.

    EVERFIT_DATA=FOLDER python -m benchmarks.estimation [--rivals-python PYTHON] [--seeds 3] [--out FILE]
                                                        [--part test|development]

On each stream of FOLDER/streams, in time order, a boosted model is fitted to the first 20 % of the rows, a temperature
(or, for numbers, a spread) to a fifth of these that were held back. The next 15 % are the labelled reference. Windows
are of 1 % of the rows, at least 100, for flights calendar months; `test` takes those of the last 40 %, `development`,
on which all choices were made, those between 35 % and 60 %. Everybody gets the same reference, windows, outputs and,
NannyML's defaults apart, nothing else; NannyML runs in an interpreter of its own (`estimation_rivals.py`).

What is reported, over windows and model seeds: the mean absolute error of the estimate against the realised metric,
how often the realised metric was in the interval, and half of the mean width of the latter. The first line of Everfit's
knows no label after the reference, as NannyML's; the others those of the windows before, one or five windows late, as
they come in practice (`outlook.py`): from the first window that counts, or since the reference ended, which for `test`
is 25 % of the rows earlier. Without labels Everfit's interval is of 95 %, shortened by 1.645 / 1.96 also of 90 %;
NannyML's is what it calls the sampling error's, 3 standard errors either way, shortened in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from monitor.estimated import Estimated
from monitor.gap import Missed
from monitor.measurements import Measurement, Window, WindowRecord
from monitor.outlook import outlook
from monitor.views import Side, View
from registry.bundle import Estimate, Lineage, Manifest
from registry.metrics import METRICS
from registry.schema import Column, NumericColumn, Schema
from registry.scoring import Scores
from registry.target import Target
from registry.task import TaskSpec

Array = npt.NDArray[np.float64]

_ENDS = ("low", "high")

FITTED, KNOWN, CHOSEN = 0.20, 0.35, 0.60
LEAST_WINDOW = 100
NOMINAL = {"90": 1.645, "95": 1.96}
TAUGHT = {
    "Everfit, labels 1 window late, from here on": (1, False),
    "Everfit, labels 1 window late": (1, True),
    "Everfit, labels 5 windows late": (5, True),
}
"""By how many windows labels are late, and whether windows are watched since the reference ended."""
METRICS_OF = {"binary": ("accuracy", "auc"), "multiclass": ("accuracy", "auc"), "regression": ("mae", "rmse")}


@dataclass(frozen=True)
class Recipe:
    """A stream: its file, its problem, the columns that no model may see, and the column that cuts windows, if any."""

    file: str
    problem: str
    without: tuple[str, ...] = ("timestamp",)
    by: str = ""


RECIPES = {
    "car_loan": Recipe("nannyml_car_loan_SYNTHETIC", "binary", ("id", "timestamp", "y_pred_proba", "y_pred", "period")),
    "elec2": Recipe("elec2", "binary", ("timestamp", "date")),
    "gas_sensor": Recipe("gas_sensor", "multiclass", ("batch", "orig_row", "timestamp")),
    "flights": Recipe("nycflights13", "binary", ("timestamp", "flight", "tailnum"), by="month"),
    "bike_sharing": Recipe("bike_sharing_hour", "regression"),
    "chicago": Recipe("chicago_ridership", "regression"),
}


@dataclass(frozen=True)
class Stream:
    """Rows behind a fitted model: inputs as numbers (n, d), labels (n,), outputs; which are reference, and windows,
    those that count and those `before` them."""

    problem: str
    inputs: pd.DataFrame
    labels: npt.NDArray[Any]
    outputs: Array
    spread: Array
    reference: npt.NDArray[np.int64]
    windows: list[npt.NDArray[np.int64]]
    before: list[npt.NDArray[np.int64]]

    def side(self, rows: npt.NDArray[np.int64]) -> Side:
        """These rows as monitoring sees them."""
        known, outputs, spread = np.ones(len(rows), dtype=bool), self.outputs[rows], self.spread[rows]
        if self.problem == "regression":
            scores = Scores(outputs, spread, 0 * spread)
        else:
            scores = Scores(outputs.argmax(axis=1).astype(object), spread, 0 * spread, probabilities=outputs)
        return Side(self.inputs.iloc[rows].reset_index(drop=True), known, scores, self.labels[rows], known)


def read(folder: Path, recipe: Recipe, seed: int, part: str) -> Stream:
    """A stream and its model."""
    raw = pd.read_parquet(folder / "streams" / f"{recipe.file}.parquet")
    n, target = len(raw), raw["target"]
    known = raw.drop(columns=[*(set(recipe.without) & set(raw)), "target"])
    inputs = pd.DataFrame({name: _numbers(known[name]) for name in known})
    if recipe.by:
        labels: npt.NDArray[Any] = (target > 15).to_numpy().astype(np.int64)  # as the demo: 15 minutes late
    elif recipe.problem == "regression":
        labels = target.to_numpy(dtype=np.float64)
    else:
        labels = pd.Categorical(target).codes.astype(np.int64)
    fitted, first, chosen = (int(share * n) for share in (FITTED, KNOWN, CHOSEN))
    model = _numeric if recipe.problem == "regression" else _classes
    outputs, spread = model(inputs.to_numpy(), labels, fitted, seed)
    begin, end = (first, chosen) if part == "development" else (chosen, n)
    by = raw[recipe.by].to_numpy() if recipe.by else None
    windows, before = _windows(begin, end, by, n), _windows(first, begin, by, n)
    return Stream(recipe.problem, inputs, labels, outputs, spread, np.arange(fitted, first), windows, before)


def _windows(begin: int, end: int, by: npt.NDArray[Any] | None, n: int) -> list[npt.NDArray[np.int64]]:
    if by is not None:
        return _by_value(by, begin, end)
    size = max(LEAST_WINDOW, n // 100)
    return [np.arange(start, start + size) for start in range(begin, end - size + 1, size)]


def _numbers(values: pd.Series[Any]) -> Array:
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64)
    return pd.Categorical(values).codes.astype(np.float64)


def _by_value(values: npt.NDArray[Any], begin: int, end: int) -> list[npt.NDArray[np.int64]]:
    cuts = [begin, *(begin + 1 + np.flatnonzero(np.diff(values[begin:end]))), end]
    return [np.arange(a, b) for a, b in pairwise(cuts) if b - a >= 20 * LEAST_WINDOW]


def _split(rows: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(rows)
    return order[: rows * 4 // 5], order[rows * 4 // 5 :]


def _classes(inputs: Array, labels: npt.NDArray[Any], fitted: int, seed: int) -> tuple[Array, Array]:
    """Probabilities, softened by one temperature on the rows held back."""
    fit, held = _split(fitted, seed)
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(random_state=seed).fit(inputs[fit], labels[fit])
        p = np.full((len(inputs), int(labels.max()) + 1), 1e-6)
        p[:, model.classes_] = np.clip(model.predict_proba(inputs), 1e-6, 1)
    logits = np.log(p)

    def loss(temperature: float) -> float:
        return float(-np.log(_softmax(logits[held] / temperature)[np.arange(len(held)), labels[held]]).mean())

    found = _softmax(logits / minimize_scalar(loss, bounds=(0.3, 5), method="bounded").x)
    return found, 1 - found.max(axis=1)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _numeric(inputs: Array, labels: npt.NDArray[Any], fitted: int, seed: int) -> tuple[Array, Array]:
    """Predicted numbers, and a spread from the sizes of the residuals on the rows held back."""
    fit, held = _split(fitted, seed)
    with threadpool_limits(1):
        answers = HistGradientBoostingRegressor(random_state=seed).fit(inputs[fit], labels[fit]).predict(inputs)
        rest, both = np.abs(labels - answers), np.column_stack([inputs, answers])
        sizes = HistGradientBoostingRegressor(max_iter=50, learning_rate=0.05, random_state=seed)
        sizes.fit(both[held], np.log(rest[held] + 1e-3 * labels[:fitted].std()))
        spread = np.exp(sizes.predict(both))
    return answers, spread * np.sqrt((rest[held] ** 2).mean() / (spread[held] ** 2).mean())


def manifest_of(stream: Stream, metric: str) -> Manifest:
    """What a bundle of this model would say of itself."""
    columns: tuple[Column, ...] = tuple(
        NumericColumn(name=name, low=0.0, high=1.0, missing=0.0) for name in stream.inputs
    )
    classes = () if stream.problem == "regression" else tuple(f"class {k}" for k in range(stream.outputs.shape[1]))
    source = {"kind": "file", "path": "none.csv"}
    task = {"name": "estimation", "source": source, "target": "label", "problem": stream.problem, "metric": metric}
    known = Estimate(value=0.0, error=0.0, rows=len(stream.reference))
    lineage = Lineage(data_hash="0" * 64, rows={}, code_version="", seed=0, seconds=0, trials=0)
    return Manifest(
        task=TaskSpec.model_validate(task),
        data_schema=Schema(columns=columns),
        target=Target(problem=stream.problem, classes=classes),
        reference=known,
        headroom=known,
        metrics={},
        conformal_radius=0.8,
        lineage=lineage,
    )


Said = tuple[float, Mapping[str, tuple[float, float]]]
"""An estimate, and its bounds by their nominal coverage."""


def said(value: float | None, low: float | None, high: float | None) -> Said:
    """An estimate of which the bounds of 95 % are known."""
    known, *bounds = (_number(one) for one in (value, low, high))
    return known, {level: _pair(known + (end - known) * z / 1.96 for end in bounds) for level, z in NOMINAL.items()}


def _pair(ends: Iterable[float]) -> tuple[float, float]:
    low, high = ends
    return low, high


def everfit(stream: Stream, metric: str) -> dict[str, list[Said]]:
    """What is said of every window: without any label, and after those of the windows before."""
    reference, manifest = stream.side(stream.reference), manifest_of(stream, metric)
    memory: dict[str, Any] = {}
    records = []
    for index, rows in enumerate([*stream.before, *stream.windows]):
        view = View(stream.side(rows), reference, manifest, memory=memory)
        found = (*Estimated().measure(view), *Missed().measure(view))
        place = Window(index=index, start=datetime(2024, 1, 1), end=datetime(2024, 1, 2), rows=len(rows))
        records.append(WindowRecord(window=place, version="1", metric=metric, measurements=found))
    first = len(stream.before)
    alone = [record.measurements[0] for record in records[first:]]
    made = {"Everfit": [said(one.value, one.low, one.high) for one in alone]}
    return made | {who: taught(records, first, late, since) for who, (late, since) in TAUGHT.items()}


def taught(records: Sequence[WindowRecord], first: int, late: int, since: bool) -> list[Said]:
    """What is said of each window from `first` on, when the labels of the windows `late` before have come."""
    seen, out = records if since else records[first:], []
    by_level = {level: outlook(seen, coverage=int(level) / 100, late=late) for level in NOMINAL}
    for place in range(len(seen) - len(records) + first, len(seen)):
        ends = {level: each[place] or Measurement(name="outlook") for level, each in by_level.items()}
        bounds = {level: (_number(one.low), _number(one.high)) for level, one in ends.items()}
        out.append((_number(ends["95"].value), bounds))
    return out


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def rivals(python: str, stream: Stream) -> dict[str, list[Said]]:
    """NannyML's estimates and bounds, by metric."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = np.concatenate([stream.reference, *stream.windows])
        chunk = np.concatenate([np.full(len(r), k - 1) for k, r in enumerate([stream.reference, *stream.windows])])
        outputs = stream.outputs[rows].reshape(len(rows), -1)
        extra = {f"__output_{k}__": outputs[:, k] for k in range(outputs.shape[1])}
        extra |= {"__label__": stream.labels[rows], "__chunk__": chunk}
        pd.concat([stream.inputs.iloc[rows].reset_index(drop=True), pd.DataFrame(extra)], axis=1).to_parquet(
            folder / "rows.parquet"
        )
        (folder / "problem.json").write_text(json.dumps([stream.problem, METRICS_OF[stream.problem]]))
        quiet = os.environ | {"OMP_NUM_THREADS": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
        script = Path(__file__).with_name("estimation_rivals.py")
        subprocess.run([python, str(script), str(folder)], check=True, stdout=sys.stderr, env=quiet)
        found: dict[str, list[tuple[float, float, float]]] = json.loads((folder / "estimates.json").read_text())
        return {metric: [said(*one) for one in each] for metric, each in found.items()}


def rows_of(name: str, stream: Stream, seed: int, python: str | None) -> Iterator[dict[str, Any]]:
    """A row for every window, metric and contender."""
    by_name = {metric.name: metric for metric in METRICS}
    others = rivals(python, stream) if python else {}
    for metric in METRICS_OF[stream.problem]:
        contenders = everfit(stream, metric)
        if metric in others:
            contenders["NannyML"] = others[metric]
        for who, made in contenders.items():
            for index, (rows, (value, bounds)) in enumerate(zip(stream.windows, made, strict=True)):
                true = by_name[metric].value(stream.labels[rows], stream.outputs[rows])
                ends = {
                    f"{end}{level}": one for level, both in bounds.items() for end, one in zip(_ENDS, both, strict=True)
                }
                place = {"stream": name, "seed": seed, "metric": metric, "who": who, "window": index}
                yield place | {"true": true, "value": value} | ends


def table(frame: pd.DataFrame) -> str:
    """Mean absolute error and coverage by stream, metric and contender, as Markdown."""
    lines = [
        "| stream | metric | windows | who | mean absolute error | of seeds | in 90 % | in 95 % | half width of 90 % |",
        "|" + "---|" * 9,
    ]
    for (name, metric, who), part in frame.groupby(["stream", "metric", "who"], sort=False):
        known = part[np.isfinite(part["true"] + part["value"])]
        gap = (known["value"] - known["true"]).abs()
        seeds = gap.groupby(known["seed"]).mean()
        inside = {level: covered(known, level) for level in NOMINAL}
        half = (known["high90"] - known["low90"]).mean() / 2
        count = f"{part['window'].nunique()} x {part['seed'].nunique()}"
        far = f"{gap.mean():.4g} | {seeds.min():.4g} to {seeds.max():.4g}"
        share = f"{inside['90']:.0%} | {inside['95']:.0%} | {half:.4g}"
        lines.append(f"| {name} | {metric} | {count} | {who} | {far} | {share} |")
    return "\n".join(lines)


def covered(frame: pd.DataFrame, level: str) -> float:
    """How often the truth was within the bounds of this nominal coverage."""
    return float(((frame[f"low{level}"] <= frame["true"]) & (frame["true"] <= frame[f"high{level}"])).mean())


def main() -> None:
    """Everything, stream by stream."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rivals-python", help="an interpreter that has nannyml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=("test", "development"), default="test")
    parser.add_argument("--streams", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "EVERFIT_DATA" not in os.environ:
        sys.exit("EVERFIT_DATA names no folder of data: nothing to do")
    made: list[dict[str, Any]] = []
    for name in options.streams:
        for seed in range(options.seeds):
            stream = read(Path(os.environ["EVERFIT_DATA"]), RECIPES[name], seed, options.part)
            made += rows_of(name, stream, seed, options.rivals_python)
            print(f"{name}, seed {seed}: {len(stream.windows)} windows", file=sys.stderr)
    frame = pd.DataFrame(made)
    print(table(frame))
    if options.out:
        options.out.write_text(frame.to_json(orient="records", indent=1))


if __name__ == "__main__":
    main()
