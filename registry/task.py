"""What the user asks: one frozen `TaskSpec`, one YAML file, every key checked.

`everfit init` writes the file, `load` reads it, and `proposal.py` holds the comments that explain each key in it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from registry.choices import Preference
from registry.durations import Duration
from registry.errors import TaskError, did_you_mean
from registry.metrics import Problem, metrics_for
from registry.policies import Gate, PerformancePolicy, PolicySpec
from registry.schema import ColumnKind, Frozen

_PASSWORD = re.compile(r"(?P<begin>[^:/]+://[^:/]*):(?P<password>[^@]*)@")  # what SQLAlchemy takes for one

Mode: TypeAlias = Literal["auto", "approve", "observe"]
"""Who promotes: the gate's verdict; a person, after it; nobody (decisions are written into the ledger alone)."""
Objective: TypeAlias = Literal["quality", "latency", "size", "energy"]
"""What a search may look for at once: the task's metric, one row's milliseconds, the number of weights, CPU-seconds."""
Topic: TypeAlias = Literal["question", "promotion", "rollback", "failure", "attempt", "silence"]
"""What is told beside alerts: a challenger waits for a person; another champion, or a challenger that answers a share;
a champion that came back, or such a challenger that was let go; an improvement that could not be made; one whose model
was not proven; rows or labels that stay away."""
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class FileSource(Frozen):
    """CSV or Parquet: a file, a folder of files, or a glob."""

    kind: Literal["file"] = "file"
    path: str


class SqlSource(Frozen):
    """A query. `url` is a SQLAlchemy URL; `${NAME}` in it is read from the environment: no secret is written."""

    kind: Literal["sql"] = "sql"
    url: str
    query: str

    @field_validator("url")
    @classmethod
    def _hold_no_password(cls, url: str) -> str:
        """Raises `TaskError` itself: pydantic would show the value, and with it the secret."""
        found = _PASSWORD.match(url)
        if found and found["password"] and not re.fullmatch(r"(\$\{[^}]+\})+", found["password"]):
            shown = f"{found['begin']}:${{NAME}}@..."
            raise TaskError(
                f"source.url: the URL holds a password, and a task's file is no place for it: write {shown} "
                "and keep the password in the environment variable NAME"
            )
        return url


Source: TypeAlias = Annotated[FileSource | SqlSource, Field(discriminator="kind")]


class Columns(Frozen):
    """The user's word on columns, over what `everfit init` infers."""

    kinds: dict[str, ColumnKind] = Field(default_factory=dict)
    exclude: tuple[str, ...] = ()


class Splits(Frozen):
    """Shares of the rows; training gets the rest. In time order when the task has a time column, else stratified.

    With a `spread` of more than 1, validation and calibration are not the newest rows before the test part but short
    runs, spread over a stretch of time so many times as long, with training rows between them. Neighbours of validation
    rows are then trained on: that is for a re-search alone, whose result a gate judges on rows newer than all of these.
    """

    validation: Share = 0.12
    calibration: Share = 0.08
    test: Share = 0.1
    spread: float = Field(1.0, ge=1, le=10)

    @model_validator(mode="after")
    def _leave_rows_to_train(self) -> Splits:
        if (held := self.validation + self.calibration + self.test) >= 0.8:
            raise ValueError(f"validation + calibration + test must leave a fifth for training, got {held:.2f}")
        return self


IMAGE_FAMILIES = ("convnet",)
"""The networks of a task with a column of images that names none."""


