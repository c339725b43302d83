"""What the monitoring benchmark found: runs, their summaries as Markdown tables, and what was wanted of them.

A run is one verdict on one stream, a letter a window. Two ways of counting alarms are told apart: a window in which the
alarm is on, and one in which it goes on (entered): an alarm that stays is one alarm to whoever answers it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from scipy.special import gammainc

OURS = "Everfit"
QUIET = "none"
SEVERITIES = {"s": "shifted", "f": "faulty", "d": "degraded"}
ANY = "sfd"
FIRST_ERRORS = ("river, ADWIN", "river, HDDM_A")
"""The detectors that concept drift must not be found later than."""


@dataclass(frozen=True)
class Run:
    """One verdict on one stream. `onset` is the window with which the drift begins; `delay` in windows, None where
    labels never come. `before` and `after` are the model's accuracy before the onset and once the drift is full,
    `visible` says whether the inputs alone show it. `cpu` is in seconds, for all windows."""

    data: str
    size: int
    seed: int
    drift: str
    delay: int | None
    verdict: str
    letters: str
    cpu: float
    onset: int = 0
    before: float = 0.0
    after: float = 0.0
    visible: bool = False

    @property
    def quiet(self) -> bool:
        """Whether nothing happens in it."""
        return self.drift == QUIET

    def on(self, kinds: str = ANY) -> list[bool]:
        """In which windows an alarm of these letters is on."""
        return [letter in kinds for letter in self.letters]

    def entered(self, kinds: str = ANY) -> int:
        """How often it goes on."""
        on = self.on(kinds)
        return sum(now and not before for now, before in zip(on, [False, *on], strict=False))

    def found(self, kinds: str = ANY) -> int | None:
        """Windows from the onset to the first alarm, 0 for the very one; None for never."""
        return next((index for index, on in enumerate(self.on(kinds)[self.onset :]) if on), None)

    def rang(self, kinds: str = ANY) -> bool:
        """Whether the alarm was on already in the window before the onset: finding it then is no merit."""
        return self.onset > 0 and self.on(kinds)[self.onset - 1]

    @property
    def looked(self) -> int:
        """Windows from the onset to the end."""
        return len(self.letters) - self.onset

    @property
    def loss(self) -> float:
        """By which share accuracy fell."""
        return 1 - self.after / self.before if self.before else 0.0


def write(runs: Iterable[Run], path: Path) -> None:
    """Add runs to a file, a line of JSON each."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(run)) + "\n" for run in runs)


def read(paths: Iterable[Path]) -> list[Run]:
    """The runs in such files; of two for the same verdict on the same stream the later counts."""
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return merged(Run(**line) for line in lines)


def merged(runs: Iterable[Run]) -> list[Run]:
    """Without those that a later one replaces."""
    return list({(run.data, run.size, run.seed, run.drift, run.delay, run.verdict): run for run in runs}.values())


@dataclass(frozen=True)
class Rate:
    """False alarms over seeds: their number, the windows, and the rates of the seeds."""

    alarms: int
    windows: int
    rates: tuple[float, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], count: Callable[[Run], int]) -> Rate:
        """What `count` counts."""
        counts = [count(run) for run in runs]
        rates = tuple(found / len(run.letters) for found, run in zip(counts, runs, strict=True))
        return cls(sum(counts), sum(len(run.letters) for run in runs), rates)

    @property
    def value(self) -> float:
        """Alarms a window."""
        return self.alarms / self.windows

    @property
    def text(self) -> str:
        """Mean, spread over seeds and worst seed."""
        spread = f" ± {stdev(self.rates):.4f}" if len(self.rates) > 1 else ""
        return f"{self.value:.4f}{spread} (max {max(self.rates):.4f})"

    def chance(self, budget: float) -> float:
        """Chance of at least so many alarms if they came independently and as often as the budget allows (Poisson)."""
        return float(gammainc(self.alarms, budget * self.windows)) if self.alarms else 1.0


def groups(runs: Iterable[Run], *fields: str) -> dict[tuple[object, ...], list[Run]]:
    """Runs by the values of fields, in the order in which they first came."""
    out: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        out.setdefault(tuple(getattr(run, name) for name in fields), []).append(run)
    return out


def late(delay: object) -> str:
    """A delay in words."""
    return "no labels" if delay is None else f"labels {delay} windows late"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def false_alarms(runs: Sequence[Run]) -> str:
    """Alarms while nothing happens."""
    head = ["set", "rows a window", "labels", "verdict", "seeds x windows", "on, a window", "entered, a window"]
    head += [f"entered {name}" for name in SEVERITIES.values()] + ["CPU ms a window"]
    lines = []
    for key, some in groups((run for run in runs if run.quiet), "data", "size", "delay", "verdict").items():
        data, size, delay, verdict = key
        windows = sorted({len(run.letters) for run in some})
        counts = [sum(run.entered(letter) for run in some) for letter in SEVERITIES]
        cpu = 1000 * sum(run.cpu for run in some) / sum(len(run.letters) for run in some)
        shown = [str(data), str(size), late(delay), str(verdict)]
        shown.append(f"{len(some)} x {'-'.join(f'{count:,}' for count in windows)}")
        shown += [Rate.of(some, lambda run: sum(run.on())).text, Rate.of(some, Run.entered).text]
        lines.append([*shown, *map(str, counts), f"{cpu:.1f}"])
    return table(head, lines)


