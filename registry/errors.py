"""Every error Everfit raises on purpose, in one tree.

    EverfitError
    |-- InputError               what the caller gave is wrong; nothing was changed      exit 2, HTTP 4xx
    |   |-- TaskError            the task's YAML
    |   |-- SourceError          a data source that cannot be read
    |   |-- DataError            data that fail a fatal check
    |   `-- RowError             rows of a request or a frame that do not fit the schema
    |-- StateError               right input, wrong moment                               exit 3, HTTP 409
    |   |-- BusyError            another process holds the lock
    |   |-- NoModelError         no such version, alias or bundle yet
    |   `-- BundleError          a bundle that is corrupt or fails its self-test
    `-- OutsideError             a service or disk outside this process failed; retried  exit 4, HTTP 503
        |-- RegistryError        the model registry
        `-- StoreError           the inference log or the ledger

Serving maps the branches to status codes, the command line to exit codes, flows retry only `OutsideError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EverfitError(Exception):
    """Base of all deliberate errors. The message is written for the person who can mend it."""

    exit_code: ClassVar[int] = 1


class InputError(EverfitError):
    """What the caller gave is wrong; nothing was changed."""

    exit_code = 2


class TaskError(InputError):
    """The task's YAML is wrong."""


class SourceError(InputError):
    """A data source cannot be read."""


class DataError(InputError):
    """The data fail a fatal check."""


class RowError(InputError):
    """Rows do not fit the schema."""


class StateError(EverfitError):
    """The input is right but the state does not allow it now."""

    exit_code = 3


class BusyError(StateError):
    """Another process holds the lock."""


class NoModelError(StateError):
    """There is no such version, alias or bundle."""


class BundleError(StateError):
    """A bundle is corrupt, incomplete or fails its self-test."""


class OutsideError(EverfitError):
    """A service or a disk outside this process failed; trying again may help."""

    exit_code = 4


class RegistryError(OutsideError):
    """The model registry cannot be reached."""


class StoreError(OutsideError):
    """The inference log or the ledger cannot be reached or written."""


def words_of(error: BaseException) -> str:
    """What to tell of an error: the message of a deliberate one, which is written to be read; else its kind too."""
    return str(error) if isinstance(error, EverfitError) else f"{type(error).__name__}: {error}"


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """`" (did you mean 'auto'?)"`, or an empty string when nothing known is near.

    >>> did_you_mean("atuo", ["auto", "manual"])
    " (did you mean 'auto'?)"
    """
    near = nearest(got, known)
    return f" (did you mean {near!r}?)" if near is not None else ""


def nearest(got: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, in whatever case; None when nothing is near.

    >>> nearest("AUC", ["accuracy", "auc"]), nearest("x", ["auc"])
    ('auc', None)
    """
    folded = {one.casefold(): one for one in known}
    return next((folded[one] for one in difflib.get_close_matches(got.casefold(), folded, n=1, cutoff=0.5)), None)


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what was expected, what came, and what is near.

    >>> unknown("strategy", "tpee", ["random", "tpe"])
    "unknown strategy 'tpee': expected one of random, tpe (did you mean 'tpe'?)"
    """
    names = sorted(known)
    return f"unknown {what} {got!r}: expected one of {', '.join(names)}{did_you_mean(got, names)}"
