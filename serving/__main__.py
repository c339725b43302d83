"""`python -m serving TASK [TASK ...]`: the endpoint of tasks, settings from `EVERFIT_*`; see `process.py`.

To load it takes most of a second, in which Ctrl-C would show a traceback of whatever was being read. Nothing has begun
by then that would have to end in good order, so the process just ends, with the code of what is interrupted, 130.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Load the endpoint and serve; returns the exit code."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background of a shell it is not
    if heeded:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # `everfit serve` held it back while Python started
    from serving.process import main as run

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
