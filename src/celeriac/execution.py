"""Running one call of a task, the same way in a worker and in eager mode.

``execute`` and ``execute_async`` call the function between its handlers and signals and say what
came out, as an Outcome. They store nothing and send nothing: that is the caller's.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
import traceback as tb
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import signals, states
from celeriac.coroutines import close_loop, run_coroutine
from celeriac.exceptions import (
    Ignore,
    Reject,
    Retry,
    WorkerShutdown,
    WorkerTerminate,
)
from celeriac.request import Request, current_request, pop, push

if TYPE_CHECKING:
    import asyncio

    from celeriac.message import Settlement
    from celeriac.task import Task

    Write = Callable[[Any, Any, Request, "Outcome"], Settlement]
    """Of delivery, task, request and outcome."""

logger = logging.getLogger("celeriac.execution")

# Tracebacks begin after these: what is between the worker and the task's own function.
_OWN_FILES = frozenset(
    os.path.join(os.path.dirname(__file__), *name.split("/"))
    for name in (
        "coroutines.py",
        "execution.py",
        "task/base.py",
        "task/retrying.py",
        "validation.py",
    )
)


class ExceptionInfo:
    """What handlers are given as ``einfo``; the text is made when it is asked for."""

    def __init__(self, exc: BaseException) -> None:
        self.exception = exc
        self.type = type(exc)
        self.exc_info = (type(exc), exc, exc.__traceback__)
        self._text: str | None = None

    @property
    def tb(self) -> Any:
        return self.exception.__traceback__

    @property
    def traceback(self) -> str:
        """The traceback as text, from the task's own first line on."""
        if self._text is None:
            start = self.exception.__traceback__
            while start is not None and start.tb_frame.f_code.co_filename in _OWN_FILES:
                start = start.tb_next
            self._text = "".join(tb.format_exception(self.type, self.exception, start))
        return self._text

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class Replaced(Exception):
    """Raised in a call that is run in place: another was run instead of it, with this ``value``."""

    def __init__(self, value: Any) -> None:
        super().__init__("Replaced by another task")
        self.value = value


class Outcome:
    """What came of a run. ``state``: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED."""

    __slots__ = ("einfo", "exc", "runtime", "settlement", "state", "value")

    def __init__(self, state: str, value: Any = None, exc: BaseException | None = None) -> None:
        self.state = state
        self.value = value
        self.exc = exc
        self.einfo: ExceptionInfo | None = None
        self.runtime = 0.0
        self.settlement: Settlement | None = None  # of a success, which is written at once


def prepare(task: Task[Any, Any]) -> None:
    """Note once which hooks a task has, so that a run does not look for them."""
    from celeriac.task import Task as Base

    cls = type(task)
    task.is_async = inspect.iscoroutinefunction(task.run)
    hooks = {
        hook: getattr(cls, hook) is not getattr(Base, hook)
        for hook in ("before_start", "on_success", "on_failure", "on_retry", "after_return")
    }
    task._own_call = cls.__call__ is not Base.__call__
    call = task if cls.__call__ is not Base.__call__ else task.run
    task._hooks = hooks
    task._call = call
    task._plain = not (any(hooks.values()) or task.is_async)


def execute(task: Any, request: Request, write: Write | None = None) -> Outcome:
    """Run the call that ``request`` describes in this thread. A success that ``write`` cannot write
    is a failure, before anybody is told."""
    request._task = task
    request._outer = current_request()
    request._entering = task._own_call
    token = push(request)
    started = time.perf_counter()
    try:
        try:
            if not task._plain or signals.task_prerun.receivers:
                _before(task, request)
            value = task._call(*request.args, **request.kwargs)
            if task.is_async or inspect.iscoroutine(value):
                value = run_coroutine(value)
            outcome = Outcome(states.SUCCESS, value)
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if request.is_eager and not isinstance(exc, Exception):
                raise  # in place, it is the caller's: SystemExit, pytest's Skipped
            if isinstance(exc, Replaced):
                outcome = Outcome(states.SUCCESS, exc.value)
            else:
                outcome = _outcome_of(task, exc)
        outcome.runtime = time.perf_counter() - started
        if write is not None and outcome.exc is None:
            try:
                outcome.settlement = write(request._delivery, task, request, outcome)
            except Exception as exc:
                outcome = _unwritten(outcome, exc)
        if not task._plain or outcome.exc is not None or _watched():
            _after(task, request, outcome)
        return outcome
    finally:
        pop(token)


