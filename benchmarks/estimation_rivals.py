"""NannyML's CBPE and DLE on the streams of the estimation benchmark, for an interpreter that has it.

    python benchmarks/estimation_rivals.py FOLDER

The folder holds `rows.parquet` (inputs, `__output_k__`, `__label__`, `__chunk__`: -1 is the reference) and
`problem.json` (the problem, the metrics). Into it goes `estimates.json`: by metric a value a window with bounds of
1.96 of NannyML's sampling errors. Defaults throughout. Nothing of Everfit is imported.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

NAMES = {"auc": "roc_auc", "accuracy": "accuracy", "mae": "mae", "rmse": "rmse"}


def estimator(frame: pd.DataFrame, problem: str, metrics: list[str], size: int) -> Any:
    """CBPE for classes, DLE for numbers."""
    from nannyml import CBPE, DLE

    named = [NAMES[metric] for metric in metrics]
    outputs = [name for name in frame if name.startswith("__output_")]
    if problem == "regression":
        inputs = [name for name in frame if not name.startswith("__")]
        return DLE(feature_column_names=inputs, y_pred=outputs[0], y_true="__label__", metrics=named, chunk_size=size)
    several = problem == "multiclass"
    return CBPE(
        metrics=named,
        y_pred_proba=dict(enumerate(outputs)) if several else outputs[1],
        y_pred="__answer__",
        y_true="__label__",
        problem_type="classification_multiclass" if several else "classification_binary",
        chunk_size=size,
    )


def estimate(frame: pd.DataFrame, problem: str, metrics: list[str]) -> dict[str, list[tuple[float, float, float]]]:
    """Every window is one chunk: estimated by itself, since months are not of one size."""
    if problem != "regression":
        outputs = [name for name in frame if name.startswith("__output_")]
        frame = frame.assign(__answer__=frame[outputs].to_numpy().argmax(axis=1))
    reference = frame[frame["__chunk__"] == -1].drop(columns="__chunk__").reset_index(drop=True)
    out: dict[str, list[tuple[float, float, float]]] = {metric: [] for metric in metrics}
    fitted: dict[int, Any] = {}
    for _, window in frame[frame["__chunk__"] >= 0].groupby("__chunk__"):
        size = len(window)
        if size not in fitted:
            fitted[size] = estimator(reference, problem, metrics, size).fit(reference)
        rows = window.drop(columns=["__chunk__", "__label__"]).reset_index(drop=True)
        found = fitted[size].estimate(rows).filter(period="analysis").to_df()
        for metric in metrics:
            value = float(np.asarray(found[(NAMES[metric], "value")])[0])
            half = 1.96 * float(np.asarray(found[(NAMES[metric], "sampling_error")])[0])
            out[metric].append((value, value - half, value + half))
    return out


def main() -> None:
    """The folder of the command line."""
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    problem, metrics = json.loads((folder / "problem.json").read_text())
    found = estimate(pd.read_parquet(folder / "rows.parquet"), problem, metrics)
    (folder / "estimates.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
