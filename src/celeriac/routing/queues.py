"""Queues and exchanges: what they are, and those of an application."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from celeriac.conf import Settings
from celeriac.exceptions import ImproperlyConfigured, QueueNotFound

OWN_KEPT: Final = 1800.0  # seconds that what was sent to all waits for a worker that is gone
_OWN_KEPT_LEAST: Final = 300.0  # seconds; many heartbeats, each of which keeps the queue
_UNIQUE = re.compile(r".\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Exchange(Struct, frozen=True):
    """An AMQP exchange. The attributes are kombu's."""

    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    delivery_mode: int | None = None
    arguments: dict[str, Any] | None = None
    passive: bool = False
    no_declare: bool = False

    @classmethod
    def of(cls, obj: Any, type: str = "direct") -> Exchange:
        """Ours, a name, None (the default exchange), or anything with kombu's attributes."""
        if isinstance(obj, Exchange):
            return obj
        if obj is None or isinstance(obj, str):
            return cls(obj or "", type)
        if not hasattr(obj, "name") or not hasattr(obj, "type"):
            raise ImproperlyConfigured(f"{obj!r} is no exchange: give a name or an Exchange.")
        return cls(**_same_attributes(cls, obj))


class Queue(Struct, frozen=True):
    """An AMQP queue, bound to its exchange by its routing key. The attributes are kombu's; a
    broker takes from them what it knows."""

    name: str
    exchange: Exchange = Exchange()
    routing_key: str = ""
    queue_arguments: dict[str, Any] | None = None
    binding_arguments: dict[str, Any] | None = None
    consumer_arguments: dict[str, Any] | None = None
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    no_ack: bool = False
    alias: str | None = None
    no_declare: bool | None = None
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    max_priority: int | None = None

    broadcast: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # Written as Queue("mail", "shop", "mail") and with kombu's exchanges, too.
        exchange: Any = self.exchange
        if not isinstance(exchange, Exchange):
            force_setattr(self, "exchange", Exchange.of(exchange))

    def own(self, lease: str) -> Queue:
        """The queue in which the worker with this lease finds what is sent here."""
        return self

    @classmethod
    def of(cls, obj: Any) -> Queue:
        """Ours, a name, a pair of name and options, or anything with kombu's attributes."""
        if isinstance(obj, Queue):
            return obj
        if isinstance(obj, str):
            return cls(obj)
        if isinstance(obj, tuple | list) and len(obj) == 2 and isinstance(obj[1], Mapping):
            return cls._from_options(str(obj[0]), obj[1])
        if isinstance(getattr(obj, "name", None), str) and hasattr(obj, "routing_key"):
            found = _same_attributes(cls, obj)
            found["routing_key"] = found.get("routing_key") or ""
            if _is_broadcast(obj):
                return Broadcast(**{**found, "name": found["alias"], "alias": None})
            return cls(**found)
        raise ImproperlyConfigured(
            f"{obj!r} is no queue: give a name, a pair of name and options, or a Queue."
        )

    @classmethod
    def _from_options(cls, name: str, options: Mapping[str, Any]) -> Queue:
        given = dict(options)
        exchange_type = given.pop("exchange_type", None) or "direct"
        exchange = Exchange.of(given.pop("exchange", None), exchange_type)
        # Celery's documents called it binding key once; a queue so described is bound by its name.
        binding_key = given.pop("binding_key", None)
        routing_key = given.pop("routing_key", None) or binding_key or name
        try:
            return cls(name, exchange, routing_key, **given)
        except TypeError as exc:
            raise ImproperlyConfigured(
                f"The queue {name!r} cannot be made of {dict(options)!r}: {exc}. "
                f"The options are {', '.join(cls.__struct_fields__[1:])} and exchange_type."
            ) from exc


class Broadcast(Queue, frozen=True):
    """A queue whose messages go to every worker that takes from it: each has one of its own,
    behind the fanout exchange of this name. kombu's Broadcast is the same.

    A worker that stops takes its queue along; that of one that died goes after ``expires`` seconds
    (half an hour, and five minutes at least). Only brokers with ``Capabilities.broadcasts``."""

    broadcast: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exchange.name:
            force_setattr(self, "exchange", Exchange(self.name, "fanout"))

    def own(self, lease: str) -> Queue:
        """The queue in which the worker with this lease finds its copies."""
        same = {name: getattr(self, name) for name in self.__struct_fields__}
        same["name"] = f"bcast.{self.name}.{lease}"
        same["auto_delete"] = False  # between two claims nobody consumes
        same["expires"] = max(self.expires or OWN_KEPT, _OWN_KEPT_LEAST)
        return Queue(**same)


def _is_broadcast(obj: Any) -> bool:
    """Is it kombu's Broadcast, with a queue of its own? Its name is then made up anew in every
    process; what is common to all of them is the alias."""
    named = any(cls.__name__ == "Broadcast" for cls in type(obj).__mro__)
    return named and bool(getattr(obj, "alias", None)) and _UNIQUE.search(obj.name) is not None


