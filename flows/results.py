"""What a replay leaves behind: a table, a picture and a JSON file, and the counts that say nothing was lost."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.approval import pending
from flows.comparison import ByWindow, Comparison, compare, logged_parts, table
from flows.traffic import Counts
from registry.plurals import counted
from registry.schema import Frozen

if TYPE_CHECKING:
    from flows.replay import Progress
    from flows.stream import Stream
    from flows.workplace import Workplace


class Results(Frozen):
    """A replay in figures. `predictions` and `labelled` are its own rows that the inference log holds, `rows` those of
    the stream that were sent; `steps` are those of a champion that follows; `waiting` says who waits for a person."""

    comparison: Comparison
    rows: int
    predictions: int
    labels_sent: int
    labelled: int
    promotions: int
    steps: int = 0
    requests: Counts
    background: Counts
    seconds: float
    waiting: str | None = None

    @property
    def failed(self) -> int:
        """Requests that got no good answer, background traffic included."""
        return self.requests.failed + self.background.failed


def gather(
    stream: Stream, progress: Progress, place: Workplace, *, period: tuple[datetime, datetime] | None = None
) -> Results:
    """The results of a replay, the headline over `period` (default: all rows)."""
    comparison = compare(stream, progress, task=place.task, log=place.log, versions=place.versions, period=period)
    logged = [(len(rows), int(rows["__label__"].notna().sum())) for _, rows in logged_parts(stream, place.log)]
    asked = pending(place)
    return Results(
        comparison=comparison,
        rows=progress.rows,
        predictions=sum(rows for rows, _ in logged),
        labels_sent=progress.labels_sent,
        labelled=sum(labelled for _, labelled in logged),
        promotions=sum(step.promoted for step in progress.steps),
        steps=sum(step.stepped for step in progress.steps),
        requests=progress.requests,
        background=progress.background,
        seconds=progress.seconds,
        waiting=asked
        and f"version {asked.version} is proved and waits for a person: everfit approve {place.task.name}",
    )


def write(results: Results, folder: Path, *, title: str | None = None) -> Path:
    """Write `replay.txt`, `replay.json` and `replay.png` into a folder; the picture's path."""
    from flows.picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "replay.txt").write_text(f"{describe(results)}\n", encoding="utf-8")
    (folder / "replay.json").write_text(results.model_dump_json(indent=1), encoding="utf-8")
    return draw(results.comparison, folder / "replay.png", title=title)


def describe(results: Results) -> str:
    """The results in words: the table, the headline and the counts."""
    pooled, each, metric = results.comparison.pooled, results.comparison.by_window, results.comparison.metric
    requests, background = results.requests, results.background
    lines = [
        table(results.comparison),
        "",
        f"{metric} and frozen are of each window alone; judged pools a window with those before it",
        f"{pooled.begin:%Y-%m-%d} to {pooled.end:%Y-%m-%d}, {pooled.rows:,} rows pooled: "
        f"{metric} {pooled.served:.4f} served, {pooled.frozen:.4f} frozen, gain {pooled.gain:+.4f}",
        *([] if each is None else [_means(each, metric)]),
        f"promotions          {results.promotions:>9,}{_steps(results.steps)}",
        f"requests sent       {requests.sent + background.sent:>9,}  "
        f"({background.sent:,} of them while windows were judged and versions swapped)",
        f"requests failed     {results.failed:>9,}  ({requests.retried:,} tried again)",
        f"predictions logged  {results.predictions:>9,}  of {results.rows:,} rows",
        f"labels joined       {results.labelled:>9,}  of {results.labels_sent:,} sent",
        *([results.waiting] if results.waiting else []),
    ]
    return "\n".join(lines)


def _means(each: ByWindow, metric: str) -> str:
    ahead = f"ahead in {each.ahead:,} of {each.changed:,} since the first change of model"
    return (
        f"mean of {counted(each.windows, 'window')}: "
        f"{metric} {each.served:.4f} served, {each.frozen:.4f} frozen, gain {each.gain:+.4f}; "
        f"{ahead if each.changed else 'no other model served'}"
    )


def _steps(steps: int) -> str:
    return f"  and {counted(steps, 'step')} of a champion that follows" if steps else ""
