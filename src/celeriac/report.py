"""What helps to find a mistake: versions, platform, configuration without secrets, and what the
broker and the result backend promise."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from celeriac import __version__
from celeriac.conf import hide_in_url
from celeriac.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import Broker, ResultBackend

__all__ = ["promises", "report"]

# What is worth knowing when something goes wrong; those not installed are left out.
_PACKAGES = (
    "msgspec",
    "click",
    "msgpack",
    "PyYAML",
    "zstandard",
    "brotli",
    "redis",
    "setproctitle",
)


def report(app: Celeriac) -> str:
    """The whole text. Nothing is connected to: it works while the broker is down."""
    sections = (
        ("software", _software()),
        ("application", _application(app)),
        ("broker", _broker(app)),
        ("results", _results(app)),
        ("promises", promises(app)),
        ("settings", _settings(app)),
    )
    return "\n\n".join(
        "\n".join([f"{name}:", *(f"  {line}" for line in lines)]) for name, lines in sections
    )


def promises(app: Celeriac) -> list[str]:
    """What holds for this application's messages, one sentence each. Empty if the broker's
    driver cannot be had."""
    try:
        broker, results = app.make_broker(), app.make_results()
    except ImproperlyConfigured:
        return []
    can = broker.capabilities
    times = app.conf.task_max_deliveries
    return [
        "Accepted: what was sent survives the death of every process."
        if can.survives_process
        else "Accepted: what was sent is gone when this process ends.",
        "At least once: a message leaves its queue in the step that stores its outcome, or after "
        "it. Tasks with acks_late=False run at most once.",
        f"A message whose processes died {times} times is kept as a dead letter.",
        "Delayed messages wait in the broker."
        if can.delayed
        else "The broker cannot hold delayed messages: sending them is refused.",
        "Revoked ids stay revoked across restarts."
        if can.durable_cancel
        else "Revoked ids are forgotten when the workers restart.",
        _step(broker, results),
    ]


def _step(broker: Broker, results: ResultBackend | None) -> str:
    from celeriac.drivers import one_store

    if results is None:
        return "Results are not kept."
    if not results.capabilities.keeps_records:
        return (
            "Results are sent to whoever sent the task, before its message ends: a step that is "
            "repeated after a crash may run and answer twice."
        )
    if one_store(broker, results):
        return (
            "One store: a result, what follows it and the end of its message are one transaction."
        )
    return (
        "Two stores: the result is stored first, then what follows is sent, then the message "
        "ends; a step that is repeated after a crash changes nothing."
    )


def _software() -> list[str]:
    lines = [
        f"celeriac {__version__}",
        f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        platform.platform(),
    ]
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return [*lines, ", ".join(found)]


def _application(app: Celeriac) -> list[str]:
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    return [
        f"name: {app.main or '__main__'}",
        f"tasks: {', '.join(tasks) or 'none'}",
        f"queues: {', '.join(app.queues.configured)}",
        f"time zone: {app.timezone}",
    ]


def _broker(app: Celeriac) -> list[str]:
    try:
        broker = app.make_broker()
    except ImproperlyConfigured as exc:
        return [str(exc)]
    return _part(app.broker_url, broker)


def _results(app: Celeriac) -> list[str]:
    try:
        results = app.make_results()
    except ImproperlyConfigured as exc:
        return [str(exc)]
    if results is None or app.backend_url is None:
        return ["none: what tasks return is not kept"]
    return _part(app.backend_url, results)


def _part(url: str, part: Broker | ResultBackend) -> list[str]:
    can = part.capabilities
    lines = [hide_in_url(url)]
    if can.durability:
        lines.append(can.durability)
    if not can.shared:
        lines.append("Lives in one process: no other one can use it.")
    return lines


def _settings(app: Celeriac) -> Iterable[str]:
    return app.conf.humanize(with_defaults=False, censored=True).splitlines() or ["all as default"]
