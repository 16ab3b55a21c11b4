"""What Celery's command line has and this one has not: said, not swallowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from celeriac.cli.params import option

ELSEWHERE: Mapping[str, str] = {
    "amqp": "use the tools of the broker itself.",
    "control": "remote control is not there yet. celeriac revoke cancels tasks, celeriac queues "
    "pause stops a queue.",
    "events": "events are not there yet. celeriac status shows workers and queues.",
    "flower": "Flower shows Celery's events, which are not there yet.",
    "inspect": "remote control is not there yet. celeriac status shows workers and queues.",
    "list": "celeriac queues list shows the queues.",
    "logtool": "worker_log_json makes logs that other tools read.",
    "migrate": "not there yet.",
    "multi": "start each worker with celeriac worker -n NAME, by a service manager such as "
    "systemd or with --detach.",
    "upgrade": "Celery's settings are understood as they are, old names too.",
}

_SAID = "celeriac.cli.foreign"


def without_effect(*names: str, reason: str, **more: Any) -> Callable[[Any], Any]:
    """An option of Celery's that is taken and does nothing; ``say_without_effect`` says so."""

    def note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        given = value is not None and value is not False
        if given and not ctx.resilient_parsing:
            name = next(name for name in names if name.startswith("--"))
            ctx.find_root().meta.setdefault(_SAID, {})[name] = reason

    return option(*names, hidden=True, expose_value=False, callback=note, **_dumb(more))


def not_yet(*names: str, why: str, **more: Any) -> Callable[[Any], Any]:
    """An option of Celery's that is refused: doing as if would surprise somebody later."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        given = value is not None and value is not False
        if given and not ctx.resilient_parsing:
            raise click.UsageError(f"{'/'.join(names)}: {why}", ctx)

    return option(*names, hidden=True, expose_value=False, callback=refuse, **_dumb(more))


def _dumb(more: dict[str, Any]) -> dict[str, Any]:
    return {"default": False if more.get("is_flag") else None, **more}


def say_without_effect(ctx: click.Context) -> None:
    """One line about the options that were given and do nothing here."""
    noted: dict[str, str] = ctx.find_root().meta.pop(_SAID, {})
    if noted:
        said = ", ".join(f"{name} ({reason})" for name, reason in noted.items())
        click.echo(f"Without effect here: {said}.", err=True)
