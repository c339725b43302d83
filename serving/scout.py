"""The scout: a process beside the endpoint that asks the model registry, so that MLflow is not in the process that
answers: its hundred megabytes, and its share of the interpreter's lock at each look.

They talk over a socket, in lines of JSON, one question at a time:

    endpoint -> scout    {"tracking": URL, "artifacts": folder, "bundles": folder}         first of all
                         {"ask": "get", "of": ["flights", "champion"]}
    scout -> endpoint    {"answer": "3"} or {"error": ["RegistryError", "what went wrong"]}

The scout ends when the endpoint does. One that ended is replaced at the next question.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from registry import errors
from registry.bundle import ModelBundle
from registry.errors import EverfitError, RegistryError
from registry.quiet import QUIET
from registry.settings import Settings

PATIENCE_SECONDS = 300.0
"""How long an answer may take: a bundle may come from far away."""

FAREWELL_SECONDS = 2.0
QUESTIONS = ("get", "radius", "canary", "fetch")


class Scout:
    """The endpoint's end: what `registry.versions.Versions` answers, asked by threads. Starts with the first question.

    Its methods raise what those of `Versions` do, and `RegistryError` when the process does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._opening = {
            "tracking": settings.tracking,
            "artifacts": str(settings.artifacts),
            "bundles": str(settings.folder / "bundles"),
        }
        self._asking = threading.Lock()
        self._talk: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def get(self, task: str, alias: str) -> str | None:
        """The version an alias points at."""
        found: str | None = self._ask("get", task, alias)
        return found

    def radius(self, task: str, version: str) -> float | None:
        """The conformal radius that takes the place of a version's own."""
        found: float | None = self._ask("radius", task, version)
        return found

    def canary(self, task: str, version: str) -> float:
        """The share of requests that a version answers as a challenger."""
        return float(self._ask("canary", task, version))

    def fetch(self, task: str, version: str) -> ModelBundle:
        """The bundle of a version, in a local folder."""
        return ModelBundle.load(Path(self._ask("fetch", task, version)))

    def close(self) -> None:
        """Let the process end; a thread that waits for an answer gets a `RegistryError`."""
        if (talk := self._talk) is not None:
            with suppress(OSError):
                talk.shutdown(socket.SHUT_RDWR)
        with self._asking:
            self._leave()

    def _ask(self, question: str, *of: str) -> Any:
        with self._asking:
            try:
                if self._talk is None:
                    self._start()
                said = self._exchange(orjson.dumps({"ask": question, "of": of}) + b"\n")
            except (OSError, ValueError) as error:
                self._leave()
                raise RegistryError(f"the process that asks the registry does not answer: {error}") from error
        if "error" in said:
            kind, text = said["error"]
            raise getattr(errors, kind, RegistryError)(text)
        return said["answer"]

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.scout", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, **QUIET},
            )
        ours.settimeout(PATIENCE_SECONDS)
        self._talk, self._rest = ours, b""
        ours.sendall(orjson.dumps(self._opening) + b"\n")

    def _exchange(self, line: bytes) -> Any:
        assert self._talk is not None
        self._talk.sendall(line)
        while b"\n" not in self._rest:
            if not (part := self._talk.recv(1 << 16)):
                raise ConnectionError("it ended")
            self._rest += part
        answer, _, self._rest = self._rest.partition(b"\n")
        return orjson.loads(answer)

    def _leave(self) -> None:
        if self._talk is None or self._process is None:
            return
        self._talk.close()
        self._talk = None
        try:
            self._process.wait(FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:  # MLflow holds it up: nothing that it does is worth waiting for
            self._process.kill()
            self._process.wait()


def main(handle: int) -> None:
    """Answer the endpoint at the other end of socket `handle` until it is gone."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the endpoint decides: its end is ours
    with suppress(ConnectionError), socket.socket(fileno=handle) as talk, talk.makefile("rb") as lines:
        opening = orjson.loads(lines.readline())
        versions: Any = None
        gc.disable()  # what the first question imports stays; looking through it again and again is a fifth of the time
        for line in lines:
            asked = orjson.loads(line)
            try:
                if versions is None:
                    versions = _open(opening)
                talk.sendall(orjson.dumps({"answer": _answer(versions, asked["ask"], asked["of"])}) + b"\n")
            except EverfitError as error:
                talk.sendall(orjson.dumps({"error": [type(error).__name__, str(error)]}) + b"\n")
            if not gc.isenabled():
                gc.freeze()
                gc.enable()


def _open(opening: dict[str, str]) -> Any:
    from registry.versions import Versions  # here, and not in the process that answers

    return Versions(opening["tracking"], Path(opening["artifacts"]), Path(opening["bundles"]))


def _answer(versions: Any, question: str, of: list[str]) -> Any:
    if question not in QUESTIONS:
        raise RegistryError(f"expected one of {', '.join(QUESTIONS)}, got {question!r}")
    found = getattr(versions, question)(*of)
    return str(found.folder) if isinstance(found, ModelBundle) else found


if __name__ == "__main__":
    main(int(sys.argv[1]))
