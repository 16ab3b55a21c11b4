"""Results as they are written into messages and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.result.async_result import AsyncResult
from celeriac.result.groups import GroupResult

if TYPE_CHECKING:
    from celeriac.app import Celeriac


def result_from_tuple(value: Any, app: Celeriac | None = None) -> Any:
    """The result that ``as_tuple`` wrote."""
    if isinstance(value, AsyncResult | GroupResult):
        return value
    head, members = value
    id, parent = head if isinstance(head, list | tuple) else (head, None)
    above = result_from_tuple(parent, app) if parent else None
    if members is not None:
        return GroupResult(id, [result_from_tuple(one, app) for one in members], above, app)
    made: AsyncResult[Any] = AsyncResult(id, app=app, parent=above)
    return made
