"""An apprentice's own process: it trains networks as another process asks it to (`apprentices.py`)."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress

import torch

from retrain.exercises import Exercise, rows_of_file, weights_of

PACKET = 1024
"""Bytes of a message at most: rows and weights go beside it, as descriptors of files."""


def serve(channel: socket.socket, parent: int) -> None:
    """An apprentice's own process: train what is asked for until the other end is closed, or the parent has gone."""
    from retrain.search.worker import end_with

    end_with(parent)
    torch.set_num_threads(1)
    with suppress(ConnectionError):  # nobody is there any more
        channel.send(b"{}")
        while _answered(channel):
            pass


def _answered(channel: socket.socket) -> bool:
    """Whether something was asked for, which was done then."""
    packet, files, _, _ = socket.recv_fds(channel, PACKET, 2)
    if not packet:
        return False
    rows, weights = files
    network = Exercise.read(path_of(weights), rows_of_file(path_of(rows))).done()
    answer = memory_file(b"" if network is None else weights_of(network))
    socket.send_fds(channel, [json.dumps({"finite": network is not None}).encode()], [answer])
    for file in (*files, answer):
        os.close(file)
    return True


def memory_file(content: bytes) -> int:
    """A file in memory that holds this, by its descriptor."""
    file = os.memfd_create("everfit")
    with open(file, "wb", closefd=False) as out:
        out.write(content)
    return file


def path_of(file: int) -> str:
    """What opens a file of this descriptor once more."""
    return f"/proc/self/fd/{file}"
