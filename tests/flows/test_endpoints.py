"""Which endpoint is told the key of this machine's own programs."""

from __future__ import annotations

from pathlib import Path

from flows.commands_data import _endpoint
from flows.endpoints import own_at
from registry.settings import Settings
from serving.own_key import own_secret
from serving.presence import present, workers_folder


def key_for(settings: Settings, url: str | None) -> str | None:
    """What a replay sends to an address."""
    sent = _endpoint(settings, "handmade", url)._client.headers.get("Authorization")
    return None if sent is None else sent.removeprefix("Bearer ")


def test_a_replay_sends_its_home_s_own_key_to_the_endpoint_that_made_it_alone(tmp_path: Path) -> None:
    """At another port than that of the settings too, under either name of this machine, and for as long as it runs."""
    settings = Settings.model_validate({"home": tmp_path, "port": 8000, "api_key": "theirs"})
    other = settings.model_copy(update={"port": 8123})
    with present(other, ["handmade"]):
        own = own_secret(workers_folder(other))
        assert own
        for url in ("http://127.0.0.1:8123", "http://localhost:8123/"):
            assert key_for(settings, url) == own
            assert _endpoint(settings, "handmade", url)._client.base_url.host == "127.0.0.1", "localhost may be ::1"
        for url in ("http://127.0.0.1:8124", "https://127.0.0.1:8123", "http://elsewhere:8123", "http://127.0.0.1"):
            assert (own_at(settings, url), key_for(settings, url)) == (None, "theirs")
        assert key_for(settings, None) == "theirs", "where the settings say, nothing runs"
    assert (own_at(settings, "http://127.0.0.1:8123"), key_for(settings, "http://127.0.0.1:8123")) == (None, "theirs")


def test_an_address_without_a_sensible_port_is_nobody_s(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    assert own_at(settings, "http://127.0.0.1:99999999") is None
