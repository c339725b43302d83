"""The process of an endpoint: settings read and checked, the port opened, tasks served until told to stop."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import nullcontext
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from registry.errors import EverfitError
from registry.quiet import QUIET
from registry.settings import Settings, wrong_settings
from serving.app import create_app
from serving.connection import connections
from serving.journal import JOURNALS, require_writable
from serving.lean import hide_pandas, return_memory
from serving.log_lines import arrange
from serving.own_key import own_secret
from serving.presence import present, workers_folder
from serving.server import INTERRUPTED, Server
from serving.tls import check_tls
from serving.tracing import traces_of
from serving.watching import AccessLog, Watcher
from serving.workers import end_with, open_port, serve_together

GRACE_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Serve until told to stop; returns the exit code."""
    handles = arguments[1] if arguments[:1] == ["--worker"] and len(arguments) > 1 else None
    tasks = arguments if handles is None else arguments[2:]
    if not tasks:
        print("usage: python -m serving TASK [TASK ...]", file=sys.stderr)
        return 2
    os.environ.update(QUIET)
    hide_pandas()
    return_memory()
    try:
        settings = Settings()
        check_tls(settings)
        require_writable(settings.folder / JOURNALS, tasks)
        if handles is None and settings.grpc_port is not None:
            open_port(settings, settings.grpc_port).close()  # gRPC's own error would not end a server that begins
        if handles is None and settings.workers > 1:
            return serve_together(settings, tasks)
        here = present(settings, tasks) if handles is None else nullcontext()
        with open_port(settings) if handles is None else worker_port(handles) as port, here:
            own = own_secret(workers_folder(settings))
            return serve(settings, create_app(settings, *tasks, watchers=watchers(settings), own=own), port)
    except ValidationError as error:
        print("wrong settings:", *wrong_settings(error), sep="\n  ", file=sys.stderr)
        return 2
    except EverfitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before the server runs
        return INTERRUPTED


def worker_port(handles: str) -> socket.socket:
    """The port that a worker shares, of whose parent's life it is told by the other handle."""
    port, life = map(int, handles.split(","))
    end_with(life)
    return socket.socket(fileno=port)


def serve(settings: Settings, app: FastAPI, port: socket.socket) -> int:
    """Serve in this process on a port that is bound, until told to stop; the exit code."""
    # the interpreter's default of 5 ms would let the thread that polls the registry hold up requests so long
    sys.setswitchinterval(0.0005)
    config = uvicorn.Config(app, host=settings.host, port=settings.port, **server_options(settings))
    arrange(settings.log_format, with_values=os.environ.get("EVERFIT_DEBUG", "") not in ("", "0"))
    server = Server(config, settings.drain_seconds)
    server.run(sockets=[port])
    return INTERRUPTED if server.interrupted else 0


def watchers(settings: Settings) -> list[Watcher]:
    """Who watches the requests. Raises `InputError`."""
    traces = traces_of(os.environ)
    found: list[Watcher] = [] if traces is None else [traces]
    return [*found, AccessLog(sys.stderr)] if settings.access_log else found


def server_options(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told, beside where to listen.

    A header that each answer has is written by uvicorn in about half a microsecond: `nosniff` takes the place of the
    server's name, which is nobody's business. What proxies say of a client is not looked at: nothing here asks for it.
    """
    return {
        "loop": "uvloop",
        "http": connections(settings.body_seconds),
        "log_level": "warning",
        "access_log": False,
        "timeout_keep_alive": settings.idle_seconds,
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "server_header": False,
        "proxy_headers": False,
        "headers": [("x-content-type-options", "nosniff")],
        "ssl_certfile": settings.tls_cert,
        "ssl_keyfile": settings.tls_key,
        "backlog": 4096,
    }
