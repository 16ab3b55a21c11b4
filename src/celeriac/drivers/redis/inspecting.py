"""What a server says of itself when a broker is opened: is it fit, and how durable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.errors import Refused, refusal
from celeriac.exceptions import OperationalError

__all__ = ["durability", "look_at_server"]

logger = logging.getLogger("celeriac.drivers.redis")

_warned: set[str] = set()


def look_at_server(client: Client, info: Mapping[str, Any]) -> None:
    """Raises OperationalError for a server that cannot keep messages now; warns of one that may
    throw them away."""
    options = client.options
    if info.get("mode") == "sentinel":
        raise OperationalError(
            f"The server of {options.shown} is a sentinel: write sentinel:// and give master_name."
        )
    if info.get("role") in ("replica", "slave"):
        raise refusal(Exception("READONLY it is a replica"), options.shown)
    settings = settings_of(client, "maxmemory*")
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys") and settings.get("maxmemory", "0") != "0":
        warn_once(
            f"policy {options.place}",
            "The Redis server of %s removes keys when it is full (maxmemory-policy %s): queues "
            "with all their messages may be among them. Set it to noeviction, or volatile-ttl.",
            options.shown,
            policy,
        )


def warn_once(about: str, text: str, *args: Any) -> None:
    if about not in _warned:
        _warned.add(about)
        logger.warning(text, *args)


def settings_of(client: Client, pattern: str) -> dict[str, str]:
    """Empty where the server tells nobody (many that are rented)."""
    try:
        answer = client.call(pack(("CONFIG", "GET", pattern)))
    except Refused:
        return {}
    return {
        name.decode(): value.decode("utf-8", "replace")
        for name, value in zip(answer[::2], answer[1::2], strict=True)
    }


def durability(client: Client) -> str:
    """One sentence for ``celeriac report``."""
    settings = {**settings_of(client, "append*"), **settings_of(client, "save")}
    if not settings:
        return "Survives the death of any client; the server does not tell how it keeps its data."
    if settings.get("appendonly") == "yes":
        how = settings.get("appendfsync", "everysec")
        if how == "always":
            return "Survives a power loss: every change is in its log on the disk (appendfsync)."
        return (
            "Survives the death of any process; a power loss may undo about the last second "
            f"(appendonly yes, appendfsync {how})."
        )
    if settings.get("save"):
        return (
            "Survives the death of any client; if the server dies, what came since its last "
            f"snapshot is gone (save {settings['save']}): set appendonly yes."
        )
    return "Survives the death of any client, not of the server, which keeps nothing on a disk."