async def execute_async(task: Any, request: Request, write: Write | None = None) -> Outcome:
    """The same inside a running event loop; a function that is not async runs in a thread."""
    import asyncio

    request._task = task
    request._outer = current_request()
    request._entering = task._own_call
    token = push(request)
    started = time.perf_counter()
    try:
        try:
            _before(task, request)
            if task.is_async:
                value = await task._call(*request.args, **request.kwargs)
            else:
                value = await asyncio.to_thread(task._call, *request.args, **request.kwargs)
                if inspect.iscoroutine(value):
                    value = await value
            outcome = Outcome(states.SUCCESS, value)
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except asyncio.CancelledError as exc:
            outcome = _outcome_of(task, _ended_by(request, exc))
        except BaseException as exc:
            outcome = _outcome_of(task, exc)
        outcome.runtime = time.perf_counter() - started
        if write is not None and outcome.exc is None:
            try:
                outcome.settlement = write(request._delivery, task, request, outcome)
            except Exception as exc:
                outcome = _unwritten(outcome, exc)
        _after(task, request, outcome)
        return outcome
    finally:
        pop(token)


def _unwritten(outcome: Outcome, exc: Exception) -> Outcome:
    """A success that cannot be written, or that what follows cannot be sent of."""
    failed = Outcome(states.FAILURE, exc, exc)
    failed.runtime = outcome.runtime
    return failed


def _ended_by(request: Request, exc: asyncio.CancelledError) -> BaseException:
    """What ended a coroutine: its soft time limit, or itself. Raises if it is cancelled."""
    import asyncio

    current = asyncio.current_task()
    if current is not None and current.cancelling():
        if request._over_limit is None:
            raise exc
        return request._over_limit
    return exc


def _watched() -> bool:
    return bool(signals.task_success.receivers or signals.task_postrun.receivers)


def _before(task: Any, request: Request) -> None:
    if signals.task_prerun.receivers:
        signals.task_prerun.send(
            sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs
        )
    if task._hooks["before_start"]:
        task.before_start(request.id, request.args, request.kwargs)


def _outcome_of(task: Any, exc: BaseException) -> Outcome:
    """What an exception means: the predicates, an automatic retry, or a failure."""
    try:
        task.autoretry(exc)
    except Retry as retry:
        exc = retry
    except BaseException as final:  # all tries are used up: usually exc itself
        exc = final
    if isinstance(exc, Retry):
        return Outcome(states.RETRY, exc, exc)
    if isinstance(exc, Ignore):
        return Outcome(states.IGNORED, exc, exc)
    if isinstance(exc, Reject):
        return Outcome(states.REJECTED, exc, exc)
    return Outcome(states.FAILURE, exc, exc)


def _after(task: Any, request: Request, outcome: Outcome) -> None:
    """Handlers and signals. What they raise is logged: the outcome stands."""
    report = _REPORTS.get(outcome.state)
    if report is not None:
        report(task, request, outcome)
        if task._hooks["after_return"] and outcome.state != states.RETRY:  # as in Celery
            _call_handler(
                task, request, "after_return", outcome.state, outcome.value, outcome.einfo
            )
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=task,
            task_id=request.id,
            task=task,
            args=request.args,
            kwargs=request.kwargs,
            retval=outcome.value,
            state=outcome.state,
        )


def _call_handler(task: Any, request: Request, name: str, *outcome: Any) -> None:
    """``handler(…what came out, task_id, args, kwargs[, einfo])``."""
    call = request.id, request.args, request.kwargs
    arguments = (*outcome[:-1], *call, outcome[-1]) if name != "on_success" else (*outcome, *call)
    try:
        getattr(task, name)(*arguments)
    except Exception:
        logger.exception("%s of task %s[%s] failed", name, task.name, request.id)


def _report_success(task: Any, request: Request, outcome: Outcome) -> None:
    if task._hooks["on_success"]:
        _call_handler(task, request, "on_success", outcome.value)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=outcome.value, runtime=outcome.runtime)


def _report_failure(task: Any, request: Request, outcome: Outcome) -> None:
    assert outcome.exc is not None
    outcome.einfo = ExceptionInfo(outcome.exc)
    if task._hooks["on_failure"]:
        _call_handler(task, request, "on_failure", outcome.exc, outcome.einfo)
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=task,
            task_id=request.id,
            exception=outcome.exc,
            args=request.args,
            kwargs=request.kwargs,
            traceback=outcome.exc.__traceback__,
            einfo=outcome.einfo,
        )


def _report_retry(task: Any, request: Request, outcome: Outcome) -> None:
    retry = outcome.exc
    assert isinstance(retry, Retry)
    cause = retry.exc if retry.exc is not None else retry
    outcome.einfo = ExceptionInfo(cause)
    if task._hooks["on_retry"]:
        _call_handler(task, request, "on_retry", cause, outcome.einfo)
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=request, reason=retry, einfo=outcome.einfo)


_REPORTS = {
    states.SUCCESS: _report_success,
    states.FAILURE: _report_failure,
    states.RETRY: _report_retry,
}


__all__ = [
    "ExceptionInfo",
    "Outcome",
    "Replaced",
    "close_loop",
    "execute",
    "execute_async",
    "run_coroutine",
]
