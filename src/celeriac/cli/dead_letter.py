"""One dead letter as people and programs read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.cli.output import age, jsonable, moment

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.message import Peeked

COLUMNS = ("ID", "TASK", "QUEUE", "BURIED", "LOST", "REASON")

_SHOWN_BYTES = 2000  # of a body that cannot be read


def row(letter: Peeked) -> tuple[object, ...]:
    """As in ``celeriac dead list``."""
    from celeriac.protocol.reading import peek_task

    message = letter.message
    name, _ = peek_task(message)
    buried = f"{age(letter.at)} ago" if letter.at is not None else ""
    reason = " ".join(letter.reason.split())
    return message.id, name or "?", message.queue, buried, letter.lost, reason


def fields(letter: Peeked) -> dict[str, Any]:
    """As in ``celeriac dead list --json``."""
    from celeriac.protocol.reading import peek_task

    message = letter.message
    name, args = peek_task(message)
    return {
        "id": message.id,
        "task": name or None,
        "args": args or None,
        "queue": message.queue,
        "buried": moment(letter.at),
        "lost": letter.lost,
        "reason": letter.reason,
    }


def described(app: Celeriac, letter: Peeked) -> dict[str, Any]:
    """Everything that is known of it, in the order in which one wants to read it."""
    message = letter.message
    read = _content(app, letter)
    headers = read.pop("headers", {})
    known = fields(letter)
    return {
        "id": message.id,
        "task": headers.get("task") or known["task"],
        "queue": message.queue,
        "reason": letter.reason,
        "buried": known["buried"],
        "lost": letter.lost,
        "retries": headers.get("retries"),
        **read,
        "result": _outcome(app, message.id),
        "message": {
            "run": message.run,
            "priority": message.priority,
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "content_type": message.content_type,
            "bytes": message.size,
        },
        "headers": {
            key: jsonable(value) for key, value in headers.items() if value not in (None, {}, [])
        },
        "traceback": _traceback(app, message.id),
    }


def _content(app: Celeriac, letter: Peeked) -> dict[str, Any]:
    """Arguments and headers, or what is wrong with them and the bytes as they are."""
    from celeriac.exceptions import ContentError, InvalidTaskError
    from celeriac.protocol.reading import decode
    from celeriac.protocol.serialization import accept_types

    message = letter.message
    try:
        read = decode(message, accept_types(app.conf.accept_content))
    except (ContentError, InvalidTaskError) as exc:
        return {
            "unreadable": str(exc),
            "raw_headers": repr(message.headers[:_SHOWN_BYTES]),
            "raw_body": repr(message.body[:_SHOWN_BYTES]),
        }
    follow = {name: jsonable(value) for name, value in read.embed.items() if value}
    return {
        "args": jsonable(read.args),
        "kwargs": jsonable(read.kwargs),
        **({"then": follow} if follow else {}),
        "headers": read.headers,
    }


def _outcome(app: Celeriac, task_id: str) -> str | None:
    if app.backend_url is None:
        return None
    result = app.AsyncResult(task_id)
    if not result.exists():
        return None
    value = result.result
    shown = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    return f"{result.state} {shown}"


def _traceback(app: Celeriac, task_id: str) -> str | None:
    return app.AsyncResult(task_id).traceback if app.backend_url is not None else None
