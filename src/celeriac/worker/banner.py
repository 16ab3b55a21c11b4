"""What a worker says when it starts: what it is, what it works on, and what it promises."""

from __future__ import annotations

import logging
import platform
from typing import TYPE_CHECKING

from celeriac import __version__
from celeriac.conf.secrets import hide_in_url
from celeriac.utils.log import mlevel
from celeriac.worker.options import WorkerOptions

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_SHOWN = 8  # names of tasks in a sentence


def shown_url(url: str | None) -> str:
    """A URL without its password."""
    return hide_in_url(url) if url else "none"


def banner(app: Celeriac, options: WorkerOptions) -> str:
    """The whole text; the tasks are listed from log level INFO down."""
    parts = [
        f"celeriac {__version__}  {options.hostname}",
        f"{platform.platform()}, Python {platform.python_version()}",
        "",
        *_aligned(_facts(app, options)),
        "",
        "Promises",
        *(f"  - {sentence}" for sentence in promises(app, options)),
    ]
    if mlevel(options.loglevel) <= logging.INFO:
        parts += ["", "Tasks", *(f"  . {name}" for name in sorted(_own_tasks(app)))]
    return "\n".join(parts) + "\n"


def promises(app: Celeriac, options: WorkerOptions) -> list[str]:
    """What holds for the messages that this worker takes, in plain words."""
    tasks = {name: app.tasks[name] for name in _own_tasks(app)}
    once = sorted(name for name, task in tasks.items() if task.acks_late is False)
    fails = sorted(
        name
        for name, task in tasks.items()
        if task.acks_late is True and task.reject_on_worker_lost is False
    )
    said = [
        "At least once: a message stays until its outcome is stored. If a process is killed, the "
        "task that it was running runs again, also without acks_late."
    ]
    if once:
        said.append(f"At most once (acks_late=False): {_names(once)}.")
    if fails:
        said.append(
            f"Not run again after a kill (reject_on_worker_lost=False): {_names(fails)}. "
            "They end with WorkerLostError."
        )
    times = options.max_deliveries
    said.append(
        f"A message whose processes died {times} time{'s' if times != 1 else ''} is kept as a "
        "dead letter (celeriac dead list)."
    )
    durability = app.make_broker().capabilities.durability
    if durability:
        said.append(durability)
    grace = "until all is done" if options.grace is None else f"for up to {options.grace:g} s"
    said.append(
        f"A dead process's messages run again at once, those of a dead worker after "
        f"{options.lease:g} to {options.lease + 5:g} s. SIGTERM: finishes what runs {grace}."
    )
    return said


def _facts(app: Celeriac, options: WorkerOptions) -> list[tuple[str, str]]:
    weights = options.queue_weights
    queues = ", ".join(
        f"{name} (weight {weights[name]})" if name in weights else name for name in options.queues
    )
    limits = [
        f"{name} {value:g}{unit}"
        for name, value, unit in (
            ("soft time limit", options.soft_time_limit, " s"),
            ("hard time limit", options.time_limit, " s"),
            ("tasks per process", options.max_tasks_per_child, ""),
            ("memory per process", options.max_memory_per_child, " KiB"),
        )
        if value
    ]
    facts = [
        ("app", options.app or repr(app.main or "__main__")),
        ("broker", shown_url(app.broker_url)),
        ("results", shown_url(app.backend_url)),
        ("pool", f"{options.pool}, {options.concurrency} at a time"),
        ("queues", queues),
    ]
    return [*facts, ("limits", ", ".join(limits))] if limits else facts


def _own_tasks(app: Celeriac) -> list[str]:
    return [name for name in app.tasks if not name.startswith("celery.")]


def _names(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _aligned(facts: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<8} {value}" for name, value in facts]
