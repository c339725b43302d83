"""The ONNX nodes of a preparation give what numpy gives, on rows nobody would send on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from registry.conforming import conform
from registry.schema import BooleanColumn, CategoricalColumn, DatetimeColumn, NumericColumn, Schema, TextColumn
from registry.scoring import feed, input_shape
from retrain.preparation import Preparation, ScalingName
from retrain.preparation_graph import ML_DOMAIN, GraphBuilder, add_preparation

TYPES = {
    "numeric": TensorProto.DOUBLE,
    "boolean": TensorProto.DOUBLE,
    "datetime": TensorProto.INT64,
    "categorical": TensorProto.STRING,
    "text": TensorProto.DOUBLE,
}
SCHEMA = Schema(
    columns=(
        CategoricalColumn(name="word", categories=("a", "β", " a ", "None", "nan")),
        NumericColumn(name="number"),
        DatetimeColumn(name="moment"),
        BooleanColumn(name="truth"),
        NumericColumn(name="skewed name, with [signs]"),
        DatetimeColumn(name="other"),
        CategoricalColumn(name="never", categories=()),
        TextColumn(name="prose", words=("late", "lost", "absent")),
    )
)
Run = Callable[[pd.DataFrame], tuple[np.ndarray, np.ndarray]]


def training(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "word": rng.choice(["a", "β", " a ", "None", "nan", "rare"], rows),
            "number": rng.normal(size=rows),
            "moment": pd.date_range("2022-01-01", periods=rows, freq="37h"),
            "truth": rng.random(rows) < 0.3,
            "skewed name, with [signs]": np.exp(rng.normal(0, 3, rows)).round(1),
            "other": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "never": None,
            "prose": rng.choice(["late again", "lost, and late!", "all is well", ""], rows),
        }
    ).astype({"truth": object})
    for column in ("number", "truth", "other"):
        frame.loc[::9, column] = None
    return frame


def graph(preparation: Preparation, schema: Schema) -> Run:
    builder = GraphBuilder()
    outputs = zip(("numeric", "categories"), add_preparation(builder, preparation), strict=True)
    for name, source in outputs:
        builder.name(source, name)
    info = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            builder.nodes,
            "preparation",
            [info(column.name, TYPES[column.kind], ["n", *input_shape(column)]) for column in schema.columns],
            [info("numeric", TensorProto.FLOAT, None), info("categories", TensorProto.INT64, None)],
            builder.constants,
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(ML_DOMAIN, 3)],
        ir_version=10,
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda conformed: tuple(session.run(["numeric", "categories"], feed(conformed, schema)))


def fitted(scaling: ScalingName, schema: Schema = SCHEMA) -> tuple[Preparation, Run]:
    preparation = Preparation.fit(conform(training(), schema), schema, scaling)
    return preparation, graph(preparation, schema)


PAIRS = {scaling: fitted(scaling) for scaling in ("robust", "quantile")}


def require_same(preparation: Preparation, run: Run, conformed: pd.DataFrame) -> None:
    expected = preparation.apply(conformed)
    numeric, categories = run(conformed)
    assert numeric.shape == expected.numeric.shape
    assert np.abs(numeric - expected.numeric).max(initial=0) <= 1e-5
    assert (categories == expected.categories).all()


doubles = st.one_of(st.floats(), st.just(np.nan), st.integers(-(2**53), 2**53).map(float))
words = st.one_of(st.none(), st.just(""), st.sampled_from(["a", "β", " a ", "nan", "A"]), st.text(max_size=5))
times = st.one_of(st.none(), st.datetimes(pd.Timestamp("0001-01-02"), pd.Timestamp("9999-12-30")))
truths = st.sampled_from([True, False, None])
prose = st.one_of(st.none(), st.text(max_size=12), st.lists(st.sampled_from(["late", "LOST", "!"])).map(" ".join))
rows = st.tuples(words, doubles, times, truths, doubles, times, words, prose)


@pytest.mark.parametrize("scaling", PAIRS)
@settings(deadline=None, max_examples=60)
@given(batch=st.lists(rows, min_size=1, max_size=6))
def test_any_rows_are_prepared_alike(scaling: str, batch: list[tuple[object, ...]]) -> None:
    """Missing, unknown, empty, infinite, before 1970 and after 2100: graph and numpy agree to 1e-5."""
    frame = pd.DataFrame(batch, columns=list(SCHEMA.names), dtype=object)
    require_same(*PAIRS[scaling], conform(frame, SCHEMA))


@pytest.mark.parametrize("scaling", PAIRS)
def test_infinities_that_reach_the_graph_are_bounded(scaling: str) -> None:
    """A conformed frame has none; a caller that sends them anyway gets the ends of the scale, not NaN."""
    preparation, run = PAIRS[scaling]
    conformed = conform(training(2), SCHEMA).assign(number=[np.inf, -np.inf])
    require_same(preparation, run, conformed)
    assert np.isfinite(run(conformed)[0]).all()


@pytest.mark.parametrize(
    "kinds", [("numeric",), ("categorical",), ("text",), ("text", "numeric"), ("datetime",), ("boolean", "datetime")]
)
def test_schemas_of_few_kinds(kinds: tuple[str, ...]) -> None:
    """Without numbers, or without categories, the arrays are n by 0; batches of 0, 1 and many rows work."""
    schema = Schema(columns=tuple(column for column in SCHEMA.columns if column.kind in kinds))
    preparation, run = fitted("robust", schema)
    for size in (0, 1, 400):
        require_same(preparation, run, conform(training().head(size), schema))


def test_two_preparations_share_what_is_alike() -> None:
    """A second preparation of the same columns adds only what its scaling computes."""
    builder = GraphBuilder()
    first = add_preparation(builder, PAIRS["robust"][0])
    alone = len(builder.nodes)
    assert add_preparation(builder, PAIRS["robust"][0]) == first
    assert len(builder.nodes) == alone
    second = add_preparation(builder, PAIRS["quantile"][0])
    assert second[1] == first[1]
    assert len(builder.nodes) - alone < 10