def _same_attributes(cls: type[Struct], obj: Any) -> dict[str, Any]:
    return {name: getattr(obj, name) for name in cls.__struct_fields__ if hasattr(obj, name)}


class Queues(dict[str, Queue]):
    """The queues of an application by name. Looking one up by ``[]`` makes it, if
    ``task_create_missing_queues`` allows; else it raises QueueNotFound.

    ``configured`` are those that a worker takes from when it is told nothing else.
    """

    def __init__(self, conf: Settings) -> None:
        super().__init__()
        self.create_missing = conf.task_create_missing_queues
        self.missing_type = conf.task_create_missing_queue_type
        self.missing_exchange_type = conf.task_create_missing_queue_exchange_type or "direct"
        self.max_priority = conf.task_queue_max_priority
        self.default_exchange = Exchange(
            conf.task_default_exchange, conf.task_default_exchange_type
        )
        self.default_routing_key = conf.task_default_routing_key
        self._aliases: dict[str, str] = {}
        for queue in self._from_conf(conf):
            self.add(queue)
        self.configured: tuple[str, ...] = tuple(self)

    def _from_conf(self, conf: Settings) -> Iterator[Queue]:
        given = conf.task_queues
        if not given:
            kind = conf.task_default_queue_type
            arguments = None if kind == "classic" else {"x-queue-type": kind}
            yield Queue(conf.task_default_queue, queue_arguments=arguments)
        elif isinstance(given, Mapping):
            for pair in given.items():
                yield Queue.of(pair if isinstance(pair[1], Mapping) else pair[1] or pair[0])
        else:
            for queue in given:
                yield Queue.of(queue)

    def add(self, obj: Any) -> Queue:
        """Add a queue (whatever ``Queue.of`` takes), completed by the defaults."""
        given = Queue.of(obj)
        arguments = given.queue_arguments
        if self.max_priority is not None and "x-max-priority" not in (arguments or {}):
            arguments = {**(arguments or {}), "x-max-priority": self.max_priority}
        queue = replace(
            given,
            exchange=given.exchange if given.exchange.name else self.default_exchange,
            routing_key=given.routing_key or self.default_routing_key,
            queue_arguments=arguments,
        )
        self[queue.name] = queue
        if queue.alias:
            self._aliases[queue.alias] = queue.name
        return queue

    def __missing__(self, name: str) -> Queue:
        if name in self._aliases:
            return self[self._aliases[name]]
        if not self.create_missing:
            raise QueueNotFound(
                f"The queue {name!r} is not among task_queues ({', '.join(self) or 'none'}), and "
                "task_create_missing_queues is off. Add it there, or turn that on."
            )
        arguments = None if self.missing_type == "classic" else {"x-queue-type": self.missing_type}
        exchange = Exchange(name, self.missing_exchange_type)
        return self.add(Queue(name, exchange, name, queue_arguments=arguments))

    def bound(self, exchange: str, routing_key: str) -> str | None:
        """The name of the queue that a message with this exchange and key ends up in: the one of
        the key's name if it is bound so, else the first. Where AMQP would copy the message into
        several queues (topic, fanout), a broker without exchanges puts it into one."""
        if not exchange:  # AMQP's default exchange: the key is the queue
            return routing_key
        matching = [
            name for name, queue in list(self.items()) if _is_bound(queue, exchange, routing_key)
        ]
        if routing_key in matching:
            return routing_key
        return matching[0] if matching else None


def _is_bound(queue: Queue, exchange: str, routing_key: str) -> bool:
    if queue.exchange.name != exchange:
        return False
    if queue.exchange.type == "fanout":
        return True
    if queue.exchange.type == "topic":
        return topic_matches(queue.routing_key, routing_key)
    return queue.routing_key == routing_key


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic exchange hands the key on to the binding: words divided by dots, ``*`` is
    one word, ``#`` any number (AMQP 0-9-1, 3.1.3.3)."""
    words, keys = pattern.split("."), routing_key.split(".")
    # reach: how many of the key's words the pattern's words so far can have used up.
    reach = {0}
    for word in words:
        if word == "#":
            reach = set(range(min(reach), len(keys) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(keys) and (word == "*" or word == keys[at])}
        if not reach:
            return False
    return len(keys) in reach


def parse_queue_weights(texts: Iterable[str]) -> dict[str, int]:
    """``["a", "b=3"]`` or ``["a,b=3"]`` as ``{"a": 1, "b": 3}``, in the order given: what
    ``worker -Q`` takes. A weight says how often a queue's turn comes."""
    weights: dict[str, int] = {}
    for text in texts:
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, weight = part.rpartition("=") if "=" in part else (part, "", "1")
            name, weight = name.strip(), weight.strip()
            if not name or not weight.isdecimal() or int(weight) < 1:
                raise ImproperlyConfigured(
                    f"{part!r} is no queue with a weight: write the queue's name, or name=3 with a "
                    "whole number from 1 on."
                )
            if weights.get(name, int(weight)) != int(weight):
                raise ImproperlyConfigured(f"The queue {name!r} is given two weights.")
            weights[name] = int(weight)
    return weights
