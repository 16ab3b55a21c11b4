"""A safety net: joins that stay open though each of their parts has ended are ended.

A part comes in with the settlement of its task. What gets past that (a worker of another
implementation that died between its two writes, a message that somebody took out of the broker
by hand) would leave a chord waiting. So the agent looks from time to time at joins that are open
for long, and brings in the parts that have a final record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from celeriac import states
from celeriac.canvas.compiling import Place
from celeriac.contracts import Broker, ResultBackend, TellsUnfinished
from celeriac.following import Following
from celeriac.joining import Joiner
from celeriac.message import Delivery, Owner, Settlement, TaskRecord, Unfinished
from celeriac.protocol.json_codec import decode_json
from celeriac.protocol.times import parse_time
from celeriac.request import Request
from celeriac.settling import Settling

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.worker.sweeper")

AT_ONCE: Final = 10


class Sweeper:
    """``after``: seconds for which a join is open before it is looked at, and then again.
    ``ended`` counts the joins that it had to end."""

    def __init__(self, app: Celeriac, hostname: str, after: float) -> None:
        self.app = app
        self.after = after
        self.ended = 0
        self._joiner = Joiner(app, hostname)

    def sweep(self, broker: Broker, results: ResultBackend, owner: Owner) -> int:
        """Look at some joins; how many had to be ended. Raises OperationalError."""
        if not isinstance(results, TellsUnfinished):
            return 0
        settling = Settling(broker, results, self._joiner.complete)
        count = 0
        for one in results.unfinished(self.after, AT_ONCE):
            late = self._late(results, one, owner)
            if late:
                settling.bring(late)
                count += 1
                self.ended += 1
                logger.warning(
                    "The join %s was open though all its parts had ended: brought in %s, ended it "
                    "(%d so far by this worker)",
                    one.join,
                    ", ".join(settlement.delivery.message.id for settlement in late[:5]),
                    self.ended,
                )
        return count

    def _late(self, results: ResultBackend, one: Unfinished, owner: Owner) -> list[Settlement]:
        """The parts that are missing, as settlements; none unless each of them has ended, and not
        just now."""
        try:
            plan = decode_json(one.plan)
            ids = [plan["parts"][index] for index in one.missing]
        except Exception as exc:  # of a type's own decoder, or of no plan of ours
            logger.error("The plan of the join %s cannot be read: %r", one.join, exc)
            return []
        found = results.get([str(id) for id in ids])
        records = [record for record in found if record is not None and record.ready]
        if len(records) < len(ids):
            return []
        read = [(record, self.app.records.read(record)) for record in records]
        if any(_since(meta) < self.after for _, meta in read):
            return []
        return [
            self._settlement(Place(one.join, index, plan["body"]), record, meta, owner)
            for index, (record, meta) in zip(one.missing, read, strict=True)
        ]

    def _settlement(
        self, place: Place, record: TaskRecord, meta: Mapping[str, Any], owner: Owner
    ) -> Settlement:
        """What the part's own settlement had brought in, as of a message that names its place."""
        options = {
            "task_id": record.id,
            "group_id": place.id,
            "group_index": place.position,
            "chord": place.body,
        }
        message = self.app.sender.message(meta.get("name") or "celery.accumulate", (), {}, options)
        delivery = Delivery(message=replace(message, run=record.run), owner=owner, tag=0)
        following = Following(self.app, Request(id=record.id))
        following.arrive(place, record.state, _outcome(record.state, meta))
        return Settlement(delivery=delivery, arrivals=tuple(following.arrivals))


def _since(meta: Mapping[str, Any]) -> float:
    """Seconds since the task has ended."""
    done = parse_time(meta.get("date_done"))
    return time.time() - done if done is not None else 0.0


def _outcome(state: str, meta: Mapping[str, Any]) -> Any:
    value = meta.get("result")
    if state == states.SUCCESS or isinstance(value, BaseException):
        return value
    return Exception(value)
