"""``celeriac worker``: run tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.foreign import not_yet, say_without_effect, without_effect
from celeriac.cli.invocation import Invocation, spec_of
from celeriac.cli.output import counted
from celeriac.cli.params import Names, option

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.worker.options import WorkerOptions

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
_NO_EVENTS = "events are not there yet"
_NO_PREFETCH = "claims adapt by themselves"
_NO_USER = "start the worker as that user: by your service manager, or with su or setpriv."


@click.command(short_help="Run tasks.")
@option(
    "-c",
    "--concurrency",
    metavar="N",
    help="How many tasks run at once; auto: as many as there are CPUs.  [default: auto]",
)
@option(
    "-P",
    "--pool",
    metavar="POOL",
    help="Where tasks run: processes (also called prefork), threads, asyncio or solo.",
)
@option(
    "-Q",
    "--queues",
    metavar="A,B=3",
    help="Take from these queues only; from B three times as often as from A.",
)
@option("-X", "--exclude-queues", type=Names(), metavar="A,B", help="Not from these.")
@option(
    "-n",
    "--hostname",
    metavar="NAME",
    help="The worker's name; %h is the host, %n its first part, %d the rest.  [default: celery@%h]",
)
@option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    metavar="LEVEL",
    help="DEBUG, INFO, WARNING, ERROR or CRITICAL.  [default: WARNING]",
)
@option(
    "-f",
    "--logfile",
    metavar="PATH",
    help="Log to this file; %n is the worker's name, %i the process.",
)
@option("--log-json", is_flag=True, default=None, help="Log one JSON object a line.")
@option("-I", "--include", type=Names(), metavar="MODULES", help="Import these modules too.")
@option("--time-limit", type=float, metavar="SECONDS", help="Kill tasks after this time.")
@option(
    "--soft-time-limit",
    type=float,
    metavar="SECONDS",
    help="Raise SoftTimeLimitExceeded in tasks after this time.",
)
@option(
    "--max-tasks-per-child", type=int, metavar="N", help="Replace a process after so many tasks."
)
@option(
    "--max-memory-per-child",
    type=int,
    metavar="KIB",
    help="Replace a process that has grown beyond this.",
)
@option(
    "--grace",
    metavar="SECONDS",
    help="How long what runs may go on after SIGTERM; done: until it is done.",
)
@option(
    "--pool-start-method",
    type=click.Choice(["fork", "spawn", "forkserver"]),
    help="How processes are started.",
)
@option("-B", "--beat", is_flag=True, help="Send periodic tasks, too; any number of workers may.")
@option(
    "-s",
    "--schedule",
    "--schedule-filename",
    "beat_schedule_filename",
    metavar="PATH",
    help="With -B: the file for the schedule, where neither broker nor result backend keeps it.",
)
@option(
    "--scheduler",
    "beat_scheduler",
    metavar="CLASS",
    help="With -B: another scheduler, as module:Class or by the name of its entry point.",
)
@option("--pidfile", metavar="PATH", help="Hold the process id in this file.")
@option("-D", "--detach", is_flag=True, help="Run in the background.")
@option("--purge", "--discard", is_flag=True, help="Remove what waits in the queues first.")
@without_effect("--without-gossip", is_flag=True, reason="workers do not gossip")
@without_effect("--without-mingle", is_flag=True, reason="workers do not mingle")
@without_effect("--without-heartbeat", is_flag=True, reason="a worker without one is dead")
@without_effect("--heartbeat-interval", reason="the setting is worker_heartbeat_interval")
@without_effect("--prefetch-multiplier", reason=_NO_PREFETCH)
@without_effect("--disable-prefetch", is_flag=True, reason=_NO_PREFETCH)
@without_effect("-O", "--optimization", reason="every worker is fair")
@without_effect("-E", "--task-events", "--events", is_flag=True, reason=_NO_EVENTS)
@without_effect("-S", "--statedb", reason="the broker remembers what was revoked")
@not_yet("--autoscale", why="pools that grow and shrink are not there yet; use --concurrency.")
@not_yet("--uid", why=_NO_USER)
@not_yet("--gid", why=_NO_USER)
@not_yet("--umask", why="set it where the worker is started.")
@not_yet("--executable", why="start the worker with that interpreter: PYTHON -m celeriac ….")
@click.pass_context
def worker(
    ctx: click.Context,
    /,
    *,
    queues: str | None,
    exclude_queues: list[str] | None,
    include: list[str] | None,
    grace: str | None,
    pool_start_method: str | None,
    detach: bool,
    purge: bool,
    **given: Any,
) -> None:
    """Run tasks until told to stop.

    \b
    celeriac -A tasks worker -l info
    celeriac -A shop worker -c 8 -Q mail,reports=3 -n mail@%h
    celeriac -A shop worker -P solo                 one process, for debugging

    SIGTERM or Ctrl-C: finish what runs, within the grace period; once more, or SIGQUIT: stop at
    once, what runs goes back to its queue. SIGHUP restarts, SIGUSR1 logs where every process is.
    """
    invocation: Invocation = ctx.obj
    invocation.need_app("worker")
    app = invocation.app
    _configure(app, include, grace)
    invocation.whole_app()
    given["queues"], names = _queues(app, queues, exclude_queues)
    given["start_method"] = pool_start_method
    options = _options(invocation, app, given)
    if not invocation.quiet:
        say_without_effect(ctx)
    if detach:
        from celeriac.cli.detaching import detached

        if not detached():
            _start_detached(invocation, options)
            return
        options.logfile = options.logfile or _DETACHED_LOG
    if purge:
        count = app.control.purge(queues=names)
        invocation.note(f"Removed {counted(count, 'message')} from {', '.join(names)}.")
        app.close()  # the processes of the worker make connections of their own
    from celeriac.worker.supervisor import run_worker

    ctx.exit(run_worker(app, options))


_DETACHED_LOG = "%n.log"


def _configure(app: Celeriac, include: list[str] | None, grace: str | None) -> None:
    """What is a setting of the application rather than of the worker alone."""
    settings: dict[str, Any] = {}
    if include:
        modules = list(dict.fromkeys([*(app.conf.include or ()), *include]))
        settings["include"] = modules
        os.environ["CELERIAC_INCLUDE"] = ",".join(modules)  # for processes that are spawned
    if grace is not None:
        settings["worker_shutdown_grace"] = grace
    if settings:
        app.conf.override(settings)


def _queues(
    app: Celeriac, selected: str | None, excluded: list[str] | None
) -> tuple[list[str], list[str]]:
    """The queues as WorkerOptions reads them (``name=weight``), and their names alone."""
    from celeriac.routing import parse_queue_weights

    weights = parse_queue_weights([selected]) if selected else {}
    queues = app.router.queues_for_worker(list(weights) or None, excluded or ())
    names = [queue.name for queue in queues]
    written = {
        app.queues[name].name: weight
        for name, weight in weights.items()
        if f"{name}=" in (selected or "").replace(" ", "")
    }
    return [f"{name}={written[name]}" if name in written else name for name in names], names


def _options(invocation: Invocation, app: Celeriac, given: dict[str, Any]) -> WorkerOptions:
    from celeriac.worker.options import WorkerOptions

    if invocation.no_color:
        given["log_color"] = False
    spec = invocation.spec or spec_of(app)
    if invocation.config and spec:
        from celeriac.cli.configured import hand_on

        spec = hand_on(spec, invocation.config)
    return WorkerOptions.from_conf(app.conf, app=spec, quiet=invocation.quiet, **given)


def _start_detached(invocation: Invocation, options: WorkerOptions) -> None:
    from celeriac.cli.detaching import start
    from celeriac.worker.options import expand_path

    log = expand_path(options.logfile or _DETACHED_LOG, options.hostname)
    pid = start(invocation.start_dir, log)
    invocation.note(f"The worker {options.hostname} runs in the background; its log is {log}.")
    click.echo(pid)
