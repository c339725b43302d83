"""What was done for a model, and what it took: challengers, looks and steps are told apart."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from flows.following import Following
from flows.overview import following_lines, version_lines
from flows.spending import KINDS, Spending, spending
from registry.database import open_engine
from registry.ledger import Entry, Ledger
from registry.thinning import GONE, THIN
from registry.versions import VersionInfo

AT = datetime(2024, 1, 2)


def told(kind: str, outcome: str, version: str | None, cpu: float | None) -> Entry:
    """An entry that costs so much."""
    details = {} if cpu is None else {"cpu": cpu}
    return Entry(task="a", kind=kind, at=AT, version=version, outcome=outcome, details=details)


def test_a_training_is_told_by_what_it_was(tmp_path: Path) -> None:
    entries = [
        told("remedy", "registered", "2", 5.0),
        told("gate", "hold", "2", 1.0),
        told("remedy", "refused", None, 0.5),
        told("second_look", "hold", "2", 0.25),
        told("proof", "hold", None, 2.0),
        told("remedy", "registered", "3", None),  # what a look has proven
        told("proof", "promote", "3", 3.0),
        told("follow", "continued", "4", 1.0),
        told("follow", "stopped", "4", 0.5),
        told("window", "", "4", None),
    ]
    ledger = Ledger(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "a")
    for entry in entries:
        ledger.write(entry)
    found = spending(ledger.costs(KINDS))
    assert found == Spending(challengers=1, steps=1, looks=2, challenging=6.75, stepping=1.5, looking=5.0)
    assert found.cpu == 13.25
    assert str(found) == (
        "1 challenger (7 CPU-s with their gates), 2 tries of following, to see whether it pays (5 CPU-s), "
        "1 step of a champion that followed (2 CPU-s)"
    )
    assert str(spending([])) == "no remedy has made a challenger"


def test_steps_whose_files_were_let_go_take_one_line() -> None:
    def info(version: str, aliases: tuple[str, ...] = (), **tags: str) -> VersionInfo:
        return VersionInfo(version, AT, aliases, tags, {"auc": 0.7})

    gone = {THIN: GONE}
    versions = [info("1"), info("2", **gone), info("3", **gone), info("4", ("champion",)), info("5", **gone)]
    head, first, both, champion, one = version_lines(versions, {"1": 5, "2": 1_000, "3": 500, "4": 7}, "auc")
    assert [line.split()[-1] for line in (head, first, both, champion, one)] == ["served", "5", "1,500", "7", "0"]
    assert both.startswith("  2 to 3: steps of a champion that followed, files let go")
    assert one.startswith("  5: steps")
    assert len({len(line) for line in (head, first, both, champion, one)}) == 1


def test_it_is_said_that_the_champion_follows() -> None:
    step = Entry(task="a", kind="follow", at=AT, version="4", outcome="continued", reasons=("gain +0.01",))
    chain = Following("1", AT, ("2", "3", "4"), AT)
    line, figure, reason = following_lines(chain, [step])
    assert line == "  the champion follows version 1: 2 steps, it knows the labels of 2024-01-02 00:00"
    told = "its test figure is of rows it answered before it learnt them, not of version 1's"
    assert (figure.strip(), reason.strip()) == (told, "gain +0.01")
    waiting = step.model_copy(update={"details": {"wait": 4}})
    assert following_lines(chain, [waiting])[0] == f"{line}, and learns again after 4 windows while all is ok"
    missed = step.model_copy(update={"kind": "no_step", "outcome": None, "reasons": ("one class alone",)})
    last = following_lines(chain, [step, missed])[-1]
    assert last == "    last step not taken (2024-01-02 00:00): one class alone"
    assert following_lines(Following("1", AT, ("2",), AT), [step])[2:] == []  # a step of a chain before
    assert following_lines(Following("2", AT, ("2",), AT), [])[1:] == []  # its own anchor
    assert following_lines(None, [step]) == []
