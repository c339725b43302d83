"""The command `search`: from a task to a registered model, and the list of what there is to search with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.formatting import wrap_text

from flows.door import SECONDS, SEED, connect, resumable
from flows.offered import require_families, require_stopping, require_strategy
from flows.waiting import waiting

if TYPE_CHECKING:
    from flows.workplace import Workplace
    from registry.bundle import Manifest
    from retrain.families.base import Family
    from retrain.families.parameters import Parameter
    from retrain.search.stopping.base import Stopping
    from retrain.search.strategies.base import Strategy


@click.command()
@click.argument("task", required=False)
@click.option("--trials", type=click.IntRange(min=1), help="Most trials; default: the task's.")
@click.option("--seconds", type=SECONDS, help="Most seconds, from data to card; default: the task's.")
@click.option("--seed", type=SEED, help="Seed; default: the task's.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: the task's.")
@click.option(
    "--strategy", callback=require_strategy, help="How candidates are chosen, this time; default: the task's."
)
@click.option(
    "--space",
    "families",
    metavar="NAME[,NAME]",
    callback=require_families,
    help="Families of networks, this time; default: the task's.",
)
@click.option(
    "--stopping", callback=require_stopping, help="How weak networks are stopped early, this time; default: the task's."
)
@click.option("--fresh", is_flag=True, help="Begin anew instead of resuming a search that was killed.")
@click.option("--list", "listed", is_flag=True, help="Show what strategies, early stopping and spaces there are.")
def search(
    task: str | None,
    trials: int | None,
    seconds: float | None,
    seed: int | None,
    workers: int | None,
    strategy: str | None,
    families: list[str] | None,
    stopping: str | None,
    fresh: bool,
    listed: bool,
) -> None:
    """Search for a model and register it.

    TASK is the YAML file, or the name of a task that was searched before. The first version becomes the champion; a
    later one is registered as challenger. A search that was killed goes on from its journal.

    \b
    Example:
      everfit search flights.yaml --seconds 600
      everfit search flights.yaml --strategy random --space mlp --stopping none
      everfit search --list
    """
    if listed:
        click.echo("\n".join(means()))
        return
    if task is None:
        raise click.UsageError("Missing argument 'TASK' (or --list).")
    settings = connect()
    from flows.workplace import Workplace, find_task, registered_for_search
    from retrain.search.forkserver import begin

    spec = find_task(settings, task)  # first of all: a word that is wrong is told before what takes seconds to load
    begin()
    with waiting("loading the libraries"):
        from flows.progress import listening
        from flows.search import require_known, require_rows
        from flows.search import search as flow
        from flows.stages import perform
        from flows.terminal import ProgressLine
        from registry.mistakes import pointing
        from retrain.search.session import require_means

    require_known(strategy, families)
    file = None if task == spec.name else Path(task)
    if file is not None:
        with pointing(file):  # a task that cannot be searched is not registered
            require_means(spec)
            require_rows(spec)
    registered = nullcontext() if file is None else registered_for_search(settings, spec)
    again = "run it again, and it goes on from the networks that are trained (--fresh begins anew)"
    with pointing(file), registered, resumable(again), ProgressLine() as shown, listening(shown):
        version = perform(flow, spec.name, trials, seconds, seed, workers, fresh, strategy, families, stopping)
    click.echo(f"{spec.name}: version {version}")
    place = Workplace.open(settings, spec)
    for line in (*found_lines(place, version), *_costs(place, version)):
        click.echo(f"  {line}")


def found_lines(place: Workplace, version: str) -> Iterator[str]:
    """How good a version is, what has become of it, and where there is more."""
    from registry.bundle import CARD

    name, metric, bundle = place.task.name, place.task.metric, place.versions.fetch(place.task.name, version)
    tables = bundle.manifest.metrics
    values = {"": tables.get("champion", {}).get(metric), "boosted trees ": tables.get("boosted", {}).get(metric)}
    known = ", ".join(f"{who}{value:.4f}" for who, value in values.items() if value is not None)
    yield f"{metric} on the test rows: {known or 'not known'}"
    if (weak := bundle.manifest.weakness) is not None:
        yield weak
    if (fallen := bundle.manifest.fall) is not None:
        yield f"warning: {fallen}"
    serves = place.versions.get(name, "champion") == version
    if not serves and (champion := place.versions.get(name, "champion")) is not None:
        yield beside(bundle.manifest, champion, place.versions.fetch(name, champion).manifest)
    yield "it is the champion" if serves else f"to serve it: everfit promote {name} {version}"
    yield f"card: {bundle.folder / CARD}"


def beside(found: Manifest, version: str, champion: Manifest) -> str:
    """How a version stands beside the champion, by the test rows where these are the same."""
    from registry.metrics import metrics_for

    task = found.task
    mine, its = (one.metrics.get("champion", {}).get(task.metric, float("nan")) for one in (found, champion))
    if _tested(found) != _tested(champion):
        return f"version {version}, the champion, was tested on other rows: their figures do not compare"
    better = (mine > its) == metrics_for(task.problem)[task.metric].greater_is_better
    said = "as good" if mine == its else "better" if better else "worse"
    return f"version {version}, the champion, has {task.metric} {its:.4f} on the same rows: this one is {said} there"


def _tested(one: Manifest) -> tuple[object, ...]:
    """What tells which rows a model was tested on."""
    task = one.task
    return one.lineage.data_hash, one.lineage.rows, task.splits, task.target, task.time or task.search.seed


def _costs(place: Workplace, version: str) -> Iterator[str]:
    """What the search took, by the ledger."""
    from flows.search import cost_lines

    found = place.ledger.read(kinds={"search"}, version=version, last=1)
    return cost_lines(found[-1].details) if found else iter(())


def means() -> Iterator[str]:
    """The strategies, stopping policies and spaces as lines: name, the first sentence of the docstring, the paper; then
    the dimensions with what each may be."""
    from retrain.families.catalogue import FAMILIES
    from retrain.search.stopping.catalogue import STOPPING
    from retrain.search.strategies.catalogue import STRATEGIES

    yield "Strategies (`--strategy NAME`, or `search.strategy` in the task):"
    yield from _table(STRATEGIES)
    yield ""
    yield "Early stopping (`--stopping NAME`, or `search.stopping` in the task):"
    yield from _table(STOPPING)
    yield ""
    yield "Spaces, each a family of networks (`--space NAME[,NAME]`, or `search.families` in the task):"
    yield from _table(FAMILIES)
    yield ""
    yield "Dimensions (`search.choices` in the task; `depth` means that of every space, `mlp.depth` that of one), for"
    yield "tasks that read a table and for those that read an image; only where named are `kept_units`, `weight_type`,"
    yield "`augmented`, `jitter`, `swap_noise`, and of images `feature_dropout`, which is of columns beside them:"
    yield from _dimensions(FAMILIES)


def _dimensions(families: Sequence[Family]) -> Iterator[str]:
    from retrain.search.narrowing import described

    known = _by_reads(families)
    width = max(map(len, known))
    for name, own in known.items():
        told: dict[str, list[str]] = {}
        for one in own:
            told.setdefault(described(one), []).append(one.name)
        text = "; ".join(f"{', '.join(names)}: {what}" for what, names in told.items())
        yield wrap_text(text, 110, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))


def _by_reads(families: Sequence[Family]) -> dict[str, tuple[Parameter, ...]]:
    """The dimensions of training and of each family for tasks of tables and of images, under names such as
    "cell, image"."""
    from retrain.augmentation import on_demand
    from retrain.families.base import Reads
    from retrain.search.space import SearchSpace

    kinds: tuple[Reads, ...] = ("table", "image")
    training = {
        f"training, {reads}": (*SearchSpace((), 10_000, 27, "binary", reads).training, *on_demand(reads))
        for reads in kinds
    }
    own = {
        f"{family.name}, {reads}": (*family.parameters_for(reads), *family.on_demand())
        for family in families
        for reads in kinds
        if reads in family.reads
    }
    return training | own


def _table(entries: Sequence[type[Strategy]] | Sequence[type[Stopping]] | Sequence[Family]) -> Iterator[str]:
    width = max(len(one.name) for one in entries)
    for one in entries:
        sentence = first_sentence(one.__doc__ or "")
        paper = f" [{one.paper}]" if one.paper else ""
        indented = wrap_text(
            f"{sentence}{paper}", 110, initial_indent=f"  {one.name:<{width}}  ", subsequent_indent=" " * (width + 4)
        )
        yield indented


def first_sentence(text: str) -> str:
    """The first sentence of a docstring on one line.

    >>> first_sentence("Trees (Bergstra et al. 2011),\\n    joint. More.")
    'Trees (Bergstra et al. 2011), joint.'
    """
    flat = " ".join(text.split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", flat)[0]
