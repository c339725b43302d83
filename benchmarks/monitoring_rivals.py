"""NannyML, river and frouros on the streams of the monitoring benchmark, for an interpreter that has them.

    python benchmarks/monitoring_rivals.py FOLDER...

Each folder holds `reference.parquet` and `stream.parquet` (the watched columns, `__positive__`, `__label__`) and
`size.json`, the rows of a window. Into each goes `verdicts.json`: by name a letter a window ("s" shifted, "d" degraded,
"." ok), the CPU seconds behind them, and whether labels were needed. The last line printed is JSON: the versions, and
what could not run with the reason. Defaults throughout; imports are not timed. Nothing of Everfit is imported.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

POSITIVE, LABEL, ANSWER = "__positive__", "__label__", "__answer__"
PACKAGES = ("nannyml", "river", "frouros")

PSI_BOUND = 0.2
"""The customary bound from which a population stability index counts as a shift: frouros has none of its own."""


@dataclass(frozen=True)
class Task:
    """A stream to judge. Both frames have the same columns; the last window is whole."""

    reference: pd.DataFrame
    stream: pd.DataFrame
    size: int

    @classmethod
    def read(cls, folder: Path) -> Task:
        """What the benchmark wrote."""
        frames = [pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "stream")]
        frames = [frame.assign(**{ANSWER: (frame[POSITIVE] > 0.5).astype(int)}) for frame in frames]
        return cls(*frames, json.loads((folder / "size.json").read_text()))

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.stream) // self.size

    @cached_property
    def columns(self) -> list[str]:
        """The watched columns."""
        return [name for name in self.stream if not name.startswith("__")]

    @cached_property
    def numbers(self) -> list[str]:
        """Those that hold numbers."""
        return [name for name in self.columns if pd.api.types.is_numeric_dtype(self.reference[name])]

    @cached_property
    def texts(self) -> list[str]:
        """Those that hold categories."""
        return [name for name in self.columns if name not in self.numbers]

    def errors(self, frame: pd.DataFrame) -> list[int]:
        """1 where the answer was wrong."""
        return (frame[ANSWER] != frame[LABEL]).astype(int).tolist()


Ringing = Callable[[Task], "np.ndarray"]
"""Whether an alarm rings in each window, (windows,)."""


def nannyml_columns(task: Task) -> np.ndarray:
    """Any column's univariate drift."""
    from nannyml import UnivariateDriftCalculator

    calculator = UnivariateDriftCalculator(
        column_names=task.columns, treat_as_categorical=task.texts, chunk_size=task.size
    )
    return _alerts(calculator.fit(task.reference).calculate(task.stream).to_df())


def nannyml_reconstruction(task: Task) -> np.ndarray:
    """The error of reconstruction from principal components."""
    from nannyml import DataReconstructionDriftCalculator

    calculator = DataReconstructionDriftCalculator(column_names=task.columns, chunk_size=task.size)
    return _alerts(calculator.fit(task.reference).calculate(task.stream).to_df())


def nannyml_cbpe(task: Task) -> np.ndarray:
    """Accuracy as estimated without labels."""
    from nannyml import CBPE

    estimator = CBPE(**_accuracy(task))
    return _alerts(estimator.fit(task.reference).estimate(task.stream.drop(columns=LABEL)).to_df())


def nannyml_realised(task: Task) -> np.ndarray:
    """Accuracy with labels."""
    from nannyml import PerformanceCalculator

    calculator = PerformanceCalculator(**_accuracy(task))
    return _alerts(calculator.fit(task.reference).calculate(task.stream).to_df())


def _accuracy(task: Task) -> dict[str, Any]:
    """What NannyML's estimator and calculator of accuracy are asked."""
    columns = {"y_pred_proba": POSITIVE, "y_pred": ANSWER, "y_true": LABEL}
    return {"metrics": ["accuracy"], "problem_type": "classification_binary", "chunk_size": task.size, **columns}


def _alerts(frame: pd.DataFrame) -> np.ndarray:
    """Whether any alert rings, in each chunk of the stream."""
    period = next(name for name in frame if name[-1] == "period")
    rows = frame[frame[period] == "analysis"]
    flags = rows[[name for name in frame if name[-1] == "alert"]]
    return flags.fillna(False).astype(bool).any(axis=1).to_numpy()


