"""Errbacks that are called where the task failed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from celeriac.request import Request

logger = logging.getLogger("celeriac.errbacks")


def call_errback(
    request: Request, errback: Any, exc: BaseException, trace: str | None = None
) -> None:
    """Tell an errback of a failure in place, by the convention that its function asks for. What
    it raises is logged."""
    try:
        if takes_several(errback.type, len(errback.args)):
            errback(request, exc, trace)
        else:
            errback.apply((request.id,), root_id=request.root_id, parent_id=request.id)
    except Exception:
        logger.exception("The errback %s of %s[%s] failed", errback, request.task, request.id)


def takes_several(task: Any, given: int) -> bool:
    """Is this errback called with (request, exc, traceback) where the task failed, rather than
    sent with the failed id? Celery's rule: its function takes more than one argument beyond those
    ``given``; one that takes the task itself, and a task written as a class, are sent."""
    function: Callable[..., Any] | None = getattr(task, "__wrapped__", None)
    if function is None or task._takes_task:
        return False
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return True
    positional = [
        p
        for p in parameters
        if p.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional) - given > 1
