"""From a call to a message: options, routing, id and run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac import signals
from celeriac.message import Message
from celeriac.protocol import task as wire
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.template import header_template
from celeriac.protocol.written import Steps
from celeriac.request import Request, running_request
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.exceptions import Retry

# Options of apply_async that mean something here; others are refused, so that a typing error
# does not pass for an option. Celery's plumbing options are taken and not used.
OPTIONS = frozenset(
    "task_id countdown eta expires queue exchange exchange_type routing_key priority serializer "
    "compression headers ignore_result time_limit soft_time_limit shadow link link_error root_id "
    "parent_id group_id group_index chord chain argsrepr kwargsrepr delivery_mode retries run "
    "stamped_headers stamps reply_to dedupe_key add_to_parent replaced_task_nesting origin "
    "task_type".split()
)
IGNORED_OPTIONS = frozenset(
    "connection producer router publisher declare retry retry_policy timeout confirm_timeout "
    "mandatory result_cls event_dispatcher immediate task_name".split()
)


_KNOWN = OPTIONS | IGNORED_OPTIONS

# Options that differ from call to call, or make the message differ in more than its arguments.
VARYING = frozenset(
    "task_id countdown eta expires link link_error root_id parent_id chord chain retries run "
    "argsrepr kwargsrepr group_id group_index dedupe_key".split()
)


class Plan(NamedTuple):
    """What is the same for all calls of a task with the same options."""

    write: Any  # header_template
    route: Any
    priority: int | None
    serializer: str
    compression: str | None
    delivery_mode: int
    reply_to: str


class Sender:
    """Builds the messages of one application."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        conf = app.conf
        self.generation = conf.generation
        self.router = app.router
        self.serializer: str = conf.task_serializer
        self.compression: str | None = conf.task_compression
        self.priority: int | None = conf.task_default_priority
        self.delivery_mode = 1 if conf.task_default_delivery_mode in (1, "transient") else 2
        self.inherit_priority = bool(conf.task_inherit_parent_priority)
        self.protocol = int(conf.task_protocol)
        self.zone = zone_of(conf.timezone)
        self.pid = os.getpid()
        self.origin = f"gen{self.pid}@{socket.gethostname()}"
        self._routes: dict[str, Any] = {}
        self._reply_to: str | None = None

    @property
    def reply_to(self) -> str:
        """Where results are to be sent to, for a result backend that sends them."""
        if self._reply_to is None:
            self._reply_to = self.app.reply_to
        return self._reply_to

    def plan(self, task: Any, options: Mapping[str, Any]) -> Plan | None:
        """A plan for calls of the task with these options; None if each needs its own look."""
        if not options:
            if task._plan is not None and task._plan[0] is self:
                return task._plan[1]  # type: ignore[no-any-return]
            made = self._make_plan(task, options)
            task._plan = self, made
            return made
        return self._make_plan(task, options)

    def _make_plan(self, task: Any, options: Mapping[str, Any]) -> Plan | None:
        options = {**task._sending, **{k: v for k, v in options.items() if v is not None}}
        if (
            options.keys() - OPTIONS
            or self.protocol != 2
            or not self.router.static
            or task._names_shadow
        ):
            return None
        route = self._route(task.name, (), {}, options, task)
        options = {**route.options, **options}
        if options.keys() & VARYING or options.keys() - OPTIONS:
            return None
        headers = self._headers(task.name, "", (), {}, options, None, None)
        try:
            write = header_template(headers)
        except ValueError:  # a custom header moves what the template fills in
            return None
        return Plan(
            write,
            route,
            options.get("priority", self.priority),
            options.get("serializer") or self.serializer,
            options.get("compression") or self.compression,
            options.get("delivery_mode") or self.delivery_mode,
            options.get("reply_to") or ("" if options.get("ignore_result") else self.reply_to),
        )

    def planned(self, plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Message:
        """The message of one more call under a plan. Raises EncodeError."""
        task_id = root_id = uuid()
        parent_id = None
        priority = plan.priority
        parent = running_request()
        if parent is not None:
            parent_id = parent.id
            root_id = parent.root_id or parent.id or task_id
            if priority is None and self.inherit_priority:
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

    def message(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any = None,
    ) -> Message:
        """The message of one call. Raises EncodeError, QueueNotFound, TypeError."""
        if options:
            options = _given(name, options)
        if task is not None and task._sending:
            options = {**task._sending, **options}
        route = self._route(name, args, kwargs, options, task)
        if route.options:
            options = {**route.options, **options}
        get = options.get
        now = time.time()
        task_id = get("task_id")
        run = get("run")
        if task_id is None:
            task_id = uuid()
            run = run or task_id  # a fresh id names a sending as well as anything
        elif type(task_id) is not str:
            task_id = str(task_id)
        due_at = self._due(now, get("countdown"), get("eta"))
        expires_at = self._expires(now, get("expires"))
        parent_id, root_id, priority = get("parent_id"), get("root_id"), get("priority")
        parent = running_request()
        if parent is not None:
            parent_id = parent_id or parent.id
            root_id = root_id or parent.root_id or parent.id
            if priority is None and self.inherit_priority:
                priority = parent.delivery_info.get("priority")
        if get("shadow") is None and task is not None and task._names_shadow:
            options = {**options, "shadow": task.shadow_name(args, kwargs, options)}
        embed = None
        if get("link") or get("link_error") or get("chain") or get("chord"):
            embed = {
                "callbacks": _listed(get("link")),
                "errbacks": _listed(get("link_error")),
                "chain": get("chain"),
                "chord": get("chord"),
            }
        headers = self._headers(name, task_id, args, kwargs, options, due_at, expires_at)
        headers["root_id"] = root_id or task_id
        headers["parent_id"] = parent_id
        return self._finish(
            headers,
            (args, kwargs, embed),
            id=task_id,
            run=run or uuid(),
            route=route,
            priority=priority if priority is not None else self.priority or 0,
            serializer=get("serializer") or self.serializer,
            compression=get("compression") or self.compression,
            delivery_mode=get("delivery_mode") or self.delivery_mode,
            reply_to=get("reply_to") or ("" if get("ignore_result") else self.reply_to),
            due_at=due_at,
            expires_at=expires_at,
            join=_waited_for(options),
            dedupe_key=get("dedupe_key"),
        )

    def _headers(
        self,
        name: str,
        task_id: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        due_at: float | None,
        expires_at: float | None,
    ) -> dict[str, Any]:
        get = options.get
        return wire.make_headers(
            task=name,
            id=task_id,
            args=args,
            kwargs=kwargs,
            shadow=get("shadow"),
            eta=due_at,
            expires=expires_at,
            group=get("group_id"),
            group_index=get("group_index"),
            retries=get("retries") or 0,
            time_limit=get("time_limit"),
            soft_time_limit=get("soft_time_limit"),
            argsrepr=get("argsrepr"),
            kwargsrepr=get("kwargsrepr"),
            origin=get("origin") or self.origin,
            ignore_result=get("ignore_result"),
            replaced_task_nesting=get("replaced_task_nesting") or 0,
            stamped_headers=get("stamped_headers"),
            stamps=get("stamps"),
            extra=get("headers"),
        )

    def _finish(
        self,
        headers: dict[str, Any],
        content: tuple[tuple[Any, ...], Mapping[str, Any], dict[str, Any] | None],
        *,
        id: str,
        run: str,
        route: Any,
        serializer: str,
        compression: str | None,
        **fields: Any,
    ) -> Message:
        """Headers and content to bytes, the signal before."""
        args, kwargs, embed = content
        if signals.before_task_publish.receivers:
            signals.before_task_publish.send(
                sender=headers["task"],
                body=(args, kwargs, embed or dict(_NO_EMBED)),
                exchange=route.exchange,
                routing_key=route.routing_key,
                headers=headers,
                properties=_properties(
                    id, fields["reply_to"], fields["delivery_mode"], fields["priority"]
                ),
                declare=[],
                retry_policy=self.app.conf.task_publish_retry_policy,
            )
        if self.protocol == 1:
            body, content_type, encoding, mime = wire.encode_v1(
                task=headers["task"],
                id=id,
                args=args,
                kwargs=kwargs,
                group=headers["group"],
                group_index=headers["group_index"],
                retries=headers["retries"],
                eta=fields["due_at"],
                expires=fields["expires_at"],
                time_limit=headers["timelimit"][0],
                soft_time_limit=headers["timelimit"][1],
                callbacks=(embed or _NO_EMBED)["callbacks"],
                errbacks=(embed or _NO_EMBED)["errbacks"],
                chord=(embed or _NO_EMBED)["chord"],
                serializer=serializer,
                compression=compression,
            )
            headers = {}
        else:
            body, content_type, encoding, mime = wire.encode_body(
                args, kwargs, embed, serializer, compression
            )
        if mime is not None:
            headers["compression"] = mime
        return Message(
            id=id,
            run=run,
            queue=route.queue,
            headers=wire.encode_headers(headers) if headers else b"{}",
            body=body,
            content_type=content_type,
            content_encoding=encoding,
            exchange=route.exchange,
            routing_key=route.routing_key,
            **fields,
        )

    def _route(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any,
    ) -> Any:
        plain = "queue" not in options and "exchange" not in options
        if plain and "routing_key" not in options and self.router.static:
            route = self._routes.get(name)
            if route is None:
                route = self._routes[name] = self.router.route({}, name, args, kwargs, task)
            return route
        return self.router.route(options, name, args, kwargs, task)

    def retry(
        self,
        task: Any,
        request: Request,
        retry: Retry,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Message:
        """The next try of the call that is running: the same message, id and run, one retry
        more, due later. Only what ``retry()`` was given changes."""
        delivery = request._delivery
        assert delivery is not None
        old = delivery.message
        due_at = retry.eta().timestamp()
        if isinstance(retry.when, datetime):
            due_at = self.instant(retry.when, "eta")
        headers = wire.decode_headers(old.headers)
        if args is not None or kwargs is not None or options or "task" not in headers:
            extra = {**request.as_execution_options(), "priority": old.priority, **options}
            if not extra.keys() & {"queue", "exchange", "routing_key"}:
                extra["queue"] = old.queue
            extra = {key: value for key, value in extra.items() if value is not None}
            extra.update(
                eta=datetime.fromtimestamp(due_at, UTC),
                run=old.run,
                retries=request.retries + 1,
                parent_id=request.id,
                reply_to=old.reply_to,
            )
            return self.message(
                task.name,
                tuple(request.args if args is None else args),
                request.kwargs if kwargs is None else kwargs,
                extra,
                task,
            )
        headers.update(
            retries=request.retries + 1,
            eta=wire.format_time(due_at),
            parent_id=request.id,
            origin=self.origin,
        )
        return Message(
            **{
                **{field: getattr(old, field) for field in Message.__struct_fields__},
                "headers": wire.encode_headers(headers),
                "due_at": due_at,
                "dedupe_key": None,
            }
        )

    def _due(self, now: float, countdown: Any, eta: Any) -> float | None:
        if countdown is not None:
            return now + float(countdown)
        if eta is None:
            return None
        return self.instant(eta, "eta")

    def _expires(self, now: float, expires: Any) -> float | None:
        if expires is None:
            return None
        if isinstance(expires, timedelta):
            return now + expires.total_seconds()
        if isinstance(expires, int | float):
            return now + float(expires)
        return self.instant(expires, "expires")

    def instant(self, value: Any, what: str) -> float:
        """Epoch seconds of a datetime or ISO text; naive ones are in the application's zone."""
        given = value
        if isinstance(value, str):
            try:
                given = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{what}={value!r} is not an ISO-8601 time") from None
        if isinstance(given, datetime):
            return (given if given.tzinfo else given.replace(tzinfo=self.zone)).timestamp()
        raise TypeError(f"{what}={value!r}: expected a datetime, got {type(value).__name__}")


_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def zone_of(timezone: str | tzinfo | None) -> tzinfo:
    """The zone that the setting ``timezone`` names; UTC without one."""
    if timezone is None or timezone == "UTC":
        return UTC
    if isinstance(timezone, tzinfo):
        return timezone
    from zoneinfo import ZoneInfo  # here: it takes a while to import, and most need none

    return ZoneInfo(timezone)


def _given(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say something. Raises TypeError for one that there is not. Celery's stamps
    come as options of their own, named in ``stamped_headers``."""
    given = {key: value for key, value in options.items() if value is not None}
    if not _KNOWN.issuperset(given):
        unknown = given.keys() - _KNOWN
        stamps = unknown & set(given.get("stamped_headers") or ())
        if unknown - stamps:
            raise TypeError(f"{name}: unknown calling option {min(unknown - stamps)!r}")
        given["stamps"] = {key: given.pop(key) for key in stamps} | (given.get("stamps") or {})
    return given


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be sent on: a signature from the wire may have come from a caller who may
    give more of them."""
    known = _KNOWN | set(options.get("stamped_headers") or ())
    return {key: value for key, value in options.items() if key in known}


def properties_of(message: Message) -> dict[str, Any]:
    """The properties of a message as signals show them."""
    return _properties(message.id, message.reply_to, message.delivery_mode, message.priority)


def _waited_for(options: Mapping[str, Any]) -> str | None:
    """What waits for the end of this call: a join, its own or that of the last step of its chain,
    or else the last step itself. A driver hands such a message back rather than remove it."""
    while True:
        if options.get("chord"):
            return options.get("group_id")
        chain = options.get("chain")
        if not chain:
            return None
        last = chain.first() if isinstance(chain, Steps) else chain[0]
        is_chord = last.get("subtask_type") == "chord"
        body = (last.get("kwargs") or {}).get("body") if is_chord else None
        options = (body or last).get("options") or {}
        if not options.get("chord") and not options.get("chain"):
            return options.get("task_id")


def _properties(task_id: str, reply_to: str, mode: int, priority: int) -> dict[str, Any]:
    return {
        "correlation_id": task_id,
        "reply_to": reply_to,
        "delivery_mode": mode,
        "priority": priority,
    }


def _listed(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]
