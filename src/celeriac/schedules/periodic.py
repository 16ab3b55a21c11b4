"""``app.add_periodic_task``: from a task or signature to an entry of ``beat_schedule``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["ENTRY_OPTIONS", "periodic_entry"]

ENTRY_OPTIONS = (
    "catch_up",
    "catch_up_window",
    "overlap",
    "expires",
    "jitter",
    "start",
    "end",
    "timezone",
)
"""What an entry may say besides Celery's task, schedule, args, kwargs, options and relative."""

# As with Celery, ``expires`` is a calling option here: it counts from the moment of sending.
_OF_ENTRY = frozenset((*ENTRY_OPTIONS, "relative")) - {"expires"}


def periodic_entry(
    schedule: Any,
    sig: Any,
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    name: str | None,
    opts: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """The entry's name and what it holds."""
    if not hasattr(sig, "options"):  # a task, not a signature of it
        sig = sig.s()
    entry = {
        "task": sig.task,
        "schedule": schedule,
        "args": (*args, *sig.args),
        "kwargs": {**sig.kwargs, **(kwargs or {})},
        "options": {
            **sig.options,
            **{key: value for key, value in opts.items() if key not in _OF_ENTRY},
        },
        **{key: value for key, value in opts.items() if key in _OF_ENTRY},
    }
    return name or repr(sig), entry
