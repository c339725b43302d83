"""Alerts on their way: real receivers on loopback, down and up again; nothing secret in ledger, log or answer."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from flows.alerting import alert, deliver, note, trial, written
from flows.channels import SIGNATURE, Library, Message, Webhook, channels
from flows.cli import main
from flows.overview import alert_lines, task_lines
from flows.status_page import page
from flows.status_snapshot import read
from flows.watch import watch
from flows.workplace import Workplace
from registry.decisions import Severity
from registry.ledger import Entry
from registry.settings import Settings
from tests.flows.conftest import fill, free_ports
from tests.handmade import make_frame

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise's, on 3.11

START, WEEK = datetime(2024, 3, 1), timedelta(days=7)
SECRET = "T0xSECRETx/B0xTOKENx"


class Receiver:
    """An HTTP server that keeps what it is sent and answers with the codes it is told to, the last one for ever."""

    def __init__(self, port: int = 0, *codes: int) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.codes = list(codes or (200,))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.heard.append((dict(self.headers), body))
                self.send_response(outer.codes.pop(0) if len(outer.codes) > 1 else outer.codes[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """A test's output stays clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def messages(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, body in self.heard]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_proxy_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("flows.channels.PAUSES", (0.01, 0.01))


def told_to(place: Workplace, urls: str, key: str | None = None) -> Workplace:
    """The workplace with these channels."""
    changes = {"alert_urls": SecretStr(urls), "alert_key": SecretStr(key) if key else None}
    return Workplace(place.settings.model_copy(update=changes), place.task, place.log, place.ledger, place.versions)


