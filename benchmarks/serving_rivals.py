"""Who is measured: each server with its command, and the requests it understands; all serve one champion.

The rivals' interpreter is another one than Everfit's (`Bench.rivals`, see `serving.py`); without it they are left out.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa

from benchmarks.serving_champion import Home
from benchmarks.serving_load import ARROW, JSON, Load
from benchmarks.serving_process import Server, foreign_environment, free_port, own_environment
from registry.bundle import ModelBundle

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ROOT / "benchmarks" / "servers"
BODIES = 64
"""Most different bodies of one size."""

EVERFIT, EVERFIT_ARROW, EMPTY, TORCH = "Everfit", "Everfit, Arrow", "empty FastAPI", "FastAPI and torch"
MLFLOW, LITSERVE, BENTOML = "mlflow models serve", "LitServe", "BentoML"
FOREIGN = (MLFLOW, LITSERVE, BENTOML)

Row = dict[str, Any]
Wrap = Callable[[Sequence[Row]], bytes]


@dataclass(frozen=True)
class Bench:
    """What all contenders have in common: the model, where it lies, the rows, a folder for what they write."""

    bundle: ModelBundle
    home: Home
    rows: tuple[Row, ...]
    scratch: Path
    rivals: str | None = None


@dataclass(frozen=True)
class Contender:
    """One form of asking one server."""

    name: str
    path: str
    wrap: Wrap
    kind: str = JSON

    def load(self, rows: Sequence[Row], size: int) -> Load:
        """Requests of `size` rows each, together of all rows or of `BODIES` requests."""
        count = max(2, min(BODIES, len(rows) // size))
        places = (range(number * size, (number + 1) * size) for number in range(count))
        bodies = (self.wrap([rows[place % len(rows)] for place in some]) for some in places)
        return Load(self.path, tuple(bodies), size, self.kind)


def _plain(rows: Sequence[Row]) -> bytes:
    return orjson.dumps(rows[0] if len(rows) == 1 else list(rows))


def _records(rows: Sequence[Row]) -> bytes:
    return orjson.dumps({"dataframe_records": list(rows)})


def _named(rows: Sequence[Row]) -> bytes:
    return orjson.dumps({"rows": list(rows)})


def arrow_body(bundle: ModelBundle) -> Wrap:
    """Rows as one record batch of an Arrow IPC stream; numbers, moments and strings in their natural types."""
    moments = [column.name for column in bundle.manifest.data_schema.of("datetime")]

    def wrap(rows: Sequence[Row]) -> bytes:
        frame = pd.DataFrame(list(rows))
        frame = frame.assign(**{name: frame[name].astype("datetime64[us]") for name in moments})
        table, sink = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(), io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue()

    return wrap


CONTENDERS = {
    EVERFIT: Contender(EVERFIT, "/predict", _plain),
    EMPTY: Contender(EMPTY, "/predict", _plain),
    TORCH: Contender(TORCH, "/predict", lambda rows: orjson.dumps(list(rows))),
    MLFLOW: Contender(MLFLOW, "/invocations", _records),
    LITSERVE: Contender(LITSERVE, "/predict", _named),
    BENTOML: Contender(BENTOML, "/predict", _named),
}
"""Those with a server of their own, by name."""


def arrow_contender(bundle: ModelBundle) -> Contender:
    """Everfit's server, asked with Arrow bodies."""
    return Contender(EVERFIT_ARROW, "/predict", arrow_body(bundle), ARROW)


def server_of(bench: Bench, name: str) -> Server:
    """A contender's server, on a fresh port. Raises `KeyError` for a name that has none."""
    port = free_port()
    probe = CONTENDERS[name].load(bench.rows, 1)
    command, environment = _COMMANDS[name](bench, port)
    return Server(name, tuple(command), port, probe, environment, bench.scratch)


_Start = tuple[list[str], dict[str, str]]


def _everfit(bench: Bench, port: int) -> _Start:
    return [sys.executable, "-m", "serving", bench.home.task], own_environment(ROOT, **bench.home.environment(port))


def _empty(bench: Bench, port: int) -> _Start:
    return [sys.executable, str(SERVERS / "fastapi_empty.py"), str(port)], own_environment(ROOT)


def _torch(bench: Bench, port: int) -> _Start:
    program = str(SERVERS / "fastapi_torch.py")
    return [sys.executable, program, str(bench.bundle.folder), str(port)], own_environment(ROOT)


def _mlflow(bench: Bench, port: int) -> _Start:
    model = str(bench.home.mlflow_model())
    asked = ["models", "serve", "--model-uri", model, "--env-manager", "local", "--workers", "1", "--port", str(port)]
    return [_python(bench), "-m", "mlflow", *asked], foreign_environment(_python(bench))


def _litserve(bench: Bench, port: int) -> _Start:
    program = str(SERVERS / "litserve_server.py")
    return [_python(bench), program, str(bench.bundle.folder), str(port)], foreign_environment(_python(bench))


def _bentoml(bench: Bench, port: int) -> _Start:
    asked = ["serve", "bentoml_server:Graph", "--port", str(port), "--working-dir", str(SERVERS)]
    told = {"BUNDLE": str(bench.bundle.folder), "BENTOML_HOME": str(bench.scratch / "bentoml")}
    return [_python(bench), "-m", "bentoml", *asked], foreign_environment(_python(bench), **told)


def _python(bench: Bench) -> str:
    assert bench.rivals is not None
    return bench.rivals


_COMMANDS: dict[str, Callable[[Bench, int], _Start]] = {
    EVERFIT: _everfit,
    EMPTY: _empty,
    TORCH: _torch,
    MLFLOW: _mlflow,
    LITSERVE: _litserve,
    BENTOML: _bentoml,
}
