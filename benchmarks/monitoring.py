"""Everfit's monitoring beside its rivals, on the same streams in the same run: false alarms, detection, throughput.

    python -m benchmarks.monitoring [--seeds 5] [--sets flights covertype elec2] [--quiet-windows 1000] [--after 40]
                                    [--rivals-python PATH] [--out runs.jsonl] [--merge runs.jsonl ...]

Real rows below EVERFIT_DATA (a set that is absent is skipped, saying so), a boosted model on 30,000 of them, 10,000 as
the reference; how rows are dealt and drawn is told in `monitoring_streams.py`. Quiet streams count false alarms. Then
each drift begins at a known window, with labels at once, late, or never. Rivals keep their defaults. Evidently runs
here; NannyML, river and frouros in the interpreter that --rivals-python names (`pip install nannyml statsmodels river
frouros`), on fewer quiet windows (--rival-windows), at one window size.

Runs can be made in parts: --out adds each as a line of JSON, --merge reads such files, and with `--seeds 0` nothing new
is run. Ends with 1, listing what was wanted and is not so.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.monitoring_contenders import Contender, Evidently, Rivals, Trace, play
from benchmarks.monitoring_everfit import Everfit
from benchmarks.monitoring_results import (
    OURS,
    QUIET,
    Run,
    detection,
    false_alarms,
    merged,
    read,
    severities,
    wanted,
    write,
)
from benchmarks.monitoring_streams import RECIPES, REFERENCE, Drift, Rows, Served, Stream, data_file, drifts, serve
from benchmarks.watching import make_rows

SIZE = 500
"""Rows of a window in which drifts are looked for, and of all the rivals' windows."""

LARGE, LARGEST = 50_000, 200_000
"""Rows of a window whose measuring is dear, and of the largest that is read whole (`monitor.most_rows`)."""

WANTED_RATE, WANTED_TIMES = 1e6, 100.0
"""Rows judged a CPU-second, and how many times Evidently's."""

Make = Callable[[Served], Contender]


