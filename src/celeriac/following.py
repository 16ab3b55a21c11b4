"""What follows the end of a task: callbacks, the next step of its chain, the part of a join that
it was; and, if it has failed, the end of everything that will not run because of that."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.compiling import Compiler, End, Place, ends_of_chain
from celeriac.canvas.composite import Composite
from celeriac.canvas.signature import Signature, ids_from, maybe_signature
from celeriac.exceptions import TaskRevokedError
from celeriac.message import Arrival, Join, Message, Settlement, TaskRecord
from celeriac.protocol import serialization
from celeriac.protocol.checks import check_signature
from celeriac.protocol.exception_form import exception_form, exception_from_form
from celeriac.protocol.json_codec import decode_json
from celeriac.protocol.written import Steps
from celeriac.result import oldest
from celeriac.sending import known_options
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.request import Request

_WRAPPED = ("celeriac", "data")


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
        if self.app.conf.task_inherit_parent_priority:
            chosen.setdefault("priority", self.request.delivery_info.get("priority"))
        message, _ = self.app._message(sig.task, args, kwargs, sig.type, chosen)
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
        if place is not None:
            self._arrive(place, request.id, states.SUCCESS, self._value_of(value))

    # --- ending ---------------------------------------------------------------------------------

    def after_failure(self, state: str, exc: BaseException) -> None:
        """The part of a join that this task was, and the end of the steps that will not come."""
        request = self.request
        place = own_place(request)
        if place is not None:
            self._arrive(place, request.id, state, _form(exc))
        if state == states.IGNORED:  # nobody would hear of it otherwise
            state = states.REVOKED
            exc = TaskRevokedError(f"the task before it, {request.id}, was ignored")
        self.end(ends_of_chain(request.chain), state, exc)

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

    def _arrive(self, place: Place, id: str | None, state: str, value: bytes) -> None:
        self.arrivals.append(
            Arrival(join=place.id, index=place.position, id=id or "", state=state, value=value)
        )

    def _value_of(self, value: Any) -> bytes:
        """A part's value as JSON; of another serializer, its bytes in JSON."""
        serializer = self.app.records.serializer
        if serializer == "json":
            return serialization.encode(value, names=()).data
        data = serialization.encode(value, serializer).data
        text = base64.b64encode(data).decode()
        return serialization.encode(dict(zip(_WRAPPED, (serializer, text), strict=True))).data

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


def own_place(request: Request) -> Place | None:
    """Where the value of the running task goes."""
    if request.chord is None or request.group is None:
        return None
    return Place(request.group, request.group_index or 0, request.chord)


def value_of_part(part: Arrival) -> Any:
    """The value of a part that has succeeded. Raises DecodeError."""
    value = decode_json(part.value)
    if isinstance(value, dict) and tuple(value) == _WRAPPED:
        content_type = serialization.serializer_type(value["celeriac"])
        encoding = "binary" if content_type == serialization.PICKLE_TYPE else "utf-8"
        data = base64.b64decode(value["data"])
        return serialization.decode(data, content_type, encoding, frozenset((content_type,)))
    return value


def error_of_part(part: Arrival) -> BaseException:
    """What a part that has failed has raised."""
    return exception_from_form(decode_json(part.value))


def _form(exc: BaseException) -> bytes:
    return serialization.encode(exception_form(exc)).data


def child_id(run: str, place: str) -> str:
    """The id of what follows this run at this place."""
    text = blake2b(f"{run}/{place}".encode(), digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"
