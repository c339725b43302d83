"""Everfit's endpoint beside other servers of the same model: same rows, same cores, one run, in turn.

    python -m benchmarks.serving [--quick] [--rivals-python PATH] [--bundle FOLDER] [--parts load,swap]

The model is a champion that a short search found; every server runs its ONNX graph, but for the plain FastAPI, which
runs the same networks in torch. Everfit logs and counts, and follows its registry, as by default; the others do
neither. A closed loop of 1, 4 and 32 connections drives one server after another, in rounds that alternate in their
order; the others are held still meanwhile. All processes of a server are bound to one core, the client to another. An
Everfit round ends when its log is in the store, and the CPU-time is that of all its processes until then.

`mlflow models serve`, LitServe and BentoML need an environment of their own, whose interpreter `--rivals-python` or
`EVERFIT_RIVALS_PYTHON` names; without it they are left out, and the run says so. After
`python -m venv rivals` one command fills it:

    rivals/bin/pip install mlflow==3.17.2 litserve==0.2.19 bentoml==1.4.40 onnxruntime==1.31.1 pandas==3.0.6

They run without their telemetry. At the end it says which of what was wanted is met. `--quick` leaves out 1 and 32
connections and 32 rows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before this folder, where `serving` is this file

from benchmarks.serving_champion import find_champion, make_home, rows_of
from benchmarks.serving_journal import show_journal
from benchmarks.serving_process import bind, two_cores
from benchmarks.serving_rivals import CONTENDERS, EVERFIT, FOREIGN, Bench
from benchmarks.serving_rounds import Plan, Results, measure
from benchmarks.serving_swap import measure_swaps
from benchmarks.serving_tables import show, show_size, show_swaps

PARTS = ("journal", "start", "load", "swap")
FULL = Plan(batches=(1, 32, 1024), connections=(1, 4, 32), repeats=3, seconds=1.5, starts=3)
QUICK = Plan(batches=(1, 1024), connections=(4,), repeats=2, seconds=0.6, starts=1)


@contextlib.contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """The champion in a registry, its rows and a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="everfit-serving-") as folder:
        scratch = Path(folder)
        bundle = find_champion((options.bundle or scratch / "champion" / "bundle").resolve())
        home = make_home(scratch / "home", bundle)
        yield Bench(bundle, home, tuple(rows_of(bundle)), scratch, options.rivals_python)


def chosen(options: argparse.Namespace) -> list[str]:
    """The servers to measure; says which are left out and why."""
    wanted = options.only.split(",") if options.only else list(CONTENDERS)
    unknown = sorted(set(wanted) - set(CONTENDERS))
    if unknown:
        raise SystemExit(f"--only: expected some of {', '.join(CONTENDERS)}, got {', '.join(unknown)}")
    away = [name for name in wanted if name in FOREIGN and options.rivals_python is None]
    if away:
        print(f"left out, since neither --rivals-python nor EVERFIT_RIVALS_PYTHON is given: {', '.join(away)}")
    return [name for name in wanted if name not in away]


def plan_of(options: argparse.Namespace) -> Plan:
    """How much is measured."""
    plan = QUICK if options.quick else FULL
    return Plan(
        batches=_counts(options.batches) or plan.batches,
        connections=_counts(options.connections) or plan.connections,
        repeats=options.repeats or plan.repeats,
        seconds=options.seconds or plan.seconds,
        starts=plan.starts,
    )


def _counts(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def main() -> None:
    """Read the options, measure, print."""
    options = _options()
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    names, plan, cores = chosen(options), plan_of(options), two_cores()
    with bench(options) as made:
        bind(cores.client)
        if "journal" in parts:
            show_journal(made)
        results = Results()
        if {"start", "load"} & set(parts):
            tell = (lambda size: show_size(results, plan, size)) if "load" in parts else None
            measure(made, names, plan, cores, results, tell)
            show(results, plan)
        if "swap" in parts and EVERFIT in names:
            seconds, repeats = (8.0, 1) if options.quick else (16.0, plan.repeats)
            show_swaps(measure_swaps(made, cores, seconds=seconds, repeats=repeats))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything: below three minutes")
    parser.add_argument("--bundle", type=Path, help="folder of the champion; searched for there if it is empty")
    parser.add_argument("--rivals-python", default=os.environ.get("EVERFIT_RIVALS_PYTHON"), help="see above")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--only", help="some of the servers, by name, a comma between them")
    parser.add_argument("--batches", help="rows a request, such as 1,1024")
    parser.add_argument("--connections", help="such as 1,4")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seconds", type=float, help="of one round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
