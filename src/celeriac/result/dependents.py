"""A result and those of all that its task has sent, and so on. Groups may be among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celeriac.exceptions import IncompleteStream


def iterdeps(result: Any, intermediate: bool) -> Iterator[tuple[Any, Any]]:
    """``(parent, result)``, level by level. Raises IncompleteStream at one that has not ended,
    unless ``intermediate``."""
    waiting: list[tuple[Any, Any]] = [(None, result)]
    for parent, node in waiting:
        yield parent, node
        if node.ready():
            waiting.extend((node, child) for child in node.children or ())
        elif not intermediate:
            raise IncompleteStream(f"{node} has not ended")


def collect(result: Any, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """``(result, value)``; waits for each with the arguments of ``get``."""
    waiting: list[Any] = [result]
    for node in waiting:
        yield node, node.get(**kwargs)
        waiting.extend(node.children or ())


def leaf_of(result: Any) -> Any:
    """The value of the last one."""
    value = None
    for _, node in iterdeps(result, intermediate=False):
        value = node.get()
    return value


def graph_of(result: Any, intermediate: bool) -> dict[Any, list[Any]]:
    """Each with those that its task has sent."""
    graph: dict[Any, list[Any]] = {}
    for parent, node in iterdeps(result, intermediate):
        graph.setdefault(node, [])
        if parent is not None:
            graph[parent].append(node)
    return graph
