"""The graph that serving runs: the same networks, fed by three matrices instead of a column each.

A single row pays for inputs and outputs as for nodes: what is twenty columns in `model.onnx` is `numbers`, `moments`
and `codes` here, and the answers are one matrix. What the matrices hold is in the model's metadata, and
`registry/serving_graph.py` fills and reads them. Only columns that a member reads are there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import pandas as pd
from onnx import TensorProto, helper

from registry.bundle import MODEL, SERVING
from registry.errors import BundleError
from registry.schema import Schema
from registry.scoring import Scores, differences, feed, input_shape, require_small
from registry.serving_graph import ANSWERS, CODES, LAYOUT, MOMENTS, NUMBERS, Coded, Layout, ServingGraph, scores_of
from registry.target import Target
from retrain.mixture_graph import Mixture
from retrain.preparation import CategoryColumn, Preparation
from retrain.preparation_graph import GraphBuilder, model_of

UNSERVED = "unserved"
"""Key of `candidates.json` with the reason why there is no graph for serving; only where one was left out."""

_LOG = logging.getLogger("everfit")


def layout_of(preparations: Sequence[Preparation], schema: Schema) -> Layout:
    """What the matrices hold: each column, and each way to code a column's categories, once."""
    widths = {column.name: input_shape(column)[0] for column in schema.columns if column.kind != "image"}
    numbers = dict.fromkeys(column.name for one in preparations for column in one.numbers)
    moments = dict.fromkeys(column.name for one in preparations for column in one.moments)
    coded = dict.fromkeys(Coded(column.name, column.categories) for one in preparations for column in one.categories)
    return Layout({name: widths[name] for name in numbers}, tuple(moments), tuple(coded))


class ServingBuilder(GraphBuilder):
    """Takes a preparation's columns from the matrices of a layout."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self._starts = starts(layout.numbers)

    def numbers(self, names: Sequence[str], places: Sequence[int], width: int) -> str:
        """As the base says."""
        widths = self._layout.numbers
        wide = [self._starts[name] + place for name in names for place in range(widths[name])]
        return self.pick(NUMBERS, [wide[place] for place in places], sum(widths.values()))

    def moments(self, names: Sequence[str]) -> str:
        """As the base says."""
        known = self._layout.moments
        return self.pick(MOMENTS, [known.index(name) for name in names], len(known))

    def codes(self, columns: Sequence[CategoryColumn]) -> str:
        """As the base says."""
        known = self._layout.codes
        return self.pick(CODES, [known.index(Coded(one.name, one.categories)) for one in columns], len(known))

    def model(self, mixture: Mixture, target: Target) -> onnx.ModelProto:
        """What was built, with one matrix of answers, as a model."""
        layout, info = self._layout, helper.make_tensor_value_info
        self.name(self.join([mixture.first, mixture.doubt]), ANSWERS)
        widths = {NUMBERS: sum(layout.numbers.values()), MOMENTS: len(layout.moments), CODES: len(layout.codes)}
        kinds = {NUMBERS: TensorProto.DOUBLE, MOMENTS: TensorProto.INT64, CODES: TensorProto.INT64}
        inputs = [info(name, kinds[name], ["n", width]) for name, width in widths.items() if width]
        model = model_of(self, inputs, [info(ANSWERS, TensorProto.FLOAT, ["n", 2 + (len(target.classes) or 1)])])
        helper.set_model_props(model, {LAYOUT: layout.to_json()})
        return model


def leave_out_unlike(
    folder: Path, answers: Scores, schema: Schema, target: Target, radius: float, conformed: pd.DataFrame
) -> str | None:
    """Remove the graph for serving where it answers otherwise than the bundle's own did on conformed rows, and say why;
    None where it stays. It makes answers quicker, and serving does without it: that is no reason to end a search."""
    try:
        said = ServingGraph.open(folder / SERVING, schema).run(feed(conformed, schema))
        found = differences(scores_of(said, target.classes, radius), answers, radius=radius)
        require_small(found, f"graph for serving on {len(conformed)} rows")
    except BundleError as error:
        (folder / SERVING).unlink()
        _LOG.warning("%s is left out, and %s answers, which takes longer: %s", SERVING, MODEL, error)
        return str(error)
    return None


def starts(widths: Mapping[str, int]) -> dict[str, int]:
    """Where each of columns side by side begins.

    >>> starts({"age": 1, "note": 12, "size": 1})
    {'age': 0, 'note': 1, 'size': 13}
    """
    found, at = {}, 0
    for name, width in widths.items():
        found[name], at = at, at + width
    return found
