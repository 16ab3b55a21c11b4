"""What follows the end of a task: callbacks, the next step of its chain, the part of a join that
it was; and, if it has failed, the end of everything that will not run because of that."""

from __future__ import annotations

import base64
import itertools
import logging
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.compiling import (
    JOIN_KEPT,
    Compiler,
    End,
    Place,
    answered,
    end_of,
    ends_of_chain,
    join_of,
    put,
)
from celeriac.canvas.composite import Composite
from celeriac.canvas.signature import Signature, ids_from, maybe_signature
from celeriac.exceptions import DecodeError, TaskRevokedError
from celeriac.message import Arrival, Join, Message, Settlement, TaskRecord
from celeriac.protocol import serialization
from celeriac.protocol.checks import check_signature
from celeriac.protocol.exception_form import exception_form, exception_from_form
from celeriac.protocol.json_codec import decode_json
from celeriac.protocol.reading import decode_headers
from celeriac.protocol.written import Steps, Written
from celeriac.result import oldest
from celeriac.sending import known_options
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.request import Request

logger = logging.getLogger("celeriac.following")

_WRAPPED = {"celeriac", "data", "added"}
ADDED = "celeriac_added"
"""A header of the task that gathers a part of a join with those that it has added."""


class Following:
    """What follows one delivery, while it is put together."""

    def __init__(self, app: Celeriac, request: Request) -> None:
        self.app = app
        self.request = request
        self.messages: list[Message] = []
        self.joins: list[Join] = []
        self.records: list[TaskRecord] = []
        self.arrivals: list[Arrival] = []

    # --- sending --------------------------------------------------------------------------------

    def send(
        self,
        described: Any,
        args: tuple[Any, ...],
        place: str,
        *,
        chain: Any = None,
        root_id: str | None = None,
    ) -> Any:
        """Send a signature with these arguments in front; its result. ``place`` tells what
        follows apart: parts without ids of their own always get the same ones there, so that
        sending them again can be recognised. Raises EncodeError and the like."""
        request = self.request
        sig = maybe_signature(described, app=self.app, clone=True)
        sig._app = self.app
        options: dict[str, Any] = {
            "parent_id": request.id,
            "root_id": root_id or request.root_id,
        }
        if chain:
            options["chain"] = chain
        compiler = Compiler(self._message, self.app.conf.result_chord_expires)
        numbers = itertools.count()
        run = request.run or request.id or ""
        with ids_from(lambda: child_id(run, f"{place} {next(numbers)}")):
            if isinstance(sig, Composite):
                result = sig.freeze()
                if request.reply_to:
                    answered(sig, request.reply_to)
            elif not sig.options.get("task_id"):
                sig.options["task_id"] = child_id(run, place)
            compiler.add(sig, args, None, options)
        if not isinstance(sig, Composite):
            result = self.app.AsyncResult(compiler.messages[0].id)
        self.messages += compiler.messages
        self.joins += compiler.joins
        return result

    def follow(self, described: Any, args: tuple[Any, ...], place: str, **more: Any) -> None:
        """``send``; what it gives is among the children of the task."""
        result = self.send(described, args, place, **more)
        if result is not None:
            self.request.children.append(oldest(result))

    def _message(
        self, sig: Signature[Any], args: tuple[Any, ...], kwargs: Any, options: Any
    ) -> Message:
        chosen = known_options(options)
        if self.request.reply_to:  # whoever waits for the first waits for the last
            chosen.setdefault("reply_to", self.request.reply_to)
        if self.app.conf.task_inherit_parent_priority:
            chosen.setdefault("priority", self.request.delivery_info.get("priority"))
        message, _ = self.app.dispatcher.message(sig.task, args, kwargs, sig.type, chosen)
        return message  # type: ignore[no-any-return]

    def after_success(self, value: Any) -> None:
        """Callbacks, the next step, the part of a join. Raises what cannot be written."""
        request = self.request
        for number, callback in enumerate(request.callbacks or ()):
            self.follow(callback, (value,), f"callback {number}")
        chain = request.chain
        if chain:
            rest: Any
            if isinstance(chain, Steps):
                step, rest = chain.take_last()
                check_signature("chain", step)
            else:
                step, rest = chain[-1], list(chain[:-1])
            self.follow(step, (value,), "chain", chain=rest)
        place = own_place(request)
        if place is not None and request._added:
            place = self._add(request._added, place)
        if place is not None:
            self.arrive(place, states.SUCCESS, value)

    def _add(self, added: list[Any], place: Place) -> Place:
        """Send more parts for a join, whose size is fixed: they meet at one of their own with this
        task's part, and what comes of that takes its place."""
        request = self.request
        gid = child_id(request.run or "", "added")
        body: Signature[Any] = Signature("celery.accumulate", (), {"index": 0}, app=self.app)
        body.options.update(task_id=child_id(gid, "body"), headers={ADDED: True})
        written = Written(dict(put(body, place)))
        compiler = Compiler(self._message, self.app.conf.result_chord_expires)
        parts = [put(sig, Place(gid, number, written)) for number, sig in enumerate(added, 1)]
        for part in parts:
            compiler.add(part, (), None, {"parent_id": request.id, "root_id": request.root_id})
        ids = [request.id, *(end_of(part).options.get("task_id") for part in parts)]
        kept = self.app.conf.result_chord_expires or JOIN_KEPT
        self.joins += [join_of(gid, ids, written, kept), *compiler.joins]
        self.messages += compiler.messages
        return Place(gid, 0, written)

    # --- ending ---------------------------------------------------------------------------------

    def after_failure(self, state: str, exc: BaseException) -> None:
        """The part of a join that this task was, and the end of the steps that will not come."""
        request = self.request
        place = own_place(request)
        if place is not None:
            self.arrive(place, state, exc)
        if state == states.IGNORED:  # nobody would hear of it otherwise
            state = states.REVOKED
            exc = TaskRevokedError(f"the task before it, {request.id}, was ignored")
        try:
            self.end(ends_of_chain(request.chain), state, exc)
        except DecodeError as unreadable:  # who comes after it cannot be told
            logger.error("What follows %s cannot be read: %s", request.id, unreadable)

    def end(self, nodes: Iterable[End], state: str, exc: BaseException) -> None:
        """Give all these tasks, which will never run, this end."""
        reply_to = self.request.reply_to or ""
        for node in nodes:
            if node.id:
                self.records.append(
                    self.app.records.write(node.id, uuid(), state, exc, reply_to=reply_to)
                )
            if node.place is not None:
                self._arrive(node.place, node.id, state, _form(exc))

    def arrive(self, place: Place, state: str, value: Any) -> None:
        """The task's part of a join is in: with its value, or with the error that it ended by."""
        written = self._value_of(value) if state == states.SUCCESS else _form(value)
        self._arrive(place, self.request.id, state, written)

    def _arrive(self, place: Place, id: str | None, state: str, value: bytes) -> None:
        self.arrivals.append(
            Arrival(join=place.id, index=place.position, id=id or "", state=state, value=value)
        )

    def _value_of(self, value: Any) -> bytes:
        """A part's value as JSON; of another serializer, its bytes in JSON."""
        serializer = self.app.records.serializer
        added = bool(self.request.get(ADDED))
        if serializer == "json" and not added:
            return serialization.encode(value, names=()).data
        data = serialization.encode(value, serializer).data
        text = base64.b64encode(data).decode()
        wrapped = {"celeriac": serializer, "data": text, "added": added}
        return serialization.encode(wrapped).data

    # --- the whole ------------------------------------------------------------------------------

    def added_to(self, settlement: Settlement, **more: Any) -> Settlement:
        """The settlement with all this."""
        from msgspec.structs import replace

        return replace(
            settlement,
            records=(*settlement.records, *self.records),
            messages=(*settlement.messages, *self.messages),
            joins=(*settlement.joins, *self.joins),
            arrivals=(*settlement.arrivals, *self.arrivals),
            **more,
        )


