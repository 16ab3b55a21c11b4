"""The setting ``task_routes``: all its forms, as functions to ask in turn."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any, TypeAlias

from celeriac.exceptions import ImproperlyConfigured

Finder: TypeAlias = Callable[
    [str, Sequence[Any], Mapping[str, Any], Mapping[str, Any], Any], Mapping[str, Any] | None
]


def prepare(routes: Any) -> tuple[list[Finder], bool]:
    """The setting ``task_routes`` as functions to ask in turn, and whether none of them is the
    application's own."""
    if routes is None or routes == {}:
        return [], True
    if not isinstance(routes, list | tuple):
        routes = [routes]
    finders: list[Finder] = []
    static = True
    for item in routes:
        if isinstance(item, Mapping):
            finders.append(_Table(item.items()))
        elif _is_pair(item):
            finders.append(_Table([item]))
        elif isinstance(item, list | tuple):
            finders.append(_Table(item))
        elif isinstance(item, str) or callable(item) or hasattr(item, "route_for_task"):
            finders.append(_Custom(item))
            static = False
        else:
            raise ImproperlyConfigured(
                f"task_routes cannot hold {item!r}: expected a dict, pairs, a function or its path."
            )
    return finders, static


def _is_pair(item: Any) -> bool:
    """Name or pattern, and route: not a list of two routers, whose second would be a name, too,
    but stand in a list."""
    return (
        isinstance(item, list | tuple)
        and len(item) == 2
        and isinstance(item[0], str | re.Pattern)
        and (isinstance(item[1], str | Mapping) or hasattr(item[1], "routing_key"))
    )


class _Table:
    """Names first, then patterns in the order given. A ``*`` makes a name a glob."""

    def __init__(self, pairs: Iterable[Any]) -> None:
        self.names: dict[str, Mapping[str, Any]] = {}
        self.patterns: list[tuple[re.Pattern[str], Mapping[str, Any]]] = []
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ImproperlyConfigured(
                    f"task_routes cannot hold {pair!r}: expected a pair of task name and route."
                )
            key, route = pair[0], _as_route(pair[1])
            if isinstance(key, re.Pattern):
                self.patterns.append((key, route))
            elif "*" in key:
                self.patterns.append((re.compile(translate(key)), route))
            else:
                self.names[key] = route

    def __call__(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any,
    ) -> Mapping[str, Any] | None:
        found = self.names.get(name)
        if found is not None:
            return found
        for pattern, route in self.patterns:
            if pattern.match(name):
                return route
        return None


class _Custom:
    """A function, an object or class with ``route_for_task``, or the path of such a thing, which
    is imported when the first task is routed: the module may import the application."""

    def __init__(self, router: Any) -> None:
        self.router = router
        self.ready = not isinstance(router, str | type)

    def __call__(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any,
    ) -> Mapping[str, Any] | None:
        if not self.ready:
            self._load()
        if hasattr(self.router, "route_for_task"):
            found = self.router.route_for_task(name, args, kwargs)
        else:
            found = self.router(name, args, kwargs, dict(options), task=task)
        return None if found is None else _as_route(found)

    def _load(self) -> None:
        router = self.router
        if isinstance(router, str):
            router = _symbol(router)
        if isinstance(router, type):
            router = router()
        if isinstance(router, Mapping):
            table = _Table(router.items())
            self.router = lambda name, *args, **kwargs: table(name, (), {}, {}, None)
        else:
            self.router = router
        self.ready = True


def _symbol(path: str) -> Any:
    module, _, name = path.rpartition(":") if ":" in path else path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(
            f"task_routes names the router {path!r}, which cannot be imported: {exc}. (The name of "
            "a queue stands at the right of a task's name.)"
        ) from exc


def _as_route(route: Any) -> Mapping[str, Any]:
    if isinstance(route, Mapping):
        return {key: value for key, value in route.items() if value is not None}
    if isinstance(route, str) or hasattr(route, "routing_key"):
        return {"queue": route}
    raise ImproperlyConfigured(
        f"{route!r} is no route: expected the name of a queue, or a dict of options."
    )
