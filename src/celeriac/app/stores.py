"""Which broker and result backend the settings name, and making their drivers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac import drivers
from celeriac.contracts import Broker, EventBus, ResultBackend, ScheduleStore
from celeriac.exceptions import ImproperlyConfigured, NotCapable

if TYPE_CHECKING:
    from celeriac.app.configured import ConfiguredApp

logger = logging.getLogger("celeriac.app")

DEFAULT_BROKER = "sqlite:///celeriac.db"
_told: list[bool] = []  # once in a process


def broker_url(app: ConfiguredApp) -> str:
    """The URL of the broker; says once when it is the default one."""
    url = app.conf.broker_url
    if isinstance(url, list | tuple):
        url = ";".join(str(one) for one in url)  # for a driver that can fail over
    if url:
        return str(url)
    if not _told:
        _told.append(True)
        logger.warning(
            "No broker is configured: using %s in %s. Set broker_url (or the environment "
            "variable CELERIAC_BROKER_URL) to choose another.",
            DEFAULT_BROKER,
            os.getcwd(),
        )
    return DEFAULT_BROKER


def backend_url(app: ConfiguredApp) -> str | None:
    """The URL of the result backend. Brokers that keep results themselves are the default."""
    url = app.conf.result_backend
    if url is None:
        broker = app.broker_url
        return broker if drivers.keeps_results(broker) else None
    if str(url).startswith("disabled"):
        return None
    return drivers.results_beside(str(url), app.broker_url)


def make_broker(app: ConfiguredApp) -> Broker:
    """A new, unopened broker."""
    url = app.broker_url
    broker = drivers.open_broker(url, _driver_options(app, url, app.conf.broker_transport_options))
    use_queues = getattr(broker, "use_queues", None)  # the optional power Declares
    if use_queues is not None:
        use_queues(app.queues)
    if not broker.capabilities.broadcasts:
        _check_queues(app, url)
    return broker


def _check_queues(app: ConfiguredApp, url: str) -> None:
    for queue in app.queues.values():
        if queue.broadcast:
            raise ImproperlyConfigured(
                f"The queue {queue.name!r} in task_queues is a Broadcast, and "
                f"{drivers.scheme_of(url)}:// cannot give a message to every worker: amqp:// can. "
                "Take it out, or use RabbitMQ."
            )


def make_results(app: ConfiguredApp) -> ResultBackend | None:
    """A new, unopened result backend; None if there is none."""
    url = app.backend_url
    if url is None:
        return None
    options = app.conf.result_backend_transport_options
    return drivers.open_results(url, _driver_options(app, url, options, results=True))


def _driver_options(
    app: ConfiguredApp, url: str, given: Mapping[str, Any], *, results: bool = False
) -> Mapping[str, Any]:
    """The driver's options: those of its own mapping, and before them its settings."""
    named = drivers.settings_of(url, results=results)
    if not named:
        return given
    found = {option: getattr(app.conf, setting) for option, setting in named.items()}
    return {**{key: value for key, value in found.items() if value is not None}, **given}


def make_schedules(app: ConfiguredApp) -> ScheduleStore | None:
    """A new, unopened store for periodic tasks: the broker's, else the result backend's; None
    if neither has one."""
    for url, given, results in (
        (app.broker_url, app.conf.broker_transport_options, False),
        (app.backend_url, app.conf.result_backend_transport_options, True),
    ):
        if url is not None:
            options = _driver_options(app, url, given, results=results)
            store = drivers.open_schedules(url, options)
            if store is not None:
                return store
    return None


def make_bus(app: ConfiguredApp) -> EventBus | None:
    """A new event bus of the broker, if it has one."""
    try:
        url = app.broker_url
        return drivers.open_bus(url, _driver_options(app, url, app.conf.broker_transport_options))
    except NotCapable:
        return None


def no_results() -> NotImplementedError:
    """What is raised where results are asked for and there is no backend, as in Celery."""
    return NotImplementedError(
        f"No result backend is configured: set result_backend, for example to {DEFAULT_BROKER}."
    )
