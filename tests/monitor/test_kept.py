"""What windows have in common is kept from pass to pass, and belongs to one bundle, its columns and what is sealed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from monitor import kept
from monitor.kept import MOST, common_of
from monitor.views import without
from monitor.watching import watch
from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.ledger import Ledger
from tests.handmade import make_frame, make_task
from tests.monitor.logged import write_rows


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    kept._KEPT.clear()


def test_a_bundle_that_is_opened_again_is_the_same(bundle: ModelBundle) -> None:
    again = ModelBundle.load(bundle.folder)
    first = common_of(bundle, bundle.manifest, ())
    assert common_of(again, again.manifest, ()) is first


def test_other_columns_another_task_and_other_seals_are_another(bundle: ModelBundle) -> None:
    manifest = bundle.manifest
    first = common_of(bundle, manifest, ())
    fewer = without(manifest, {"carrier"})
    edited = manifest.model_copy(update={"task": make_task(metric="accuracy")})
    for other, sealed in ((fewer, ()), (edited, ()), (manifest, ("carrier",))):
        found = common_of(bundle, other, sealed)
        assert found is not first
        assert len(kept._KEPT) <= MOST
    assert "carrier" not in common_of(bundle, fewer, ()).reference.columns


def test_without_hashes_nothing_is_kept(bundle: ModelBundle) -> None:
    bare = bundle.manifest.model_copy(update={"files": {}})
    assert common_of(bundle, bare, ()) is not common_of(bundle, bare, ())


def test_a_pass_says_the_same_with_what_is_kept(bundle: ModelBundle, log: InferenceLog, tmp_path: Path) -> None:
    write_rows(log, bundle, make_frame(1_500, start="2024-03-04"))
    found = []
    for number in range(2):
        engine = open_engine(f"sqlite:///{tmp_path / f'ledger{number}.db'}")
        ledger = Ledger(engine, "handmade")
        found.append(watch(make_task(), bundle, "1", log, ledger, as_of=datetime(2024, 3, 12)).records)
        engine.dispose()
    (common,) = kept._KEPT.values()
    assert common.uses == 2
    assert found[0] == found[1]
    assert found[0]
