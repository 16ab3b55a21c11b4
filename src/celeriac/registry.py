"""The tasks of an application, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from celeriac.exceptions import CeleriacWarning, NotRegistered


class TaskRegistry(dict[str, Any]):
    """``registry[name]`` raises NotRegistered for a name that is not there."""

    def __missing__(self, key: str) -> Any:
        raise NotRegistered(key)

    def register(self, task: Any) -> None:
        task.app.register_task(task)

    def unregister(self, name: Any) -> None:
        """Raises NotRegistered."""
        try:
            self.pop(getattr(name, "name", name))
        except KeyError:
            raise NotRegistered(name) from None

    def regular(self) -> dict[str, Any]:
        """Without those that Celeriac brings."""
        return {name: task for name, task in self.items() if not name.startswith("celery.")}

    def same(self, known: Any, function: Callable[..., Any]) -> Any:
        """The task that has the name already: the first one stays, as with Celery."""
        old = getattr(known, "__wrapped__", None)
        code = getattr(old, "__code__", None)
        if code is not None and code.co_filename != function.__code__.co_filename:
            warnings.warn(
                f"A second task is named {known.name!r} ({function.__code__.co_filename}); the "
                f"first one stays ({code.co_filename}). Give one of them another name=.",
                CeleriacWarning,
                stacklevel=4,
            )
        return known