def arrivals_of_unread(message: Message, exc: BaseException) -> tuple[Arrival, ...]:
    """The part of a join that a message was which cannot be read, as far as its headers tell."""
    if message.join is None:
        return ()
    try:
        headers = decode_headers(message.headers)
    except DecodeError:
        return ()
    index = headers.get("group_index")
    if headers.get("group") != message.join or type(index) is not int:
        return ()
    return (
        Arrival(
            join=message.join,
            index=index,
            id=message.id,
            state=states.FAILURE,
            value=_form(exc),
        ),
    )


def own_place(request: Request) -> Place | None:
    """Where the value of the running task goes."""
    if request.chord is None or request.group is None:
        return None
    return Place(request.group, request.group_index or 0, request.chord)


def values_of_parts(parts: Iterable[Arrival], serializer: str) -> list[Any]:
    """The values of parts that have succeeded, in order; those that were added later at the end.
    ``serializer``: that of results, which may be trusted. Raises DecodeError."""
    values, added = [], []
    for part in parts:
        value = decode_json(part.value)
        if _is_wrapped(value, serializer):
            content_type = serialization.serializer_type(value["celeriac"])
            encoding = "binary" if content_type == serialization.PICKLE_TYPE else "utf-8"
            data = base64.b64decode(value["data"])
            inner = serialization.decode(data, content_type, encoding, frozenset((content_type,)))
            if value["added"]:
                added += inner[1:]
                inner = inner[0]
            value = inner
        values.append(value)
    return values + added


def _is_wrapped(value: Any, serializer: str) -> bool:
    if not isinstance(value, dict) or value.keys() != _WRAPPED:
        return False
    return value["celeriac"] in ("json", serializer)  # what a task returned may look like anything


def error_of_part(part: Arrival) -> BaseException:
    """What a part that has failed has raised."""
    return exception_from_form(decode_json(part.value))


def _form(exc: BaseException) -> bytes:
    return serialization.encode(exception_form(exc)).data


def child_id(run: str, place: str) -> str:
    """The id of what follows this run at this place."""
    text = blake2b(f"{run}/{place}".encode(), digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"