def urls_of(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/"


def decide(place: Workplace, number: int, severity: Severity) -> datetime:
    """A decision on week `number`, as a watch pass writes it; the moment it was made at."""
    at = START + number * WEEK
    window = {"index": number, "start": (at - WEEK).isoformat(), "end": at.isoformat(), "rows": 100}
    place.ledger.write(
        Entry(
            task="handmade",
            kind="decision",
            at=at,
            version="1",
            severity=severity,
            outcome="none",
            reasons=("auc 0.61 <on> 500 labels",),
            details={"seen": number, "window": window},
        )
    )
    return at


def everything(place: Workplace) -> str:
    return "\n".join(entry.model_dump_json() for entry in place.ledger.read())


def test_a_webhook_gets_a_signed_message_once(place: Workplace, receiver: Receiver) -> None:
    place = told_to(place, f"http://127.0.0.1:{receiver.port}/{SECRET}", "the-key")
    at = decide(place, 0, "degraded")
    for _ in range(3):
        alert(place, at)
    ((headers, body),) = receiver.heard
    assert headers[SIGNATURE] == "sha256=" + hmac.new(b"the-key", body, hashlib.sha256).hexdigest()
    (written_down,) = place.ledger.read(kinds={"alert"})
    assert json.loads(body) == {
        "schema_version": 1,
        "id": f"handmade-20240301T000000/{written_down.id}",
        "key": "handmade-20240301T000000",
        "task": "handmade",
        "severity": "degraded",
        "state": "opened",
        "title": "handmade: performance is degraded",
        "reasons": ["auc 0.61 <on> 500 labels"],
        "version": "1",
        "as_of": "2024-03-01T00:00:00",
        "opened_at": "2024-03-01T00:00:00",
        "reopened": 0,
        "link": f"http://127.0.0.1:{place.settings.status_port}/tasks/handmade",
        "next": None,
        "diagnosis": None,
    }
    (sent,) = place.ledger.read(kinds={"alert_sent"})
    assert (sent.outcome, sent.details["channel"]) == ("sent", f"http://127.0.0.1:{receiver.port}")


def test_without_a_key_nothing_is_signed(place: Workplace, receiver: Receiver) -> None:
    alert(told_to(place, f"http://127.0.0.1:{receiver.port}/"), decide(place, 0, "faulty"))
    assert SIGNATURE not in receiver.heard[0][0]


def test_a_receiver_that_was_down_hears_all_of_it_in_order(place: Workplace) -> None:
    (port,) = free_ports(1)
    place = told_to(place, f"http://127.0.0.1:{port}/{SECRET}")
    for number, severity in enumerate(("degraded", "ok", "ok")):
        alert(place, decide(place, number, severity))
    failures = place.ledger.read(kinds={"alert_sent"})
    assert [(one.outcome, one.reasons) for one in failures] == [("failed", ("no answer (ConnectError)",))]
    with Receiver(port) as receiver:
        alert(place, START + 2 * WEEK)
        alert(place, START + 2 * WEEK)
    assert [one["state"] for one in receiver.messages] == ["opened", "resolved"]
    assert [one.outcome for one in place.ledger.read(kinds={"alert_sent"})] == ["failed", "sent", "sent"]


def test_one_channel_that_fails_does_not_hold_up_another(place: Workplace, receiver: Receiver) -> None:
    (port,) = free_ports(1)
    place = told_to(place, f"http://127.0.0.1:{port}/, http://127.0.0.1:{receiver.port}/")
    alert(place, decide(place, 0, "degraded"))
    assert len(receiver.heard) == 1
    assert [one.outcome for one in place.ledger.read(kinds={"alert_sent"})] == ["failed", "sent"]
    assert alert_lines("handmade", *written(place.ledger))[-1].endswith(
        f"http://127.0.0.1:{port}: failed, http://127.0.0.1:{receiver.port}: sent"
    )


@pytest.mark.parametrize(
    ("codes", "attempts", "failed"),
    [
        ((204,), 1, None),
        ((503, 429, 200), 3, None),
        ((500,), 3, "answered 500"),
        ((404,), 1, "answered 404"),
        ((302,), 1, "answered 302"),
    ],
)
def test_what_a_moment_may_mend_is_tried_again(codes: tuple[int, ...], attempts: int, failed: str | None) -> None:
    with Receiver(0, *codes) as receiver:
        hook = Webhook("hook", f"http://127.0.0.1:{receiver.port}/")
        assert hook.send(a_message()) == failed
    assert len(receiver.heard) == attempts


def a_message() -> Message:
    alone = {"key": "k", "task": "handmade", "severity": "faulty", "state": "opened", "title": "handmade: broken"}
    return Message.model_validate(
        {**alone, "id": "k/1", "reasons": ("a",), "version": "1", "as_of": START, "opened_at": START}
        | {"reopened": 0, "link": "http://127.0.0.1:8080/"}
    )


def die_while_sending(stage: str, at: datetime, url: str) -> None:
    """Run this stage of `flows.alerting` in a process that is killed once its message is on the way."""
    code = f"""
import os, signal
from flows import alerting, channels
from flows.workplace import enter
send = channels.Webhook.send
def die(self, message):
    send(self, message)
    os.kill(os.getpid(), signal.SIGKILL)
channels.Webhook.send = die
alerting.{stage}(enter("handmade"), __import__("datetime").datetime.fromisoformat({at.isoformat()!r}))
"""
    environment = {**os.environ, "EVERFIT_ALERT_URLS": url}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def test_a_process_killed_before_it_sends_loses_nothing(place: Workplace, receiver: Receiver) -> None:
    """The entry is written, the process dies in the middle of sending; the next pass sends the same id."""
    at, url = decide(place, 0, "degraded"), f"http://127.0.0.1:{receiver.port}/"
    die_while_sending("alert", at, url)
    assert len(place.ledger.read(kinds={"alert"})) == 1
    assert place.ledger.read(kinds={"alert_sent"}) == []
    for _ in range(2):
        alert(told_to(place, url), at)
    assert len(place.ledger.read(kinds={"alert"})) == 1
    first, second = receiver.messages
    assert first == second


def test_what_nobody_has_heard_is_told_by_the_next_process_with_channels_once(
    place: Workplace, receiver: Receiver
) -> None:
    """A pass by hand without channels, then the schedule's; a later channel hears nothing of what another has heard."""
    for number, severity in enumerate(("faulty", "ok", "ok", "degraded")):
        alert(place, at := decide(place, number, severity))
    with Receiver() as other:
        for urls in (urls_of(receiver), urls_of(receiver), f"{urls_of(receiver)} {urls_of(other)}"):
            alert(told_to(place, urls), at)
        assert other.heard == []
    (only,) = receiver.messages
    assert (only["state"], only["severity"]) == ("reopened", "degraded")
    assert [line.split()[-2:] for line in alert_lines("handmade", *written(place.ledger))[-3:]] == [
        ["no", "channel"],
        ["no", "channel"],
        [f"{urls_of(receiver)[:-1]}:", "sent"],
    ]


def test_an_end_that_nobody_has_heard_is_told_to_those_who_were_to_hear_the_beginning(
    place: Workplace, receiver: Receiver
) -> None:
    alert(told_to(place, urls_of(receiver)), decide(place, 0, "degraded"))
    for number in (1, 2):
        alert(place, at := decide(place, number, "ok"))
    with Receiver() as other:
        alert(told_to(place, urls_of(other)), at)
        assert other.heard == []
    alert(told_to(place, urls_of(receiver)), at)
    assert [one["state"] for one in receiver.messages] == ["opened", "resolved"]


def test_where_a_dead_channel_was_replaced_the_new_one_hears_what_nobody_has(
    place: Workplace, receiver: Receiver
) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}/"
    alert(told_to(place, dead), at := decide(place, 0, "degraded"))
    for _ in range(2):
        alert(told_to(place, urls_of(receiver)), at)
    assert [one["state"] for one in receiver.messages] == ["opened"]