def river_detector(name: str) -> Ringing:
    """One of river's detectors on the 0/1 errors, the reference's first; a window rings in which it fires."""

    def ringing(task: Task) -> np.ndarray:
        from river import drift
        from river.drift import binary

        detector = getattr(drift, name, None) or getattr(binary, name)
        detector, took_numbers = detector(), hasattr(drift, name)
        fired = []
        for error in _errors(task):
            detector.update(error if took_numbers else bool(error))
            fired.append(detector.drift_detected)
        return _by_window(fired, task)

    return ringing


def frouros_hddm(task: Task) -> np.ndarray:
    """frouros' HDDM-A on the 0/1 errors, begun anew after each alarm."""
    from frouros.detectors.concept_drift import HDDMA, HDDMAConfig

    detector, fired = HDDMA(config=HDDMAConfig()), []
    for error in _errors(task):
        detector.update(value=error)
        fired.append(bool(detector.status["drift"]))
        if fired[-1]:
            detector.reset()
    return _by_window(fired, task)


def frouros_psi(task: Task) -> np.ndarray:
    """Any number's population stability index above the customary bound; missing values are passed over."""
    from frouros.detectors.data_drift import PSI

    out = np.zeros(task.windows, dtype=bool)
    for name in task.numbers:
        detector = PSI()
        detector.fit(X=task.reference[name].dropna().to_numpy())
        for index, window in enumerate(np.split(task.stream[name].to_numpy(), task.windows)):
            known = window[~np.isnan(window)]
            out[index] |= len(known) > 0 and detector.compare(X=known)[0].distance >= PSI_BOUND
    return out


def _errors(task: Task) -> Iterator[int]:
    yield from task.errors(task.reference)
    yield from task.errors(task.stream)


def _by_window(fired: list[bool], task: Task) -> np.ndarray:
    return np.array(fired[-len(task.stream) :]).reshape(task.windows, task.size).any(axis=1)


VERDICTS: dict[str, tuple[Ringing, bool]] = {
    "NannyML, any column": (nannyml_columns, False),
    "NannyML, reconstruction": (nannyml_reconstruction, False),
    "NannyML, CBPE": (nannyml_cbpe, False),
    "NannyML, realised": (nannyml_realised, True),
    "river, ADWIN": (river_detector("ADWIN"), True),
    "river, PageHinkley": (river_detector("PageHinkley"), True),
    "river, DDM": (river_detector("DDM"), True),
    "river, HDDM_A": (river_detector("HDDM_A"), True),
    "frouros, HDDM-A": (frouros_hddm, True),
    "frouros, PSI": (frouros_psi, False),
}
ABOUT_PERFORMANCE = {"NannyML, CBPE"} | {name for name, (_, labels) in VERDICTS.items() if labels}


def judge(task: Task, skipped: dict[str, str]) -> dict[str, dict[str, object]]:
    """All verdicts on one stream. What fails is left out everywhere: its reason goes into `skipped`."""
    out: dict[str, dict[str, object]] = {}
    for name, (ringing, labels) in VERDICTS.items():
        if name in skipped:
            continue
        began = time.process_time()
        try:
            rings = ringing(task)
        except Exception as error:  # noqa: BLE001 - another's library: what fails there is a finding, not the end
            skipped[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        letter = "d" if name in ABOUT_PERFORMANCE else "s"
        letters = "".join(letter if on else "." for on in rings)
        out[name] = {"letters": letters, "cpu": time.process_time() - began, "labels": labels}
    return out


def installed(skipped: dict[str, str]) -> dict[str, str]:
    """The versions of the packages that are there; the verdicts of the others are skipped. All are imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
            __import__(package)
        except (PackageNotFoundError, ImportError) as error:
            found.pop(package, None)
            title = {"nannyml": "NannyML"}.get(package, package)
            skipped |= {name: str(error) for name in VERDICTS if name.startswith(title)}
    return found


def main() -> None:
    """Judge the streams in all folders of the command line."""
    logging.disable(logging.INFO)
    skipped: dict[str, str] = {}
    versions = installed(skipped)
    for folder in map(Path, sys.argv[1:]):
        verdicts = judge(Task.read(folder), skipped)
        (folder / "verdicts.json").write_text(json.dumps(verdicts))
    print(json.dumps({"versions": versions, "skipped": skipped}))


if __name__ == "__main__":
    main()
