"""Where a task goes: queues, exchanges, and the way from a task's name to one of them.

A broker with exchanges (RabbitMQ) is handed exchange and routing key. All others know queues
only; for them, the destination is the queue that exchange and routing key are bound to, or else
the queue that the routing key names.
"""

from __future__ import annotations

from celeriac.routing.queues import (
    Broadcast,
    Exchange,
    Queue,
    Queues,
    parse_queue_weights,
    topic_matches,
)
from celeriac.routing.router import Route, Router

__all__ = [
    "Broadcast",
    "Exchange",
    "Queue",
    "Queues",
    "Route",
    "Router",
    "parse_queue_weights",
    "topic_matches",
]
