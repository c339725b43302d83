"""A column as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitor.values import Numbers, values_of


def test_moments_beyond_nanoseconds_are_seconds() -> None:
    column = pd.Series(np.array(["1970-01-01T00:00:01.5", "9999-12-31", "1066-10-14", "NaT"], dtype="datetime64[us]"))

    found = values_of(column)

    assert isinstance(found, Numbers)
    np.testing.assert_array_equal(found.array, [1.5, 253_402_214_400.0, -28_502_755_200.0, np.nan])
