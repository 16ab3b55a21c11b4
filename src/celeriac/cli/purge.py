"""``celeriac purge``: remove what waits."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import confirm, counted
from celeriac.cli.params import Names, force_option, option


@click.command(short_help="Remove the messages that wait.")
@force_option
@option("-Q", "--queues", type=Names(), metavar="A,B", help="Of these queues.")
@option("-X", "--exclude-queues", type=Names(), metavar="A,B", help="Not of these.")
@click.pass_obj
def purge(
    invocation: Invocation,
    *,
    force: bool,
    queues: list[str] | None,
    exclude_queues: list[str] | None,
) -> None:
    """Remove the waiting and delayed messages of the application's queues.

    What runs goes on, and dead letters stay. It asks first; nothing removed comes back.

    \b
    celeriac -A tasks purge
    celeriac -A tasks purge -f -Q mail,reports
    """
    names = queues or list(invocation.app.queues.configured)
    purge_queues(invocation, [one for one in names if one not in (exclude_queues or ())], force)


def purge_queues(invocation: Invocation, names: Sequence[str], force: bool) -> None:
    """Ask, remove, and say how many."""
    if not names:
        raise click.UsageError("No queue is left to purge.")
    app = invocation.whole_app()  # what is removed is settled as its task's options say
    if app.queues.create_missing:  # a broker that cannot list its queues is asked for these
        for name in names:
            _ = app.queues[name]
    counts = {
        info.name: info.waiting + info.delayed
        for info in app.admin().queues()
        if info.name in names and info.waiting + info.delayed
    }
    invocation.note_unshared()
    if not counts:
        click.echo(f"There is nothing to remove in {', '.join(names)}.")
        return
    held = ", ".join(f"{name}: {count}" for name, count in counts.items())
    total = counted(sum(counts.values()), "message")
    confirm(f"Remove {total} ({held})? Nothing removed comes back.", force)
    count = app.control.purge(queues=list(counts))
    click.echo(f"Removed {counted(count, 'message')}.")
