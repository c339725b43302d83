"""A server that ends without breaking a connection."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any, cast

import uvicorn

from serving.connection import Connection

LAST_SECONDS = 0.5
"""How long a connection may be silent after the port is closed: closed at once, one whose request was on its way would
be reset."""
INTERRUPTED = 130
"""The exit code of what Ctrl-C ended."""


class Server(uvicorn.Server):
    """Ends in two steps. For `drain_seconds` it still accepts connections and answers requests, each answer closing its
    connection, so that clients and balancers, who see it no longer ready, go elsewhere with none broken. Then it closes
    its port, lets those who came through it before say what they want, and waits for what is inside."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float = 0.0) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self.interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end. uvicorn would raise Ctrl-C once more at the end, as an error of whatever runs then; a second
        one ends the process as it stands: what it has acknowledged is on disk."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        if self.interrupted:
            os._exit(INTERRUPTED)
        self.interrupted = self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        """End."""
        kind = cast(type[Connection], self.config.http_protocol_class)
        kind.draining = True
        cast(Any, self.config.app).draining = True
        for one in list(self.server_state.connections):
            cast(Connection, one).drain()
        await asyncio.sleep(self._drain_seconds)
        await self._close_port(kind)
        await asyncio.sleep(LAST_SECONDS)
        await super().shutdown(sockets)

    async def _close_port(self, kind: type[Connection]) -> None:
        """Close the port once nobody waits behind it: whoever the system had let in and nobody accepted would be reset.
        The event loop closes at its leisure, so it is a copy of the port that is emptied and closed in one go."""
        copies = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_SECONDS / 10)
        waiting = [one for copy in copies for one in _emptied(copy)]
        loop, state = asyncio.get_running_loop(), self.lifespan.state
        for one in waiting:
            await loop.connect_accepted_socket(
                lambda: kind(self.config, self.server_state, state, loop), one, ssl=self.config.ssl
            )


def _emptied(port: socket.socket) -> list[socket.socket]:
    """Those who waited behind a port, which is closed."""
    port.setblocking(False)
    found = []
    with port, suppress(BlockingIOError):
        while True:
            found.append(port.accept()[0])
    return found
