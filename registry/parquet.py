"""Parquet files as frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def read_parquet(path: Path) -> pd.DataFrame:
    """The rows of a file; raises `OSError`, and `ValueError` for a damaged one.

    Left to itself pandas opens the file in Python, and pyarrow's threads hold what was read as Python's own: one that
    lets go of it while the interpreter ends aborts the process, whose work was done (apache/arrow 34314, 49942).
    """
    import pandas as pd
    from pyarrow.fs import LocalFileSystem

    return pd.read_parquet(path.absolute(), filesystem=LocalFileSystem())
