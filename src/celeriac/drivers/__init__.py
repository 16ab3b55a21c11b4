"""Drivers by URL scheme: which module talks to which system.

A driver is a module with the functions of ``contracts.Driver``. The built-in ones are named below
and imported when first asked for; others are found by the entry point group ``celeriac.drivers``,
whose names are URL schemes. Nothing above this package names a driver.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from typing import Any, cast

from celeriac.contracts import (
    Broker,
    Driver,
    EventBus,
    QueueAdmin,
    ResultBackend,
    ScheduleStore,
)
from celeriac.exceptions import (
    ImproperlyConfigured,
    MissingDependency,
    NotCapable,
    UnknownScheme,
)

__all__ = [
    "admin_of",
    "driver_for",
    "keeps_results",
    "known_schemes",
    "one_store",
    "open_broker",
    "open_bus",
    "open_results",
    "open_schedules",
    "results_beside",
    "safe_url",
    "scheme_of",
    "sends_results",
    "settings_of",
]

ENTRY_POINTS = "celeriac.drivers"

BUILT_IN: dict[str, str] = {
    "sqlite": "celeriac.drivers.sqlite",
    "memory": "celeriac.drivers.memory",
    "redis": "celeriac.drivers.redis",
    "rediss": "celeriac.drivers.redis",
    "redis+socket": "celeriac.drivers.redis",
    "unix": "celeriac.drivers.redis",
    "sentinel": "celeriac.drivers.redis",
    "amqp": "celeriac.drivers.rabbitmq",
    "amqps": "celeriac.drivers.rabbitmq",
    "pyamqp": "celeriac.drivers.rabbitmq",
    "rpc": "celeriac.drivers.rabbitmq",
    "rpc+amqp": "celeriac.drivers.rabbitmq",
    "rpc+amqps": "celeriac.drivers.rabbitmq",
    "rpc+pyamqp": "celeriac.drivers.rabbitmq",
}

# Systems whose driver comes with an extra, so that the error can say which one.
EXTRAS: dict[str, str] = {
    "redis": "redis",
    "rediss": "redis",
    "redis+socket": "redis",
    "unix": "redis",
    "sentinel": "redis",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "pyamqp": "rabbitmq",
}

# Who can do what, for the error that a driver without this part causes.
_ABLE = {
    "broker": "sqlite:// and memory://",
    "result backend": "sqlite:// and memory://",
    "event bus": "memory://",
    "queue administration": "sqlite:// and memory://",
}

_PASSWORD = re.compile(r"(?P<before>[a-z0-9+.\-]+://[^/?#;,:@]*:)(?P<secret>[^/?#;]*)@", re.I)
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:password|passwd|secret|token)=)[^&;#]*", re.I)


def open_broker(url: str, options: Mapping[str, Any] | None = None) -> Broker:
    """The broker at the URL, not yet opened. Raises UnknownScheme, MissingDependency, NotCapable
    and, for what is no URL, ImproperlyConfigured."""
    broker = driver_for(url).broker(url, options or {})
    return broker if broker is not None else _lacks(url, "broker")


def open_results(url: str, options: Mapping[str, Any] | None = None) -> ResultBackend:
    """The result backend at the URL, not yet opened. Raises as ``open_broker`` does."""
    results = driver_for(url).results(url, options or {})
    return results if results is not None else _lacks(url, "result backend")


def open_bus(url: str, options: Mapping[str, Any] | None = None) -> EventBus:
    """The event bus at the URL. Raises as ``open_broker`` does."""
    bus = driver_for(url).bus(url, options or {})
    return bus if bus is not None else _lacks(url, "event bus")


def open_schedules(url: str, options: Mapping[str, Any] | None = None) -> ScheduleStore | None:
    """The schedule store at the URL, not yet opened; None if the driver has none."""
    make = getattr(driver_for(url), "schedules", None)
    return cast("ScheduleStore | None", make(url, options or {})) if make is not None else None


def keeps_results(url: str) -> bool:
    """Is the system at ``url`` its own result backend, when no other is configured?"""
    return bool(getattr(driver_for(url), "keeps_results", False))


def settings_of(url: str, *, results: bool = False) -> Mapping[str, str]:
    """Options of the driver that are settings of the application: option to setting. A driver
    may have others for ``results``."""
    driver = driver_for(url)
    settings = getattr(driver, "SETTINGS", {})
    if results:
        settings = getattr(driver, "RESULT_SETTINGS", settings)
    return cast("Mapping[str, str]", settings)


def sends_results(url: str) -> bool:
    """Does this result backend send results to whoever sent the task (``results.reply_to``),
    instead of keeping them for everybody?"""
    return bool(getattr(driver_for(url), "sends_results", False))


def results_beside(url: str, broker_url: str) -> str:
    """The URL of a result backend that may lean on the broker: ``rpc://`` is where the broker
    is."""
    beside = getattr(driver_for(url), "results_beside", None)
    return str(beside(url, broker_url)) if beside is not None else url


def admin_of(broker: Broker) -> QueueAdmin:
    """What an operator can do with the queues of this (opened) broker. Raises NotCapable."""
    admin = driver_for(broker.store).admin(broker)
    return admin if admin is not None else _lacks(broker.store, "queue administration")


def one_store(broker: Broker, results: ResultBackend) -> bool:
    """Can one transaction change both? Then everything is handed to ``broker.settle``. A broker
    whose store has several places for results is told which is meant."""
    if broker.store != results.store:
        return False
    place = getattr(results, "place", None)
    if place is not None:
        cast(Any, broker).keep_results_in(place)
    return True


def safe_url(url: str) -> str:
    """The URL as it may be shown: passwords replaced by ``**``."""
    shown = _PASSWORD.sub(r"\g<before>**@", url)
    return _QUERY_PASSWORD.sub(r"\g<before>**", shown)


def scheme_of(url: str) -> str:
    """The part of the URL that names the driver, in lower case."""
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise ImproperlyConfigured(
            f"{safe_url(url)!r} is not the URL of a broker or result backend: "
            "write it like sqlite:///celeriac.db (a file) or memory:// (this process only)."
        )
    return scheme.lower()


def known_schemes() -> list[str]:
    """The URL schemes that a driver is installed for, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def entry_points(*, group: str) -> Any:
    from importlib import metadata  # here: it takes a while to import

    return metadata.entry_points(group=group)


