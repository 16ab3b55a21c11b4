"""Settling messages that were taken out of their queues by hand: cancelled, deleted, purged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from celeriac import signals
from celeriac.concluding import Concluder
from celeriac.exceptions import ContentError, InvalidTaskError
from celeriac.following import arrivals_of_unread
from celeriac.joining import Joiner
from celeriac.message import Delivery, Settled, Settlement
from celeriac.reading import Reader
from celeriac.settling import Settling

if TYPE_CHECKING:
    from celeriac.app import Celeriac


def settle_removed(app: Celeriac, deliveries: Sequence[Delivery], reason: str) -> int:
    """Settle each as REVOKED for ``reason``; how many were."""
    concluder = Concluder(app)
    reader = Reader(app)
    settlements = []
    for delivery in deliveries:
        try:
            request = reader.read(delivery)
        except (ContentError, InvalidTaskError) as exc:
            arrivals = arrivals_of_unread(delivery.message, exc)
            # Nobody can wait for it by name.
            settlements.append(Settlement(delivery=delivery, arrivals=arrivals))
            continue
        task = app.tasks.get(request.task or "")
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=task, request=request, terminated=False, signum=None, expired=False
            )
        settlements.append(concluder.revoked(delivery, task, request, reason))
    settling = Settling(app.producer.broker, app.producer.results, Joiner(app).complete)
    return settling.settle(settlements).count(Settled.SETTLED)
