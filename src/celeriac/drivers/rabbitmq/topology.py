"""Queues, exchanges and bindings: declared as Celery declares them, once per connection.

Delayed messages wait in a chain of queues whose time to live are powers of two. Level ``n`` holds
a message for ``2**n`` units if bit ``n`` of its delay is set, and passes it down; below level 0 an
exchange puts it into its queue. Celery has such a chain in whole seconds for exchanges that are
not direct; the one here has units of 64 ms, and ends in the queue itself. Nothing waits in a
worker.
"""

from __future__ import annotations

import math
from typing import Any, Final
from urllib.parse import quote

from celeriac.contracts import QueueSpec
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.declaring import DURABLE, Declarations
from celeriac.exceptions import ImproperlyConfigured
from celeriac.message import Worker

UNIT: Final = 0.064  # seconds
LEVELS: Final = 32
LONGEST: Final = (2**LEVELS - 1) * UNIT  # eight years; who comes back too early is sent again
DELAYED: Final = "celeriac_delayed"
DELIVERY: Final = "celeriac_delayed_delivery"
CELERY_LEVELS: Final = 28
CELERY_DELAYED: Final = "celery_delayed"
CELERY_DELIVERY: Final = "celery_delayed_delivery"
DEAD: Final = ".dead"

_AUTO_DELETE = 8
_EXCHANGE_AUTO_DELETE = 4


