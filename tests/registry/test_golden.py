"""The golden rows as JSON are those of the reference, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from registry.bundle import ModelBundle, _columns
from registry.errors import BundleError
from registry.golden import GOLDEN, GOLDEN_ROWS, Golden
from registry.scoring import Scorer
from tests.handmade import make_bundle


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_they_are_read_as_they_were_written(tmp_path: Path, problem: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", problem=problem, rows=100)
    assert GOLDEN in bundle.manifest.files
    found, expected = bundle.golden(), Golden.of(_columns(bundle.folder / "reference.parquet"))
    assert found.rows.keys() == expected.rows.keys()
    for name, values in expected.rows.items():
        assert len(values) == GOLDEN_ROWS
        if values.dtype == object:
            assert [_plain(one) for one in found.rows[name]] == [_plain(one) for one in values]
        else:
            np.testing.assert_array_equal(found.rows[name], values, strict=values.dtype.kind != "M")
    np.testing.assert_array_equal(found.disagreement, expected.disagreement, strict=True)
    assert len(found.disagreement) == 100
    Scorer.load(bundle).self_test()


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_missing_values_keep_their_kinds(tmp_path: Path) -> None:
    rows = {
        "number": np.array([np.nan, 1.5], dtype=np.float32),
        "moment": np.array(["NaT", "2024-03-01T10:00:00.000001"], dtype="datetime64[us]"),
        "truth": np.array([True, False]),
        "text": np.array([None, "a"], dtype=object),
        "shares": np.array([None, None], dtype=object),
        "disagreement": np.array([0.1, np.nan]),
    }
    rows["shares"][0] = np.array([0.1, 0.2], dtype=np.float32)
    Golden.of(rows).write(tmp_path)
    found = Golden.read(tmp_path).rows
    for name in ("number", "moment", "truth", "disagreement"):
        np.testing.assert_array_equal(found[name], rows[name], strict=True)
    assert found["text"].tolist() == [None, "a"]
    assert found["shares"].tolist() == [[float(np.float32(0.1)), float(np.float32(0.2))], None]


def test_rows_with_bytes_have_no_such_file(tmp_path: Path) -> None:
    rows = {"image": np.array([b"x"], dtype=object), "disagreement": np.array([0.1])}
    (tmp_path / GOLDEN).write_bytes(b"of before")
    Golden.of(rows).write(tmp_path)
    assert not (tmp_path / GOLDEN).exists()


def test_a_bundle_without_the_file_has_them_still(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", rows=100)
    files = {name: found for name, found in bundle.manifest.files.items() if name != GOLDEN}
    older = ModelBundle(bundle.folder, bundle.manifest.model_copy(update={"files": files}))
    (bundle.folder / GOLDEN).unlink()
    assert len(older.golden().disagreement) == 100
    Scorer.load(older).self_test()


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", rows=100)
    for content in (b"{", b"[]", b'{"rows": {"a": {"dtype": "float64", "values": ["x"]}}, "disagreement": []}'):
        (bundle.folder / GOLDEN).write_bytes(content)
        with pytest.raises(BundleError, match="no golden rows"):
            bundle.golden()


def test_the_endpoint_loads_no_arrow_for_them(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", rows=100)
    program = (
        "import sys; from pathlib import Path; import serving.process; from serving.champion import Served; "
        "from registry.bundle import ModelBundle; Served.load(ModelBundle.load(Path(sys.argv[1])), '1', 'handmade'); "
        "sys.exit(not {'pyarrow', 'pandas'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(bundle.folder)]).returncode == 0
