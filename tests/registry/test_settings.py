"""Settings refuse an open door and keep the key to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from registry.errors import unknown
from registry.settings import Settings, wrong_settings


def test_beyond_loopback_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFIT_HOST", "0.0.0.0")
    with pytest.raises(ValueError, match="set EVERFIT_API_KEY"):
        Settings()
    monkeypatch.setenv("EVERFIT_API_KEY", "secret-key")
    assert "secret-key" not in repr(Settings())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
    ],
)
def test_the_machines_own_programs_reach_the_endpoint_where_it_listens(host: str, url: str) -> None:
    assert Settings(host=host, api_key="a-key").endpoint_url == url


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRPC_PORT", "API_KEY", "TLS_CERT", "ALERT_URLS", "STORE_URL", "PORT"):
        monkeypatch.setenv(f"EVERFIT_{name}", "")
    assert Settings() == Settings(port=8000)
    assert (Settings().grpc_port, Settings().api_key, Settings().port) == (None, None, 8000)


def test_embedded_defaults_live_in_the_home_folder(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.tracking == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.store == f"sqlite:///{tmp_path}/everfit.db"
    assert settings.workspace == tmp_path / "evidently"
    assert Settings(store_url="postgresql://db/everfit").store == "postgresql://db/everfit"


def test_reports_are_kept_for_a_day_at_least() -> None:
    with pytest.raises(ValueError, match="report_days"):
        Settings(report_days=0)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert unknown("strategy", "tp", ["random", "tpe"]).endswith("(did you mean 'tpe'?)")


def test_a_secret_that_is_wrong_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFIT_LOG_KEY", "too-short")
    monkeypatch.setenv("EVERFIT_PORT", "none")
    with pytest.raises(ValidationError) as raised:
        Settings()
    port, key = sorted(wrong_settings(raised.value), reverse=True)
    assert port == "EVERFIT_PORT: expected a whole number, got 'none'"
    assert key.startswith("EVERFIT_LOG_KEY: ")
    assert "too-short" not in key
