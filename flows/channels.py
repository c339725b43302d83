"""Where alerts go: a webhook of ours for each plain `http(s)://` URL, Apprise for every other URL.

URLs hold secrets (in the path, the user, and with Apprise often in the place of the host): a channel is known by its
scheme, a webhook also by its host, and nothing else of a URL reaches a log, an error or the ledger. A channel never
raises: what went wrong comes back in words of ours, since those of the libraries may quote the URL.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, Protocol

import httpx
from pydantic import SecretStr

from monitor.alerts import Alert
from registry.decisions import Diagnosis
from registry.ledger import Entry
from registry.schema import Frozen
from registry.settings import Settings

SIGNATURE = "X-Everfit-Signature"

_TIMEOUT_SECONDS = 10.0
PAUSES = (0.5, 2.0)
"""Seconds before each new attempt within one delivery; the next pass tries again in any case."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_BETWEEN = re.compile(r"[,;]*\s[\s,;]*|[,;]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_PLAIN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")
_TALKATIVE = ("httpx", "httpcore", "urllib3", "requests", "apprise")
_BUSY = (408, 425, 429)


SCHEMA_VERSION = 1
"""The payload's version: another one when a field goes or means something else, not when one is added."""


class Message(Frozen):
    """What a channel sends; as JSON, the body of a webhook. `id` is the same at each attempt to deliver it.

    `diagnosis` is what the first reason says, in fields; None where the newest decision has none. Of a notice
    (`notices.py`) `severity` is `notice`, `state` its topic, and `next` the command that comes next.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    key: str
    task: str
    severity: str
    state: str
    title: str
    reasons: tuple[str, ...]
    version: str | None
    as_of: datetime
    opened_at: datetime
    reopened: int
    link: str
    next: str | None = None
    diagnosis: Diagnosis | None = None

    @classmethod
    def of(cls, alert: Alert, task: str, name: str, link: str) -> Message:
        """The message about an alert, with its id."""
        fields = {**alert.model_dump(exclude={"at"}), "diagnosis": alert.diagnosis}
        return cls(**fields, id=name, task=task, as_of=alert.at, link=link)

    @classmethod
    def of_notice(cls, entry: Entry, name: str, link: str) -> Message:
        """The message of a notice, by its entry in the ledger, with its id."""
        told = {field: entry.details[field] for field in ("key", "title", "next")}
        told |= entry.model_dump(include={"task", "reasons", "version"})
        told |= {"severity": "notice", "state": entry.outcome, "as_of": entry.at, "opened_at": entry.at}
        return cls.model_validate({**told, "id": name, "link": link, "reopened": 0})


class Channel(Protocol):
    """Somewhere a message can be sent to."""

    @property
    def name(self) -> str:
        """How the channel is called in the ledger: no secret is in it."""

    def send(self, message: Message) -> str | None:
        """None when the message arrived, else why it did not. Never raises."""


def channels(settings: Settings) -> list[Channel]:
    """The channels of the settings, in their order."""
    urls = split(settings.alert_urls)
    key = settings.alert_key
    return [
        Webhook(name, url, key) if name.startswith(("http:", "https:")) else Library(name, url)
        for name, url in zip(_names(urls), urls, strict=True)
    ]


def split(urls: SecretStr | None) -> list[str]:
    """The URLs, which spaces, commas or semicolons divide; within one these stay, but for spaces.

    >>> split(SecretStr("https://a.example/x, mailto://me:pw@b.example?to=x,y\\nslack://c"))
    ['https://a.example/x', 'mailto://me:pw@b.example?to=x,y', 'slack://c']
    >>> split(SecretStr("https://a.example/x;y;slack://c"))
    ['https://a.example/x;y', 'slack://c']
    >>> split(SecretStr("https://a.example/x foo"))
    ['https://a.example/x', 'foo']
    """
    text = urls.get_secret_value().strip(" ,;\t\r\n") if urls else ""
    return _BETWEEN.split(text) if text else []


def _names(urls: Sequence[str]) -> list[str]:
    """Names without secrets; those that would be the same are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for name in map(shown, urls):
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def shown(url: str) -> str:
    """What may be seen of a URL.

    >>> shown("https://me:pw@hooks.example:8443/T0/B0?key=1"), shown("slack://token/a/b"), shown("nonsense")
    ('https://hooks.example:8443', 'slack://', 'no URL')
    >>> shown("https://me:p/w@hooks.example/x"), shown("https://hooks.example token")
    ('https://', 'https://')
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return "no URL"
    name = scheme[0].lower()
    return f"{name}://{_host(url)}" if name in ("http", "https") else f"{name}://"


def _host(url: str) -> str:
    """Host and port; empty when they are not plainly so, as with a password that has a slash in it."""
    authority, *path = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)
    host = authority.rpartition("@")[2]
    return host if _PLAIN.fullmatch(host) and "@" not in "".join(path) else ""


class Webhook:
    """POSTs a message as JSON. With a key the header `X-Everfit-Signature` is `sha256=`, and the HMAC of the body."""

    def __init__(self, name: str, url: str, key: SecretStr | None = None) -> None:
        self.name, self._url, self._key = name, url, key

    def send(self, message: Message) -> str | None:
        """Anything but a 2xx is a failure; what a moment may mend is tried again a few times."""
        body = message.model_dump_json().encode()
        for pause in (*PAUSES, None):
            failure, passing = self._post(body)
            if failure is None or not passing or pause is None:
                break
            time.sleep(pause)
        return failure

    def _post(self, body: bytes) -> tuple[str | None, bool]:
        """Why it failed, if it did, and whether that may pass."""
        headers = {"Content-Type": "application/json", "User-Agent": "everfit", **self._signature(body)}
        try:
            with discreet():
                code = httpx.post(self._url, content=body, headers=headers, timeout=_TIMEOUT_SECONDS).status_code
        except httpx.HTTPError as error:
            return f"no answer ({type(error).__name__})", isinstance(error, httpx.TransportError)
        except (httpx.InvalidURL, ValueError):  # ValueError: what idna and the header encoder make of odd characters
            return "the URL is not valid", False
        return (None if 200 <= code < 300 else f"answered {code}"), code >= 500 or code in _BUSY

    def _signature(self, body: bytes) -> dict[str, str]:
        if self._key is None:
            return {}
        digest = hmac.new(self._key.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        return {SIGNATURE: f"sha256={digest}"}


class Library:
    """Any channel that Apprise knows: mail, Slack, Teams, Telegram, PagerDuty and a hundred more."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self._url = name, url

    def send(self, message: Message) -> str | None:
        """One attempt. Apprise says only whether it worked."""
        from apprise import Apprise, AppriseAsset, NotifyFormat, PersistentStoreMode

        # In memory: nothing that belongs to a channel is written to the disk of the user who runs this.
        sender = Apprise(asset=AppriseAsset(app_id="Everfit", storage_mode=PersistentStoreMode.MEMORY))
        said, look = text(message), _look(message)
        with discreet():
            try:
                if not sender.add(self._url):
                    return "Apprise knows no such channel, or the URL lacks a part"
                sent = sender.notify(body=said, title=message.title, notify_type=look, body_format=NotifyFormat.TEXT)
            except Exception as error:  # noqa: BLE001 - a hundred plug-ins, and no alert may break a watch pass
                return f"failed in Apprise ({type(error).__name__})"
        return None if sent else "Apprise could not deliver it"


def text(message: Message) -> str:
    """A message for people, without its title."""
    lines = [f"- {reason}" for reason in message.reasons]
    about = f"{message.severity}, {message.state}, as of {message.as_of:%Y-%m-%d %H:%M} UTC"
    then = [f"next: {message.next}"] if message.next else []
    return "\n".join([about, *lines, *then, message.link, f"id {message.id}"])


def _look(message: Message) -> Literal["success", "info", "warning", "failure"]:
    if message.state == "resolved":
        return "success"
    warns = message.severity == "faulty" or message.state in ("question", "rollback", "failure", "silence")
    return "failure" if message.severity == "degraded" else "warning" if warns else "info"


@contextmanager
def discreet() -> Iterator[None]:
    """Keep libraries quiet that log the URLs they send to, whatever levels are set."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
