"""The result backend ``rpc://``: results are sent to whoever sent the task.

A process that sends tasks has one queue, made before the first of them is sent; its name is the
``reply_to`` of its messages. Workers, Celery's too, send there what became of a task, and forget
it. Nobody else can read it, a chord's parts cannot be counted, and a second run is not recognised:
``Capabilities`` says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac import states
from celeriac.contracts import Capabilities
from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.bell import Bell
from celeriac.drivers.rabbitmq.connection import WORK, Connection, connection_name
from celeriac.drivers.rabbitmq.frames import Content
from celeriac.drivers.rabbitmq.publishing import Sender
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.drivers.rabbitmq.topology import Topology
from celeriac.drivers.rabbitmq.urls import Options
from celeriac.exceptions import DecodeError, NotCapable, OperationalError
from celeriac.message import Arrival, Completes, Join, TaskRecord
from celeriac.protocol.results import decode_meta
from celeriac.utils import uuid

logger = logging.getLogger("celeriac.drivers.rabbitmq")

# The queue of a process that is gone without a word lasts so long (milliseconds); one that
# connects again within this time finds its results.
_QUEUE_KEPT: Final = 600_000
_MOST_RECORDS: Final = 200_000  # that nobody has asked for yet; the oldest are forgotten
_WINDOW: Final = 1000  # results on their way to this process
_LOOK_EVERY: Final = 5.0  # seconds after which a call that waits makes sure of the connection
_MOST_BYTES: Final = 256 * 1024 * 1024


class _Head(msgspec.Struct):
    status: str


_head = msgspec.json.Decoder(_Head).decode


class RpcResultBackend:
    """Celeriac's ResultBackend contract as far as a reply can keep it."""

    capabilities = Capabilities(
        survives_process=False,
        dedupe=False,
        joins=False,
        leases=False,
        keeps_records=False,
        expires_results=True,
        durability="Results are sent to the process that sent the task, and kept in its memory: "
        "nobody else can read them, and they are gone when it ends.",
    )

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = options.store
        self._changed = threading.Condition(threading.RLock())
        self._connection: Connection | None = None
        self._sender: Sender | None = None
        self._queue = ""
        self._listens = False
        self._reading = False
        self._is_open = False
        self._wakes = 0
        self._records: OrderedDict[str, TaskRecord] = OrderedDict()
        self._bytes = 0
        self._unacked = 0  # results that the server has not been told of
        self._bell = Bell()

    # --- life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Nothing yet: a worker has no use for a connection of its own here, and a client makes
        one when it sends its first task."""
        with self._changed:
            self._bell.open()
            self._is_open = True

    def close(self) -> None:
        self.wake()
        with self._changed:
            self._is_open = False
            connection, self._connection = self._connection, None
            if connection is not None and connection.alive:
                if self._queue:
                    self._delete_queue(connection)
                connection.close()
            self._queue, self._listens = "", False
            self._changed.notify_all()
            deadline = time.monotonic() + 1.0
            while self._reading and time.monotonic() < deadline:
                self._changed.wait(0.1)
            self._bell.close()

    def _delete_queue(self, connection: Connection) -> None:
        arguments = b"\x00\x00" + short(self._queue) + b"\x04"
        try:
            connection.send(frames.method(WORK, frames.QUEUE_DELETE, arguments))
        except OperationalError:
            return  # it goes by itself

    def wake(self) -> None:
        self._wakes += 1
        self._bell.ring()
        with self._changed:
            self._changed.notify_all()

    @property
    def reply_to(self) -> str:
        """The queue to which results for this process are to be sent; it is there. Raises
        OperationalError."""
        with self._changed:
            self._line()
            self._listen()
            return self._queue

    def _line(self) -> Sender:
        """The connection, made anew if it is not alive. The lock is held."""
        if not self._is_open:
            raise OperationalError("The result backend rpc:// is not open here: call open() first.")
        connection = self._connection
        if connection is None or not connection.alive or self._sender is None:
            self._listens = False
            connection = self._connection = Connection(self.options, connection_name("results"))
            topology = Topology(connection, None, self.options.delayed_queue_type)
            self._sender = Sender(connection, topology, self.options)
            if self._queue:
                self._listen()
        return self._sender

    def _listen(self) -> None:
        connection = self._connection
        if self._listens or connection is None:
            return
        queue = self._queue or uuid()
        arguments = b"\x00\x00" + short(queue) + b"\x02" + encode_table({"x-expires": _QUEUE_KEPT})
        connection.call(frames.QUEUE_DECLARE, arguments, frames.QUEUE_DECLARE_OK)
        # Acknowledged when read, a window at a time: whoever reads late loses nothing, where the
        # server would otherwise cut off a client that it cannot get rid of its messages to.
        qos = b"\x00\x00\x00\x00" + _WINDOW.to_bytes(2, "big") + b"\x00"
        connection.call(frames.QOS, qos, frames.QOS_OK, on=WORK)
        arguments = b"\x00\x00" + short(queue) + short("results") + b"\x00" + encode_table({})
        connection.call(frames.CONSUME, arguments, frames.CONSUME_OK, on=WORK)
        self._queue, self._listens = queue, True
        self._unacked = 0

    # --- records --------------------------------------------------------------------------------

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        """Send each to where it was asked for. What stands cannot be known: what is put."""
        with self._changed:
            sender = self._line()
            connection = self._connection
            assert connection is not None
            data = [sender.reply(record) for record in records if record.reply_to]
            if data:
                connection.published += len(data)
                connection.send(b"".join(data))
                if self.options.results_persistent:
                    connection.await_confirms()
        return list(records)

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        with self._changed:
            self._take_in()
            return [self._records.get(id) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        deadline = time.monotonic() + timeout
        wanted = list(dict.fromkeys(ids))
        wakes = self._wakes
        with self._changed:
            while self._is_open:
                if not self._reading:
                    self._take_in()
                found = [r for id in wanted if (r := self._records.get(id)) and r.ready]
                left = deadline - time.monotonic()
                if found or left <= 0 or wakes != self._wakes:
                    return found
                if self._reading:
                    self._changed.wait(left)
                else:
                    self._read(min(left, _LOOK_EVERY))
        return []

    def _read(self, seconds: float) -> None:
        """Wait for the connection on behalf of all who wait."""
        connection = self._connection
        fd = connection.fileno() if connection is not None and connection.alive else -1
        self._reading = True
        self._changed.release()
        try:
            self._bell.sleep(fd, seconds)
        finally:
            self._changed.acquire()
            self._reading = False
            self._changed.notify_all()

    def _take_in(self) -> None:
        """What has come. The lock is held; nothing is read while somebody waits for it."""
        if self._connection is None:
            return
        try:
            self._hear()
        except OperationalError as exc:  # once: a server that is away is an error
            logger.info("Connecting again for results: %s", exc)
            self._hear()

    def _hear(self) -> None:
        self._line()
        connection = self._connection
        assert connection is not None
        came = connection.deliveries
        more = True
        while more or came:
            more = not self._reading and connection.read(0.0)
            if came:
                last = came[-1].tag
                self._unacked += len(came)
                while came:
                    self._keep(came.popleft())
                self._changed.notify_all()
                if self._unacked >= _WINDOW // 4:
                    connection.send(frames.ack(WORK, last, True))
                    self._unacked = 0
        if connection.silent and not self._reading:
            connection.probe()

    def _keep(self, content: Content) -> None:
        id = content.properties.correlation_id
        try:
            state = _state(content.body, self.options.serializer)
        except (DecodeError, msgspec.DecodeError):
            return  # not a result
        record = TaskRecord(
            id=id, run="", state=state, ready=state in states.READY_STATES, payload=content.body
        )
        old = self._records.get(id)
        if old is not None:
            if old.ready and (not record.ready or old.state == states.SUCCESS):
                return
            self._forget(id)
        self._records[id] = record
        self._bytes += len(record.payload)
        while len(self._records) > _MOST_RECORDS or self._bytes > _MOST_BYTES:
            self._forget(next(iter(self._records)))

    def _forget(self, id: str) -> bool:
        record = self._records.pop(id, None)
        if record is None:
            return False
        self._bytes -= len(record.payload)
        return True

    def delete(self, ids: Sequence[str]) -> int:
        with self._changed:
            self._take_in()
            return sum(self._forget(id) for id in dict.fromkeys(ids))

    def purge(self) -> int:
        return 0

    # --- what a reply cannot do -------------------------------------------------------------------

    def open_joins(self, joins: Sequence[Join]) -> None:
        if joins:
            raise _no_joins()

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        if arrivals:
            raise _no_joins()
        return []

    def admit(self, key: str, publish_id: str) -> bool:
        """Nothing is remembered: everybody is let in."""
        return True


def _state(body: bytes, serializer: str) -> str:
    if body[:1] == b"{":
        return _head(body).status
    meta: Any = decode_meta(body, serializer)
    return str(meta["status"])


def _no_joins() -> NotCapable:
    return NotCapable(
        "The result backend rpc:// counts no parts of a chord. Set result_backend to one that "
        "does: redis://… or sqlite:///…"
    )
