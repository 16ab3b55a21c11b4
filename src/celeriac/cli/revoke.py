"""``celeriac revoke``: cancel tasks."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import duration
from celeriac.cli.params import ParamType, option
from celeriac.message import MessageState

if TYPE_CHECKING:
    from celeriac.message import Peeked


class Signal(ParamType):
    """A signal by name, with or without SIG, or by number."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).upper()
        try:
            if text.isdigit():
                return signals.Signals(int(text)).name
            return signals.Signals["SIG" + text.removeprefix("SIG")].name
        except (KeyError, ValueError):
            self.fail(f"{value!r} is no signal: write a name such as TERM or KILL", param, ctx)


@click.command(short_help="Cancel tasks.")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@option("--terminate", is_flag=True, help="Kill them too if they run.")
@option(
    "-s",
    "--signal",
    type=Signal(),
    default="SIGTERM",
    show_default=True,
    metavar="SIGNAL",
    help="With this signal.",
)
@click.pass_obj
def revoke(invocation: Invocation, *, ids: tuple[str, ...], terminate: bool, signal: str) -> None:
    """Cancel the tasks with these IDs.

    Those that wait will not run and end as REVOKED. Those that run go on, unless --terminate
    kills them. The broker remembers the ids across restarts, for revoke_expires seconds.

    \b
    celeriac -A tasks revoke 0199a1b2-…
    celeriac -A tasks revoke 0199a1b2-… --terminate
    """
    app = invocation.whole_app()
    places = {one.message.id: one for one in app.admin().find(ids)}
    app.control.revoke(list(ids), terminate=terminate, signal=signal)
    invocation.note_unshared()
    for task_id in ids:
        click.echo(f"{task_id}: {_told(places.get(task_id), terminate)}")
    kept = duration(float(app.conf.revoke_expires))
    invocation.note(f"If sent again within {kept}, they do not run either.")


def _told(place: Peeked | None, terminate: bool) -> str:
    """What the cancellation means for a message that was there."""
    if place is None:
        return "is in no queue; if it comes, it will not run"
    queue = place.message.queue
    if place.state is MessageState.IN_FLIGHT:
        how = "is killed if it runs" if terminate else "goes on if it runs (--terminate kills it)"
        return f"was in flight from {queue}: {how}"
    if place.state is MessageState.DEAD:
        return f"is a dead letter of {queue}, and does not run"
    return f"was {place.state.value} in {queue}, and will not run"
