"""The endpoints of a home as `everfit status` shows them, whoever began them: where, since when, which versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from flows.processes import Desk
from registry.errors import InputError
from serving.presence import Presence, presences, secret_for
from serving.tls import trusted

if TYPE_CHECKING:
    from registry.settings import Settings

_SECONDS = 2.0
_TOLD = (200, 503)
"""With these an endpoint tells of its tasks: it is ready, or it is not."""


def endpoint_lines(settings: Settings) -> list[str]:
    """The endpoints that run, ready or not, a line each, and a line for each task there."""
    managed, found = Desk(settings.folder).find("endpoint"), presences(settings.folder)
    own = None if managed is None else managed.pid
    return [line for here in found for line in _lines(here, _asked(settings, here), here.pid == own)]


def own_at(settings: Settings, url: str) -> Presence | None:
    """The endpoint of this home that runs at an address, if one does: no other is told the key that it made."""
    wanted = _address(url)
    return next((here for here in presences(settings.folder) if _address(here.url) == wanted), None)


def _address(url: str) -> tuple[str, str | None, int | None]:
    """What tells one endpoint from another; `localhost` is 127.0.0.1 here.

    >>> _address("http://localhost:8000/") == _address("http://127.0.0.1:8000")
    True
    """
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    try:
        return parts.scheme, host, parts.port
    except ValueError:  # no port that there is
        return parts.scheme, host, None


def _lines(here: Presence, told: Mapping[str, Any] | None, managed: bool) -> Iterator[str]:
    whose = "" if managed else ", of `everfit serve`"
    yield f"  {'endpoint':<12} {here.url:<28} pid {here.pid}, since {here.since:%Y-%m-%d %H:%M}{whose}"
    states = {} if told is None else told.get("tasks", {here.tasks[0]: told} if len(here.tasks) == 1 else {})
    unsaid = "does not answer" if told is None else "answers, but not to this program's key"
    for task in here.tasks:
        yield f"    {task}: {_state(states[task]) if 'version' in states.get(task, ()) else unsaid}"


def _state(told: Mapping[str, Any]) -> str:
    """What an endpoint says of a task, in words.

    >>> _state({"ready": True, "version": "3", "since": "2024-05-06T07:08:09.5", "last_error": None})
    'version 3, since 2024-05-06 07:08'
    >>> _state({"ready": False, "version": "3", "since": "2024-05-06T07:08:09.5", "last_error": "it ends"})
    'version 3, since 2024-05-06 07:08; it ends'
    >>> _state({"ready": False, "version": None, "since": None, "last_error": None, "registry": "not asked yet"})
    'no model yet (registry: not asked yet)'
    """
    if told["version"] is None:  # one that is about to end is not ready, and has a version
        return f"no model yet ({told['last_error'] or 'registry: ' + told['registry']})"
    since = f"{datetime.fromisoformat(told['since']):%Y-%m-%d %H:%M}"
    return "; ".join([f"version {told['version']}, since {since}", *filter(None, [told["last_error"]])])


def _asked(settings: Settings, here: Presence) -> dict[str, Any] | None:
    """What an endpoint says of its tasks; None where it does not answer."""
    key = secret_for(settings, urlsplit(here.url).port)  # without one its health is answered too, but names no task
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    ask = partial(httpx.get, headers=headers, timeout=_SECONDS, trust_env=False)
    try:
        answer = ask(f"{here.url}/health/ready", verify=trusted(settings))
        found: dict[str, Any] | None = answer.json() if answer.status_code in _TOLD else None
    except (httpx.HTTPError, InputError, ValueError):
        return None
    return found
