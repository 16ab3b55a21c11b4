"""What is to be called when it is known that tasks have ended (``then``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Callback = Callable[[Any], object]
Waiting = tuple[Callback, Callback | None]


def note_end(result: Any, meta: Mapping[str, Any]) -> None:
    """The task has ended, with this document; whoever asked for that is called."""
    result._meta = meta
    waiting, result._waiting = result._waiting, ()
    for callback, on_error in waiting:
        call(result, callback, on_error)


def call(result: Any, callback: Callback, on_error: Callback | None) -> None:
    """Call back; what that raises goes to ``on_error``, or to whoever reads the result."""
    try:
        callback(result)
    except Exception as exc:
        if on_error is None:
            raise
        on_error(exc)


def when_all_ended(
    whole: Any, tasks: Sequence[Any], callback: Callback, on_error: Callback | None
) -> None:
    """Call back with ``whole`` when the last of these tasks has ended."""
    open_ones = [one for one in tasks if one._meta is None and not one.ignored]
    left = {id(one) for one in open_ones}
    if not left:
        call(whole, callback, on_error)

    def ended(one: Any) -> None:
        left.discard(id(one))
        if not left:
            call(whole, callback, on_error)

    for one in open_ones:
        one._waiting = (*one._waiting, (ended, None))
