"""A task proposed by looking at the data, and its YAML with a comment at every key for the user to edit."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from registry.conforming import as_datetimes
from registry.dating import dated
from registry.durations import parse_duration
from registry.errors import RowError, TaskError, did_you_mean
from registry.images import looks_like_images
from registry.inference import Kinds, infer_problem, unsupported
from registry.mistakes import explain
from registry.policies import PolicySpec
from registry.sources import CLASS, IMAGE
from registry.task import (
    IMAGE_FAMILIES,
    FileSource,
    Monitor,
    RowWindows,
    Search,
    Source,
    TaskSpec,
    TimeWindows,
    Windows,
    load,
)

METRIC = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
DURATIONS = ("1h", "6h", "1d", "7d", "2w", "4w")
WINDOWS = 45
"""Windows wanted over the span of the data: enough to see a trend, few enough for each to hold labels."""
MIN_WINDOW_ROWS = 150
"""A week of hourly rows is 168."""


def propose(
    frame: pd.DataFrame, source: Source, *, target: str, time: str | None = None, name: str | None = None
) -> TaskSpec:
    """A task for a target column: problem, metric and windows from the data, everything else at its default.

    `name` defaults to the source's own. Raises `TaskError` for a column that is not there or a name that is none,
    `RowError` for a time column that holds no times.
    """
    known = [str(column) for column in frame.columns]
    for column in filter(None, (target, time)):
        if column not in known:
            shown = ", ".join(known[:20])
            raise TaskError(f"the data have no column {column!r}{did_you_mean(column, known)}; they have {shown}")
    if frame[target].isna().all():
        raise TaskError(f"the target {target!r} is missing in all {len(frame):,} rows")
    if (reason := unsupported(frame[target])) is not None:
        raise TaskError(f"the target {target!r}: {reason}")
    problem = infer_problem(frame[target])
    if [*known] == [IMAGE, CLASS] and target == CLASS and frame[target].dtype.kind == "O":
        problem = "binary" if problem == "binary" else "multiclass"  # names of sub-folders, be they numbers
    raw: dict[str, object] = {
        "name": name or task_name(source, target),
        "source": source,
        "target": target,
        "time": time,
        "problem": problem,
        "metric": METRIC[problem],
        "monitor": Monitor(windows=windows(frame, time)),
    }
    inputs = (name for name in known if name not in (target, time))
    if any(looks_like_images(frame[name]) for name in inputs):
        raw["search"] = Search(families=IMAGE_FAMILIES)
    try:
        return TaskSpec.model_validate(raw)
    except ValidationError as error:
        raise TaskError(f"no such task can be:\n{explain(error, TaskSpec)}") from error


def task_name(source: Source, target: str) -> str:
    """A task's name after its file, the folder of many, or its target.

    >>> [task_name(FileSource(path=path), "late") for path in ("data/My Flights.csv.gz", "flights/*.parquet")]
    ['my-flights', 'flights']
    """
    stems = [target]
    if isinstance(source, FileSource):
        path = Path(source.path)
        stems = [path.name.split(".")[0], path.parent.name]  # the folder's where the file's is no name, as with *.csv
    slug = next(filter(None, (re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") for stem in stems)), "")
    return slug[:63] if slug[:1].isalpha() else f"task-{slug}"[:63].rstrip("-")


def windows(frame: pd.DataFrame, time: str | None) -> Windows:
    """Windows that would cut the data's own span into about `WINDOWS`, none smaller than `MIN_WINDOW_ROWS` if that
    can be: of time when there is a time column, else of rows."""
    if time is not None:
        try:
            times = as_datetimes(frame[time], time)
        except RowError as error:
            raise RowError(f"{error}; {dated(frame[time], time)}") from error
        span = (times.max() - times.min()).total_seconds()
        counts = {every: span / parse_duration(every).total_seconds() for every in DURATIONS}
        fitting = {every: n for every, n in counts.items() if n >= 2 and len(frame) / n >= MIN_WINDOW_ROWS}
        if fitting:
            return TimeWindows(every=min(fitting, key=lambda every: abs(math.log(fitting[every] / WINDOWS))))
    rows = max(MIN_WINDOW_ROWS, min(10_000, len(frame) // WINDOWS))
    return RowWindows(rows=round(rows, -2))


def write(task: TaskSpec, path: Path, *, kinds: Kinds | None = None) -> None:
    """Write the task as commented YAML that `task.load` reads back equal; `kinds` adds what was seen of the columns.

    Raises `TaskError` when the file exists: the user's edits are never overwritten.
    """
    text = to_yaml(task, kinds=kinds)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise TaskError(f"{path}: already exists; name another file (--output), or delete it first") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be written ({error.strerror})") from error


def to_yaml(task: TaskSpec, *, kinds: Kinds | None = None) -> str:
    """The task's YAML, each key under its comment."""
    notes = {"columns": _column_notes(kinds)} if kinds else {}
    head = f"# The task {task.name}: what Everfit keeps a model fit for. Every key is explained above it.\n"
    return head + "".join(_lines(task.model_dump(mode="json"), (), notes))