def driver_for(url: str) -> Driver:
    """The driver of the URL's scheme, imported now. Raises UnknownScheme, MissingDependency."""
    scheme = scheme_of(url)
    if scheme in BUILT_IN:
        return _load(scheme, BUILT_IN[scheme])
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == scheme:
            return cast(Driver, point.load())
    raise UnknownScheme(_unknown(scheme, url))


def _load(scheme: str, module: str) -> Driver:
    try:
        return cast(Driver, importlib.import_module(module))
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "celeriac":
            raise
        extra = EXTRAS.get(scheme, scheme)
        raise MissingDependency(
            f"The driver for {scheme}:// needs the package {missing.name!r}, which is not "
            f"installed: pip install celeriac[{extra}]"
        ) from missing


def _unknown(scheme: str, url: str) -> str:
    known = known_schemes()
    text = f"No driver is installed for {scheme}:// (in {safe_url(url)!r})."
    if scheme in EXTRAS:
        text += f" It comes with an extra: pip install celeriac[{EXTRAS[scheme]}]."
    elif near := difflib.get_close_matches(scheme, [*known, *EXTRAS], n=1, cutoff=0.5):
        text += f" Did you mean {near[0]}://?"
    return text + " Installed: " + ", ".join(f"{name}://" for name in known) + "."


def _lacks(url: str, part: str) -> Any:
    raise NotCapable(
        f"The driver of {safe_url(url)} has no {part}; {_ABLE[part]} can do this. "
        "Use one of these URLs for it."
    )
