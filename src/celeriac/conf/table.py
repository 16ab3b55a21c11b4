"""All settings in one table, and how a name finds its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from celeriac.conf.setting import Setting
from celeriac.conf.table_systems import (
    BrokerSettings,
    DatabaseSettings,
    OtherSystemsSettings,
    RedisSettings,
)
from celeriac.conf.table_tasks import (
    GeneralSettings,
    ResultSettings,
    RoutingSettings,
    TaskSettings,
)
from celeriac.conf.table_workers import (
    BeatSettings,
    EventSettings,
    LogSettings,
    SecuritySettings,
    WorkerSettings,
)


class Table(
    GeneralSettings,
    BrokerSettings,
    TaskSettings,
    RoutingSettings,
    ResultSettings,
    WorkerSettings,
    LogSettings,
    EventSettings,
    BeatSettings,
    SecuritySettings,
    RedisSettings,
    DatabaseSettings,
    OtherSystemsSettings,
):
    """Every setting as a typed attribute. What an application reads is a ``Settings`` of it."""


SETTINGS: Mapping[str, Setting[Any]] = {
    name: value
    for group in Table.__bases__
    for name, value in vars(group).items()
    if isinstance(value, Setting)
}

OLD_NAMES: Mapping[str, str] = {old: row.name for row in SETTINGS.values() for old in row.old}

ENVIRONMENT: Mapping[str, str] = {
    variable: row.name for row in SETTINGS.values() for variable in row.environment
}

NAMESPACES = ("CELERIAC_", "CELERY_")
_OLD_PREFIXES = ("CELERIAC_", "CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")
_GROUPS = ("task_", "worker_", "broker_", "result_", "beat_", "event_", "control_")


class Change(NamedTuple):
    """A value that was given, and where: "code", "object module.name", "environment NAME"."""

    value: Any
    source: str


def belongs_to_us(name: str) -> bool:
    """Whether an upper-case name is one of ours beyond doubt, in a module full of others'."""
    return name.startswith(_OLD_PREFIXES)


def looks_like_ours(name: str) -> bool:
    """Whether an unknown lower-case name of a settings module is likely a setting misspelt,
    and not a helper of the module's own."""
    # Strict, because `default_exchange = Exchange(…)` is how many such modules begin.
    return name.startswith(_GROUPS) or bool(nearest(name, SETTINGS, cutoff=0.9))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like this one; empty if none is."""
    import difflib  # late: only mistakes need it

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """A sentence that helps whoever wrote an unknown name; it may be empty."""
    for namespace in NAMESPACES:
        short = name.removeprefix(namespace).lower()
        if short != name.lower() and short in SETTINGS:
            return (
                f" It is {short}; names with the prefix {namespace} are understood with "
                f'config_from_object(…, namespace="{namespace[:-1]}").'
            )
    candidates = [*known, *OLD_NAMES] if name.isupper() else known
    found = nearest(name, candidates) or nearest(name.lower(), known)
    return f" Did you mean {found}?" if found else ""
