"""Sender: from one call to its message."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.message import Message
from celeriac.protocol import task as wire
from celeriac.request import running_request
from celeriac.sending.options import given_options, listed, waited_for
from celeriac.sending.properties import properties
from celeriac.sending.times import due_at, expires_at, zone_of
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


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
            options = given_options(name, options)
        if task is not None and task._sending:
            options = {**task._sending, **options}
        route = self.route(name, args, kwargs, options, task)
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
        due = due_at(now, get("countdown"), get("eta"), self.zone)
        expires = expires_at(now, get("expires"), self.zone)
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
                "callbacks": listed(get("link")),
                "errbacks": listed(get("link_error")),
                "chain": get("chain"),
                "chord": get("chord"),
            }
        headers = self.headers(name, task_id, args, kwargs, options, due, expires)
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
            due_at=due,
            expires_at=expires,
            join=waited_for(options),
            dedupe_key=get("dedupe_key"),
        )

    def headers(
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
                properties=properties(
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
                args, kwargs, embed, serializer, compression, headers
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

    def route(
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