def _cell(some: Sequence[Run], kinds: str = ANY) -> str:
    """Share of seeds found, the median and the largest delay; the share that rang before."""
    delays = [delay for run in some if (delay := run.found(kinds)) is not None]
    before = fmean(run.rang(kinds) for run in some)
    rang = f", rang before {before:.2f}" if before else ""
    if not delays:
        return "-"
    return f"{len(delays) / len(some):.2f}: {median(delays):g} (max {max(delays)}){rang}"


def detection(runs: Sequence[Run]) -> str:
    """Share of the seeds in which each drift is found, and after how many windows, by any alarm."""
    out = []
    drifting = [run for run in runs if not run.quiet]
    for (data, size, delay), some in groups(drifting, "data", "size", "delay").items():
        drifts = list(groups(some, "drift"))
        lines = []
        for (verdict,), mine in groups(some, "verdict").items():
            cells = groups(mine, "drift")
            lines.append([str(verdict), *(_cell(cells[drift]) if drift in cells else "" for drift in drifts)])
        title = f"**{data}, windows of {size}, {late(delay)}**: share of seeds found, windows until then"
        out.append(f"{title}\n\n{table(['verdict', *(str(name) for (name,) in drifts)], lines)}")
    return "\n".join(out)


def severities(runs: Sequence[Run]) -> str:
    """What Everfit makes of each drift, and what it does to the model."""
    head = ["set", "drift", "labels", "accuracy", "any", *SEVERITIES.values()]
    lines = []
    mine = [run for run in runs if run.verdict == OURS and not run.quiet]
    for (data, drift, delay), some in groups(mine, "data", "drift", "delay").items():
        harm = f"{fmean(run.before for run in some):.3f} -> {fmean(run.after for run in some):.3f}"
        cells = [_cell(some, kinds) for kinds in (ANY, *SEVERITIES)]
        lines.append([str(data), str(drift), late(delay), harm, *cells])
    return table(head, lines)


def wanted(runs: Sequence[Run], budget: float, tolerate: float) -> tuple[list[str], list[str]]:
    """What was wanted and is not so, and what was wanted and could not be checked with these runs."""
    ours = [run for run in runs if run.verdict == OURS]
    quiet, drifting = [run for run in ours if run.quiet], [run for run in ours if not run.quiet]
    failed = [*_over_budget(quiet, budget), *_missed(drifting, tolerate), *_blamed(drifting)]
    late_ones, unchecked = _later(runs)
    unchecked += [] if quiet else ["false alarms: no quiet run"]
    unchecked += [] if drifting else ["detection: no run with a drift"]
    return [*failed, *late_ones], unchecked


def _over_budget(quiet: Sequence[Run], budget: float) -> list[str]:
    out = []
    for (data, size, delay), some in groups(quiet, "data", "size", "delay").items():
        rate = Rate.of(some, Run.entered)
        if rate.value > budget:
            out.append(
                f"false alarms on {data}, windows of {size}, {late(delay)}: {rate.alarms} in {rate.windows:,} windows "
                f"({rate.value:.4f}), wanted at most {budget:g}; chance at the budget {rate.chance(budget):.2g}"
            )
    return out


def _missed(drifting: Sequence[Run], tolerate: float) -> list[str]:
    """Drifts that had to be found in every seed: with labels all that harm, without them what the inputs show; missing
    values and changed units in any case."""
    out = []
    for (data, drift, delay), some in groups(drifting, "data", "drift", "delay").items():
        broken = str(drift).startswith(("missing", "unit"))
        harmful = fmean(run.loss for run in some) > tolerate
        shown = some[0].visible or any(run.delay is not None and run.delay < run.looked for run in some)
        if drift == "unused shift" or not shown or not (broken or harmful):
            continue
        missed = [run.seed for run in some if run.found() is None or run.rang()]
        if missed:
            out.append(f"{drift} on {data}, {late(delay)}: not found, or rang before, with seeds {missed}")
    return out


def _blamed(drifting: Sequence[Run]) -> list[str]:
    """A column that the model does not read must never count as a degradation."""
    moved = [run for run in drifting if run.drift == "unused shift" and run.found("d") is not None]
    return [f"unused shift on {run.data}, {late(run.delay)}, seed {run.seed}: degraded" for run in moved]


def _later(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Concept drift found later than by the detectors on the errors; a drift never found counts as long as looked."""
    out, unchecked = [], []
    concept = [run for run in runs if run.drift.startswith("concept") and run.delay is not None]
    for (data, drift, delay), some in groups(concept, "data", "drift", "delay").items():
        by_name = groups(some, "verdict")
        if (OURS,) not in by_name:
            continue
        mine = _mean_delay(by_name[(OURS,)])
        for name in FIRST_ERRORS:
            if (name,) not in by_name:
                unchecked.append(f"{drift} on {data}, {late(delay)}: {name} took no part")
            elif mine > (theirs := _mean_delay(by_name[(name,)])):
                out.append(
                    f"{drift} on {data}, {late(delay)}: found after {mine:.2f} windows, by {name} after {theirs:.2f}"
                )
    return out, unchecked


def _mean_delay(some: Sequence[Run]) -> float:
    delays = [(run.found(), run.looked) for run in some]
    return fmean(most if found is None else found for found, most in delays)
