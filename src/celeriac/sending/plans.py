"""Plans: what is the same for all calls of a task with the same options is worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.message import Message
from celeriac.protocol import task as wire
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.template import header_template
from celeriac.request import running_request
from celeriac.sending.options import OPTIONS, VARYING, check_priority
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.sending.sender import Sender


class Plan(NamedTuple):
    """What is the same for all calls of a task with the same options."""

    write: Any  # header_template
    route: Any
    priority: int | None
    serializer: str
    compression: str | None
    delivery_mode: int
    reply_to: str
    inherit_priority: bool


def plan_of(sender: Sender, task: Any, options: Mapping[str, Any]) -> Plan | None:
    """A plan for calls of the task with these options; None if each needs its own look."""
    if not options:
        if task._plan is not None and task._plan[0] is sender:
            return task._plan[1]  # type: ignore[no-any-return]
        made = _make_plan(sender, task, options)
        task._plan = sender, made
        return made
    return _make_plan(sender, task, options)


def _make_plan(sender: Sender, task: Any, options: Mapping[str, Any]) -> Plan | None:
    options = {**task._sending, **{k: v for k, v in options.items() if v is not None}}
    if (
        options.keys() - OPTIONS
        or sender.protocol != 2
        or not sender.router.static
        or task._names_shadow
    ):
        return None
    route = sender.route(task.name, (), {}, options, task)
    options = {**route.options, **options}
    if options.keys() & VARYING or options.keys() - OPTIONS:
        return None
    check_priority(task.name, options.get("priority"))
    headers = sender.headers(task.name, "", (), {}, options, None, None)
    try:
        write = header_template(headers)
    except ValueError:  # a custom header moves what the template fills in
        return None
    return Plan(
        write,
        route,
        options.get("priority", sender.priority),
        options.get("serializer") or sender.serializer,
        options.get("compression") or sender.compression,
        options.get("delivery_mode") or sender.delivery_mode,
        options.get("reply_to") or ("" if options.get("ignore_result") else sender.reply_to),
        sender.inherit_priority,
    )


def planned(plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Message:
    """The message of one more call under a plan. Raises EncodeError."""
    task_id = root_id = uuid()
    parent_id = None
    priority = plan.priority
    parent = running_request()
    if parent is not None:
        parent_id = parent.id
        root_id = parent.root_id or parent.id or task_id
        if priority is None and plan.inherit_priority:
            priority = parent.delivery_info.get("priority")
    body, content_type, encoding, mime = wire.encode_body(
        args, kwargs, None, plan.serializer, plan.compression
    )
    headers = plan.write(
        task_id,
        root_id,
        parent_id,
        saferepr(args) if args else "()",
        saferepr(kwargs) if kwargs else "{}",
    )
    if mime is not None:
        headers = headers[:-1] + b',"compression":"' + mime.encode() + b'"}'
    route = plan.route
    return Message(
        id=task_id,
        run=task_id,
        queue=route.queue,
        headers=headers,
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        exchange=route.exchange,
        routing_key=route.routing_key,
        priority=priority or 0,
        reply_to=plan.reply_to,
        delivery_mode=plan.delivery_mode,
    )
