"""What one worker was told to be: settings and command line, worked out once and handed to every
process of it as JSON."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from celeriac.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.conf import Settings


class PoolPowers(Struct, frozen=True, kw_only=True):
    """What a pool can do. A limit that it cannot enforce is refused at start-up."""

    processes: bool = False  # one process for each task that can run at once
    soft_limits: bool = False
    hard_limits: bool = False
    recycles: bool = True  # its processes can be replaced while the worker runs
    terminates: bool = False  # one running task can be ended without the others


POOLS: Mapping[str, PoolPowers] = {
    "processes": PoolPowers(processes=True, soft_limits=True, hard_limits=True, terminates=True),
    "threads": PoolPowers(),
    "asyncio": PoolPowers(soft_limits=True, hard_limits=True, terminates=True),
    "solo": PoolPowers(soft_limits=True, recycles=False),
}
_ALIASES = {"prefork": "processes", "process": "processes", "thread": "threads"}


class WorkerOptions(Struct, kw_only=True):
    """Durations are seconds. ``grace`` None: until done. ``max_memory_per_child`` is KiB."""

    app: str
    hostname: str
    lease_name: str
    queues: list[str]
    pool: str = "processes"
    concurrency: int = 1
    queue_weights: dict[str, int] = {}
    loglevel: str = "WARNING"
    logfile: str | None = None
    log_json: bool = False
    log_color: bool | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    lease: float = 15.0
    heartbeat_interval: float = 5.0
    grace: float | None = 25.0
    max_deliveries: int = 3
    dead_expires: float | None = 30 * 86400.0
    dead_max: int | None = 100_000
    join_sweep: float | None = 60.0
    start_method: str = "fork"
    startup_patience: float = 10.0  # how long the broker may take to answer when the worker starts
    rate_limits: bool = True
    pidfile: str | None = None
    quiet: bool = False
    beat: bool = False  # the agent sends periodic tasks, too
    beat_scheduler: str | None = None
    beat_schedule_filename: str | None = None

    @property
    def powers(self) -> PoolPowers:
        return POOLS[self.pool]

    @classmethod
    def from_conf(cls, conf: Settings, *, app: str, **given: Any) -> WorkerOptions:
        """The settings, and over them what the command line gave (None: not given). ``queues``
        may be names, or text such as ``"a,b=3"``. Raises ImproperlyConfigured for what cannot be.
        """
        values: dict[str, Any] = {
            "hostname": None,
            "pool": conf.worker_pool,
            "concurrency": conf.worker_concurrency,
            "queue_weights": conf.worker_queue_weights,
            "log_json": conf.worker_log_json,
            "log_color": conf.worker_log_color,
            "time_limit": conf.task_time_limit,
            "soft_time_limit": conf.task_soft_time_limit,
            "max_tasks_per_child": conf.worker_max_tasks_per_child,
            "max_memory_per_child": conf.worker_max_memory_per_child,
            "lease": conf.worker_lease,
            "heartbeat_interval": conf.worker_heartbeat_interval,
            "grace": conf.worker_shutdown_grace,
            "max_deliveries": conf.task_max_deliveries,
            "dead_expires": conf.dead_letter_expires,
            "dead_max": conf.dead_letter_max,
            "join_sweep": conf.result_chord_sweep_interval,
            "start_method": conf.worker_pool_start_method,
            "startup_patience": 0.0 if conf.broker_connection_retry_on_startup is False else 10.0,
            "rate_limits": not conf.worker_disable_rate_limits,
        }
        values |= {name: value for name, value in given.items() if value is not None}
        unknown = values.keys() - {field.name for field in structs.fields(cls)}
        if unknown:
            raise TypeError(f"no such worker option: {', '.join(sorted(unknown))}")
        hostname = node_name(values["hostname"])
        queues, weights = _queues(values.get("queues"), conf)
        values |= {
            "app": app,
            "hostname": hostname,
            "lease_name": f"{hostname}.{secrets.token_hex(4)}",
            "pool": _pool(values["pool"]),
            "concurrency": _concurrency(values["concurrency"]),
            "queues": queues,
            "queue_weights": dict(values["queue_weights"]) | weights,
            "loglevel": str(values.get("loglevel", "WARNING")).upper(),
        }
        options = cls(**values)
        options.check()
        return options

    def check(self) -> None:
        """Raises ImproperlyConfigured, saying what to do, for options that contradict."""
        if self.pool == "solo":
            self.concurrency = 1
        powers = self.powers
        for name in (
            "time_limit",
            "soft_time_limit",
            "max_tasks_per_child",
            "max_memory_per_child",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ImproperlyConfigured(
                    f"--{name.replace('_', '-')} cannot be {value:g}: write a number above 0, or "
                    "leave it out."
                )
        refused = [
            ("hard time limits", "task_time_limit", self.time_limit, powers.hard_limits),
            ("soft time limits", "task_soft_time_limit", self.soft_time_limit, powers.soft_limits),
            *(
                ("replacing its processes", f"worker_{name}", value, powers.recycles)
                for name in ("max_tasks_per_child", "max_memory_per_child")
                for value in [getattr(self, name)]
            ),
        ]
        for what, setting, value, can in refused:
            if value and not can:
                raise ImproperlyConfigured(
                    f"The pool {self.pool!r} cannot do {what}, but {setting} is {value:g}: "
                    f"use --pool=processes, or leave {setting} out."
                )
        if self.heartbeat_interval >= self.lease:
            raise ImproperlyConfigured(
                f"worker_heartbeat_interval ({self.heartbeat_interval:g} s) must be shorter than "
                f"worker_lease ({self.lease:g} s): a third of it is the default."
            )


def _pool(name: str) -> str:
    pool = _ALIASES.get(name, name)
    if pool not in POOLS:
        raise ImproperlyConfigured(
            f"There is no pool {name!r}; the pools are {', '.join(POOLS)} (prefork: processes)."
        )
    return pool


def _concurrency(value: int | str | None) -> int:
    if value is None or value == "auto":
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0)) or 1
        return os.cpu_count() or 1
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ImproperlyConfigured(f'concurrency {value!r}: write a number from 1 on, or "auto"')
    return number


def _queues(given: str | Iterable[str] | None, conf: Settings) -> tuple[list[str], dict[str, int]]:
    """Names in order, and the weights written behind them."""
    if given is None:
        return _configured_queues(conf), {}
    parts = given.split(",") if isinstance(given, str) else list(given)
    names: list[str] = []
    weights: dict[str, int] = {}
    for part in parts:
        name, equals, weight = part.strip().partition("=")
        if not name:
            continue
        if equals:
            if not weight.strip().isdigit() or int(weight) < 1:
                raise ImproperlyConfigured(
                    f"Queue weight {part.strip()!r}: write NAME=WEIGHT, a whole number from 1 on."
                )
            weights[name] = int(weight)
        if name not in names:
            names.append(name)
    if not names:
        raise ImproperlyConfigured("No queue was named: give at least one, or leave the list out.")
    return names, weights


def _configured_queues(conf: Settings) -> list[str]:
    declared = conf.task_queues
    if not declared:
        return [conf.task_default_queue]
    return list(
        dict.fromkeys(
            str(queue if isinstance(queue, str) else getattr(queue, "name", queue))
            for queue in declared
        )
    )


def node_name(pattern: str | None = None, host: str | None = None) -> str:
    """A worker's name from ``-n``: %h host, %n its first part, %d the rest, %i and %I the process
    (0 and nothing here), %% a percent sign. Without ``@`` the pattern is the host, as in Celery."""
    host = host or socket.gethostname()
    first, _, domain = host.partition(".")
    pattern = pattern or "celery@%h"
    if "@" not in pattern:
        pattern = f"celery@{pattern}"
    return expand(pattern, {"h": host, "n": first, "d": domain, "i": "0", "I": ""})


def expand_path(pattern: str, hostname: str, index: int = 0) -> str:
    """A file name from a pattern: %n the name before ``@``, %h the host after it, %d the host's
    domain, %p all of the node name, %i the process (0: the main one), %I the same as ``-1`` or
    nothing, %% a percent sign."""
    name, _, host = hostname.partition("@")
    fields = {
        "n": name,
        "h": host,
        "d": host.partition(".")[2],
        "p": hostname,
        "i": str(index),
        "I": f"-{index}" if index else "",
    }
    return expand(pattern, fields)


def expand(pattern: str, fields: Mapping[str, str]) -> str:
    """Replace each ``%x`` that ``fields`` knows; others stay as they are."""
    out: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if char != "%":
            out.append(char)
            continue
        key = next(chars, "")
        out.append("%" if key == "%" else fields.get(key, "%" + key))
    return "".join(out)
