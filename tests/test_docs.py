"""Every example in a docstring is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

ROOMS = ("registry", "monitor", "retrain", "serving", "flows")


def modules() -> list[str]:
    packages = [importlib.import_module(room) for room in ROOMS]
    found = [
        info.name for package in packages for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [name for name in found if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_hold(name: str) -> None:
    if name == "registry.pyfunc_model":
        pytest.skip("MLflow runs this file itself; test_scoring.py does so")
    if name.startswith("serving.grpc_"):
        pytest.importorskip("grpc", reason="the extra `grpc` is not installed")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
