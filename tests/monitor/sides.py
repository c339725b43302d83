"""Rows as a measure sees them, answered by a bundle's own graph, without a log."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitor.views import Side, View
from registry.bundle import ModelBundle
from registry.conforming import conform
from registry.scoring import Scorer


def side_of(bundle: ModelBundle, frame: pd.DataFrame) -> Side:
    """Rows of `make_frame` as the bundle answers them, all labels there."""
    labels = bundle.manifest.target.encode(frame["late"])
    everything = np.ones(len(frame), dtype=bool)
    scores = Scorer.load(bundle).predict(frame)
    inputs = conform(frame, bundle.manifest.data_schema)
    return Side(inputs, everything, scores, labels, everything, times=frame["when"].reset_index(drop=True))


def view_of(bundle: ModelBundle, window: pd.DataFrame, reference: pd.DataFrame) -> View:
    """Two such frames side by side."""
    return View(side_of(bundle, window), side_of(bundle, reference), bundle.manifest)
