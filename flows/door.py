"""The way in from a terminal: settings from the environment, errors as one clean message, exit codes for scripts.

    0    done                                       3    right input, wrong moment (`StateError`)
    1    a bug in Everfit                           4    a service or disk failed (`OutsideError`)
    2    wrong input or usage (`InputError`)        10   `everfit monitor`: performance is degraded
    130  interrupted

Only click and the errors are imported here: `everfit --help` must not wait for anything else.
"""

from __future__ import annotations

import atexit
import errno
import gc
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from registry.errors import EverfitError, InputError, OutsideError
from registry.quiet import QUIET

if TYPE_CHECKING:
    from types import TracebackType

    from registry.settings import Settings

DEGRADED = 10
INTERRUPTED = 130
PREFIX = "EVERFIT_"
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What a disk says when it is full or fails: no bug, wherever it is met."""
_DOOR = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR})
"""What it says of a file that belongs to somebody else, or lies below one that is no folder."""
_NEAR = 0.75
"""How like a setting's name one must be to be taken for a slip: two letters of four in the wrong order are."""
_GRACE_SECONDS = 2.0
"""How long what is interrupted may take to end in good order."""


class MomentType(click.ParamType[datetime]):
    """A moment of event time in ISO 8601; UTC, where it names no zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, UTC without zone."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
            return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            self.fail(f"expected a moment such as 2024-05-06 or '2024-05-06 07:08', got {value!r}", param, ctx)


class SecondsType(click.FloatRange):
    """Seconds of a budget, which ends: nan and inf are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """One second at least."""
        found: float = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"expected a finite number, got {value}", param, ctx)


MOMENT = MomentType()
SECONDS = SecondsType(min=1)
SEED = click.IntRange(0, 2**32 - 1)
"""What all that draws at random takes for one."""
UNASKED = "default: that of the newest row, or the clock if the task has no time column"
"""What stands in for a moment that is not given (`Workplace.now`)."""


class Door(click.Group):
    """A group of commands whose deliberate errors end in one message and the exit code of their class."""

    interrupted: bool = False

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        atexit.register(self._leave)  # before a library registers anything: it runs after all of theirs
        try:
            return super().invoke(ctx)
        except EverfitError as error:
            if debugging():
                raise
            click.echo(f"everfit: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if not (error.errno in _DISK or (error.errno in _DOOR and error.filename)) or debugging():
                raise
            where = f"{os.fsdecode(error.filename)}: " if error.filename else "the disk: "
            click.echo(f"everfit: {where}{os.strerror(error.errno)}", err=True)
            ctx.exit(OutsideError.exit_code)
        except KeyboardInterrupt as error:
            click.echo(": ".join(["everfit: interrupted", *map(str, error.args)]), err=True)
            self.interrupted = True
            ctx.exit(INTERRUPTED)

    def _leave(self) -> None:
        """The last deed of a process that was interrupted: to take torch down would take seconds more."""
        if self.interrupted:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are usually run."""
        return list(self.commands)


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """What is interrupted inside (Ctrl-C) is told with how to go on, and ends soon.

    A `KeyboardInterrupt` may come out of a library as something else, or not at all: Prefect's engines catch it where
    they set a task up. So whatever comes out after the signal is the interruption, and where nothing does the process
    ends: what may be gone on with may be killed.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    asked, done = threading.Event(), threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        asked.set()
        raise KeyboardInterrupt

    def end() -> None:
        asked.wait()
        if not done.wait(_GRACE_SECONDS):
            click.echo(f"everfit: interrupted: {how}", err=True)
            os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=end, name="interruption", daemon=True).start()
    try:
        yield
    except BaseException:
        if asked.is_set():
            raise KeyboardInterrupt(how) from None
        raise
    finally:
        done.set()
        asked.set()
        signal.signal(signal.SIGINT, before)


def debugging() -> bool:
    """Whether `EVERFIT_DEBUG` asks for tracebacks."""
    return os.environ.get("EVERFIT_DEBUG", "") not in ("", "0")


def show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook`: an error nobody foresaw, in one line unless tracebacks are asked for."""
    if debugging():
        sys.__excepthook__(kind, error, trace)
        return
    click.echo(f"everfit: bug: {kind.__name__}: {error}\n(set EVERFIT_DEBUG=1 to see where it happened)", err=True)


def read_settings(**fixed: Any) -> Settings:
    """The installation's settings from `EVERFIT_*`, except those that are `fixed`. Raises `InputError` naming each
    variable that is wrong."""
    from pydantic import ValidationError

    from registry.settings import Settings, wrong_settings

    try:
        settings = Settings(**fixed)
    except ValidationError as error:
        raise InputError("wrong settings:\n" + "\n".join(f"  {line}" for line in wrong_settings(error))) from error
    for line in misspelt(os.environ, Settings.model_fields):
        _warn(line)
    return settings


def misspelt(given: Iterable[str], fields: Iterable[str]) -> list[str]:
    """Variables that are no setting and nearly one, which nobody would read.

    >>> misspelt(["EVERFIT_PROT", "EVERFIT_PORT", "EVERFIT_DEBUG", "HOME"], ["port", "host"])
    ["EVERFIT_PROT is no setting (did you mean 'EVERFIT_PORT'?)"]
    """
    known = {f"{PREFIX}{field.upper()}" for field in fields}
    return [
        f"{name} is no setting (did you mean {PREFIX + near[0]!r}?)"
        for name in sorted(name for name in given if name.startswith(PREFIX) and name not in known)
        if (near := get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], 1, _NEAR))
    ]


@cache
def _warn(line: str) -> None:
    """Say it once a process."""
    click.echo(f"warning: {line}", err=True)


def connect() -> Settings:
    """The settings with the URLs of the running services in them, put into this process's environment for the flows.

    Commands call it before they import anything of Prefect, which reads its environment when it is imported.
    """
    from flows.services import connected

    return connected(read_settings())


def quiet_third_parties() -> None:
    """No reporting home, and no log of a library on the terminal: what matters is in the ledger and in our words."""
    wanted = dict(QUIET)
    if not debugging():
        wanted |= {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_LOGGING_LEVEL": "INFO"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def spare_collector() -> None:
    """Garbage is looked for less often: what commands import stays, and to look through it took a seventh of that."""
    gc.set_threshold(50_000, 20, 20)
