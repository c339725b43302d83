"""Who takes part in the monitoring benchmark: the protocol, Evidently, and those that live in another interpreter.

A verdict is a severity a window. What looks at inputs alone says `shifted`, what looks at errors says `degraded`:
only Everfit says `faulty`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from benchmarks.monitoring_streams import Rows

OK, LETTERS = "ok", {"ok": ".", "shifted": "s", "faulty": "f", "degraded": "d"}

UNSEEN = "?"

DRIFTED_SHARE = 0.5
"""Share of drifted columns from which Evidently's preset calls the data set drifted, by default."""

SCRIPT = Path(__file__).with_name("monitoring_rivals.py")


class Stream(Protocol):
    """Windows of `size` rows each, and the rows to compare them with."""

    @property
    def reference(self) -> Rows:
        """The rows to compare with."""

    @property
    def size(self) -> int:
        """Rows of a window."""

    def __iter__(self) -> Iterator[Rows]:
        """The windows."""


class Contender(Protocol):
    """Something that watches a stream, window by window, and may give several verdicts about each."""

    verdicts: Sequence[str]

    def start(self, reference: Rows) -> None:
        """Take the reference, labels included."""

    def see(self, window: Rows, answered: int | None) -> Mapping[str, str]:
        """The severity of the newest window by each verdict. Its own labels count only if `answered` is its number;
        else `answered` is the earlier window whose labels have arrived with it, None for none."""


@dataclass(frozen=True)
class Trace:
    """A verdict on each window of a stream, a letter each (see `LETTERS`), the CPU seconds it took, and whether it
    needs labels. Verdicts that are made together share their seconds."""

    letters: str
    cpu: float
    labels: bool = False

    def later(self, delay: int | None) -> Trace:
        """The same when labels come so many windows late, None for never."""
        if not self.labels:
            return self
        windows = len(self.letters)
        late = windows if delay is None else min(delay, windows)
        return Trace("." * late + self.letters[: windows - late], self.cpu, self.labels)


def play(contender: Contender, stream: Stream, windows: int, delay: int | None, *, first: int = 0) -> dict[str, Trace]:
    """A contender on the first windows of a stream whose labels come `delay` windows late, None for never. One that
    remembers nothing need not see those before `first`: their letter is `UNSEEN`."""
    began = time.process_time()
    contender.start(stream.reference)
    cpu = time.process_time() - began
    letters: dict[str, list[str]] = {name: [UNSEEN] * first for name in contender.verdicts}
    for index, window in enumerate(islice(stream, first, windows), start=first):
        answered = None if delay is None or index < delay else index - delay
        began = time.process_time()
        found = contender.see(window, answered)
        cpu += time.process_time() - began
        for name, severity in found.items():
            letters[name].append(LETTERS[severity])
    return {name: Trace("".join(each), cpu) for name, each in letters.items()}


class Evidently:
    """Evidently's data drift preset, with its defaults: whether the data set drifted, and whether any column did.

    Both verdicts are in one metric of the preset, which takes a tenth of its time alone: the rest draws the `pictures`.
    """

    verdicts: Sequence[str] = ("Evidently, data set", "Evidently, any column")

    def __init__(self, *, pictures: bool = False) -> None:
        self._pictures = pictures

    def start(self, reference: Rows) -> None:
        """The reference as a data set of its own."""
        os.environ.setdefault("DO_NOT_TRACK", "true")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DriftedColumnsCount
        from evidently.presets import DataDriftPreset

        inputs = reference.inputs
        numbers = [name for name in inputs if pd.api.types.is_numeric_dtype(inputs[name])]
        texts = [name for name in inputs if name not in numbers]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
        self._dataset = lambda frame: Dataset.from_pandas(frame, data_definition=definition)
        self._report = lambda: Report([DataDriftPreset() if self._pictures else DriftedColumnsCount()])
        self._reference = self._dataset(inputs)

    def see(self, window: Rows, answered: int | None) -> dict[str, str]:
        """Both verdicts of one report."""
        found = self._report().run(self._dataset(window.inputs), self._reference).dict()
        drifted = next(one["value"] for one in found["metrics"] if "DriftedColumnsCount" in one["metric_name"])
        ringing = (drifted["share"] >= DRIFTED_SHARE, drifted["count"] >= 1)
        return {name: "shifted" if on else OK for name, on in zip(self.verdicts, ringing, strict=True)}


@dataclass(frozen=True)
class Rivals:
    """NannyML, river and frouros, in an interpreter that has them."""

    python: Path

    def judge(self, streams: Mapping[str, tuple[Stream, int]]) -> tuple[dict[str, dict[str, Trace]], dict[str, str]]:
        """All verdicts on the first windows of each stream, labels at once; and what could not run, with the reason.

        The streams share a reference. Raises `subprocess.CalledProcessError` when the interpreter fails.
        """
        with tempfile.TemporaryDirectory() as made:
            folders = [Path(made) / str(number) for number in range(len(streams))]
            for folder, (stream, windows) in zip(folders, streams.values(), strict=True):
                _write(folder, stream, windows)
            command = [str(self.python), "-W", "ignore", str(SCRIPT), *map(str, folders)]
            quiet = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
            found = [json.loads((folder / "verdicts.json").read_text()) for folder in folders]
        traces = [{name: Trace(**one) for name, one in verdicts.items()} for verdicts in found]
        about: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return dict(zip(streams, traces, strict=True)), about


def _write(folder: Path, stream: Stream, windows: int) -> None:
    folder.mkdir()
    _frame(stream.reference).to_parquet(folder / "reference.parquet")
    pd.concat([_frame(rows) for rows in islice(stream, windows)]).to_parquet(folder / "stream.parquet", index=False)
    (folder / "size.json").write_text(json.dumps(stream.size))


def _frame(rows: Rows) -> pd.DataFrame:
    return rows.inputs.assign(__positive__=rows.positive, __label__=rows.labels)
