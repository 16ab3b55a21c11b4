"""The message of a retry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import Retry
from celeriac.message import Message
from celeriac.protocol import task as wire
from celeriac.protocol.reading import decode_headers
from celeriac.protocol.times import format_time
from celeriac.request import Request
from celeriac.sending.times import instant

if TYPE_CHECKING:
    from celeriac.sending.sender import Sender


def next_try(
    sender: Sender,
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
        due_at = instant(retry.when, "eta", sender.zone)
    headers = decode_headers(old.headers)
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
        return sender.message(
            task.name,
            tuple(request.args if args is None else args),
            request.kwargs if kwargs is None else kwargs,
            extra,
            task,
        )
    headers.update(
        retries=request.retries + 1,
        eta=format_time(due_at),
        parent_id=request.id,
        origin=sender.origin,
    )
    return Message(
        **{
            **{field: getattr(old, field) for field in Message.__struct_fields__},
            "headers": wire.encode_headers(headers),
            "due_at": due_at,
            "dedupe_key": None,
        }
    )
