"""Commands on the API keys of this installation's endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.door import read_settings

if TYPE_CHECKING:
    from registry.settings import Settings

_SCOPES = ("predict", "feedback", "read", "admin")


@click.group()
def key() -> None:
    """Make, list and revoke API keys.

    Endpoints that run take a change over within a second. Once there is a key, or EVERFIT_API_KEY is set, every route
    but health asks for one; beyond this machine no endpoint starts without.

    \b
    Example:
      everfit key add shop --scope predict --scope feedback
    """


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(_SCOPES),
    multiple=True,
    required=True,
    help="What it opens; may be given several times.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Most requests a second, in all workers together."
)
@click.option("--task", help="The only task it is for; default: all.")
def add(name: str, scopes: tuple[str, ...], rate: float | None, task: str | None) -> None:
    """Make a key called NAME.

    It is printed once and kept nowhere: only its hash is.

    \b
    Example:
      everfit key add shop --scope predict --scope feedback --rate 100
    """
    from serving.keys import add_key

    settings = _local()
    click.echo(add_key(settings.key_file, name, scopes, rate=rate, task=task))
    if task is not None:
        _warn_of(task, settings)
    click.echo("this is the only time that it is shown", err=True)
    click.echo(
        "whoever asks the endpoint needs a key from now on: one that runs knows within a second, without a restart.\n"
        "Everfit's own programs on this machine are let in by one that the endpoint made for them",
        err=True,
    )


@key.command("list")
def list_() -> None:
    """Show every key there is or was.

    \b
    Example:
      everfit key list
    """
    from serving.keys import read_keys

    known = read_keys(_local().key_file)
    if not known.keys:
        click.echo("no keys yet")
        return
    click.echo(f"{'name':<20} {'scopes':<28} {'task':<16} {'rate':<8} {'made':<17} state")
    for one in known.keys:
        rate = "-" if one.rate is None else f"{one.rate:g}/s"
        state = "live" if one.revoked is None else f"revoked {one.revoked:%Y-%m-%d %H:%M}"
        scopes = ",".join(one.scopes)
        click.echo(f"{one.name:<20} {scopes:<28} {one.task or '-':<16} {rate:<8} {one.made:%Y-%m-%d %H:%M}  {state}")


@key.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Let the key NAME open nothing any more.

    \b
    Example:
      everfit key revoke shop
    """
    from serving.keys import read_keys, revoke_key

    settings = _local()
    revoke_key(settings.key_file, name)
    click.echo(f"{name}: revoked; endpoints that run refuse it within a second")
    if not read_keys(settings.key_file).live:
        rest = "opens only to EVERFIT_API_KEY" if settings.api_key is not None else "answers 401 to everybody else"
        click.echo(f"  no key is left: the endpoint {rest} until there is another: everfit key add NAME")
        click.echo("  to have it ask for none again, on loopback: everfit key open")


@key.command("open")
def open_() -> None:
    """Ask for no key any more, where the endpoint listens on this machine alone.

    For when every key is revoked; `everfit key add` takes it back. Beyond loopback, and where EVERFIT_API_KEY is set, a
    key is asked for still.

    \b
    Example:
      everfit key open
    """
    from serving.keys import open_door

    settings = _local()
    if not open_door(settings.key_file):
        click.echo("nothing changed: no key of this installation is asked for")
    else:
        click.echo("endpoints on loopback ask for no key any more; those that run know within a second")
    if settings.api_key is not None:
        click.echo("  but where EVERFIT_API_KEY is set, as it is here, they ask for that one")


def _warn_of(task: str, settings: Settings) -> None:
    """A task that is none may be a slip, or be registered later, or elsewhere."""
    from flows.workplace import task_names
    from registry.errors import did_you_mean

    if task not in (known := task_names(settings)):
        near = did_you_mean(task, known)
        click.echo(f"warning: no task {task!r} is registered here{near}; the key opens nothing else", err=True)


def _local() -> Settings:
    """The settings, with the endpoint on loopback: keys are made before an endpoint is opened to other machines."""
    return read_settings(host="127.0.0.1")