class Topology(Declarations):
    """What one connection has declared. ``queues``: the application's, by name; None: a queue is
    a durable classic one."""

    def __init__(self, connection: Connection, queues: Any, delayed_type: str) -> None:
        super().__init__(connection)
        self._queues = queues
        self._delayed_type = delayed_type
        self._known: set[tuple[str, ...]] = set()
        self._own: dict[str, tuple[str, QueueSpec]] = {}  # of workers: the name it has for them

    @property
    def used(self) -> set[str]:
        """The queues that were declared here."""
        return {known[1] for known in self._known if known[0] == "queue"}

    # --- queues -------------------------------------------------------------------------------

    def queue(self, name: str) -> None:
        """The queue, its exchange and its binding are there. Raises Mismatch."""
        if ("queue", name) in self._known:
            return
        spec = self._spec(name)
        if spec is None:
            self.declare_queue(name, {}, DURABLE)
        elif spec.broadcast:
            self.exchange(spec.exchange.name, spec.exchange.type, spec)
        elif not spec.no_declare:
            self._declare(spec)
            self._bind(spec)
        self._known.add(("queue", name))

    def _declare(self, spec: QueueSpec) -> None:
        flags = (
            DURABLE * bool(spec.durable)
            + 4 * bool(spec.exclusive)
            + _AUTO_DELETE * bool(spec.auto_delete)
        )
        self.declare_queue(spec.name, queue_arguments(spec), flags)

    def consumed(self, name: str) -> None:
        """The queue is there, and what Celery's clients delay for it will come: they count on its
        workers to have made their chain. Raises Mismatch."""
        if ("consumed", name) in self._known:
            return
        spec = self._spec(name)
        if spec is not None and spec.auto_delete:
            raise ImproperlyConfigured(
                f"The queue {name!r} is declared with auto_delete: the server would delete it, "
                "with all that waits in it, whenever every worker is busy. Give it expires=3600 "
                "instead: it goes when nobody has used it for an hour."
            )
        self.queue(name)
        if self._takes_celery_delays(name):
            self._celery_chain()
            self.celery_target(name)
        self._known.add(("consumed", name))

    def expect_delayed(self) -> None:
        """The same for all queues of the application that are known."""
        for name in list(self._queues or ()):
            if self._takes_celery_delays(name):
                self.consumed(name)

    def _takes_celery_delays(self, name: str) -> bool:
        spec = self._spec(name)
        if spec is None or not spec.exchange.name or spec.exchange.type == "direct":
            return False
        return not spec.broadcast and self.kind(name) == "quorum"

    def _spec(self, name: str) -> QueueSpec | None:
        if name in self._own:
            return self._own[name][1]
        return None if self._queues is None else self._queues[name]

    # --- queues of single workers ---------------------------------------------------------------

    def own(self, name: str, lease: str) -> str:
        """The queue in which the worker with this lease finds what is sent to ``name``."""
        spec = self._spec(name)
        if spec is None or not spec.broadcast:
            return name
        mine = spec.own(lease)
        self._own[mine.name] = name, mine
        return mine.name

    def called(self, queue: str) -> str:
        """What the application calls this queue."""
        return self._own[queue][0] if queue in self._own else queue

    def is_broadcast(self, name: str) -> bool:
        spec = self._spec(name)
        return spec is not None and spec.broadcast

    def way_to(self, name: str) -> tuple[str, str]:
        """Exchange and routing key of what is sent to a broadcast."""
        spec = self._spec(name)
        assert spec is not None
        return spec.exchange.name, spec.routing_key

    def keep_own(self, worker: Worker) -> None:
        """The queues of this worker are there, and the server knows that they are in use."""
        for name in worker.queues:
            queue = self.own(name, worker.lease)
            if ("queue", queue) in self._known and queue in self._own:
                spec = self._own[queue][1]
                self._declare(spec)
                self._bind(spec)
            elif queue != name:
                self.consumed(queue)

    def delete_own(self, worker: Worker) -> None:
        """The worker is gone, and what was sent to it with all others."""
        for name in worker.queues:
            queue = self.own(name, worker.lease)
            if queue != name:
                self.delete_queue(queue)

    def _bind(self, spec: QueueSpec) -> None:
        exchange = spec.exchange
        if not exchange.name:
            return
        self.exchange(exchange.name, exchange.type, spec)
        self.bind_queue(spec.name, exchange.name, spec.routing_key, spec.binding_arguments)

    def exchange(self, name: str, kind: str, spec: QueueSpec | None = None) -> None:
        """The exchange is there. Raises Mismatch."""
        if ("exchange", name) in self._known or name.startswith("amq."):
            return
        flags, arguments, passive = DURABLE, {}, False
        if spec is not None:
            exchange = spec.exchange
            if exchange.no_declare:
                return
            flags = DURABLE * bool(exchange.durable)
            flags += _EXCHANGE_AUTO_DELETE * bool(exchange.auto_delete)
            arguments, passive = exchange.arguments or {}, exchange.passive
        self.declare_exchange(name, kind, flags + passive, arguments)
        self._known.add(("exchange", name))

    def delete_queue(self, name: str) -> None:
        self.forget(name)
        super().delete_queue(name)

    def forget(self, name: str) -> None:
        """The queue has gone: it is to be declared again when it is next needed."""
        self._known.discard(("queue", name))
        self._known.discard(("consumed", name))
        self._known.discard(("delayed", name))
        self._known.discard(("dead", name))

    def restore(self, queue: str) -> None:
        """Declare again a queue that has gone, and what leads to it."""
        delayed = ("delayed", queue) in self._known
        dead = ("dead", queue) in self._known
        self.forget(queue)
        self.queue(queue)
        if dead:
            self.dead(queue)
        if delayed:
            self._known.discard(("chain",))
            self.delay(queue, UNIT)
        if ("celery delayed", queue) in self._known:
            self._known.discard(("celery delayed", queue))
            self.celery_target(queue)

    def is_direct(self, queue: str, exchange: str) -> bool:
        """Whether the exchange that leads to the queue is a direct one."""
        spec = self._spec(queue)
        if spec is None or spec.exchange.name != exchange:
            return True
        return spec.exchange.type == "direct"

    def dead(self, queue: str) -> str:
        """The queue of the dead letters of ``queue``. One that is there is taken as it is."""
        name = queue + DEAD
        if ("dead", queue) not in self._known:
            if self.depth(name) is None:
                self.declare_queue(name, self._dead_arguments(queue), DURABLE)
            self._known.add(("dead", queue))
        return name

    def _dead_arguments(self, queue: str) -> dict[str, Any]:
        """As replicated as the queue itself; looking at dead letters must never be counted."""
        if self.kind(queue) != "quorum":
            return {}
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if self._connection.version >= (4, 0):
            arguments["x-delivery-limit"] = -1
        return arguments

    def kind(self, queue: str) -> str:
        """Of the queue as the application describes it."""
        spec = self._spec(queue)
        arguments = (spec.queue_arguments if spec is not None else None) or {}
        return str(arguments.get("x-queue-type", "classic"))

    # --- delays -------------------------------------------------------------------------------

    def delay(self, queue: str, seconds: float) -> tuple[str, str]:
        """Exchange and routing key by which a message is in ``queue`` after this time."""
        self.own_chain()
        self.reachable(queue)
        units = min(max(1, math.ceil(seconds / UNIT)), 2**LEVELS - 1)
        top = units.bit_length() - 1
        bits = ".".join(format(units, f"0{LEVELS}b"))
        return f"{DELAYED}_{top}", f"{bits}.{word(queue)}"

    def reachable(self, queue: str) -> None:
        """What the exchange DELIVERY gets for the queue ends up in it."""
        if ("delayed", queue) not in self._known:
            self.queue(queue)
            spec = self._spec(queue)
            if spec is not None and spec.broadcast:
                self.bind_exchange(spec.exchange.name, DELIVERY, "#." + word(queue))
            else:
                self.bind_queue(queue, DELIVERY, "#." + word(queue))
            self._known.add(("delayed", queue))

    def declare_delay_queue(self, name: str, arguments: dict[str, Any]) -> None:
        """A durable queue out of which messages go by their age, and are never lost."""
        arguments = {
            "x-queue-type": self._delayed_type,
            "x-overflow": "reject-publish",
            **arguments,
        }
        if self._delayed_type == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        self.declare_queue(name, arguments, DURABLE)

    def own_chain(self) -> None:
        """What delays messages is there."""
        if ("chain",) in self._known:
            return
        if self.depth(f"{DELAYED}_{LEVELS - 1}") is not None:  # made last: all is there
            self._known.add(("chain",))
            return
        self.declare_exchange(DELIVERY, "topic")
        for level in range(LEVELS):
            below = f"{DELAYED}_{level - 1}" if level else DELIVERY
            self._level(DELAYED, level, LEVELS, round(2**level * UNIT * 1000), below)
        self._known.add(("chain",))

    def celery_delay(self, exchange: str, routing_key: str, seconds: float) -> tuple[str, str]:
        """The same by Celery's own chain, in whole seconds, for an exchange that is not direct:
        whoever is bound to it gets the message."""
        self._celery_chain()
        units = min(int(seconds), 2**CELERY_LEVELS - 1)
        bits = ".".join(format(units, f"0{CELERY_LEVELS}b"))
        return f"{CELERY_DELAYED}_{CELERY_LEVELS - 1}", f"{bits}.{routing_key}"

    def _celery_chain(self) -> None:
        if ("celery chain",) in self._known:
            return
        self.declare_exchange(CELERY_DELIVERY, "topic")
        for level in range(CELERY_LEVELS):
            below = f"{CELERY_DELAYED}_{level - 1}" if level else CELERY_DELIVERY
            self._level(CELERY_DELAYED, level, CELERY_LEVELS, 2**level * 1000, below)
        self._known.add(("celery chain",))

    def celery_target(self, queue: str) -> None:
        """Bind the queue, and its exchange, so that what comes out of Celery's chain gets there:
        as Celery's workers do."""
        spec = self._spec(queue)
        if spec is None or ("celery delayed", queue) in self._known:
            return
        key = f"#.{spec.routing_key}"
        self.bind_exchange(spec.exchange.name, CELERY_DELIVERY, key)
        self.bind_queue(queue, spec.exchange.name, key)
        self._known.add(("celery delayed", queue))

    def _level(self, name: str, level: int, levels: int, ttl: int, below: str) -> None:
        this = f"{name}_{level}"
        stars = "*." * (levels - 1 - level)
        self.declare_exchange(this, "topic")
        arguments = {"x-message-ttl": ttl, "x-dead-letter-exchange": below}
        self.declare_delay_queue(this, arguments)
        self.bind_queue(this, this, f"{stars}1.#")
        self.bind_exchange(below, this, f"{stars}0.#")


def queue_arguments(spec: QueueSpec) -> dict[str, Any]:
    """The arguments with which Celery declares this queue."""
    arguments = dict(spec.queue_arguments or {})
    for name, value, scale in (
        ("x-expires", spec.expires, 1000),
        ("x-message-ttl", spec.message_ttl, 1000),
        ("x-max-length", spec.max_length, 1),
        ("x-max-length-bytes", spec.max_length_bytes, 1),
        ("x-max-priority", spec.max_priority, 1),
    ):
        if value is not None:
            arguments[name] = int(value * scale)
    return arguments


def word(queue: str) -> str:
    """The queue's name as one word of a topic."""
    return quote(queue, safe="").replace(".", "%2E").replace("*", "%2A")
