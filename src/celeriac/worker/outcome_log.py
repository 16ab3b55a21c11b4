"""The line of the log about a task that has ended."""

from __future__ import annotations

import logging
from typing import Any

from celeriac import states
from celeriac.execution import Outcome
from celeriac.protocol.saferepr import saferepr
from celeriac.request import Request

__all__ = ["log_outcome"]

logger = logging.getLogger("celeriac.worker.task")


def log_outcome(task: Any, request: Request, outcome: Outcome) -> None:
    name = request.shadow or task.name
    context = {"task_id": request.id, "task_name": name}
    state = outcome.state
    if state == states.SUCCESS:
        shown = saferepr(outcome.value, task.resultrepr_maxsize)
        logger.info(
            "Task %s[%s] succeeded in %.6fs: %s",
            name,
            request.id,
            outcome.runtime,
            shown,
            extra=context,
        )
    elif state == states.RETRY:
        logger.info("Task %s[%s] retry: %s", name, request.id, outcome.exc, extra=context)
    elif state == states.IGNORED:
        logger.info("Task %s[%s] ignored", name, request.id, extra=context)
    elif state == states.REJECTED:
        logger.warning("Task %s[%s] rejected: %r", name, request.id, outcome.exc, extra=context)
    elif task.throws and isinstance(outcome.exc, tuple(task.throws)):
        logger.info("Task %s[%s] raised expected: %r", name, request.id, outcome.exc, extra=context)
    else:
        trace = outcome.einfo.traceback if outcome.einfo is not None else ""
        logger.error(
            "Task %s[%s] raised unexpected: %r\n%s",
            name,
            request.id,
            outcome.exc,
            trace,
            extra=context,
        )
