"""Where things are kept and who may reach them: read from `EVERFIT_*` environment variables at the doors only.

What belongs to a task (metric, budgets, policy) is in its YAML; what belongs to an installation is here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine, and how the machine itself reaches them."""


class Settings(BaseSettings):
    """The settings of an installation. Every field is an environment variable: `EVERFIT_` and its name in capitals; an
    empty one is as one that is not set."""

    model_config = SettingsConfigDict(
        env_prefix="EVERFIT_", env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )  # the input of an error of the whole is every variable, the secret ones among them

    home: Path = Field(Path(".everfit"), description="folder of everything Everfit keeps on this machine")
    tracking_url: str = Field("", description="MLflow's tracking and registry URL; empty: SQLite in the home")
    store_url: str = Field("", description="SQLAlchemy URL of inference log and ledger; empty: SQLite in the home")
    host: str = Field("127.0.0.1", description="address the endpoint listens on; beyond loopback only with a key")
    port: int = Field(8000, ge=1, le=65535, description="port of the endpoint")
    grpc_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="port of the Open Inference Protocol over gRPC (`pip install 'everfit[grpc]'`); unset: none",
    )
    workers: int = Field(1, ge=1, le=64, description="processes that answer behind the endpoint's port")
    status_port: int = Field(8080, ge=1, le=65535, description="port of the status page (loopback)")
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of Prefect's server (loopback)")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="port of MLflow's server (loopback)")
    api_key: SecretStr | None = Field(
        None, description="a key with every scope, sent as `Authorization: Bearer KEY`; others: `everfit key add`"
    )
    tls_cert: Path | None = Field(None, description="PEM file of the endpoint's certificate and its chain: HTTPS")
    tls_key: Path | None = Field(None, description="PEM file of its private key, not encrypted")
    max_body_bytes: int = Field(4_000_000, ge=1_000, description="largest request body the endpoint reads, in bytes")
    max_rows: int = Field(10_000, ge=1, description="most rows in one prediction request")
    max_concurrent: int = Field(1_000, ge=1, description="most requests in work at once; others get a 503 at once")
    body_seconds: float = Field(
        30.0, gt=0, description="how long a request's body may take to arrive (then a 408), or an answer not be read"
    )
    idle_seconds: float = Field(
        60.0, gt=0, description="how long a connection may take until the head of its next request is whole"
    )
    drain_seconds: float = Field(
        1.0, ge=0, le=60, description="how long an endpoint that was told to stop goes on to accept connections"
    )
    max_graph_bytes: int = Field(
        2_000_000_000, ge=1_000, description="most bytes of graphs an endpoint holds, of all tasks together"
    )
    poll_seconds: float = Field(1.0, gt=0, description="how often the endpoint looks whether the champion changed")
    webhook_secret: SecretStr | None = Field(
        None, description="secret of MLflow's webhook to `/registry/changed`, which makes the endpoint look at once"
    )
    ledger_seconds: float = Field(
        20.0, gt=0, description="how often the endpoint reads what monitoring found, for `/metrics`"
    )
    access_log: bool = Field(False, description="whether each request is a line of JSON on the endpoint's stderr")
    log_format: Literal["text", "json"] = Field("text", description="form of the endpoint's own log lines")
    shadow: bool = Field(True, description="whether a challenger predicts the live traffic too, without answering")
    log_sync: Literal["os", "disk"] = Field(
        "os", description="when a prediction counts as stored: handed to the system (survives a kill) or synced to disk"
    )
    max_backlog_bytes: int = Field(
        1_000_000_000, ge=1_000, description="most journal bytes that may wait for the store before requests get a 503"
    )
    max_image_bytes: int = Field(
        2_000_000_000, ge=1_000, description="most bytes of a task's logged images that are kept; the oldest go first"
    )
    log_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret, 32 characters or more, for hashed and encrypted columns of the inference log; without it "
        "one is made in the home (`log.key`)",
    )
    report_days: int = Field(90, ge=1, description="how long reports are kept; the newest of a task stays")
    log_days: int | None = Field(
        None,
        ge=1,
        description="how long logged rows and their labels are kept, counted in the task's time from its newest row; "
        "those of a window that is not measured yet stay; "
        "remedies, gates and looks back read no older ones. Unset: for ever",
    )
    run_days: int = Field(
        14, ge=1, description="how long our Prefect server keeps finished flow runs; what they did stays in the ledger"
    )
    watch_minutes: float = Field(5.0, gt=0, description="how often the scheduled watch flow runs")
    alert_urls: SecretStr | None = Field(
        None,
        description="where alerts go: webhooks (`https://...`) and Apprise URLs (`slack://...`), spaces between them",
    )
    alert_key: SecretStr | None = Field(None, description="key that signs webhooks (HMAC, `X-Everfit-Signature`)")

    @model_validator(mode="after")
    def _no_open_door(self) -> Settings:
        if not self.is_local and self.api_key is None and not self.key_file.exists():
            raise ValueError(
                f"EVERFIT_HOST={self.host!r} listens beyond this machine: set EVERFIT_API_KEY, make a key with "
                "`everfit key add`, or use 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _both_or_none(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            absent = "EVERFIT_TLS_KEY" if self.tls_key is None else "EVERFIT_TLS_CERT"
            raise ValueError(f"TLS needs a certificate and its key: set {absent} too, or neither")
        return self

    @model_validator(mode="after")
    def _two_ports(self) -> Settings:
        if self.grpc_port == self.port:
            raise ValueError(f"EVERFIT_GRPC_PORT={self.grpc_port} is EVERFIT_PORT: gRPC needs a port of its own")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the endpoint listens on this machine alone."""
        return self.host in LOOPBACK

    @property
    def endpoint_url(self) -> str:
        """Where this machine's own programs reach the endpoint."""
        host = _ANY.get(self.host, self.host)
        scheme = "http" if self.tls_cert is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def key_file(self) -> Path:
        """File of the API keys."""
        return self.folder / "keys.json"

    @property
    def log_key_file(self) -> Path:
        """File of the secret for columns of the inference log, where none is set."""
        return self.folder / "log.key"

    @property
    def folder(self) -> Path:
        """The home folder as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def tracking(self) -> str:
        """MLflow's URL, the embedded default filled in."""
        return self.tracking_url or f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def store(self) -> str:
        """The store's URL, the embedded default filled in."""
        return self.store_url or f"sqlite:///{self.folder / 'everfit.db'}"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts when the registry is embedded."""
        return self.folder / "artifacts"

    @property
    def workspace(self) -> Path:
        """Folder of Evidently's workspace, which holds the reports of all tasks."""
        return self.folder / "evidently"

    def images(self, task: str) -> Path:
        """Folder of a task's logged images."""
        return self.folder / "images" / task

    def task_file(self, task: str) -> Path:
        """The file of a registered task."""
        return self.folder / "tasks" / f"{task}.yaml"

    def study(self, task: str) -> Path:
        """Folder of a task's searches: journals, trials, locks."""
        return self.folder / "studies" / task


def wrong_settings(error: ValidationError) -> list[str]:
    """What is wrong with `EVERFIT_*`, a line each; what a secret one was set to is not told."""
    return [_told(one) for one in error.errors()]


def _told(one: Any) -> str:
    from registry.mistakes import expected

    message = expected(one, Settings)
    if not one["loc"]:
        return message
    name = str(one["loc"][0])
    field = Settings.model_fields.get(name)
    hidden = ", got " in message or (field is not None and SecretStr in get_args(field.annotation))
    return f"EVERFIT_{name.upper()}: {message}" + ("" if hidden else f", got {one['input']!r}")
