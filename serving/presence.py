"""That an endpoint runs, told to the programs of its home: a file it holds locked while it lives, and what it serves.

    served/workers/PORT/lock    locked by the process that holds the port; the system unlocks it however that one ends
    served/workers/PORT/endpoint.json    where it answers, as which process, since when
    served/workers/PORT/key    what this machine's own programs are let in by: see `own_key.py`
    served/workers/PORT/tasks/TASK    the tasks that are served there: see `roster.py`

What is there stays when the endpoint ends, so that who starts it again after a crash knows what it had served.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from registry.errors import EverfitError, OutsideError
from registry.locks import exclusive, holder
from registry.settings import Settings
from serving.own_key import make_own_key, own_secret

LOCK, ABOUT = "lock", "endpoint.json"
_PATIENCE_SECONDS = 2.0
"""For so long somebody who only looks may hold the lock."""


class Presence(BaseModel):
    """An endpoint that runs: its URL, its process, since when (UTC), and the tasks it serves, by name."""

    model_config = ConfigDict(frozen=True)

    url: str
    pid: int
    since: datetime
    tasks: tuple[str, ...] = ()


def workers_folder(settings: Settings) -> Path:
    """Where the workers of one port tell one another, and other programs, what concerns all of them."""
    return settings.folder / "served" / "workers" / str(settings.port)


def tasks_in(folder: Path) -> tuple[str, ...]:
    """The tasks on the roster of a folder, by name; none where there is none."""
    try:
        return tuple(sorted(one.name for one in (folder / "tasks").iterdir()))
    except OSError:
        return ()


def served_by(folder: Path, pid: int | None) -> tuple[str, ...]:
    """The tasks on the roster of a folder where this process was the last to answer there; none where it was not: the
    roster is then another one's, which may have ended in good order."""
    try:
        last = Presence.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValueError):
        return ()
    return tasks_in(folder) if last.pid == pid else ()


def begin(folder: Path, tasks: Iterable[str]) -> None:
    """A roster of these tasks, whatever an earlier one held. Raises `OutsideError`."""
    roster, wanted = folder / "tasks", set(tasks)
    try:
        roster.mkdir(parents=True, exist_ok=True, mode=0o700)
        for one in roster.iterdir():
            if one.name not in wanted:
                one.unlink()
        for task in wanted:
            (roster / task).touch()
    except OSError as error:
        raise OutsideError(f"workers cannot tell one another which tasks they serve: {error}") from error


@contextmanager
def present(settings: Settings, tasks: Sequence[str]) -> Iterator[None]:
    """Tell of the endpoint for the length of a block. That it cannot be told of is no reason not to serve."""
    folder = workers_folder(settings)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # workers put digests of keys here, and metrics
            what = f"the endpoint {settings.endpoint_url}"
            stack.enter_context(exclusive(folder / LOCK, what, patience=_PATIENCE_SECONDS))
            begin(folder, tasks)
            here = Presence(url=settings.endpoint_url, pid=os.getpid(), since=datetime.now(UTC).replace(tzinfo=None))
            (folder / ABOUT).write_text(here.model_dump_json(exclude={"tasks"}), encoding="utf-8")
            make_own_key(folder)
        except (EverfitError, OSError) as error:
            print(f"`everfit status` will not know of this endpoint: {error}", file=sys.stderr)
        yield


def runs(folder: Path) -> bool:
    """Whether the endpoint of a folder does."""
    return holder(folder / LOCK) is not None


def secret_for(settings: Settings, port: int | None = None) -> str | None:
    """What a program of this installation sends to its endpoint, or to that at another port: the key that this made, if
    it runs, else EVERFIT_API_KEY, if it is set."""
    folder = workers_folder(settings if port is None else settings.model_copy(update={"port": port}))
    own = own_secret(folder) if runs(folder) else None
    return own or (None if settings.api_key is None else settings.api_key.get_secret_value())


def presences(home: Path) -> list[Presence]:
    """The endpoints of a home that run now, by port."""
    found = list[Presence]()
    for folder in sorted((home / "served" / "workers").glob("*")):
        if runs(folder):
            with suppress(OSError, ValueError):  # it is about to write it
                here = Presence.model_validate_json((folder / ABOUT).read_bytes())
                found.append(here.model_copy(update={"tasks": tasks_in(folder)}))
    return found