class Search(Frozen):
    """The budget and the means of a search. Whichever of `trials` and `seconds` is reached first ends it."""

    strategy: str = "auto"
    stopping: str = "asha"
    families: tuple[str, ...] = Field(("mlp", "resnet"), min_length=1)
    choices: dict[str, Preference] = Field(default_factory=dict, description="prior knowledge, by dimension")
    objectives: tuple[Objective, ...] = ("quality",)
    trials: int = Field(40, ge=1)
    seconds: float = Field(300.0, gt=0, allow_inf_nan=False)
    workers: int = Field(2, ge=1)
    max_epochs: int = Field(27, ge=1)
    ensemble: int = Field(4, ge=1, description="most candidates in the served ensemble")
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("objectives")
    @classmethod
    def _ordered(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        """Quality comes first, whatever the order in the file."""
        if "quality" not in objectives or len(set(objectives)) < len(objectives):
            raise ValueError("expected quality and others of latency, size, energy, none of them twice")
        return tuple(one for one in get_args(Objective) if one in objectives)

    @field_serializer("choices")
    def _briefly(self, choices: dict[str, Preference]) -> dict[str, dict[str, Any]]:
        """Only what was said, in an order of its own: the same choices are the same question."""
        return {name: one.briefly() for name, one in sorted(choices.items())}


class Research(Frozen):
    """A warm-started search after degradation: budget, and which labelled rows it reads."""

    trials: int = Field(12, ge=1)
    seconds: float = Field(90.0, gt=0, allow_inf_nan=False)
    history: Duration | None = Field(None, description="how far back rows are used; none: all of them")
    splits: Splits = Splits(validation=0.08, calibration=0.08, test=0.04)
    fresh: float = Field(0.1, gt=0, lt=0.5, description="share of the newest labelled rows kept for the gate alone")
    max_fresh_rows: int = Field(10_000, ge=50)
    enough: int = Field(4, ge=0, description="trials from which the search may end before its budget; 0: never")


class TimeWindows(Frozen):
    """Windows of equal duration."""

    kind: Literal["time"] = "time"
    every: Duration


class RowWindows(Frozen):
    """Windows of equal row count."""

    kind: Literal["rows"] = "rows"
    rows: int = Field(ge=30)


Windows: TypeAlias = Annotated[TimeWindows | RowWindows, Field(discriminator="kind")]


class Monitor(Frozen):
    """How predictions are watched."""

    windows: Windows = RowWindows(rows=2_000)
    min_labels: int = Field(30, ge=10, description="fewest labels at which a window's performance is judged")
    most_rows: int = Field(200_000, ge=1_000, description="rows of a window that are read; of more, one in so many is")
    adaptive: bool = Field(True, description="whether the conformal radius follows newer labels between remedies")
    segments: tuple[str, ...] = Field((), description="categorical or boolean columns whose values are watched apart")
    report: Literal["alarms", "always", "never"] = Field(
        "alarms", description="which passes leave Evidently's report of their newest window"
    )
    keep_images: bool = Field(True, description="whether images of logged rows are kept, which remedies and gates need")
    yardstick_rows: int = Field(
        30_000, ge=0, description="newest labelled rows that a boosted model is fitted to at each window; 0: none is"
    )


class Alerts(Frozen):
    """Who hears of a decision, and how often. All times are event time; `shifted < faulty < degraded`."""

    least: Literal["shifted", "faulty", "degraded"] = Field("faulty", description="least severity that is an alert")
    cooldown: Duration = Field(timedelta(days=1), description="at most one message of a severity within this time")
    resolve_after: int = Field(2, ge=1, le=50, description="quiet windows in a row that end an alert")
    reopen_within: Duration = Field(timedelta(days=7), description="how soon a new one continues the one that ended")
    remind: Duration | None = Field(timedelta(days=7), description="reminders while an alert goes on; none: none")
    notices: tuple[Topic, ...] = Field(
        ("question", "promotion", "rollback", "failure", "silence"), description="what is told beside alerts"
    )


class LogColumns(Frozen):
    """Columns that the inference log does not hold in plain (`registry/privacy.py`); a name is in one list at most."""

    drop: tuple[str, ...] = Field((), description="columns whose values are not logged at all")
    hash: tuple[str, ...] = Field((), description="columns of whose values keyed hashes are logged")
    encrypt: tuple[str, ...] = Field((), description="columns whose values are logged encrypted")

    @model_validator(mode="after")
    def _once(self) -> LogColumns:
        names = [name for each in self.lists for name in each]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} is named twice; it can be dropped, hashed or encrypted")
        return self

    @property
    def lists(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Dropped, hashed, encrypted."""
        return self.drop, self.hash, self.encrypt

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.drop, *self.hash, *self.encrypt)

    @property
    def lost(self) -> tuple[str, ...]:
        """Those whose values no reader of the log can have."""
        return (*self.drop, *self.hash)


class Constraints(Frozen):
    """What a served model may cost."""

    latency_ms: float | None = Field(None, gt=0, description="median for one row, in the serving runtime")
    size_mb: float | None = Field(None, gt=0)


class TaskSpec(Frozen):
    """All that the user asks for one prediction task."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    source: Source
    target: str
    time: str | None = None
    problem: Problem
    metric: str
    coverage: float = Field(0.9, gt=0.5, lt=1, description="promised coverage of conformal sets and intervals")
    columns: Columns = Columns()
    splits: Splits = Splits()
    search: Search = Search()
    research: Research = Research()
    monitor: Monitor = Monitor()
    policy: PolicySpec = PerformancePolicy()
    mode: Mode = "auto"
    alerts: Alerts = Alerts()
    gate: Gate = Gate()
    constraints: Constraints = Constraints()
    log: LogColumns = LogColumns()

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if self.target == self.time:
            raise ValueError(f"target and time are the same column, {self.target!r}")
        if self.metric not in (known := metrics_for(self.problem)):
            fitting = f"expected one of {', '.join(known)}{did_you_mean(self.metric, known)}"
            raise ValueError(f"metric {self.metric!r} does not fit a {self.problem} problem: {fitting}")
        return self

    @model_validator(mode="after")
    def _log_what_is_needed(self) -> TaskSpec:
        for name in self.log.names:
            if name in (self.target, self.time):
                role = "target" if name == self.target else "time"
                raise ValueError(f"log: {name!r} is the {role} column, which is logged as it is: monitoring needs it")
            if name in self.monitor.segments:
                raise ValueError(
                    f"log: {name!r} is one of monitor.segments, whose values the ledger holds in plain: "
                    "take it off one of the two"
                )
        return self


def load(path: Path) -> TaskSpec:
    """The task in a YAML file. Raises `TaskError` that names file, line, key, value and the nearest known key."""
    import yaml  # here, since a process that answers reads no such file

    from registry.mistakes import explain, said_twice

    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except OSError as error:
        near = did_you_mean(path.name, [one.name for one in path.parent.glob("*.y*ml")])
        raise TaskError(f"{path}: cannot be read ({error.strerror}){near}") from error
    except yaml.MarkedYAMLError as error:
        mark, tab = error.problem_mark, "'\\t'" in (error.problem or "")
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        look = "look here and just before for indentation, brackets, quotes and colons"
        said = "a tab, where YAML wants spaces" if tab else f"not valid YAML from here on: {look}"
        raise TaskError(f"{path}:\n  {place}{said}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: not valid YAML: {str(error).replace('<unicode string>', path.name)}") from error
    if not isinstance(raw, dict):
        raise TaskError(f"{path}: expected keys and values, got {type(raw).__name__}")
    if twice := said_twice(text):
        raise TaskError(f"{path}:\n{twice}")
    try:
        return TaskSpec.model_validate(raw)
    except ValidationError as error:
        raise TaskError(f"{path}:\n{explain(error, TaskSpec, text)}") from error
    except TaskError as error:
        raise TaskError(f"{path}:\n  {error}") from error
