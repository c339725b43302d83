"""`python -m serving TASK [TASK ...]`: the endpoint of tasks, one worker, settings from `EVERFIT_*`."""

from __future__ import annotations

import os
import sys

import uvicorn
from pydantic import ValidationError

from registry.errors import EverfitError
from registry.quiet import QUIET
from registry.settings import Settings
from serving.app import create_app

GRACE_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Serve until told to stop; returns the exit code."""
    if not arguments:
        print("usage: python -m serving TASK [TASK ...]", file=sys.stderr)
        return 2
    os.environ.update(QUIET)
    try:
        settings = Settings()
        app = create_app(settings, *arguments)
    except ValidationError as error:
        print(f"settings: {error.errors()[0]['msg']}", file=sys.stderr)
        return 2
    except EverfitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    # the interpreter's default of 5 ms would let the thread that polls the registry hold up requests so long
    sys.setswitchinterval(0.0005)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
