"""Columns that have been read are encoded as frames are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitor.encoding import encoded
from monitor.reading import read_column
from monitor.views import Side
from registry.bundle import ModelBundle
from registry.conforming import conform
from registry.yardstick import encode, lean
from tests.handmade import make_frame
from tests.monitor.sides import side_of


def test_it_is_what_the_yardstick_makes_of_them(bundle: ModelBundle) -> None:
    frame = make_frame(120)
    frame.loc[:9, "carrier"], frame.loc[10:19, "carrier"], frame.loc[5:30, "weight"] = None, "never seen", np.nan
    side, rows, plain = side_of(bundle, frame), np.arange(0, 120, 7), lean(bundle.manifest.data_schema)
    expected = encode(side.inputs.iloc[rows], plain)
    np.testing.assert_array_equal(encoded(side, plain.columns, rows), expected)
    names = {one.name: read_column(frame[one.name], one).names for one in plain.of("categorical")}
    told = Side(side.inputs, side.own, side.scores, side.labels, side.labelled, names=names)
    np.testing.assert_array_equal(encoded(told, plain.columns, rows), expected)
    assert encoded(side, (), rows).shape == (len(rows), 0)


def test_a_categorical_column_is_read_as_it_is_conformed(bundle: ModelBundle) -> None:
    (column,) = bundle.manifest.data_schema.of("categorical")
    for values in (["a", "b", "a"], ["a", None, ""], [1, "1", 1.0], ["x" * 300, np.nan, True]):
        found = read_column(pd.Series(values, dtype=object, index=[7, 8, 9]), column)
        whole = bundle.manifest.data_schema.model_copy(update={"columns": (column,)})
        conformed = conform(pd.DataFrame({column.name: pd.Series(values, dtype=object)}), whole)[column.name]
        assert found.values.tolist() == conformed.tolist()
        assert found.names is not None
        again = [None if code < 0 else found.names.names[code] for code in found.names.codes]
        assert again == conformed.tolist()
        assert found.names.names.is_unique
