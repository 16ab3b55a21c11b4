"""Running one call of a task, the same way in a worker and in eager mode.

``execute`` and ``execute_async`` call the function between its handlers and signals and say what
came out, as an Outcome. They store nothing and send nothing: that is the caller's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
import traceback as tb
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from celeriac import signals, states
from celeriac.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)
from celeriac.request import Request, current_request, pop, push

if TYPE_CHECKING:
    from celeriac.result import EagerResult
    from celeriac.task import Task

logger = logging.getLogger("celeriac.execution")

_OWN_FILES = frozenset({__file__})


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


class Outcome:
    """What came of a run. ``state``: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED."""

    __slots__ = ("einfo", "exc", "runtime", "state", "value")

    def __init__(self, state: str, value: Any = None, exc: BaseException | None = None) -> None:
        self.state = state
        self.value = value
        self.exc = exc
        self.einfo: ExceptionInfo | None = None
        self.runtime = 0.0


def prepare(task: Task[Any, Any]) -> None:
    """Note once which hooks a task has, so that a run does not look for them."""
    from celeriac.task import Task as Base

    cls = type(task)
    task.is_async = inspect.iscoroutinefunction(task.run)
    hooks = {
        hook: getattr(cls, hook) is not getattr(Base, hook)
        for hook in ("before_start", "on_success", "on_failure", "on_retry", "after_return")
    }
    call = task.run if cls.__call__ is Base.__call__ else task
    task._hooks = hooks  # type: ignore[attr-defined]
    task._call = call  # type: ignore[attr-defined]
    task._plain = not (  # type: ignore[attr-defined]
        any(hooks.values()) or task.is_async
    )


def execute(task: Any, request: Request) -> Outcome:
    """Run the call that ``request`` describes in this thread."""
    request._task = task
    request._outer = current_request()
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
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException as exc:
            outcome = _outcome_of(task, exc)
        outcome.runtime = time.perf_counter() - started
        if not task._plain or outcome.exc is not None or _watched():
            _after(task, request, outcome)
        return outcome
    finally:
        pop(token)


async def execute_async(task: Any, request: Request) -> Outcome:
    """The same inside a running event loop; a function that is not async runs in a thread."""
    request._task = task
    request._outer = current_request()
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
        except (WorkerShutdown, WorkerTerminate, asyncio.CancelledError):
            raise
        except BaseException as exc:
            outcome = _outcome_of(task, exc)
        outcome.runtime = time.perf_counter() - started
        _after(task, request, outcome)
        return outcome
    finally:
        pop(token)


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
    except Exception as final:  # all tries are used up: usually exc itself
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
    try:
        report = _REPORTS.get(outcome.state)
        if report is not None:
            report(task, request, outcome)
        if outcome.state in (states.IGNORED, states.REJECTED):
            return
        if task._hooks["after_return"]:
            task.after_return(
                outcome.state,
                outcome.value,
                request.id,
                request.args,
                request.kwargs,
                outcome.einfo,
            )
    except Exception:
        logger.exception("A handler of task %s[%s] failed", task.name, request.id)
    finally:
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


def _report_success(task: Any, request: Request, outcome: Outcome) -> None:
    if task._hooks["on_success"]:
        task.on_success(outcome.value, request.id, request.args, request.kwargs)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=outcome.value, runtime=outcome.runtime)


def _report_failure(task: Any, request: Request, outcome: Outcome) -> None:
    assert outcome.exc is not None
    outcome.einfo = ExceptionInfo(outcome.exc)
    if task._hooks["on_failure"]:
        task.on_failure(outcome.exc, request.id, request.args, request.kwargs, outcome.einfo)
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
    outcome.einfo = ExceptionInfo(retry.exc if retry.exc is not None else retry)
    if task._hooks["on_retry"]:
        task.on_retry(
            retry.exc if retry.exc is not None else retry,
            request.id,
            request.args,
            request.kwargs,
            outcome.einfo,
        )
    if signals.task_retry.receivers:
        signals.task_retry.send(
            sender=task, request=request, reason=retry, einfo=outcome.einfo
        )


_REPORTS = {
    states.SUCCESS: _report_success,
    states.FAILURE: _report_failure,
    states.RETRY: _report_retry,
}


# --- coroutines in synchronous pools -----------------------------------------------------------

_loops = threading.local()


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it on this thread's own event loop, which is kept, so that clients opened by one task
    serve the next. Inside a running loop (eager mode in async code) a helper thread runs it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return _in_helper_thread(coroutine)
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is None:
        runner = _loops.runner = asyncio.Runner()
        _quiet_sigint(runner)
    return _drive(runner, coroutine)


def _quiet_sigint(runner: asyncio.Runner) -> None:
    runner.get_loop()


def _drive(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As Runner.run, but an exception that a signal raises in the loop (a soft time limit)
    cancels the coroutine and comes out as itself."""
    loop = runner.get_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except SoftTimeLimitExceeded as limit:
        if not task.done():
            task.cancel(str(limit))
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise limit from None
        raise


def _in_helper_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import contextvars

    box: list[Any] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.append((True, context.run(asyncio.run, coroutine)))
        except BaseException as exc:
            box.append((False, exc))

    thread = threading.Thread(target=work, name="celeriac-eager", daemon=True)
    thread.start()
    thread.join()
    fine, value = box[0]
    if not fine:
        raise value
    return value


# --- eager mode ---------------------------------------------------------------------------------


def apply(
    task: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    task_id: str,
    retries: int,
    throw: bool,
    link: Any,
    link_error: Any,
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run the call here, its retries at once, then its callbacks."""
    from celeriac.canvas.signature import maybe_signature
    from celeriac.result import EagerResult

    outer = current_request()
    headers = dict(options.get("headers") or {})
    request = Request(
        headers,
        id=task_id,
        task=task.name,
        args=args,
        kwargs=dict(kwargs),
        retries=retries,
        is_eager=True,
        called_directly=False,
        callbacks=_listed(link),
        errbacks=_listed(link_error),
        root_id=options.get("root_id") or (outer.root_id if outer is not None else None) or task_id,
        parent_id=options.get("parent_id") or (outer.id if outer is not None else None),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        ignore_result=options.get("ignore_result", False),
        shadow=options.get("shadow"),
        hostname=task.app.node_name,
        timelimit=(options.get("time_limit"), options.get("soft_time_limit")),
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
            "redelivered": False,
        },
    )
    request.headers = headers
    outcome = execute(task, request)
    retry = outcome.exc
    if isinstance(retry, Retry) and retry.sig is not None:
        again = retry.sig
        return again.type.apply(  # type: ignore[no-any-return]
            again.args,
            again.kwargs,
            task_id=task_id,
            retries=retries + 1,
            throw=throw,
            link=link,
            link_error=link_error,
            headers=headers,
        )
    followers = {states.SUCCESS: link, states.FAILURE: link_error}.get(outcome.state)
    given = outcome.value if outcome.state == states.SUCCESS else task_id
    for follower in _listed(followers):
        maybe_signature(follower, app=task.app).apply((given,))
    if throw and outcome.state == states.FAILURE and outcome.exc is not None:
        raise outcome.exc
    trace = outcome.einfo.traceback if outcome.einfo is not None else None
    result: EagerResult[Any] = EagerResult(
        task_id, outcome.value, outcome.state, traceback=trace, name=task.name
    )
    if task.store_eager_result and not task.ignore_result:
        task.app._store_outcome(request, outcome)
    return result


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


__all__ = ["ExceptionInfo", "Outcome", "apply", "execute", "execute_async", "run_coroutine", "sys"]