def test_a_pass_killed_after_it_took_a_message_over_sends_it_next_time(place: Workplace, receiver: Receiver) -> None:
    alert(place, at := decide(place, 0, "degraded"))
    die_while_sending("alert", at, urls_of(receiver))
    for _ in range(2):
        alert(told_to(place, urls_of(receiver)), at)
    first, second = receiver.messages
    assert first == second
    assert [one.outcome for one in place.ledger.read(kinds={"alert_sent"})] == ["due", "sent"]


def test_apprise_delivers_to_its_own_kind_of_receiver(place: Workplace, receiver: Receiver) -> None:
    place = told_to(place, f"json://someone:{SECRET.split('/')[0]}@127.0.0.1:{receiver.port}/{SECRET}")
    alert(place, decide(place, 0, "degraded"))
    (message,) = receiver.messages
    assert message["title"] == "handmade: performance is degraded"
    assert message["type"] == "failure"
    assert "- auc 0.61 <on> 500 labels" in str(message["message"])
    (sent,) = place.ledger.read(kinds={"alert_sent"})
    assert (sent.outcome, sent.details["channel"]) == ("sent", "json://")


def test_apprise_is_loaded_only_when_something_is_sent() -> None:
    code = "import sys, flows.watch, flows.alerting; sys.exit('apprise' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    ("url", "name", "failed"),
    [
        (f"json://127.0.0.1:9/{SECRET}", "json://", "Apprise could not deliver it"),
        (f"nonesuch://{SECRET}", "nonesuch://", "Apprise knows no such channel, or the URL lacks a part"),
        (SECRET, "no URL", "Apprise knows no such channel, or the URL lacks a part"),
        (f"http://127.0.0.1:9/{SECRET}", "http://127.0.0.1:9", "no answer (ConnectError)"),
        (f"http://me:{SECRET.split('/')[0]}@127.0.0.1:99999/", "http://127.0.0.1:99999", None),
        (f"http://[{SECRET}", "http://", None),
        (f"https://{'a' * 70}.example/{SECRET}", f"https://{'a' * 70}.example", None),
    ],
)
def test_secrets_stay_secret(
    place: Workplace, url: str, name: str, failed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = told_to(place, url, "k3y-of-hmac")
    alert(place, decide(place, 0, "degraded"))
    (sent,) = place.ledger.read(kinds={"alert_sent"})
    assert (sent.outcome, sent.details["channel"]) == ("failed", name)
    assert failed is None or sent.reasons == (failed,)
    shown = everything(place) + caplog.text + repr(place.settings) + repr(trial(place, START))
    shown += "\n".join(alert_lines("handmade", *written(place.ledger))) + page(read(place))
    for part in (*SECRET.split("/"), "k3y-of-hmac"):
        assert part not in shown


def test_a_delivery_that_succeeds_is_not_logged_either(
    place: Workplace, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = f"http://127.0.0.1:{receiver.port}/{SECRET} json://127.0.0.1:{receiver.port}/{SECRET}"
    alert(told_to(place, urls), decide(place, 0, "degraded"))
    assert len(receiver.heard) == 2
    assert all(part not in caplog.text for part in SECRET.split("/"))


def test_an_error_in_other_settings_does_not_show_the_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFIT_ALERT_URLS", f"slack://{SECRET}")
    monkeypatch.setenv("EVERFIT_HOST", "0.0.0.0")
    with pytest.raises(ValueError, match="EVERFIT_API_KEY") as found:
        Settings()
    assert "SECRET" not in str(found.value)


def test_channels_of_one_name_are_told_apart() -> None:
    urls = SecretStr("https://a.example/1,https://a.example/2\nslack://a/b/c")
    found = channels(Settings(alert_urls=urls))
    assert [one.name for one in found] == ["https://a.example", "https://a.example (2)", "slack://"]
    assert [type(one) for one in found] == [Webhook, Webhook, Library]
    assert channels(Settings()) == []


def test_another_pass_at_work_is_left_to_it(place: Workplace, caplog: pytest.LogCaptureFixture) -> None:
    from registry.locks import exclusive

    at = decide(place, 0, "degraded")
    with (
        caplog.at_level(logging.INFO, "everfit"),
        exclusive(place.lock.with_name("alerts-handmade.lock"), "the alerts of handmade"),
    ):
        alert(place, at)
    assert place.ledger.read(kinds={"alert"}) == []
    assert "no alerts now" in caplog.text


def test_a_watch_pass_tells_of_what_it_finds(
    make_place: Callable[..., Workplace], tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two weeks in which the relation to the target is reversed: opened, once, however often the pass runs."""
    place = make_place()
    fill(place.log, make_frame(2016, seed=5, start="2024-03-02", flip=1.0), tmp_path / "bundle")
    monkeypatch.setenv("EVERFIT_ALERT_URLS", f"http://127.0.0.1:{receiver.port}/")
    at = datetime(2024, 3, 16)
    assert watch.fn("handmade", as_of=at, repair=False)["severity"] == "degraded"
    watch.fn("handmade", as_of=at, repair=False)
    assert [(one["state"], one["severity"]) for one in receiver.messages] == [("opened", "degraded")]


def test_a_channel_that_is_dead_is_shown_until_it_hears_or_is_taken_out(place: Workplace, receiver: Receiver) -> None:
    (port,) = free_ports(1)
    both = told_to(place, f"http://127.0.0.1:{port}/ {urls_of(receiver)}")
    alert(both, at := decide(place, 0, "faulty"))

    def shown() -> tuple[list[str], bool]:
        lines = [line for line in task_lines(place) if "alerts have not reached" in line]
        return lines, "Alerts are not heard" in page(read(place))

    (line,), on_page = shown()
    (failed,) = (one for one in place.ledger.read(kinds={"alert_sent"}) if one.outcome == "failed")
    since = f"  alerts have not reached http://127.0.0.1:{port} since {failed.written:%Y-%m-%d %H:%M}"
    assert line == f"{since} (no answer (ConnectError)), and are kept for it: everfit alerts handmade"
    assert on_page
    with Receiver(port):
        alert(both, at)
        assert shown() == ([], False)
    alert(both, at := decide(place, 1, "degraded"))
    assert shown()[1]
    for number in (2, 3):
        alert(told_to(place, urls_of(receiver)), decide(place, number, "ok"))
    assert [one["state"] for one in receiver.messages] == ["opened", "escalated", "resolved"]
    assert shown() == ([], False)


def test_the_status_page_shows_what_is_open(place: Workplace) -> None:
    assert "nothing is open" in page(read(place))
    note(place, decide(place, 0, "faulty"), [])
    assert "opened, since <time>2024-03-01</time>" in page(read(place))
    deliver(place, START, [])
    for number in (1, 2):
        note(place, decide(place, number, "ok"), [])
    assert "nothing is open" in page(read(place))


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs the command line; it puts settings into the environment, which is put back."""
    before = dict(os.environ)

    def call(*arguments: str, urls: str = "") -> tuple[int, str]:
        os.environ["EVERFIT_ALERT_URLS"] = urls
        done = CliRunner().invoke(main, arguments)
        return done.exit_code, done.output

    yield call
    os.environ.clear()
    os.environ.update(before)


def test_the_command_lists_alerts(place: Workplace, run: Callable[..., tuple[int, str]]) -> None:
    assert run("alerts", "handmade") == run("alerts") == (0, "handmade: no alert yet\n")
    code, output = run("alerts", "--test")
    assert (code, "Missing argument 'TASK'" in output) == (2, True)
    for number, severity in enumerate(("faulty", "ok", "ok", "degraded")):
        note(place, decide(place, number, severity), [])
    code, output = run("alerts", "handmade")
    assert code == 0
    assert output.splitlines() == [
        "handmade: an alert is open, degraded, since 2024-03-01 00:00, reopened 1 time",
        "    auc 0.61 <on> 500 labels",
        "  as of             alert      severity  version  told",
        "  2024-03-01 00:00  opened     faulty    1        no channel",
        "  2024-03-15 00:00  resolved   faulty    1        no channel",
        "  2024-03-22 00:00  reopened   degraded  1        no channel",
    ]


def test_the_command_tests_the_channels(
    place: Workplace, run: Callable[..., tuple[int, str]], receiver: Receiver
) -> None:
    good, bad = f"http://127.0.0.1:{receiver.port}", f"http://127.0.0.1:{free_ports(1)[0]}"
    assert run("alerts", "handmade", "--test", urls=good) == (0, f"{good}: arrived\n")
    assert receiver.messages[0]["state"] == "test"
    code, output = run("alerts", "handmade", "--test", urls=f"{good}/{SECRET} {bad}/{SECRET}")
    assert code == 4
    assert output.splitlines() == [
        f"{good}: arrived",
        f"{bad}: no answer (ConnectError)",
        "everfit: 1 of 2 channels did not take the message",
    ]
    code, output = run("alerts", "handmade", "--test")
    assert code == 2
    assert "set EVERFIT_ALERT_URLS" in output
    assert place.ledger.read() == []
