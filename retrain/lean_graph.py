"""Graphs made lean for serving: constants folded, normalisation within the layer before it, nothing that does nothing;
and weights that lie on an int8 grid held as int8.

What `onnxscript.optimizer.optimize` makes of Everfit's graphs, in half its time: it tries some fifty rules at each
node, of which those here are the ones that ever fit one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from retrain.families.grid import spared, whole_numbers
from retrain.preparation_graph import PREFIX

NEAR = 1e-3
"""So near to whole numbers a grid's are found: what they are multiplied with is rounded to single precision."""


def lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that answers the same with fewer nodes, in as few bytes."""
    import onnx_ir.passes.common as passes  # here: a search imports this file before its first trial
    from onnx_ir import serde
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules import common as rules

    fitting = RewritePass(
        [
            *(rules.mul_by_1_rule, rules.div_by_1_rule, rules.collapse_slice_rule, rules.max_min_rule),
            *(rules.squeeze_reshape_1d_rule, rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_gemm_rule),
        ]
    )
    whole = serde.deserialize_model(model)
    for _ in range(2):  # what is rewritten may be folded then
        folded, rewritten = fold_constants(whole, onnx_shape_inference=True), fitting(whole)
        passes.RemoveUnusedNodesPass()(whole)
        if not (folded.modified or rewritten.modified):
            break
    for last in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        last(whole)
    return packed(serde.serialize_model(whole))


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with int8 and scales in the place of matrices and kernels that lie on a grid, where that takes fewer
    bytes. They are known by their numbers, to which normalisation may have given other scales and signs; those of a
    network that is float32 lie on none."""
    nodes, initializers = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for one in model.graph.initializer:
        if (found := _on_grid(one)) is None:
            initializers.append(one)
            continue
        whole, scales, axis = found
        names = f"{PREFIX}int8_{len(nodes)}", f"{PREFIX}scales_{len(nodes)}"
        initializers += [numpy_helper.from_array(whole, names[0]), numpy_helper.from_array(scales, names[1])]
        nodes.append(helper.make_node("DequantizeLinear", names, [one.name], axis=axis))
    if nodes:
        nodes += model.graph.node
        del model.graph.initializer[:], model.graph.node[:]
        model.graph.initializer.extend(initializers)
        model.graph.node.extend(nodes)
    return model


def _on_grid(weights: onnx.TensorProto) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], int] | None:
    """Whole numbers, scales (channels,) and the axis of the channels; None where that gains nothing."""
    shape = tuple(weights.dims)
    if weights.data_type != TensorProto.FLOAT or len(shape) < 2:
        return None
    for axis in (0, 1):
        if spared(shape, axis) > 0:
            values = torch.from_numpy(numpy_helper.to_array(weights).copy())
            whole, scales = whole_numbers(values, axis)
            if bool(((values / scales - whole).abs() < NEAR).all()):
                return whole.to(torch.int8).numpy(), scales.flatten().numpy(), axis
    return None
