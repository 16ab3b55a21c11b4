"""Taking messages out of the middle of queues: by id, or all."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.errors import Refused
from celeriac.drivers.redis.handing import handed
from celeriac.drivers.redis.scripts import script
from celeriac.exceptions import LeaseLost
from celeriac.message import Delivery, Owner

__all__ = ["SLICE", "queue_names", "take", "translated"]

_TAKE = script("take")

SLICE = 1000
"""Messages that one call of take.lua looks at."""
SEARCHED = 100_000
"""Messages of one list that a cancellation looks at, the newest first; what is further back is
revoked when it is claimed."""


def take(
    client: Client, owner: Owner, queue: str, *, ids: Sequence[str] = (), how: str = "all"
) -> tuple[int, list[Delivery]]:
    """Waiting and delayed messages of these ids (none: of any) out of the queue: how many were
    removed, and what the owner was handed."""
    options = client.options
    steps = [str(step) for step in options.priority_steps]
    removed = 0
    found: list[Delivery] = []
    for place in ("front", *steps, "delayed"):
        at = 0
        while at < SEARCHED or not ids:
            try:
                answer = client.run(
                    _TAKE,
                    options.prefix,
                    options.separator,
                    queue,
                    place,
                    at,
                    SLICE,
                    owner.lease,
                    f"{owner.slot}/{owner.incarnation}",
                    how,
                    len(ids),
                    *ids,
                )
            except Refused as refused:
                raise translated(refused, client, owner) from None
            looked, taken, gone = answer[:3]
            removed += gone
            found += handed(owner, answer[3:])
            at += looked - taken
            if looked < SLICE:
                break
    return removed, found


def queue_names(client: Client) -> list[str]:
    """Every queue that somebody of Celeriac used, and those of Celery's default exchange."""
    bindings = client.options.prefix + "_kombu.binding.celery"
    ours, bound = client.pipeline(
        [
            pack(("SMEMBERS", client.base + b"queues")),
            pack(("SMEMBERS", bindings)),
        ]
    )
    names = {name.decode() for name in ours}
    for member in bound:
        names.add(member.decode("utf-8", "replace").split("\x06\x16")[-1])
    return sorted(names)


def translated(refused: Refused, client: Client, owner: Owner) -> Exception:
    """A script that did not find the lease says so."""
    return no_lease(client.options.store, owner) if refused.code == "LEASELOST" else refused


def no_lease(store: str, owner: Owner) -> LeaseLost:
    return LeaseLost(
        f"{store} does not know the lease {owner.lease!r} (any more): register it again, and go "
        "on as a new owner. What was held is with others."
    )
