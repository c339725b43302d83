"""What a network costs to keep and to ask, measured where it was trained."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from retrain.training import Rows

RUNS = 15


@torch.inference_mode()
def single_row_ms(network: nn.Module, rows: Rows) -> float | None:
    """Median milliseconds for the first of the rows alone, by torch, after one run that is not counted; None without a
    row. It compares networks of one search with one another: what is served is one ONNX graph, and quicker."""
    if not len(rows):
        return None
    network.eval()
    one = rows.take(torch.zeros(1, dtype=torch.int64)).inputs
    network(*one)
    taken = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        network(*one)
        taken.append(time.perf_counter() - begun)
    return 1_000 * statistics.median(taken)
