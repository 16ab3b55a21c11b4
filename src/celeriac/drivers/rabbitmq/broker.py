"""The broker of ``amqp://``.

The lease of a process is its connection: when it breaks, the server hands out again what was held,
at once and to whoever comes first. What comes again is parked for half a second with its losses
counted in a header, on classic and on quorum queues alike, and goes to the end of its queue.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from celeriac.contracts import Capabilities, QueueSpec
from celeriac.drivers.rabbitmq import letters
from celeriac.drivers.rabbitmq.bell import Bell
from celeriac.drivers.rabbitmq.connection import Connection, connection_name
from celeriac.drivers.rabbitmq.consuming import Held
from celeriac.drivers.rabbitmq.errors import INTERNAL_ERROR, ChannelClosed, Refused
from celeriac.drivers.rabbitmq.holding import Holding
from celeriac.drivers.rabbitmq.intake import Intake
from celeriac.drivers.rabbitmq.line import Line
from celeriac.drivers.rabbitmq.notes import Notes, cancel_note, ended_note, publish_note
from celeriac.drivers.rabbitmq.presence import Presence
from celeriac.drivers.rabbitmq.publishing import Parcel
from celeriac.drivers.rabbitmq.settling import settle
from celeriac.drivers.rabbitmq.urls import Options
from celeriac.exceptions import NotCapable, OperationalError
from celeriac.message import (
    Delivery,
    Join,
    Message,
    Outcome,
    Owner,
    Pulse,
    Removed,
    Settled,
    Settlement,
    Tag,
    Upkeep,
    Worker,
    WorkerInfo,
)

logger = logging.getLogger("celeriac.drivers.rabbitmq")

T = TypeVar("T")
_ATTEMPTS: Final = 5

CROWDED: Final = 0.05  # seconds
UPKEEP_EVERY: Final = 30.0  # seconds


class RabbitBroker:
    """Celeriac's Broker contract on RabbitMQ. See Capabilities for what is otherwise."""

    capabilities = Capabilities(
        dedupe=False,
        joins=False,
        leases=False,
        whole=False,
        front=False,
        broadcasts=True,
        by_id=False,
        pauses=False,
        durability="Published messages are confirmed by RabbitMQ: they survive the end of its "
        "process, and on quorum queues the loss of a minority of its nodes.",
    )

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = options.store
        self._queues: Mapping[str, QueueSpec] | None = options.queues
        self._lock = threading.RLock()
        self._line: Line | None = None
        self._is_open = False
        self._leases: dict[str, Worker] = {}
        self._holding = Holding()
        self._notes = Notes(options.clock)
        self._intake = Intake(self._holding, self._notes, options.clock)
        self._tended = time.monotonic()
        self._upkept: tuple[Upkeep | None, float] = None, 0.0
        self._seen: set[str] = set()
        self._presence = Presence(options.clock)
        self._sleeping = 0
        self._bell = Bell()
        self._wakes = 0

    # --- life -----------------------------------------------------------------------------------

    def use_queues(self, queues: Mapping[str, QueueSpec]) -> None:
        self._queues = queues

    def open(self) -> None:
        with self._lock:
            self._bell.open()
            self._is_open = True
            self.line()

    def close(self) -> None:
        self.wake()
        with self._lock:
            self._is_open = False
            line, self._line = self._line, None
            self._holding.clear()
            if line is not None:
                try:
                    line.return_arrived()
                except OperationalError as exc:
                    logger.debug("The connection broke before it was closed: %s", exc)
                line.connection.close()
            self._bell.close()

    def wake(self) -> None:
        self._wakes += 1
        self._bell.ring()

    def line(self) -> Line:
        """The connection, made anew if it is not alive. The lock is held."""
        if not self._is_open:
            raise OperationalError(f"{self.store} is not open here: call open() first.")
        line = self._line
        if line is not None and line.connection.alive:
            return line
        if line is not None:
            self._holding.lose()
        self._line = None
        connection = Connection(self.options, connection_name("work"))
        self._line = Line(connection, self._queues, self.options)
        return self._line

    # --- producers ------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> int:
        """Every message is confirmed when it returns. If it raises, some may have been taken."""
        if joins:
            raise NotCapable(
                "RabbitMQ counts no joins: open them at a result backend that does (Redis, "
                "SQLite, …), or use a broker that keeps results."
            )
        if not messages:
            return 0
        with self._lock:

            def build(line: Line) -> tuple[Line, list[Parcel]]:
                return line, [line.sender.parcel(message) for message in messages]

            line, parcels = self._declaring(build)
            line.sender.send(parcels)
            self._rouse(line)
        return len(messages)

    def _declaring(self, step: Callable[[Line], T]) -> T:
        """Do what may declare queues. Where two declare the same one for the first time the
        server breaks down over one of them (541) and closes its connection: that one does it
        again."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return step(self._fresh_line())
            except Refused as exc:
                if exc.code != INTERNAL_ERROR or attempt == _ATTEMPTS:
                    raise
                logger.info("Declaring again: %s", exc)
                time.sleep(random.uniform(0.5, 1.0) * 0.1 * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _rouse(self, line: Line) -> None:
        """What came for a claim that sleeps was read here: it must look again."""
        if self._sleeping and (line.connection.deliveries or line.inbox.arrived):
            self._bell.ring()

    def _fresh_line(self) -> Line:
        """The connection; one that the server has closed meanwhile is replaced."""
        line = self.line()
        try:
            while line.connection.read(0.0):
                pass
        except OperationalError as exc:
            logger.info("Connecting again: %s", exc)
            line = self.line()
        return line

    # --- leases ---------------------------------------------------------------------------------

    def register(self, worker: Worker) -> None:
        """The lease is this connection: there is nothing to tell the server. What delays messages
        is made now, so that the first one is not late."""
        with self._lock:
            self._declaring(lambda line: line.prepare(worker))
            self._leases[worker.lease] = worker
            self._presence.tell(self._fresh_line().connection, worker)

    def unregister(self, lease: str) -> None:
        with self._lock:
            worker = self._leases.pop(lease, None)
            self._put_back(self._holding.take_from(lease))
            if worker is not None:
                line = self._fresh_line()
                self._presence.tell(line.connection, worker, gone=True)
                line.topology.delete_own(worker)

    def heartbeat(self, lease: str) -> Pulse:
        """Alive while the server answers."""
        with self._lock:
            worker = self._leases.get(lease)
            if worker is None:
                return Pulse(alive=False)
            line = self._fresh_line()
            if not line.connection.blocked:  # else it has told us that it does not listen now
                line.connection.probe()
                line.topology.keep_own(worker)
                self._presence.tell(line.connection, worker)
            self._notes.follow(line.connection)
            return Pulse(alive=True, cancelled=self._notes.recent())

    # --- consumers ------------------------------------------------------------------------------

    def claim(
        self,
        owner: Owner,
        queues: Sequence[str],
        limit: int,
        max_bytes: int = 16 * 1024 * 1024,
        wait: float = 0.0,
    ) -> list[Delivery]:
        deadline = time.monotonic() + wait
        wanted = list(dict.fromkeys(queues))
        wakes = self._wakes
        asked = False

        def look(line: Line) -> Line:
            self._notes.follow(line.connection)
            self._tend(line)
            own = [line.topology.own(queue, owner.lease) for queue in wanted]
            self._intake.ask(line.inbox, own, limit, wait > 0, asked)
            return line

        while True:
            with self._lock:
                if asked and not self._is_open:
                    return []
                line = self._declaring(look)
                batch = self._intake.accept(line, owner, limit, max_bytes)
                left = deadline - time.monotonic()
                if not batch and wakes != self._wakes and line.inbox.waits_for_claim:
                    # Whoever wakes us has something else to do: nothing may be left to come.
                    line.inbox.unsubscribe(wait=True)
                    line.inbox.take_in()
                    batch = self._intake.accept(line, owner, limit, max_bytes)
                if self._sleeping:
                    self._bell.ring()  # their subscription may have been ended here
                if batch or left <= 0 or wakes != self._wakes:
                    return batch
                fd = line.connection.fileno()
                ready = line.inbox.waits
                if ready:
                    self._sleeping += 1
                crowded = self._sleeping > 1
            asked = True
            if ready:  # else what came was parked, and there is more to ask for
                try:
                    # Of several threads that wait one is rung for; the others look by themselves.
                    self._bell.sleep(fd, min(left, CROWDED) if crowded else left)
                finally:
                    with self._lock:
                        self._sleeping -= 1

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        """Put under guard with the mark: whoever gets it after our end sees that it was begun."""
        lost: list[Tag] = []
        with self._lock:
            line = self._line
            for delivery in deliveries:
                held = self._holding.present(delivery)
                if held is None or line is None or not line.connection.alive:
                    lost.append(delivery.tag)
                else:
                    line.guard.take(line.inbox, held, {letters.BEGUN: 1})
        return lost

    def tend(self) -> None:
        """To be called now and then while a task runs for long: what is held for longer than the
        server allows is guarded, what came too late for the last claim is given back. Whoever
        calls this claims nothing just now: nothing may be left to come."""
        with self._lock:
            line = self._line
            if line is None or not line.connection.alive:
                return
            while line.connection.read(0.0):
                pass
            if not self._sleeping:
                line.return_arrived()
            self._tend(line)

    def _tend(self, line: Line) -> None:
        now = time.monotonic()
        if now - self._tended < self.options.guard_after / 10:
            return
        self._tended = now
        if line.connection.version >= (3, 12):
            return  # there the consumer itself says how long
        for held in self._holding.since(now - self.options.guard_after):
            line.guard.take(line.inbox, held, {letters.LOST: held.lost + 1})

    # --- settling -------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        """See ``settling``. What a broken connection held is lost."""
        with self._lock:
            line = self._line
            if line is None or not line.connection.alive:
                self.line()  # raises if it cannot be reached; what was held is lost
                return [Settled.LOST for _ in settlements]
            answers = settle(
                line, self._holding, settlements, persistent=self.options.results_persistent
            )
            self._rouse(line)
            return answers

    def _put_back(self, held: Sequence[Held]) -> None:
        line = self._line
        if line is not None and line.connection.alive and held:
            line.replace([(one, line.sender.copy(one.letter, {})) for one in held])
            line.inbox.flush()

    # --- keeping --------------------------------------------------------------------------------

    def recover(self, dead: Owner, new: Owner, running: Collection[Tag]) -> list[Delivery]:
        """Nothing: the server has handed out again what the dead process held."""
        return []

    def maintain(self, owner: Owner, upkeep: Upkeep) -> list[Delivery]:
        """Dead letters that are too old or too many go. What is due comes up by itself, and losses
        are counted when it comes."""
        now = time.monotonic()
        if self._upkept[0] == upkeep and now - self._upkept[1] < UPKEEP_EVERY:
            return []
        self._upkept = upkeep, now
        from celeriac.drivers.rabbitmq.admin import RabbitQueueAdmin

        RabbitQueueAdmin(self).expire(upkeep, self.options.clock())
        return []

    # --- for administration ---------------------------------------------------------------------

    @contextmanager
    def using(self) -> Iterator[Line]:
        """The connection to oneself."""
        with self._lock:
            line = self._fresh_line()
            line.inbox.flush()
            yield line
            self._rouse(line)

    def queue_names(self) -> list[str]:
        """The application's queues, and those that this process has used."""
        with self._lock:
            names = set(self._queues or ()) | self._seen
            if self._line is not None:
                names |= self._line.topology.used
            self._seen = names
            return sorted(names)

    def workers(self) -> list[WorkerInfo]:
        """Those that have told of themselves lately."""
        with self.using() as line:
            return self._presence.look(line.connection)

    def drain(self, owner: Owner, queue: str, chunk: int) -> Removed:
        """Take everything out of the queue; parts of joins are held by the owner."""
        count, parts = 0, []
        with self.using() as line:
            depth = line.topology.depth(queue)
            left = depth[0] if depth else 0
            while left > 0:
                line.inbox.ask(queue, min(chunk, left))
                arrived = list(line.inbox.arrived)
                line.inbox.arrived.clear()
                if not arrived:
                    break
                left -= len(arrived)
                gone = [held for held in arrived if held.letter.message.join is None]
                parts += [held for held in arrived if held.letter.message.join is not None]
                count += len(gone)
                line.inbox.outbox.append(line.inbox.acks([held.tag for held in gone]))
                line.inbox.flush()
            return Removed(
                count=count, parts=tuple(self._intake.deliver(held, owner) for held in parts)
            )

    def cancel(
        self,
        owner: Owner,
        ids: Sequence[str],
        until: float,
        terminate: bool = False,
        signal: str = "SIGTERM",
    ) -> list[Delivery]:
        """Note it for every worker. Nothing is handed back: what waits is found cancelled when
        its turn comes, and settled then."""
        with self._lock:
            line = self._fresh_line()
            now = self.options.clock()
            if ids:
                self._write_note(line, cancel_note(ids, until, terminate, signal, now))
        return []

    def ended(self, ids: Sequence[str], why: str, limit: float) -> None:
        """The process that ran these was ended on purpose (``time_limit``, ``terminated``):
        whoever gets them next is told."""
        with self._lock:
            line = self._fresh_line()
            self._write_note(line, ended_note(ids, why, limit, self.options.clock()))

    def _write_note(self, line: Line, body: bytes) -> None:
        try:
            self._notes.declare(line.connection)
        except ChannelClosed as closed:
            raise OperationalError(
                f"{line.connection.endpoint.name} cannot keep notes of single tasks: {closed}. "
                "Its feature flag stream_queue must be enabled."
            ) from closed
        line.inbox.flush()
        publish_note(line.connection, body)
