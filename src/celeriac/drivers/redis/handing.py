"""What scripts hand over, as deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.drivers.redis.envelope import read
from celeriac.message import Delivery, Owner

__all__ = ["as_cancelled", "claimed", "handed"]


def claimed(owner: Owner, answer: Sequence[Any]) -> list[Delivery]:
    """What claim.lua answered."""
    number: int = answer[0]
    cancelled = answer[1]
    deliveries: list[Delivery] = []
    for at in range(4, len(answer), 2):
        queue = answer[at].decode()
        messages = answer[at + 1]
        for raw in messages:
            deliveries.append(_delivery(owner, number, queue, raw))
            number += 1
    for index in cancelled:
        deliveries[index] = as_cancelled(deliveries[index])
    return deliveries


def as_cancelled(delivery: Delivery) -> Delivery:
    return msgspec.structs.replace(delivery, cancelled=True)


def handed(owner: Owner, answer: Sequence[Any]) -> list[Delivery]:
    """What hand in handing.lua answered."""
    return [
        _delivery(owner, answer[at], answer[at + 1].decode(), answer[at + 2], answer[at + 3] != b"")
        for at in range(0, len(answer), 4)
    ]


def _delivery(owner: Owner, tag: Any, queue: str, raw: bytes, cancelled: bool = False) -> Delivery:
    found = read(raw, queue)
    return Delivery(
        message=found.message,
        owner=owner,
        tag=tag,
        lost=found.lost,
        redelivered=found.redelivered,
        cancelled=cancelled,
        begun=found.begun,
        note=found.note,
    )
