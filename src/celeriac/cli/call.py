"""``celeriac call``: send a task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import shown
from celeriac.cli.params import Json, Moment, option

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.result import AsyncResult


@click.command(short_help="Send a task.")
@click.argument("name")
@option("-a", "--args", type=Json(list, "'[1, \"two\"]'"), help="Arguments, a JSON list.")
@option("-k", "--kwargs", type=Json(dict, '\'{"to": "a@b.c"}\''), help="A JSON object.")
@option("--countdown", type=float, metavar="SECONDS", help="Run in so many seconds.")
@option("--eta", type=Moment(), metavar="TIME", help="Run at this time, in ISO 8601.")
@option(
    "--expires",
    type=Moment(seconds=True),
    metavar="SECONDS|TIME",
    help="Do not run after this time.",
)
@option("--queue", metavar="NAME", help="Send to this queue.")
@option("--exchange", metavar="NAME", help="Send through this exchange.")
@option("--routing-key", metavar="KEY", help="Send with this routing key.")
@option("--serializer", metavar="NAME", help="json, msgpack, yaml or pickle.")
@option("--priority", type=int, metavar="0-9", help="Urgency.")
@option("--wait", type=float, metavar="SECONDS", help="Wait so long for the result and print it.")
@option("--force", is_flag=True, help="Send though the application does not know the task.")
@click.pass_obj
def call(
    invocation: Invocation,
    /,
    *,
    name: str,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    wait: float | None,
    force: bool,
    **options: Any,
) -> None:
    """Send a call of the task NAME and print its id; with --wait its result.

    \b
    celeriac -A tasks call tasks.add -a '[2, 3]'
    celeriac -A tasks call tasks.send -k '{"to": "a@b.c"}' --countdown 60
    celeriac -A tasks call tasks.add -a '[2, 3]' --wait 10
    """
    app = invocation.whole_app()
    given = {key: value for key, value in options.items() if value is not None}
    for key in ("eta", "expires"):
        if isinstance(given.get(key), datetime):
            given[key] = _aware(given[key], app)
    if wait is not None:
        _need_results(app)
    result = _send(invocation, app, name, (args or [], kwargs or {}), given, force)
    invocation.note_unshared()
    if wait is None:
        click.echo(result.id)
    else:
        _wait(result, wait)


def _send(
    invocation: Invocation,
    app: Celeriac,
    name: str,
    arguments: tuple[list[Any], dict[str, Any]],
    options: Mapping[str, Any],
    force: bool,
) -> AsyncResult[Any]:
    args, kwargs = arguments
    task = app.tasks.get(name)
    if task is None:
        if not force:
            _refuse_mistyped(app, name)
        if invocation.has_app:
            invocation.note(
                f"{name} is none of this application's tasks: sent by its name, for a worker "
                "that knows it."
            )
        return app.send_task(name, args, kwargs, **options)
    app.conf.override(task_always_eager=False)  # whoever calls from here wants it sent
    try:
        task.check_arguments(args, kwargs)
    except TypeError as exc:
        raise click.ClickException(f"{name} cannot be called so: {exc}") from exc
    sent: AsyncResult[Any] = task.apply_async(args, kwargs, **options)
    return sent


def _refuse_mistyped(app: Celeriac, name: str) -> None:
    """Celery sends any name; one that is nearly that of a task is a mistake."""
    known = [known for known in app.tasks if not known.startswith("celery.")]
    by_ending = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    near = list(dict.fromkeys([*by_ending, *difflib.get_close_matches(name, known, n=3)]))
    if near:
        raise click.ClickException(
            f"There is no task {name!r}. Did you mean {', '.join(near[:3])}? (--force sends it "
            "all the same.)"
        )


def _aware(moment: datetime, app: Celeriac) -> datetime:
    """A time without a zone is meant in the application's."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=app.timezone)


def _need_results(app: Celeriac) -> None:
    if app.backend_url is None:
        raise click.ClickException(
            "There is no result backend, so there is nothing to wait for. Set result_backend, or "
            "leave --wait out."
        )


def _wait(result: AsyncResult[Any], seconds: float) -> None:
    from celeriac.exceptions import TimeoutError

    try:
        value = result.get(timeout=seconds, propagate=False)
    except TimeoutError:
        raise click.ClickException(
            f"The task {result.id} has not ended within {seconds:g} s; its state is "
            f"{result.state}. Ask again: celeriac result {result.id}. Is there a worker? "
            "celeriac status tells."
        ) from None
    except KeyboardInterrupt:
        raise click.ClickException(
            f"No longer waiting. The task {result.id} was sent and goes on: celeriac result "
            f"{result.id}"
        ) from None
    if not result.successful():
        raise click.ClickException(
            f"The task {result.id} ended as {result.state}: {type(value).__name__}: {value}"
        )
    click.echo(shown(value))
