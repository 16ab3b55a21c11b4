"""``celeriac schedules``: the periodic tasks, as all schedulers share them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.output import as_json as print_json
from celeriac.cli.output import counted, table
from celeriac.cli.params import Json, Moment, json_option, option

if TYPE_CHECKING:
    from celeriac.beat.operating import Desk, Entry

COLUMNS = ("name", "schedule", "task", "from", "last run", "late by", "next run", "runs")


@click.group(short_help="List, add, pause, run and remove periodic tasks.")
def schedules() -> None:
    """Periodic tasks: look at them, and change them while schedulers run.

    Those from the application's code (beat_schedule) are here when a scheduler was started once.

    \b
    celeriac -A tasks schedules list
    celeriac -A tasks schedules add report tasks.report --cron '0 7 * * mon-fri'
    celeriac -A tasks schedules pause report
    """


@schedules.command("list", short_help="Show them, with their last and next runs.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """Show the periodic tasks: last run and by how much it was late, next run, number of runs.

    \b
    celeriac -A tasks schedules list
    celeriac -A tasks schedules list --json
    """
    with _desk(invocation) as desk:
        found = desk.entries()
        if as_json:
            print_json([_fields(one) for one in found])
        elif found:
            table(COLUMNS, [_row(one) for one in found])
        else:
            click.echo("There are no periodic tasks.")
        if new := desk.not_stored():
            invocation.note(
                f"{counted(len(new), 'entry') if len(new) == 1 else f'{len(new)} entries'} of the "
                f"code: no scheduler has been started with it yet ({', '.join(new)})."
            )


@schedules.command("next", short_help="Show when one will run.")
@click.argument("name")
@option("-n", "count", type=click.IntRange(min=1), default=10, show_default=True, help="So many.")
@json_option
@click.pass_obj
def next_(invocation: Invocation, *, name: str, count: int, as_json: bool) -> None:
    """Show the coming runs of one periodic task.

    \b
    celeriac -A tasks schedules next report -n 20
    """
    with _desk(invocation) as desk:
        times = [moment.isoformat(timespec="seconds") for moment in desk.coming(name, count)]
    if as_json:
        print_json(times)
        return
    for moment in times:
        click.echo(moment)
    if not times:
        click.echo(f"{name} will not run again.")


@schedules.command(short_help="Add one, for all schedulers.")
@click.argument("name")
@click.argument("task")
@option("--every", type=float, metavar="SECONDS", help="Every so many seconds.")
@option("--cron", metavar="FIELDS", help="'minute hour day-of-month month day-of-week'.")
@option("--solar", metavar="EVENT,LAT,LON", help="By the sun, as in sunset,52.5,13.4.")
@option("--relative", is_flag=True, help="With --every: by the clock, counted from midnight.")
@option("--timezone", metavar="ZONE", help="Whose clocks count, as in Europe/Berlin.")
@option("-a", "--args", type=Json(list, "'[1, 2]'"), metavar="JSON", help="Arguments.")
@option("-k", "--kwargs", type=Json(dict, "'{\"x\": 1}'"), metavar="JSON", help="By name.")
@option("-Q", "--queue", metavar="NAME", help="The queue to send to.")
@option("--priority", type=int, metavar="N", help="The priority.")
@option("--catch-up", type=click.Choice(["latest", "none", "all"]), help="After downtime.")
@option("--overlap", type=click.Choice(["allow", "skip", "queue"]), help="With the run before.")
@option("--expires", type=float, metavar="SECONDS", help="Not worth doing so long after its time.")
@option("--jitter", type=float, metavar="SECONDS", help="Put each run off by up to so much.")
@option("--start", type=Moment(), metavar="TIME", help="Not before.")
@option("--end", type=Moment(), metavar="TIME", help="Not after.")
@click.pass_obj
def add(
    invocation: Invocation,
    /,
    *,
    name: str,
    task: str,
    every: float | None,
    cron: str | None,
    solar: str | None,
    queue: str | None,
    priority: int | None,
    **given: Any,
) -> None:
    """Add a periodic task while schedulers run; it stays over restarts and deployments.

    \b
    celeriac -A tasks schedules add report tasks.report --cron '0 7 * * mon-fri'
    celeriac -A tasks schedules add poll tasks.poll --every 30 -a '["inbox"]' --overlap skip
    """
    entry = {key: value for key, value in given.items() if value not in (None, False)}
    entry["task"] = task
    try:
        entry["schedule"] = _schedule(every, cron, solar, given.get("timezone"))
    except (TypeError, ValueError) as wrong:
        raise click.UsageError(str(wrong)) from None
    options = {"queue": queue, "priority": priority}
    entry["options"] = {key: value for key, value in options.items() if value is not None}
    with _desk(invocation) as desk:
        if invocation.has_app and task not in invocation.whole_app().tasks:
            invocation.note(f"(This application has no task {task}: is the name right?)")
        desk.add(name, entry)
        coming = desk.coming(name, 1)
    first = f"its first run is at {_shown(coming[0])}" if coming else "it will not run"
    click.echo(f"{name} is added; {first}.")


def _schedule(
    every: float | None, cron: str | None, solar: str | None, timezone: str | None
) -> Any:
    from celeriac import schedules

    if sum(one is not None for one in (every, cron, solar)) != 1:
        raise click.UsageError("Say when: one of --every, --cron and --solar.")
    if every is not None:
        return schedules.schedule(every)
    if cron is not None:
        return schedules.crontab.from_string(cron)
    event, _, place = str(solar).partition(",")
    latitude, _, longitude = place.partition(",")
    return schedules.solar(event.strip(), float(latitude), float(longitude))


@schedules.command(short_help="Let none be sent until it is resumed.")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def pause(invocation: Invocation, *, names: Sequence[str]) -> None:
    """Stop sending these, until they are resumed. It outlives restarts and deployments.

    \b
    celeriac -A tasks schedules pause report
    """
    with _desk(invocation) as desk:
        for name in names:
            desk.pause(name)
            click.echo(f"{name} is paused.")


@schedules.command(short_help="Send them again.")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def resume(invocation: Invocation, *, names: Sequence[str]) -> None:
    """Send these again from now on; what was due while they were paused is not made up for.

    \b
    celeriac -A tasks schedules resume report
    """
    with _desk(invocation) as desk:
        for name in names:
            changed = desk.resume(name)
            click.echo(f"{name} is resumed." if changed else f"{name} was not paused.")


@schedules.command(short_help="Send one now, beside its schedule.")
@click.argument("name")
@click.pass_obj
def run(invocation: Invocation, *, name: str) -> None:
    """Send its task now. The schedule stays as it is.

    \b
    celeriac -A tasks schedules run report
    """
    with _desk(invocation) as desk:
        click.echo(desk.run(name))


@schedules.command(short_help="Remove those that were added at run time.")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def remove(invocation: Invocation, *, names: Sequence[str]) -> None:
    """Remove these for good. Those from the code are taken out there, or paused here.

    \b
    celeriac -A tasks schedules remove report
    """
    with _desk(invocation) as desk:
        for name in names:
            desk.remove(name)
            click.echo(f"{name} is removed.")


# --- showing ------------------------------------------------------------------------------------


def _desk(invocation: Invocation) -> Desk:
    from celeriac.beat.operating import Desk

    app = invocation.whole_app()
    invocation.note_unshared()
    return Desk(app)


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(sep=" ", timespec="seconds")


def _row(one: Entry) -> Sequence[object]:
    late = "" if one.late is None else f"{one.late:.1f} s"
    following = _shown(one.next_run)
    if one.overdue:
        following += f" (overdue by {one.overdue:.0f} s)"
    return (
        one.name,
        one.when,
        one.task,
        one.source,
        _shown(one.last_run),
        late,
        "paused" if one.paused else following,
        one.count,
    )


def _fields(one: Entry) -> dict[str, Any]:
    return {
        "name": one.name,
        "schedule": one.when,
        "timezone": one.zone,
        "task": one.task,
        "args": list(one.args),
        "kwargs": dict(one.kwargs),
        "options": dict(one.options),
        "policies": dict(one.policies),
        "source": one.source,
        "paused": one.paused,
        "last_run": one.last_run.isoformat() if one.last_run else None,
        "last_nominal": one.last_nominal.isoformat() if one.last_nominal else None,
        "last_id": one.last_id or None,
        "late": one.late,
        "next_run": one.next_run.isoformat() if one.next_run else None,
        "overdue": one.overdue,
        "runs": one.count,
        "error": one.error or None,
    }
