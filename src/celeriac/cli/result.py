"""``celeriac result``: what became of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import as_json as print_json
from celeriac.cli.output import jsonable, shown
from celeriac.cli.params import json_option, option

if TYPE_CHECKING:
    from celeriac.result import AsyncResult


@click.command(short_help="Show what became of a task.")
@click.argument("task_id", metavar="ID")
@option("-t", "--task", metavar="NAME", help="The task's name; only Celery's scripts need it.")
@option("--traceback", is_flag=True, help="Where it failed, instead of what it returned.")
@option("--timeout", type=float, metavar="SECONDS", help="Wait so long for its end.")
@json_option
@click.pass_context
def result(
    ctx: click.Context,
    *,
    task_id: str,
    task: str | None,
    traceback: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Print what the task with this ID returned, or its error.

    Exit status 0 if it succeeded, 1 if it failed, was revoked, or has not ended.

    \b
    celeriac -A tasks result 0199a1b2-…
    celeriac -A tasks result 0199a1b2-… --timeout 30
    celeriac -A tasks result 0199a1b2-… --traceback
    """
    from celeriac.exceptions import TimeoutError

    invocation: Invocation = ctx.obj
    app = invocation.app
    if app.backend_url is None:
        raise click.ClickException(
            "There is no result backend, so nothing is known of any task. Set result_backend."
        )
    found = app.AsyncResult(task_id, task_name=task)
    if timeout is not None:
        try:
            found.get(timeout=timeout, propagate=False)
        except TimeoutError:
            pass  # said below, by its state
    if as_json:
        _show_json(found)
    elif not found.ready():
        raise click.ClickException(_unready(found, timeout))
    elif traceback:
        click.echo(found.traceback or f"The task ended as {found.state}, without a traceback.")
    elif found.successful():
        click.echo(shown(found.result))
    else:
        error = found.result
        raise click.ClickException(f"{found.state}: {type(error).__name__}: {error}")
    ctx.exit(0 if found.successful() else 1)


def _show_json(found: AsyncResult[Any]) -> None:
    value = found.result
    done = found.date_done
    print_json(
        {
            "id": found.id,
            "state": found.state,
            "ready": found.ready(),
            "result": None if isinstance(value, BaseException) else jsonable(value),
            "error": _error(value) if isinstance(value, BaseException) else None,
            "traceback": found.traceback,
            "date_done": done.isoformat() if done is not None else None,
            "task": found.name,
            "worker": found.worker,
            "retries": found.retries,
        }
    )


def _error(value: BaseException) -> dict[str, str]:
    return {"type": type(value).__name__, "message": str(value)}


def _unready(found: AsyncResult[Any], waited: float | None) -> str:
    """Why there is no result, as far as the queues can tell."""
    again = f" (after {waited:g} s)" if waited is not None else ""
    if found.exists():
        return f"The task {found.id} has not ended{again}; its state is {found.state}."
    where = _where(found)
    if where:
        return f"The task {found.id} has not ended{again}: {where}."
    return (
        f"Nothing is known of a task {found.id}{again}: it was never sent, ignores its result, "
        "or its result has expired (result_expires)."
    )


def _where(found: AsyncResult[Any]) -> str:
    from celeriac.exceptions import NotCapable

    try:
        peeked = found.app.admin().find([found.id])
    except NotCapable:
        return ""
    return ", ".join(f"its message is {one.state.value} in {one.message.queue}" for one in peeked)
