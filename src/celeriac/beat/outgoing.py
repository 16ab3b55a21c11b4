"""From an entry to messages on their way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.message import Message
from celeriac.task import Task

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["HEADER", "BeatLazyFunc", "evaluated", "message_of", "publish", "send_now"]

HEADER = "celery_beat_task"


class BeatLazyFunc:
    """An argument of an entry that is worked out anew for each run."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        return self._func(*self._args, **self._kwargs)


def evaluated(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments, with those that are lazy worked out."""
    return (
        tuple(one() if isinstance(one, BeatLazyFunc) else one for one in args or ()),
        {k: one() if isinstance(one, BeatLazyFunc) else one for k, one in (kwargs or {}).items()},
    )


def marked(options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Calling options with the headers that a message from beat has."""
    return {**options, "headers": {**(options.get("headers") or {}), HEADER: True, **more}}


def send_now(
    app: Celeriac,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """Send one call as beat does, by the task's own ``apply_async`` if it is known here."""
    task = app.tasks.get(name)
    options = marked(options)
    if task is not None:
        return task.apply_async(args, dict(kwargs), **options)
    return app.send_task(name, args, kwargs, **options)


def message_of(
    app: Celeriac,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Message | None:
    """The message of one call, not sent yet. None if the task's class has an ``apply_async`` of
    its own, which has sent it by now."""
    task = app.tasks.get(name)
    if task is not None and type(task).apply_async is not Task.apply_async:
        task.apply_async(args, dict(kwargs), **options)
        return None
    message: Message = app.sender.message(name, args, kwargs, options, task)
    return message


def publish(app: Celeriac, messages: Sequence[Message]) -> None:
    """In one round trip. Raises OperationalError, and nothing is sent then."""
    if not messages:
        return
    app.producer.publish(messages)
    if signals.after_task_publish.receivers:
        for message in messages:
            app.dispatcher.tell_published(message)
