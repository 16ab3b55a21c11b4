"""``celeriac status``: which workers are alive, and what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import age, moment, table
from celeriac.cli.output import as_json as print_json
from celeriac.cli.params import Names, json_option, option

if TYPE_CHECKING:
    from celeriac.message import QueueInfo, WorkerInfo

EX_UNAVAILABLE = 69
"""Exit status when no worker is alive, as Celery's and that of sysexits.h."""

OPERATOR = "operator"
"""The name under which a command holds a lease while it moves messages."""


@click.command(short_help="Show workers and queues.")
@option("-d", "--destination", type=Names(), metavar="NAMES", help="Only these workers.")
@option("-t", "--timeout", type=float, hidden=True, expose_value=False)  # nothing to wait for
@json_option
@click.pass_context
def status(ctx: click.Context, *, destination: list[str] | None, as_json: bool) -> None:
    """Show which workers are alive and what the queues hold.

    Exit status 0 if a worker is alive, 69 if none is. Workers are not asked: what is shown is
    what the broker knows, so a busy worker answers as fast as an idle one.

    \b
    celeriac -A tasks status
    celeriac -A tasks status --json
    """
    invocation: Invocation = ctx.obj
    admin = invocation.app.admin()
    workers = [one for one in admin.workers() if one.name != OPERATOR]
    if destination:
        workers = [one for one in workers if one.name in destination]
    queues = admin.queues()
    alive = [one for one in workers if one.alive]
    if as_json:
        _show_json(workers, queues)
    else:
        _show(workers, queues)
    invocation.note_unshared()
    ctx.exit(0 if alive else EX_UNAVAILABLE)


def _show(workers: Sequence[WorkerInfo], queues: Sequence[QueueInfo]) -> None:
    if workers:
        table(
            ("WORKER", "STATE", "PID", "IN FLIGHT", "FOR"),
            [
                (
                    one.name or one.lease,
                    "alive" if one.alive else f"lost {age(one.expires_at)} ago",
                    one.pid,
                    one.in_flight,
                    age(one.since) if one.alive else "",
                )
                for one in workers
            ],
        )
    if not any(one.alive for one in workers):
        click.echo("No worker is alive.")
    if queues:
        click.echo()
        show_queues(queues)


def show_queues(queues: Sequence[QueueInfo]) -> None:
    """The table of ``celeriac queues list``."""
    table(
        ("QUEUE", "WAITING", "DELAYED", "IN FLIGHT", "DEAD", "OLDEST", "STATE"),
        [
            (
                one.name,
                one.waiting,
                one.delayed,
                one.in_flight,
                one.dead,
                age(one.oldest_at),
                "paused" if one.paused else "",
            )
            for one in queues
        ],
    )


def queue_fields(one: QueueInfo) -> dict[str, Any]:
    return {
        "name": one.name,
        "waiting": one.waiting,
        "delayed": one.delayed,
        "in_flight": one.in_flight,
        "dead": one.dead,
        "paused": one.paused,
        "oldest": moment(one.oldest_at),
    }


def _show_json(workers: Sequence[WorkerInfo], queues: Sequence[QueueInfo]) -> None:
    print_json(
        {
            "alive": sum(one.alive for one in workers),
            "workers": [
                {
                    "name": one.name,
                    "lease": one.lease,
                    "hostname": one.hostname,
                    "pid": one.pid,
                    "alive": one.alive,
                    "in_flight": one.in_flight,
                    "since": moment(one.since),
                    "expires": moment(one.expires_at),
                }
                for one in workers
            ],
            "queues": [queue_fields(one) for one in queues],
        }
    )
