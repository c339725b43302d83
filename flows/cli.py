"""The command line: `everfit`. The verbs stand in the order in which they are used."""

from __future__ import annotations

import importlib.metadata
import sys

import click

from flows.commands_backtest import backtest
from flows.commands_data import demo, replay
from flows.commands_decide import approve, canary, improve, promote, rollback
from flows.commands_keys import key
from flows.commands_quiet import quiet
from flows.commands_report import report, reports
from flows.commands_search import search
from flows.commands_task import apply, init, serve
from flows.commands_up import down, up
from flows.commands_watch import alerts, monitor, status
from flows.door import Door, quiet_third_parties, show_bug, spare_collector

_HELP = """Keeps a deep-learning model fit: search, serve, watch, repair, prove, promote or roll back.

\b
Example:
  everfit demo
  everfit init flights.csv --target late --time time_hour
  everfit search flights.yaml
  everfit up flights

Settings are environment variables (EVERFIT_HOME, EVERFIT_PORT, ...). Exit codes: 0 done, 1 bug, 2 wrong input,
3 wrong moment, 4 something outside failed, 10 degraded (monitor).
"""


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(importlib.metadata.version("everfit"))
        context.exit()


@click.group(cls=Door, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="The version.")
def main() -> None:
    """The group of all commands."""
    sys.excepthook = show_bug
    quiet_third_parties()
    spare_collector()


_SEEN = (monitor, status, alerts, report, reports)
_DECIDED = (approve, promote, canary, rollback, improve)
for command in (init, search, apply, serve, *_SEEN, *_DECIDED, key, replay, backtest, quiet, demo, up, down):
    main.add_command(command)
