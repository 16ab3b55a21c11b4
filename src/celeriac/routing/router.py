"""From a task's name and a call's options to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac.conf import Settings
from celeriac.exceptions import ImproperlyConfigured
from celeriac.routing.queues import Exchange, Queue, Queues
from celeriac.routing.routes import prepare

_CACHE_SIZE = 10_000  # names are the application's tasks; only made-up ones could be more


class Route(Struct, frozen=True):
    """Where one message goes. ``options``: what else the route says of it (priority, …); none of
    them was given by the caller."""

    queue: str
    exchange: str = ""
    routing_key: str = ""
    options: dict[str, Any] = {}


_DESTINATION = ("queue", "exchange", "routing_key", "exchange_type")


class Router:
    """The routes of an application as its settings are now; made anew when ``conf.generation``
    has moved on from ``generation``.

    ``static``: no function is among the routes, so that a name's route never changes.
    """

    def __init__(self, conf: Settings, queues: Queues | None = None) -> None:
        self.generation = conf.generation
        self.queues = Queues(conf) if queues is None else queues
        self.default_queue = conf.task_default_queue
        self._finders, self.static = prepare(conf.task_routes)
        self._known: dict[str, Route] = {}

    def route(
        self,
        options: Mapping[str, Any],
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task: Any = None,
    ) -> Route:
        """Where a call goes. What its options say wins over the routes, one by one, as does
        ``queue`` over everything; None is not said."""
        if self.static and not _names_destination(options):
            known = self._known.get(name) or self._remember(name)
            if not known.options:
                return known
            taken = [key for key in known.options if options.get(key) is not None]
            if not taken:
                return known
            rest = {key: value for key, value in known.options.items() if key not in taken}
            return replace(known, options=rest)
        given = {key: value for key, value in options.items() if value is not None}
        found = self._find(name, args, kwargs or {}, given, task)
        return self._complete(found, given)

    def _remember(self, name: str) -> Route:
        if len(self._known) >= _CACHE_SIZE:
            self._known.clear()
        route = self._complete(self._find(name, (), {}, {}, None), {})
        self._known[name] = route
        return route

    def _find(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any,
    ) -> Mapping[str, Any]:
        for finder in self._finders:
            found = finder(name, args, kwargs, options, task)
            if found is not None:
                return found
        return {}

    def _complete(self, found: Mapping[str, Any], given: Mapping[str, Any]) -> Route:
        merged = {**found, **given}
        extra = {
            key: value
            for key, value in found.items()
            if key not in _DESTINATION and key not in given
        }
        exchange = Exchange.of(merged.get("exchange"), merged.get("exchange_type") or "direct")
        routing_key = merged.get("routing_key") or ""
        explicit = bool(routing_key) and merged.get("exchange") is not None
        if given.get("queue"):
            queue = self._queue(given["queue"])
        elif explicit and ("exchange" in given or not found.get("queue")):
            bound = self.queues.bound(exchange.name, routing_key) or routing_key
            return Route(self.queues[bound].name, exchange.name, routing_key, extra)
        else:
            queue = self._queue(merged.get("queue") or self._bound_to(exchange))
        if explicit:
            return Route(queue.name, exchange.name, routing_key, extra)
        if (merged.get("exchange_type") or queue.exchange.type) == "direct":
            # Through AMQP's default exchange, which knows every queue by its name.
            return Route(queue.name, "", queue.name, extra)
        return Route(
            queue.name,
            exchange.name or queue.exchange.name,
            routing_key or queue.routing_key,
            extra,
        )

    def _queue(self, queue: Any) -> Queue:
        """A queue given as an object need not be among the known ones."""
        return self.queues[queue] if isinstance(queue, str) else self.queues.add(queue)

    def _bound_to(self, exchange: Exchange) -> str:
        """The queue meant by an exchange alone: the default one if it is bound there, too."""
        default = self.default_queue
        if not exchange.name or self.queues[default].exchange.name == exchange.name:
            return default
        for name, queue in list(self.queues.items()):
            if queue.exchange.name == exchange.name:
                return name
        return default

    def queues_for_worker(
        self, select: Iterable[str] | None = None, exclude: Iterable[str] = ()
    ) -> list[Queue]:
        """The queues a worker takes from, in order: the selected ones (``-Q``), or those of
        ``task_queues``, without the excluded ones (``-X``)."""
        names = dict.fromkeys(select or self.queues.configured)
        chosen = [self.queues[name] for name in names]
        left_out = {self.queues[name].name for name in exclude if name in self.queues}
        left = [queue for queue in chosen if queue.name not in left_out]
        if not left:
            raise ImproperlyConfigured(
                f"No queue is left to take from: {', '.join(names)} without "
                f"{', '.join(sorted(left_out))}."
            )
        return left


def _names_destination(options: Mapping[str, Any]) -> bool:
    for key in _DESTINATION:  # noqa: SIM110 - every call comes by here, and any() is slower
        if options.get(key) is not None:
            return True
    return False
