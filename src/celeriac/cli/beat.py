"""``celeriac beat``: send periodic tasks when they are due."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.foreign import not_yet, say_without_effect, without_effect
from celeriac.cli.invocation import Invocation, spec_of
from celeriac.cli.params import option

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.beat import Service
    from celeriac.worker.options import WorkerOptions

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
_LOG = "celeriacbeat.log"


@click.command(short_help="Send periodic tasks when they are due.")
@option(
    "-s",
    "--schedule",
    "--schedule-filename",
    "schedule_filename",
    metavar="PATH",
    help="The file for the schedule, where neither broker nor result backend keeps it.",
)
@option(
    "-S",
    "--scheduler",
    metavar="CLASS",
    help="Another scheduler, as module:Class or by the name of its entry point.",
)
@option("--max-interval", type=float, metavar="SECONDS", help="Look at the schedule at least so.")
@option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    metavar="LEVEL",
    help="DEBUG, INFO, WARNING, ERROR or CRITICAL.  [default: WARNING]",
)
@option("-f", "--logfile", metavar="PATH", help="Log to this file.")
@option("--log-json", is_flag=True, default=None, help="Log one JSON object a line.")
@option("--pidfile", metavar="PATH", help="Hold the process id in this file.")
@option("-D", "--detach", is_flag=True, help="Run in the background.")
@without_effect("--enable-remote-control", is_flag=True, reason="beat needs no remote control")
@not_yet("--uid", why="start it as that user: by your service manager, or with su or setpriv.")
@not_yet("--gid", why="start it as that group: by your service manager, or with setpriv.")
@not_yet("--umask", why="set it where beat is started.")
@click.pass_context
def beat(
    ctx: click.Context,
    /,
    *,
    schedule_filename: str | None,
    scheduler: str | None,
    max_interval: float | None,
    detach: bool,
    **given: Any,
) -> None:
    """Send the periodic tasks of beat_schedule, and those added at run time, until told to stop.

    Any number may run, on any number of machines, beside workers with -B: each run is sent once.

    \b
    celeriac -A tasks beat -l info
    celeriac -A tasks schedules list
    """
    invocation: Invocation = ctx.obj
    invocation.need_app("beat")
    app = invocation.whole_app()
    if not invocation.quiet:
        say_without_effect(ctx)
    options = _log_options(app, invocation, given)
    if detach:
        from celeriac.cli.detaching import detached, start

        options.logfile = options.logfile or _LOG
        if not detached():
            pid = start(invocation.start_dir, options.logfile, "beat")
            invocation.note(f"Beat runs in the background; its log is {options.logfile}.")
            click.echo(pid)
            return
    from celeriac.beat import Service

    service = Service(app, max_interval, schedule_filename, scheduler)
    _run(app, service, options, quiet=invocation.quiet)


def _log_options(app: Celeriac, invocation: Invocation, given: dict[str, Any]) -> WorkerOptions:
    """What logging and the pid file go by: the same as with workers."""
    from celeriac.worker.options import WorkerOptions

    if invocation.no_color:
        given["log_color"] = False
    return WorkerOptions.from_conf(
        app.conf, app=spec_of(app), pool="solo", hostname="beat@%h", **given
    )


def _run(app: Celeriac, service: Service, options: WorkerOptions, *, quiet: bool) -> None:
    from celeriac.conf import hide_in_url
    from celeriac.exceptions import NotCapable
    from celeriac.worker import logs
    from celeriac.worker.startup import held_pidfile

    if not app.make_broker().capabilities.shared:
        raise NotCapable(
            f"The broker {hide_in_url(app.broker_url)} lives in one process: what beat sends there "
            "reaches no worker. Use worker -P solo -B, or a broker such as sqlite:///celeriac.db."
        )
    with held_pidfile(options.pidfile):
        if not quiet:
            scheduler = service.scheduler_cls
            name = f"{scheduler.__module__}.{scheduler.__qualname__}"
            click.echo(f"celeriac beat: {hide_in_url(app.broker_url)}, {name}")
        logs.setup(app, options)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: service.stop())
        try:
            service.start()
        finally:
            logs.restore_stdouts()
            app.close()
