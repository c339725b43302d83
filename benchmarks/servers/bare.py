"""The limit: ONNX Runtime on one thread with the inputs lying ready, no HTTP, no JSON.

    python benchmarks/servers/bare.py BUNDLE ROWS SECONDS BATCH...

ROWS is a file with a list of rows as JSON. Prints a line for each size of batch: the size and the calls a second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from graph import OnnxModel


def main(bundle: str, rows: str, seconds: float, sizes: list[int]) -> None:
    """Measure."""
    model, given = OnnxModel(bundle), json.loads(Path(rows).read_text())
    for size in sizes:
        feed = model.feed([given[place % len(given)] for place in range(size)])
        model.session.run(model.names, feed)
        calls, started = 0, perf_counter()
        while (passed := perf_counter() - started) < seconds:
            model.session.run(model.names, feed)
            calls += 1
        print(size, calls / passed)


if __name__ == "__main__" and len(sys.argv) > 4:
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), [int(size) for size in sys.argv[4:]])
