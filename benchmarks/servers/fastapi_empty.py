"""The empty endpoint: FastAPI parses the same body and answers a small dictionary.

python benchmarks/servers/fastapi_empty.py PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict(body: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any]:
    """How many columns, or rows, there are."""
    return {"columns": len(body)}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
