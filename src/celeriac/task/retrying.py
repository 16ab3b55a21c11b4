"""Trying a running call again."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celeriac.retry import backoff_delay
from celeriac.sending import next_try

if TYPE_CHECKING:
    from celeriac.task.base import Task


def retry(
    task: Task[Any, Any],
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    exc: BaseException | None,
    *,
    throw: bool,
    when: datetime | float | None,
    max_retries: int | None,
    options: Mapping[str, Any],
) -> Retry:
    """``Task.retry``. ``when``: a time, or in how many seconds; None: as the task says.
    ``max_retries`` None: without end."""
    request = task.request
    if request.called_directly:
        raise_current(exc)
    retries = request.retries + 1
    if max_retries is not None and retries > max_retries:
        if exc is not None:
            raise exc
        raise MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{request.args} "
            f"kwargs:{request.kwargs}: it was retried {max_retries} times",
            task_args=request.args,
            task_kwargs=request.kwargs,
        )
    made = Retry(
        exc=exc,
        when=task.default_retry_delay if when is None else when,
        is_eager=request.is_eager,
        sig=task.signature_from_request(request, args, kwargs, retries=retries, **options),
    )
    if not request.is_eager:
        message = next_try(task.app.sender, task, request, made, args, kwargs, options)
        # Asked for twice (the Retry of the first time was caught): once is enough.
        others = [other for other in request._followups or () if other.id != message.id]
        request._followups = [*others, message]
    if throw:
        raise made
    return made


def autoretry(task: Task[Any, Any], exc: BaseException) -> None:
    """``Task.autoretry``."""
    if not task.autoretry_for or isinstance(exc, Ignore | Retry | Reject):
        return
    if not isinstance(exc, tuple(task.autoretry_for)):
        return
    if task.dont_autoretry_for and isinstance(exc, tuple(task.dont_autoretry_for)):
        return
    how = dict(task.retry_kwargs or {})
    if task.retry_backoff:
        how["countdown"] = backoff_delay(
            task.request.retries,
            factor=1.0 if task.retry_backoff is True else float(task.retry_backoff),
            maximum=float(task.retry_backoff_max),
            jitter=bool(task.retry_jitter),
            random=random.random,
        )
    task.retry(exc=exc, **how)


def raise_current(exc: BaseException | None) -> None:
    """A task called as a function cannot be retried: raise what went wrong instead."""
    current = sys.exc_info()[1]
    if current is not None and (exc is None or exc is current):
        raise current
    if exc is not None:
        raise exc
    raise Retry("Task can be retried", None)