def replace_policy(path: Path, policy: PolicySpec) -> None:
    """Put another policy into a task's YAML; all else in it stays as it is, comments too.

    Raises `TaskError` when the file cannot be read or written, or would be no task afterwards.
    """
    load(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    made = _lines({"policy": policy.model_dump(mode="json")}, (), {})
    first = next((number for number, line in enumerate(lines) if line.startswith("policy:")), None)
    if first is None:
        new = "".join([*lines, *made])
    else:
        rest = (number for number in range(first + 1, len(lines)) if not lines[number].startswith((" ", "\t")))
        new = "".join([*lines[:first], *made[made.index("policy:\n") :], *lines[next(rest, len(lines)) :]])
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(new, encoding="utf-8")
        load(partial)
        partial.replace(path)
    except OSError as error:
        raise TaskError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


def _lines(tree: dict[str, Any], path: tuple[str, ...], notes: dict[str, list[str]]) -> list[str]:
    """The lines of one level of the tree: comments, the key, and its value or the level below."""
    indent = "  " * len(path)
    lines: list[str] = []
    for key, value in tree.items():
        where = ".".join((*path, key))
        lines += ["\n"] * (not path)
        lines += [f"{indent}# {comment}\n" for comment in [*COMMENTS[where].splitlines(), *notes.get(where, [])]]
        if isinstance(value, dict) and where not in USERS_KEYS:
            lines += [f"{indent}{key}:\n", *_lines(value, (*path, key), notes)]
        else:
            lines.append(f"{indent}{key}: {_inline(value)}\n")
    return lines


def _inline(value: Any) -> str:
    """A value on one line: as the only item of a flow list, whose brackets are taken off."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6).strip()[1:-1]


def _column_notes(kinds: Kinds) -> list[str]:
    seen: dict[str, list[str]] = {}
    for name, kind in kinds.kinds.items():
        seen.setdefault(kind, []).append(name)
    lines = [f"seen as {kind}: {', '.join(names)}" for kind, names in seen.items()]
    lines += [f"left out: {one.name} ({one.reason})" for one in kinds.left_out]
    return ["".join(one if one.isprintable() else "?" for one in " ".join(line.split())) for line in lines]


USERS_KEYS = frozenset({"columns.kinds", "search.choices"})
"""Keys whose own keys are the user's: names of columns, names of dimensions."""

COMMENTS = {
    "name": "Names the model in the registry and in every command: lower case, digits, dashes.",
    "source": "Where the labelled rows come from.",
    "source.kind": "file (CSV or Parquet) or sql.",
    "source.path": "A file, a folder of files or a glob; a relative path starts at this file's folder.",
    "source.url": "A SQLAlchemy URL; ${NAME} is read from the environment, so that no password stands here.",
    "source.query": "The query whose rows are read; it runs read-only.",
    "target": "The column to predict.",
    "time": "The column with the moment of each row; null: rows have no order. With it, no row sees a later one.",
    "problem": "binary, multiclass or regression.",
    "metric": "What is optimised, watched and compared.\n"
    "Classification: auc, log_loss, accuracy, brier. Regression: rmse, mae, r2.",
    "coverage": "Promised share of answers whose conformal set or interval holds the truth.",
    "columns": "Your word on columns, over what the data show.",
    "columns.kinds": "Kinds by column, such as {zip: categorical}: numeric, boolean, datetime, categorical,\n"
    "text, image.",
    "columns.exclude": "Columns no model may read, such as [id, decided_at].",
    "splits": "Shares of the rows held out; the rest trains. The newest rows test if there is a time column.\n"
    "The networks of a first search learn them as well, once they have been measured.",
    "splits.validation": "Ranks candidates and weighs the ensemble.",
    "splits.calibration": "Fits the temperature and the conformal radius.",
    "splits.test": "Never used before the end: the score in the model card and monitoring's reference.",
    "splits.spread": "Validation and calibration as short runs over a stretch so many times as long, with\n"
    "training rows between them; 1: the newest rows, strictly in time order.",
    "search": "The first search for a model; whichever of trials and seconds is reached first ends it.",
    "search.strategy": "How the next network is chosen; `everfit search --list` names the strategies.",
    "search.stopping": "How weak networks are stopped early: asha, hyperband, median, halving or screen (they pause,\n"
    "and the best go on), curve (extrapolation) or none; see everfit search --list.",
    "search.families": "Kinds of networks tried.",
    "search.choices": "What you know beforehand, by dimension: `activation` of all families, `mlp.depth` of one; as\n"
    "{optimizer: {fixed: adamw}, activation: {never: [elu], weights: {silu: 3}}, mlp.depth: {low: 2, high: 4}}.\n"
    "fixed, only, never, low and high narrow the space for every strategy; random draws follow weights.",
    "search.objectives": "[quality], the metric; with nsga2 or nsga3 also latency (ms for one row), size (weights),\n"
    "energy (CPU-seconds of training). The ensemble is then chosen on quality among the networks that no other\n"
    "one beats in all of them at once.",
    "search.trials": "Most networks tried.",
    "search.seconds": "Most wall-clock seconds, ensemble, graph and card included as far as can be foreseen.",
    "search.workers": "Processes that train at a time, one thread each; never more than it may use cores.",
    "search.max_epochs": "Most passes over the training rows for one network; weak ones stop early.",
    "search.ensemble": "Most networks in the served ensemble; after a re-search, most new ones and most old ones.",
    "search.seed": "Makes splits and search repeatable.",
    "research": "The smaller search after degradation, which starts from what the last one learnt.",
    "research.trials": "Most networks tried.",
    "research.seconds": "Most wall-clock seconds, as above.",
    "research.history": "How far back rows are used, such as 90d; null: all of them.",
    "research.splits": "As splits, but smaller: what is held out is the newest, which a re-search is meant to learn.",
    "research.splits.validation": "Ranks candidates and weighs the ensemble.",
    "research.splits.calibration": "Fits the temperature and the conformal radius.",
    "research.splits.test": "The score in the model card and monitoring's reference.",
    "research.splits.spread": "Validation and calibration as short runs over a stretch so many times as long, with\n"
    "training rows between them; 1: the newest rows, strictly in time order.",
    "research.fresh": "Share of the newest labelled rows that only the gate sees.",
    "research.max_fresh_rows": "Most of them.",
    "research.enough": "Trials after which the search ends early, once its networks are surely better than the\n"
    "champion on the validation rows; 0: never.",
    "monitor": "How predictions are watched.",
    "monitor.windows": "Predictions are judged window by window.",
    "monitor.windows.kind": "time (windows of equal duration) or rows (of equal count).",
    "monitor.windows.every": "Duration of a window: a number and s, m, h, d or w.",
    "monitor.windows.rows": "Predictions in a window.",
    "monitor.min_labels": "Fewest labels at which a window's performance is judged.",
    "monitor.most_rows": "Rows of a window that are read, evenly spread over its time: bounds memory.",
    "monitor.adaptive": "Whether sets and intervals keep their coverage between remedies: the conformal radius\n"
    "follows newer labels (adaptive conformal inference).",
    "monitor.segments": "Categorical or boolean columns whose values are watched apart, such as [carrier].",
    "monitor.keep_images": "Whether images of logged rows are kept, at the size that is read: remedies need them.",
    "monitor.yardstick_rows": "Newest labelled rows that a quick boosted model is fitted to before each window:\n"
    "averaged with it, the champion should not become much better. 0: no such yardstick.",
    "monitor.report": "When Evidently's report of the newest window is made: alarms (as one begins), always, never.",
    "policy": "When to act.",
    "policy.kind": "performance (act when it degrades), never, periodic (act every so many windows), or drift\n"
    "(act when inputs move). `everfit backtest` says what each would have done.",
    "policy.tolerate": "How much worse than the model's own reference the metric may be, as a share of it.",
    "policy.false_alarms": "Budget of all alarms together: such as 1 per 90d, or 1 per 500 windows.",
    "policy.warmup": "Windows after a promotion in which nothing is triggered.",
    "policy.cooldown": "Windows after a remedy in which none is triggered.",
    "policy.refresh": "Windows after which a challenger is tried though nothing is degraded; null: never.",
    "policy.ladder": "Remedies, cheapest first: recalibrate, follow, fine_tune, research (warm-started),\n"
    "search (cold). "
    "The next one is tried where the gate did not promote; one that seldom works for what it costs is passed over.\n"
    "follow is looked at without any degradation, from a champion's fourth window on; leave it out to switch it off.",
    "policy.worth": "CPU-seconds that one percent of the metric, for one window, is worth: an improvement that is\n"
    "expected to bring less than it costs waits until `refresh` is due. null: none does.",
    "policy.every": "Windows between two remedies.",
    "policy.remedy": "What is tried each time.",
    "mode": "auto: what the gate proves is promoted; approve: a person does that (everfit approve, or Prefect's UI);\n"
    "observe: decisions are written down, and nothing is done.",
    "alerts": "Which decisions are told to the channels of EVERFIT_ALERT_URLS, and how often (in event time).",
    "alerts.least": "Least severity that is told: shifted < faulty < degraded. All of them are in the ledger.",
    "alerts.cooldown": "At most one message of a severity within this time, unless it gets worse or is over.",
    "alerts.resolve_after": "Quiet windows in a row after which an alert is over.",
    "alerts.reopen_within": "A new alert this soon after the last one continues it.",
    "alerts.remind": "How often an alert that goes on is told again; null: never.",
    "alerts.notices": "What else is told: question (a model waits for your approval), promotion, rollback, failure\n"
    "(an improvement could not be made, or broke off), attempt (what it made was not proven), silence (rows or labels\n"
    "stay away).",
    "gate": "What a new model must show on fresh rows, against the old one on the same rows, to replace it.",
    "gate.confidence": "One-sided confidence that it is better.",
    "gate.min_gain": "Gain in the metric that must be exceeded with that confidence.",
    "gate.min_rows": "Fewest fresh rows.",
    "gate.segment_tolerance": "How much worse the metric may become in the worst segment.",
    "gate.calibration_tolerance": "How much the calibration error (ECE) may grow.",
    "gate.coverage_tolerance": "How far coverage may fall below what is promised.",
    "gate.latency_ratio": "How many times slower a single row may become.",
    "gate.bake": "Windows after a promotion in which a champion that is surely worse than the former one on the same\n"
    "rows is rolled back by itself; 0: none.",
    "gate.canary": "Such as {share: 0.1, windows: 2}: who has passed answers this share of the requests for so many\n"
    "windows before it is promoted. null: it is promoted at once.",
    "constraints": "What a served model may cost; null: no limit. The gate measures it, and a search keeps to it.",
    "constraints.latency_ms": "Milliseconds for one row, median. A network that alone takes longer is not chosen.",
    "constraints.size_mb": "Megabytes of its graph. A network larger than an equal share for each of search.ensemble\n"
    "is not trained.",
    "log": "Columns that the inference log does not hold in plain; [] logs all values as they were sent.",
    "log.drop": "Not logged at all: not watched for shift, and logged rows reach no remedy and no gate.",
    "log.hash": "Logged as a keyed hash, equal for equal values; like drop in all else.",
    "log.encrypt": "Logged encrypted with the key of EVERFIT_LOG_KEY; all that reads the log works as before.",
}
