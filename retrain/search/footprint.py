"""What a network costs to keep and to ask, measured where it was trained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from retrain.batches import Rows
from retrain.image_source import ImageInput

RUNS = 15


@torch.inference_mode()
def single_row_ms(network: nn.Module, rows: Rows) -> float | None:
    """Median milliseconds for the first of the rows alone, by torch, after one run that is not counted; None without a
    row. It compares networks of one search with one another: what is served is one ONNX graph, and quicker."""
    if not len(rows):
        return None
    network.eval()
    one = rows.take(torch.zeros(1, dtype=torch.int64)).inputs
    return _median_ms(lambda: network(*one))


def served_row_ms(network: nn.Module, rows: Rows, image: ImageInput | None = None) -> float | None:
    """The same in ONNX Runtime on one thread, which serves: up to ten times less for a small network. The export takes
    seconds. None without a row."""
    import onnxruntime as ort
    from onnx import helper

    from retrain.network_graph import CATEGORIES, IMAGES, NUMERIC, exported
    from retrain.preparation_graph import IR_VERSION, OPSET

    if not len(rows):
        return None
    graph = exported(network, rows.numeric.shape[1], rows.categories.shape[1], image)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    one = rows.take(torch.zeros(1, dtype=torch.int64)).inputs
    known = dict(zip((NUMERIC, CATEGORIES, IMAGES), (each.numpy() for each in one), strict=False))
    inputs = {each.name: known[each.name] for each in session.get_inputs()}
    return _median_ms(lambda: session.run(None, inputs))


def _median_ms(answer: Callable[[], object]) -> float:
    answer()
    taken = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        answer()
        taken.append(time.perf_counter() - begun)
    return 1_000 * statistics.median(taken)
