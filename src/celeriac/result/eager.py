"""The result of a call that was run in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from celeriac import states
from celeriac.result.async_result import AsyncResult

if TYPE_CHECKING:
    from celeriac.app import Celeriac

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a call that was run in place."""

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        app: Celeriac | None = None,
    ) -> None:
        super().__init__(id, task_name=name, app=app)
        self._meta = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "name": name,
        }

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, **kwargs: Any
    ) -> R:
        if propagate and self.parent is not None and self.failed():
            self._raise_of_parents()
        return cast(R, self._conclude(propagate))

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        return cast(R, self._conclude(propagate))

    def _conclude(self, propagate: bool) -> Any:
        # Of a task that was ignored or rejected there is no value, though there is an exception.
        ended = self.state in states.READY_STATES
        return super()._conclude(propagate) if ended else None

    def ready(self) -> bool:
        return True

    @property
    def supports_native_join(self) -> bool:
        return False

    def forget(self) -> None:
        return None

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        self._meta = {**(self._meta or {}), "status": states.REVOKED}

    def __reduce__(self) -> Any:
        meta = self._meta or {}
        args = (self.id, self.result, self.state, meta.get("traceback"), meta.get("name"))
        return EagerResult, args
