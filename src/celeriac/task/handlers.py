"""What subclasses of Task may write to take part in a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.execution import ExceptionInfo


class Handlers:
    """All of them, doing nothing. Where a task has none of its own, none is called."""

    def on_bound(self, app: Celeriac) -> None:
        """Called when the task is bound to its application; for subclasses."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the task runs, in its process; an error fails the task."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after the task returned."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo
    ) -> None:
        """Called after the task failed."""

    def on_retry(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo
    ) -> None:
        """Called when the task is to be retried."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Any,
        kwargs: Any,
        einfo: ExceptionInfo | None,
    ) -> None:
        """Called last, whatever happened."""

    def shadow_name(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """Another name for this call in logs; for subclasses."""
        return None
