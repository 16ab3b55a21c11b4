"""Eager mode: a call is run in place, its retries at once, then its callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac import states
from celeriac.canvas.signature import maybe_signature
from celeriac.errbacks import call_errback
from celeriac.exceptions import Retry
from celeriac.execution import Outcome, execute
from celeriac.request import Request, current_request
from celeriac.result import EagerResult
from celeriac.storing import store_outcome


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
    described = {**options, "link": _listed(link), "link_error": _listed(link_error)}
    while True:
        request = _eager_request(task, args, kwargs, task_id, retries, described)
        outcome = execute(task, request)
        again = outcome.exc.sig if isinstance(outcome.exc, Retry) else None
        if again is None:
            break
        retries += 1
        args, kwargs = tuple(again.args), again.kwargs
    if task.store_eager_result and not task.ignore_result:
        store_outcome(task.app, request, outcome)
    if outcome.state == states.SUCCESS:
        for follower in described["link"]:
            _follow(task, request, follower, outcome.value)
    elif outcome.state == states.FAILURE:
        for errback in described["link_error"]:
            _call_errback(task, request, errback, outcome)
        if throw and outcome.exc is not None:
            raise outcome.exc
    trace = outcome.einfo.traceback if outcome.einfo is not None else None
    return EagerResult(task_id, outcome.value, outcome.state, traceback=trace, name=task.name)


def _eager_request(
    task: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    task_id: str,
    retries: int,
    options: Mapping[str, Any],
) -> Request:
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
        callbacks=options["link"],
        errbacks=options["link_error"],
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
    return request


def _follow(task: Any, request: Request, described: Any, value: Any) -> None:
    maybe_signature(described, app=task.app, clone=True).apply(
        (value,), root_id=request.root_id, parent_id=request.id
    )


def _call_errback(task: Any, request: Request, described: Any, outcome: Outcome) -> None:
    errback = maybe_signature(described, app=task.app, clone=True)
    trace = outcome.einfo.traceback if outcome.einfo is not None else None
    assert outcome.exc is not None
    call_errback(request, errback, outcome.exc, trace)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
