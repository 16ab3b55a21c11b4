"""``celeriac queues``: look at queues, stop and start them."""

from __future__ import annotations

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import as_json as print_json
from celeriac.cli.params import force_option, json_option
from celeriac.cli.purge import purge_queues
from celeriac.cli.status import queue_fields, show_queues


@click.group(short_help="List, pause, resume and purge queues.")
def queues() -> None:
    """List queues, stop workers from taking from them, and empty them.

    \b
    celeriac -A tasks queues list
    celeriac -A tasks queues pause mail
    """


@queues.command("list", short_help="Show what the queues hold.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """Show every queue that holds something or is paused.

    \b
    celeriac -A tasks queues list
    celeriac -A tasks queues list --json
    """
    found = invocation.app.admin().queues()
    invocation.note_unshared()
    if as_json:
        print_json([queue_fields(one) for one in found])
    elif found:
        show_queues(found)
    else:
        click.echo("No queue holds anything.")


@queues.command(short_help="Let no worker take from queues.")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE…")
@click.pass_obj
def pause(invocation: Invocation, *, names: tuple[str, ...]) -> None:
    """Let no worker take from these queues until they are resumed.

    What runs goes on, and tasks can be sent. Pausing outlives restarts.

    \b
    celeriac -A tasks queues pause mail
    """
    app = invocation.app
    admin = app.admin()
    known = {info.name for info in admin.queues()} | set(app.queues.configured)
    for name in names:
        admin.pause(name)
        click.echo(f"{name} is paused.")
        if name not in known:
            invocation.note(f"(Nothing has been sent to {name}: is the name right?)")


@queues.command(short_help="Let workers take from queues again.")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE…")
@click.pass_obj
def resume(invocation: Invocation, *, names: tuple[str, ...]) -> None:
    """Let workers take from these queues again.

    \b
    celeriac -A tasks queues resume mail
    """
    admin = invocation.app.admin()
    paused = {info.name for info in admin.queues() if info.paused}
    for name in names:
        admin.pause(name, False)
        click.echo(f"{name} is resumed." if name in paused else f"{name} was not paused.")


@queues.command(short_help="Remove the messages that wait in queues.")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE…")
@force_option
@click.pass_obj
def purge(invocation: Invocation, *, names: tuple[str, ...], force: bool) -> None:
    """Remove the waiting and delayed messages of these queues.

    \b
    celeriac -A tasks queues purge mail
    """
    purge_queues(invocation, list(dict.fromkeys(names)), force)
