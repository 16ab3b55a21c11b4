"""The end of a join: a chord's body is sent, or everything that it was to be is failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac import states
from celeriac.canvas.compiling import Place, ends, ends_of_chain, errbacks_of
from celeriac.canvas.signature import maybe_signature
from celeriac.concluding import call_errback
from celeriac.exceptions import ChordError, ContentError, InvalidTaskError
from celeriac.following import Following, error_of_part, own_place, values_of_parts
from celeriac.message import Arrival, Completes, Delivery, Settlement
from celeriac.reading import Reader
from celeriac.request import Request
from celeriac.result import oldest

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.joining")

# Of so many ends of joins it is remembered that their errbacks were called here already.
_REMEMBERED = 1000
# The record of the task that completes a header of at most so many names them all.
_SHOWN = 1000


class Joiner:
    """Completes joins for one application; ``complete`` is what Settling asks for."""

    def __init__(self, app: Celeriac, hostname: str = "") -> None:
        self.app = app
        self.reader = Reader(app, hostname)
        self._told: dict[tuple[str, str], None] = {}

    def complete(self, settlement: Settlement, completes: Completes) -> Settlement:
        """The settlement with what follows the join that it completes."""
        tokens = {**settlement.tokens, completes.join: completes.token}
        request = self._read(settlement.delivery)
        body = next((p.body for p in _places(request) if p.id == completes.join), None)
        following = Following(self.app, request)
        if body is None:
            logger.error("What follows the join %s is not known to its last part", completes.join)
            return following.added_to(settlement, tokens=tokens)
        broken = next((part for part in completes.parts if part.state != states.SUCCESS), None)
        if broken is not None:
            result = self._fail(following, body, completes, broken)
        else:
            try:
                result = self._send(following, body, completes)
            except Exception as exc:  # whatever it is, the body must have an end
                if not isinstance(exc, ContentError):
                    logger.exception("The body of the join %s cannot be sent", completes.join)
                following = Following(self.app, request)
                result = self._end(following, body, completes, exc)
        # Keyed, so that nothing is sent twice whoever completes the join meanwhile.
        following.messages = [
            replace(message, dedupe_key=f"{completes.join}/{message.id}")
            for message in following.messages
        ]
        whole = following.added_to(settlement, tokens=tokens)
        if result is None:
            return whole
        return _with_child(whole, self._under_header(result, completes), self.app)

    def _read(self, delivery: Delivery) -> Request:
        """The request; of a message that cannot be read, what follows it at least."""
        try:
            return self.reader.read(delivery)
        except (ContentError, InvalidTaskError) as exc:
            message = delivery.message
            request = Request(id=message.id, group=message.join, called_directly=False)
            request.run = message.run
            request._delivery = delivery
            try:
                embed = json.loads(message.body)[2]
                request.chord, request.chain = embed.get("chord"), embed.get("chain")
            except (ValueError, TypeError, LookupError, AttributeError):
                logger.error("What follows %s is not known: %s", message.id, exc)
            return request

    def _under_header(self, result: Any, completes: Completes) -> Any:
        """The result of the body, with that of the header as its parent."""
        if len(completes.parts) <= _SHOWN:
            members = [self.app.AsyncResult(part.id) for part in completes.parts]
            oldest(result).parent = self.app.GroupResult(completes.join, members)
        return result

    def _send(self, following: Following, body: Any, completes: Completes) -> Any:
        values = values_of_parts(completes.parts, self.app.records.serializer)
        root_id = (body.get("options") or {}).get("root_id")
        return following.send(body, (values,), f"join {completes.join}", root_id=root_id)

    def _fail(self, following: Following, body: Any, completes: Completes, broken: Arrival) -> Any:
        error = error_of_part(broken)
        if body.get("subtask_type") != "group":
            cause, error = error, ChordError(f"Dependency {broken.id} raised {error!r}")
            error.__cause__ = cause
        return self._end(following, body, completes, error)

    def _end(
        self, following: Following, body: Any, completes: Completes, error: BaseException
    ) -> Any:
        """Everything in the body ends with this error; its errbacks are called once."""
        following.end(ends(body), states.FAILURE, error)
        key = completes.join, following.request.run or ""
        told = key in self._told
        self._told[key] = None
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        for number, (member, errbacks) in enumerate(errbacks_of(body)):
            request = self._request_of(member, following.request)
            for position, errback in enumerate(errbacks):
                place = f"join {completes.join} errback {number} {position}"
                call_errback(following, errback, request, error, None, place, again=told)
        return maybe_signature(body, app=self.app, clone=True).freeze()

    def _request_of(self, described: Mapping[str, Any], request: Request) -> Request:
        """What an errback is told of a task that was never sent."""
        options = described.get("options") or {}
        return Request(
            id=options.get("task_id"),
            task=described.get("task"),
            args=described.get("args"),
            kwargs=described.get("kwargs"),
            root_id=options.get("root_id") or request.root_id,
            parent_id=request.id,
            group=options.get("group_id"),
            errbacks=options.get("link_error"),
            called_directly=False,
            hostname=request.hostname,
        )


def _places(request: Request) -> Iterator[Place]:
    """All joins that the end of this task can lead to: its own, those of the steps of its chain,
    and then those of their bodies."""
    waiting = [end.place for end in ends_of_chain(request.chain)]
    waiting.insert(0, own_place(request))
    for place in waiting:
        if place is not None:
            yield place
            waiting += [end.place for end in ends(place.body)]


def _with_child(settlement: Settlement, result: Any, app: Celeriac) -> Settlement:
    """The body is kept as a child of the task that completed its header, so that the whole can be
    found from any part of it."""
    records = settlement.records
    if not records or records[0].id != settlement.delivery.message.id:
        return settlement
    return replace(
        settlement, records=(app.records.with_child(records[0], result.as_tuple()), *records[1:])
    )