def _delay(text: str) -> int | None:
    return None if text == "never" else int(text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sets", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    add("--seeds", type=int, default=5)
    add("--first-seed", type=int, default=0)
    add("--sizes", nargs="*", type=int, default=[35, SIZE, 5_000], help="rows a window, for false alarms")
    add("--quiet-windows", type=int, default=1_000, help="for false alarms; 0: these are not counted")
    add("--quiet-delay", type=_delay, default=0, help="of labels in quiet streams, in windows, or `never`")
    add("--rival-windows", type=int, default=200, help="quiet windows for rivals")
    add("--before", type=int, default=30, help="windows before a drift")
    add("--after", type=int, default=40, help="windows from the onset")
    add("--drifts", nargs="*", default=None, help="by name, or the beginning of one; default all")
    add("--delays", nargs="+", type=_delay, default=[0, 5, 20, None], help="of labels, in windows, or `never`")
    add("--contenders", nargs="+", default=["everfit", "evidently", "rivals"])
    add("--rivals-python", type=Path, help="an interpreter that has NannyML, river and frouros")
    add("--metric", default="accuracy", choices=["accuracy", "auc"])
    add("--policy", type=json.loads, default={"false_alarms": "1 per 500 windows"}, help="the task's policy, JSON")
    add("--budget", type=float, default=1 / 500, help="false alarms a window that are wanted at most")
    add("--tolerate", type=float, default=0.02, help="share of the accuracy from which a loss is harm")
    add("--throughput-windows", type=int, default=20, help="windows that the throughput is measured on; 0: it is not")
    add("--out", type=Path)
    add("--merge", type=Path, nargs="*", default=[])
    return parser.parse_args(arguments)


def makers(options: argparse.Namespace) -> dict[str, Make]:
    """The contenders that run in this process."""
    known: dict[str, Make] = {
        "everfit": lambda served: Everfit(options.metric, options.policy, served.model.radius),
        "evidently": lambda served: Evidently(),
    }
    return {name: make for name, make in known.items() if name in options.contenders}


def quiet_runs(options: argparse.Namespace, served: Served) -> Iterator[Run]:
    """False alarms of those in this process."""
    for size in options.sizes:
        for name, make in makers(options).items():
            windows = options.quiet_windows if name == "everfit" else options.rival_windows
            if windows and (name == "everfit" or size == SIZE):
                stream = Stream(served, size, windows)
                traces = play(make(served), stream, windows, options.quiet_delay)
                yield from _runs(stream, QUIET, options.quiet_delay, traces)


def drifting(options: argparse.Namespace, served: Served) -> dict[str, tuple[Drift, Stream]]:
    """The streams with a drift, by its name."""
    windows = options.before + options.after
    asked = {
        name: drift
        for name, drift in drifts(served.name).items()
        if options.drifts is None or name.startswith(tuple(options.drifts))
    }
    return {name: (drift, Stream(served, SIZE, windows, drift, options.before)) for name, drift in asked.items()}


def drift_runs(options: argparse.Namespace, served: Served) -> Iterator[Run]:
    """Detection by those in this process. Evidently looks at no label and remembers nothing: one pass, begun with the
    window before the onset, serves all delays."""
    for name, (drift, stream) in drifting(options, served).items():
        harm = accuracies(stream, drift)
        for who, make in makers(options).items():
            traces: dict[str, Trace] = {}
            for delay in options.delays:
                if who == "everfit":
                    traces = play(make(served), stream, stream.windows, delay)
                elif not traces:
                    traces = play(make(served), stream, stream.windows, None, first=max(0, stream.onset - 1))
                yield from _runs(stream, name, delay, traces, harm)


def rival_runs(options: argparse.Namespace, served: Served, rivals: Rivals) -> Iterator[Run]:
    """All of the other interpreter's verdicts, labels as late as asked."""
    drifted = drifting(options, served)
    streams = {name: (stream, stream.windows) for name, (_, stream) in drifted.items()}
    if options.rival_windows and SIZE in options.sizes:
        streams[QUIET] = (Stream(served, SIZE, options.rival_windows), options.rival_windows)
    if not streams:
        return
    found, about = rivals.judge(streams)
    _say(f"  rivals: {about}")
    for name, traces in found.items():
        stream, _ = streams[name]
        harm = (0.0, 0.0) if name == QUIET else accuracies(stream, drifted[name][0])
        for delay in [options.quiet_delay] if name == QUIET else options.delays:
            yield from _runs(stream, name, delay, {who: one.later(delay) for who, one in traces.items()}, harm)


def _runs(
    stream: Stream,
    drift: str,
    delay: int | None,
    traces: Mapping[str, Trace],
    harm: tuple[float, float] = (0.0, 0.0),
) -> list[Run]:
    served, visible = stream.served, stream.drift is not None and stream.drift.visible
    return [
        Run(
            data=served.name,
            size=stream.size,
            seed=served.seed,
            drift=drift,
            delay=delay,
            verdict=name,
            letters=trace.letters,
            cpu=trace.cpu,
            onset=stream.onset,
            before=harm[0],
            after=harm[1],
            visible=visible,
        )
        for name, trace in traces.items()
    ]


def accuracies(stream: Stream, drift: Drift) -> tuple[float, float]:
    """The model's accuracy on the windows in which the drift is full (on the last, if in none): without and with it."""
    full = min(stream.windows - 1, stream.onset + drift.ramp - 1)
    sides = (replace(stream, drift=None), stream)
    without, drifted = (np.mean([1 - rows.errors.mean() for rows in islice(side, full, None)]) for side in sides)
    return float(without), float(drifted)


def throughput(options: argparse.Namespace) -> dict[str, float]:
    """Rows judged a CPU-second in windows of 500, 50,000 and 200,000 with 20 columns, labels at once; a first window is
    not counted.

    Everfit measures all it knows and decides. Evidently judges drift alone: by its preset, which draws a picture of
    each column, and by the one metric of it that holds the verdict.
    """
    out = {}
    asked = options.throughput_windows
    for size, windows in ((SIZE, asked), (LARGE, -(-asked // 2)), (LARGEST, -(-asked // 10))):
        reference, current = (_rows(REFERENCE, 0), _rows(size * (windows + 1), 1))
        made: dict[str, Contender] = {"everfit": Everfit(options.metric, options.policy, 0.5)}
        made |= {"evidently, preset": Evidently(pictures=True), "evidently, verdict alone": Evidently()}
        for name, contender in made.items():
            if name.partition(",")[0] in options.contenders:
                contender.start(reference)
                out[f"{name}, windows of {size:,}"] = _rate(contender, current, size, windows)
    return out


def _rate(contender: Contender, current: Rows, size: int, windows: int) -> float:
    """Rows a CPU-second of all windows but the first."""
    parts = [current.take(np.arange(index * size, (index + 1) * size)) for index in range(windows + 1)]
    contender.see(parts[0], 0)
    gc.collect()  # nobody pays for what others left
    began = time.process_time()
    for index, part in enumerate(parts[1:], start=1):
        contender.see(part, index)
    return size * windows / (time.process_time() - began)


def _rows(count: int, seed: int) -> Rows:
    """Texts are of the dtype that those of the log's frame are, as pandas makes it of a list of them."""
    frame = make_rows(count, 20, seed)
    labels = (frame["label"] == "yes").to_numpy().astype(np.int64)
    inputs = frame.drop(columns=["p", "label"])
    texts = [name for name in inputs if not pd.api.types.is_numeric_dtype(inputs[name])]
    return Rows(inputs.assign(**{name: inputs[name].to_list() for name in texts}), frame["p"].to_numpy(), labels)


def every_run(options: argparse.Namespace) -> Iterator[list[Run]]:
    """All that was asked for, in parts."""
    rivals = Rivals(options.rivals_python) if options.rivals_python and "rivals" in options.contenders else None
    if rivals is None:
        _say("no --rivals-python, or not asked for: NannyML, river and frouros are skipped")
    present = [name for name in options.sets if data_file(name) is not None]
    for name in (name for name in options.sets if name not in present):
        _say(f"{name} is skipped: {RECIPES[name].file} is not below EVERFIT_DATA")
    for name in present:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            began = time.perf_counter()
            served = serve(name, seed)
            yield list(quiet_runs(options, served))
            yield list(drift_runs(options, served))
            yield list(rival_runs(options, served, rivals)) if rivals else []
            _say(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(options: argparse.Namespace, runs: Sequence[Run], rates: Mapping[str, float]) -> int:
    """Print all tables and what was wanted; the exit code."""
    print(f"## False alarms\n\n{false_alarms(runs)}\n## Detection\n\n{detection(runs)}")
    print(f"## What {OURS} says\n\n{severities(runs)}")
    failed, unchecked = wanted(runs, options.budget, options.tolerate)
    if rates:
        shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        print(f"## Throughput\n\nRows judged a CPU-second, 20 columns: {shown}\n")
    ours = [rate for name, rate in rates.items() if name.startswith("everfit")]
    theirs = [rate for name, rate in rates.items() if not name.startswith("everfit")]
    if not ours or not theirs:
        unchecked.append("throughput: not measured beside Evidently's")
    elif max(ours) < WANTED_RATE or max(ours) < WANTED_TIMES * max(theirs):
        failed.append(
            f"throughput: {max(ours):,.0f} rows a CPU-second, {max(ours) / max(theirs):,.0f} times Evidently's best; "
            f"wanted {WANTED_RATE:,.0f} and {WANTED_TIMES:.0f} times"
        )
    for title, lines in (("Wanted and not so", failed), ("Not checked", unchecked)):
        print(f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines or ["nothing"]))
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and report; the exit code."""
    options = parse(arguments)
    runs: list[Any] = read(options.merge)
    for part in every_run(options):
        runs += part
        if options.out is not None:
            write(part, options.out)
    return report(options, merged(runs), throughput(options) if options.throughput_windows else {})


if __name__ == "__main__":
    sys.exit(main())
