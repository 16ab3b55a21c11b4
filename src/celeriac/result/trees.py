"""Results of workflows: what belongs to one, and reading or cancelling all of it.

A result of several (``_members``) is a set or a group; a result of one task has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.result.ending import note_end

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.result.async_result import AsyncResult


def oldest(result: Any) -> Any:
    """The first of those that lead to this result; itself, if none does."""
    while result.parent is not None:
        result = result.parent
    return result


def leaves(results: Iterable[Any]) -> list[AsyncResult[Any]]:
    """The results of tasks, those of groups inside among them."""
    found: list[AsyncResult[Any]] = []
    for result in results:
        if result._members is not None:
            found += leaves(result._members)
        else:
            found.append(result)
    return found


def tree(results: Iterable[Any]) -> list[AsyncResult[Any]]:
    """The results of all tasks of the workflows that end with these."""
    found: dict[str, AsyncResult[Any]] = {}
    waiting = list(results)
    while waiting:
        result = waiting.pop()
        parent = getattr(result, "parent", None)
        if parent is not None:
            waiting.append(parent)
        if result._members is not None:
            waiting.extend(result._members)
        else:
            found.setdefault(result.id, result)
    return list(found.values())


def refresh(nodes: Sequence[AsyncResult[Any]], app: Celeriac) -> None:
    """Read those that have not ended, in one round trip."""
    open_ones = [one for one in nodes if one._meta is None and not one.ignored]
    if open_ones:
        records = app.results_or_raise().get([result.id for result in open_ones])
        for result, record in zip(open_ones, records, strict=True):
            if record is not None and record.ready:
                note_end(result, app.records.read(record))


def revoke(results: Iterable[Any], app: Celeriac, terminate: bool, signal: str | None) -> None:
    """Cancel all tasks of the workflows that end with these and have not ended themselves."""
    nodes = tree(results)
    if len(nodes) > 1 and app.backend_url is not None:
        refresh(nodes, app)
        nodes = [node for node in nodes if node._meta is None]
    # From the end: what a task is about to send is cancelled before the task is.
    app.revoke([node.id for node in nodes], terminate=terminate, signal=signal or "SIGTERM")


def value_of(result: Any, propagate: bool) -> Any:
    """What it has come to; of a group, the list. Raises what the task raised."""
    if result._members is not None:
        return [value_of(one, propagate) for one in result._members]
    return result._conclude(propagate)
