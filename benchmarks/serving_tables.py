"""What was measured as tables (Markdown, medians with their spread), and which of the reaches are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.serving_rivals import EMPTY, EVERFIT, EVERFIT_ARROW, FOREIGN
from benchmarks.serving_rounds import Plan, Results, Round
from benchmarks.serving_swap import Swaps

EMPTY_REACH, RIVAL_REACH, LIMIT_REACH, SWAP_REACH = 1.0, 6.0, 0.6, 2.0
START_REACH, WORKER_REACH = 2.0, 150.0
LARGEST = 1024


def show(results: Results, plan: Plan) -> None:
    """Print what is said of no size in particular, then the reaches."""
    for note in results.notes:
        print(note)
    _show_starts(results)
    _show_memory(results)
    print("\nreaches:")
    for line in _reaches(results, plan):
        print(f"  {line}")


def show_size(results: Results, plan: Plan, size: int) -> None:
    """Print the table of one size of batch."""
    found = {cell: rounds for cell, rounds in results.rounds.items() if cell[1] == size}
    if not found:
        return
    print(f"\n{size:,} rows a request\n")
    print("| connections | server | requests/s | p50 ms | p99 ms | CPU ms a request | log |")
    print("|---|---|---|---|---|---|---|")
    for connections in plan.connections:
        for (name, _, at), rounds in found.items():
            if at == connections:
                print(f"| {connections} | {name} | {_columns(rounds)} |")
    limit = results.limit[size]
    middle = 1e3 / statistics.median(limit)
    print(f"| none | ONNX Runtime without HTTP | {_spread(limit)} | {middle:.3g} | | | |", flush=True)


def _columns(rounds: Sequence[Round]) -> str:
    parts = [_spread(one.rate for one in rounds), *(_spread((one[at] for one in rounds), 3) for at in (1, 2, 3))]
    drain = statistics.median(one.drain for one in rounds)
    share = statistics.median(one.keeper for one in rounds)
    return " | ".join([*parts, f"keeper {share:.0%} of it, stored {drain:.1f} s later" if share else ""])


def _spread(values: Iterable[float], digits: int = 0) -> str:
    """The median, and the least and the most of several."""
    found = sorted(values)
    middle, low, high = (_write(value, digits) for value in (statistics.median(found), found[0], found[-1]))
    return f"{middle} ({low} to {high})"


def _write(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if digits and value < 1000 else f"{value:,.0f}"


def _show_starts(results: Results) -> None:
    print("\n| server | start to first answer, s | MB at the first answer, rss / pss | MB after the load, rss / pss |")
    print("|---|---|---|---|")
    for name, seconds in results.starts.items():
        fresh, loaded = results.fresh[name], results.loaded.get(name)
        after = "" if loaded is None else f"{loaded.rss:.0f} / {loaded.pss:.0f}"
        print(f"| {name} | {_spread(seconds, 3)} | {fresh.rss:.0f} / {fresh.pss:.0f} | {after} |")


def _show_memory(results: Results) -> None:
    found = {
        "worker, fresh": results.fresh_worker,
        "worker": results.worker,
        "keeper": results.keeper,
        "scout": results.scout,
    }
    told = [f"{name} {one.rss:.0f} MB rss, {one.pss:.0f} MB pss" for name, one in found.items() if one is not None]
    if told:
        print(f"\nEverfit's processes apart: {'; '.join(told)}")


def _reaches(results: Results, plan: Plan) -> Iterable[str]:
    for connections in plan.connections:
        yield from _against(results, EMPTY, 1, connections, EMPTY_REACH)
    for name in FOREIGN:
        for connections in plan.connections:
            yield from _against(results, name, 1, connections, RIVAL_REACH)
    yield from _against_limit(results, plan)
    if EVERFIT in results.starts:
        seconds = statistics.median(results.starts[EVERFIT])
        yield f"{_met(seconds <= START_REACH)}: first answer {seconds:.2f} s after the start (at most {START_REACH:g})"
    if results.worker is not None:
        rss = results.worker.rss
        yield f"{_met(rss < WORKER_REACH)}: worker of {rss:.0f} MB after the load (below {WORKER_REACH:.0f})"


def _against(results: Results, name: str, size: int, connections: int, reach: float) -> Iterable[str]:
    ours, theirs = (results.rounds.get((one, size, connections), []) for one in (EVERFIT, name))
    if ours and len(ours) == len(theirs):
        rates = sorted(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
        by_cpu = statistics.median(b.cpu / a.cpu for a, b in zip(ours, theirs, strict=True))
        middle, spread = statistics.median(rates), f"{rates[0]:.2f} to {rates[-1]:.2f}"
        what = f"{connections} connections: {middle:.2f} times the rate of {name} ({spread}; by CPU-time {by_cpu:.2f})"
        yield f"{_met(middle >= reach)}: {size:,} rows, {what}, wanted {reach:g}"


def _against_limit(results: Results, plan: Plan) -> Iterable[str]:
    limit = results.limit.get(LARGEST)
    if not limit:
        return
    for name in (EVERFIT_ARROW, EVERFIT):
        found = [results.rounds.get((name, LARGEST, connections), []) for connections in plan.connections]
        rates = [statistics.median(one.rate for one in rounds) for rounds in found if rounds]
        if not rates:
            yield f"not met: {name} was not measured at {LARGEST:,} rows"
            continue
        share = max(rates) / statistics.median(limit)
        told = _met(share >= LIMIT_REACH) if name == EVERFIT_ARROW else "for comparison"
        yield f"{told}: {name}, {LARGEST:,} rows: {share:.0%} of the bare graph (wanted {LIMIT_REACH:.0%})"


def _met(met: bool) -> str:
    return "met" if met else "not met"


def show_swaps(found: Swaps) -> None:
    """Print the latencies of each kind of drive, and whether the reach is met."""
    print(f"\n{found.swaps} swaps\n\n| drive | requests/s | p50 ms | p99 ms | p99.9 ms | worst ms |")
    print("|---|---|---|---|---|---|")
    for kind, drives in found.drives.items():
        parts = [_spread(one.rate for one in drives)]
        parts += [_spread((one.quantile(share) * 1e3 for one in drives), 3) for share in (0.5, 0.99, 0.999, 1.0)]
        print(f"| {kind} | {' | '.join(parts)} |")
    quiet, swaps = (statistics.median(one.quantile(0.99) for one in found.drives[kind]) for kind in ("quiet", "swaps"))
    ratio = swaps / quiet
    print(f"\n{_met(ratio <= SWAP_REACH)}: p99 under swaps is {ratio:.2f} times the quiet p99 (at most {SWAP_REACH:g})")
