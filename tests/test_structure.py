"""The house rules that no linter knows: one home for each big library, no pickle, names that say something."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("registry", "monitor", "retrain", "serving", "flows")
HOMES = {
    "mlflow": {
        "registry/versions.py",
        "registry/publication.py",
        "registry/pyfunc_model.py",
        "registry/moves.py",
        "registry/thinning.py",
    },
    "evidently": {"monitor/report.py"},
    "optuna": {"retrain/search/"},
    "lightning_fabric": {"retrain/fabric.py"},
    "pytorch_lightning": {"retrain/training.py"},
    "fastapi": {"serving/", "flows/status_page.py"},
    "prefect": {"flows/"},
    "opentelemetry": {"serving/tracing.py"},
    "cryptography": {"registry/privacy.py"},
    "apprise": {"flows/channels.py"},
    "PIL": {"registry/images.py", "registry/pyfunc_model.py"},
    "sklearn": {"registry/yardstick.py", "monitor/weighted.py", "retrain/"},
}
UNSAFE = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "core"}

FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_keeps_the_house_rules(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text())
    used = set(imported(tree))
    strays = {library for library in used & HOMES.keys() if not any(name.startswith(home) for home in HOMES[library])}
    assert not strays, f"{name} imports {strays}, which live in {[HOMES[stray] for stray in strays]}"
    assert not used & UNSAFE
    assert "import matplotlib.pyplot" not in path.read_text(), "pyplot keeps state that servers and workers share"
    assert path.stem not in SAYS_NOTHING
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_things_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    things = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    things += [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    bare = [getattr(thing, "name", path.name) for thing in things if not ast.get_docstring(thing)]
    assert [name for name in bare if not name.startswith("_")] == []
