"""What happens before a worker works: checks, logging, signals, banner."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import structs

from celeriac import signals
from celeriac.exceptions import ImproperlyConfigured, NotCapable
from celeriac.worker import banner, logs
from celeriac.worker.limits import RateLimits
from celeriac.worker.options import WorkerOptions
from celeriac.worker.slots import SlotTable

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.worker")

_SPARE_BUCKETS = 16


def load(app: Celeriac) -> None:
    """Import everything that the application is made of; errors inside it come out as they are."""
    app.import_modules()
    app.finalize()


@contextmanager
def prepare(app: Celeriac, options: WorkerOptions, instance: Any) -> Iterator[None]:
    """Everything before the first process is started, and the pid file taken back at the end.
    ``instance`` is what receivers of the worker signals are given. Raises ImproperlyConfigured."""
    app.node_name = options.hostname
    check_pool(app, options)
    if options.beat:
        from celeriac.beat.registering import code_entries

        code_entries(app)  # a mistake in the schedule is to be seen now
    with held_pidfile(options.pidfile):
        signals.celeryd_init.send(
            sender=options.hostname,
            instance=instance,
            conf=app.conf,
            options=structs.asdict(options),
        )
        logs.setup(app, options)
        signals.worker_init.send(sender=instance)
        signals.celeryd_after_setup.send(sender=options.hostname, instance=instance, conf=app.conf)
        if not options.quiet and sys.__stdout__ is not None:
            print(banner.banner(app, options), file=sys.__stdout__, flush=True)
        try:
            yield
        finally:
            logs.restore_stdouts()


def announce(instance: Any) -> None:
    """The worker takes messages from now on."""
    logger.info("%s ready.", instance.hostname)
    signals.worker_ready.send(sender=instance)


def check_pool(app: Celeriac, options: WorkerOptions) -> None:
    """Refuse what the pool or the broker cannot do, before anything is started."""
    powers = options.powers
    for option, can in (
        ("time_limit", powers.hard_limits),
        ("soft_time_limit", powers.soft_limits),
    ):
        limited = [name for name, task in app.tasks.regular().items() if getattr(task, option)]
        if limited and not can:
            shown = ", ".join(sorted(limited)[:5])
            raise ImproperlyConfigured(
                f"The pool {options.pool!r} cannot enforce {option}, which these tasks have: "
                f"{shown}. Use --pool=processes, or take their limits away."
            )
        blocking = [name for name in limited if not app.tasks[name].is_async]
        if blocking and options.pool == "asyncio":
            raise ImproperlyConfigured(
                f"The pool 'asyncio' enforces {option} by cancelling coroutines; these tasks are "
                f"none: {', '.join(sorted(blocking)[:5])}. Make them async def, take their limits "
                "away, or use --pool=processes."
            )
    broker = app.make_broker()
    if options.pool != "solo" and not broker.capabilities.shared:
        raise NotCapable(
            f"The broker {banner.shown_url(app.broker_url)} lives in one process and cannot be "
            f"shared with the processes of the pool {options.pool!r}: use --pool=solo, or "
            "another broker such as sqlite:///celeriac.db."
        )


def bucket_count(app: Celeriac) -> int:
    """Room for a rate limit on every task, and for some that remote control may add."""
    return len(app.tasks) + _SPARE_BUCKETS


def set_rate_limits(app: Celeriac, options: WorkerOptions, table: SlotTable) -> None:
    """Give the tasks their rate limits. Raises ImproperlyConfigured for one that is no rate."""
    if not options.rate_limits:
        return
    RateLimits(table).set_rates(
        {name: task.rate_limit for name, task in app.tasks.items() if task.rate_limit}
    )


@contextmanager
def held_pidfile(path: str | None) -> Iterator[None]:
    """Hold the pid file, if one is wanted; one that a dead process has left is taken over."""
    if path is None:
        yield
        return
    while True:
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except FileExistsError:
            pid = _pid_in(path)
            if pid and pid != os.getpid() and _alive(pid):
                raise ImproperlyConfigured(
                    f"The pid file {path} names the running process {pid}: stop it, or give "
                    "this worker a --pidfile of its own."
                ) from None
            os.unlink(path)
    with os.fdopen(fd, "w") as file:
        file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if _pid_in(path) == os.getpid():
            os.unlink(path)


def _pid_in(path: str) -> int:
    """The process that the file names; 0 if it names none."""
    try:
        with open(path) as file:
            return int(file.read().strip() or 0)
    except (OSError, ValueError):
        return 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
