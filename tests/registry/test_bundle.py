"""A bundle opens only when every file is there and unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.bundle import LABEL, REQUIRED, ModelBundle
from registry.errors import BundleError
from registry.golden import GOLDEN_ROWS
from tests.handmade import make_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle").folder


def test_a_sealed_bundle_opens_again(folder: Path) -> None:
    bundle = ModelBundle.load(folder)
    assert bundle.manifest.target.classes == ("no", "yes")
    assert len(bundle.reference()) >= GOLDEN_ROWS
    assert {LABEL, "probabilities", "amount"} <= set(bundle.reference().columns)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_changed_file_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match=f"{name}: expected SHA-256"):
        ModelBundle.load(folder)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        ModelBundle.load(folder)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no readable bundle\.json"):
        ModelBundle.load(tmp_path)


def test_a_broken_manifest_is_named(folder: Path) -> None:
    (folder / "bundle.json").write_text('{"format": 2}')
    with pytest.raises(BundleError, match="not a manifest of this version"):
        ModelBundle.load(folder)


def test_a_manifest_cannot_point_outside(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace('"card.md"', '"../card.md"'))
    with pytest.raises(BundleError, match="outside the bundle"):
        ModelBundle.load(folder)
