"""The tasks that every worker has, under Celery's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app import Celeriac


def add_to(app: Celeriac) -> None:
    """Register them with the application."""

    def backend_cleanup() -> None:
        """Remove what has expired from the result backend."""
        results = app.producer.results
        if results is not None:
            results.purge()

    def accumulate(*args: Any, **kwargs: Any) -> Any:
        """Return the arguments; ends a replaced group."""
        index = kwargs.get("index")
        return args[index] if index is not None else args

    for function in (backend_cleanup, accumulate):
        app._task_from_function(function, name=f"celery.{function.__name__}")
