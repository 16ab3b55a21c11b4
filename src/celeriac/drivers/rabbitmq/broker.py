"""The broker of ``amqp://``.

The lease of a process is its connection: when it breaks, the server hands out again what was held,
at once and to whoever comes first. What comes again is parked for half a second with its losses
counted in a header, on classic and on quorum queues alike, and goes to the end of its queue.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from celeriac.contracts import Capabilities, QueueSpec
from celeriac.drivers.rabbitmq import letters
from celeriac.drivers.rabbitmq.connection import Connection, connection_name
from celeriac.drivers.rabbitmq.consuming import Held, Inbox
from celeriac.drivers.rabbitmq.errors import INTERNAL_ERROR, ChannelClosed, Refused
from celeriac.drivers.rabbitmq.guarding import Guard, was_guarded
from celeriac.drivers.rabbitmq.notes import Notes, cancel_note, ended_note, publish_note
from celeriac.drivers.rabbitmq.publishing import Parcel, Sender
from celeriac.drivers.rabbitmq.topology import Topology
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
    Verdict,
    Worker,
    WorkerInfo,
)

logger = logging.getLogger("celeriac.drivers.rabbitmq")

T = TypeVar("T")
_ATTEMPTS: Final = 5

# A message that came again waits so long (seconds): whoever knows why it was lost can say so, and
# one that kills its process does not keep all the others busy.
PARKED: Final = 0.5
# After a lost message has come, so many others must come before more than one is asked for.
CAREFUL: Final = 20
CROWDED: Final = 0.05  # seconds
UPKEEP_EVERY: Final = 30.0  # seconds
MOST: Final = 1024  # messages in one claim
_SOON: Final = 0.002  # seconds before its time at which a message may start


class RabbitBroker:
    """Celeriac's Broker contract on RabbitMQ. See Capabilities for what is otherwise."""

    capabilities = Capabilities(
        dedupe=False,
        joins=False,
        leases=False,
        whole=False,
        front=False,
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
        self._tags = itertools.count(1)
        self._held: dict[int, tuple[Owner, Held]] = {}
        self._held_before: dict[tuple[str, str], int] = {}
        self._careful = 0
        self._notes = Notes(options.clock)
        self._tended = time.monotonic()
        self._upkept: tuple[Upkeep | None, float] = None, 0.0
        self._seen: set[str] = set()
        self._leases_since: dict[str, float] = {}
        self._sleeping = 0
        self._wake_in, self._wake_out = -1, -1
        self._wakes = 0

    # --- life -----------------------------------------------------------------------------------

    def use_queues(self, queues: Mapping[str, QueueSpec]) -> None:
        self._queues = queues

    def open(self) -> None:
        with self._lock:
            if self._wake_in < 0:
                self._wake_in, self._wake_out = os.pipe()
                os.set_blocking(self._wake_in, False)
                os.set_blocking(self._wake_out, False)
            self._is_open = True
            self.line()

    def close(self) -> None:
        self.wake()
        with self._lock:
            self._is_open = False
            line, self._line = self._line, None
            self._held.clear()
            self._held_before.clear()
            if line is not None:
                try:
                    line.give_back()
                except OperationalError as exc:
                    logger.debug("The connection broke before it was closed: %s", exc)
                line.connection.close()
            for fd in (self._wake_in, self._wake_out):
                if fd >= 0:
                    os.close(fd)
            self._wake_in, self._wake_out = -1, -1

    def wake(self) -> None:
        self._wakes += 1
        self._ring()

    def _ring(self) -> None:
        if self._wake_out >= 0:
            try:
                os.write(self._wake_out, b"w")
            except (BlockingIOError, OSError):
                pass  # it is full of wakes, or closed by another thread

    def line(self) -> Line:
        """The connection, made anew if it is not alive. The lock is held."""
        if not self._is_open:
            raise OperationalError(f"{self.store} is not open here: call open() first.")
        line = self._line
        if line is not None and line.connection.alive:
            return line
        if line is not None:
            self._forget_held()
        self._line = None
        connection = Connection(self.options, connection_name("work"))
        self._line = Line(connection, self._queues, self.options)
        return self._line

    def _forget_held(self) -> None:
        """What a broken connection held comes again; it was not lost here."""
        for _, held in self._held.values():
            message = held.letter.message
            if len(self._held_before) < 10_000:
                self._held_before[message.id, message.run] = held.lost
        self._held.clear()

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
            self._ring()

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
            self._declaring(Line.prepare)
            self._leases[worker.lease] = worker
            self._leases_since.setdefault(worker.lease, self.options.clock())

    def unregister(self, lease: str) -> None:
        with self._lock:
            self._leases.pop(lease, None)
            mine = [tag for tag, (owner, _) in self._held.items() if owner.lease == lease]
            self._put_back([self._held.pop(tag)[1] for tag in mine])

    def heartbeat(self, lease: str) -> Pulse:
        """Alive while the server answers: it is our connection."""
        with self._lock:
            line = self._fresh_line()
            line.connection.probe()
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
            self._ask(line.inbox, wanted, 1 if self._careful else limit, wait > 0, asked)
            return line

        while True:
            with self._lock:
                if asked and not self._is_open:
                    return []
                line = self._declaring(look)
                batch = self._accept(line, owner, limit, max_bytes)
                left = deadline - time.monotonic()
                if not batch and wakes != self._wakes and line.inbox.waits_for_claim:
                    # Whoever wakes us has something else to do: nothing may be left to come.
                    line.inbox.unsubscribe(wait=True)
                    line.inbox.take_in()
                    batch = self._accept(line, owner, limit, max_bytes)
                if self._sleeping:
                    self._ring()  # their subscription may have been ended here
                if batch or left <= 0 or wakes != self._wakes:
                    return batch
                fds = (line.connection.fileno(), self._wake_in)
                ready = line.inbox.waits
            asked = True
            if ready:  # else what came was parked, and there is more to ask for
                self._sleeping += 1
                try:
                    # Of several threads that wait one is rung for; the others look by themselves.
                    _sleep(fds, left if self._sleeping == 1 else min(left, CROWDED))
                finally:
                    self._sleeping -= 1

    def _ask(self, inbox: Inbox, queues: list[str], limit: int, waits: bool, asked: bool) -> None:
        """Let messages arrive. A call that waits leaves a subscription behind if there is
        nothing; one queue alone is subscribed to at once, several are gone through in order."""
        limit = max(1, min(limit, MOST))
        window = limit if len(queues) == 1 else 1
        inbox.take_in()
        gone = inbox.lost_subscriptions()
        silent = inbox.silent  # then the subscription is made anew, which needs an answer
        if waits and not gone and not silent and inbox.subscribed_to(queues, window):
            if inbox.arrived:
                # What is on its way belongs to this claim; a full window has nothing more.
                inbox.unsubscribe(wait=len(inbox.arrived) < window)
                inbox.take_in()
            return
        inbox.unsubscribe(wait=True)
        inbox.take_in()
        if not inbox.arrived and not asked and (not waits or len(queues) > 1):
            for queue in queues:
                if (room := limit - len(inbox.arrived)) > 0:
                    inbox.ask(queue, room)
        if waits and not inbox.arrived:
            inbox.subscribe(queues, window)

    def _accept(self, line: Line, owner: Owner, limit: int, max_bytes: int) -> list[Delivery]:
        """Deliveries of what has arrived; what is not to run now is sent where it belongs."""
        arrived = line.inbox.arrived
        if not arrived:
            return []
        now = self.options.clock()
        parked: list[tuple[Held, Parcel]] = []
        ready: list[Held] = []
        while arrived:
            held = arrived.popleft()
            parcel = self._parked(line.sender, held, now)
            if parcel is None:
                ready.append(held)
            else:
                parked.append((held, parcel))
        if parked:
            self._replace(line, parked)
        batch: list[Held] = []
        size = 0
        for held in ready:
            size += held.letter.message.size
            if batch and (len(batch) >= limit or held.lost or size > max_bytes):
                break
            batch.append(held)
            if held.lost:
                break
        arrived.extend(ready[len(batch) :])
        if any(held.lost for held in ready):
            # Alone means that nothing else is held: what it takes with it would be counted, too.
            self._careful = CAREFUL
            self._return_arrived(line)
        elif self._careful:
            self._careful = max(0, self._careful - len(batch))
        return [self._deliver(held, owner) for held in batch]

    def _parked(self, sender: Sender, held: Held, now: float) -> Parcel | None:
        """The copy that takes the place of a message that is not due, or was lost."""
        letter = held.letter
        extra = letter.extra
        times = int(extra.get("x-delivery-count") or 0) if extra else 0
        if held.redelivered or times:
            message = letter.message
            if self._held_before.pop((message.id, message.run), None) is None:
                lost = held.lost + max(1, times)
                return sender.copy(letter, {letters.LOST: lost}, now + PARKED)
        elif "x-death" in extra and was_guarded(extra):
            return sender.copy(letter, {}, now + PARKED)
        if letters.DUE in extra or letter.headers.get("eta") is not None:
            due_at = letters.due_at(letter)
            if due_at is not None and due_at > now + _SOON:
                return sender.copy(letter, {}, due_at)
        return None

    def _replace(self, line: Line, parked: Sequence[tuple[Held, Parcel]]) -> None:
        """Acknowledge these when what replaces them is safe."""
        line.sender.send([parcel for _, parcel in parked])
        line.inbox.outbox.append(line.inbox.acks([held.tag for held, _ in parked]))

    def _return_arrived(self, line: Line) -> None:
        """What was not claimed yet goes back, to the end of its queue, counted as nothing."""
        arrived = line.inbox.arrived
        if arrived:
            line.inbox.unsubscribe(wait=True)
            line.inbox.take_in()
            self._replace(line, [(held, line.sender.copy(held.letter, {})) for held in arrived])
            arrived.clear()
        line.inbox.flush()

    def _deliver(self, held: Held, owner: Owner) -> Delivery:
        tag = next(self._tags)
        self._held[tag] = owner, held
        extra = held.letter.extra
        message = held.letter.message
        cancelled = bool(self._notes.cancelled) and self._notes.is_cancelled(message.id)
        if not extra and not held.redelivered and not cancelled:
            return Delivery(message=message, owner=owner, tag=tag)
        note = str(extra.get(letters.NOTE, ""))
        if held.lost and self._notes.ended:
            note = self._notes.end_of(message.id) or note
        return Delivery(
            message=message,
            owner=owner,
            tag=tag,
            lost=held.lost,
            redelivered=held.redelivered or held.lost > 0,
            cancelled=cancelled,
            begun=bool(extra.get(letters.BEGUN)),
            note=note,
            publish_id=str(extra.get(letters.PUBLISH_ID, "")),
        )

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        """Put under guard with the mark: whoever gets it after our end sees that it was begun."""
        lost: list[Tag] = []
        with self._lock:
            line = self._line
            for delivery in deliveries:
                held = self._present(delivery)
                if held is None or line is None or not line.connection.alive:
                    lost.append(delivery.tag)
                else:
                    line.guard.take(line.inbox, held, {letters.BEGUN: 1})
        return lost

    def tend(self) -> None:
        """To be called now and then while a task runs for long: what is held for longer than the
        server allows is guarded, what came too late for the last claim is given back."""
        with self._lock:
            line = self._line
            if line is None or not line.connection.alive:
                return
            while line.connection.read(0.0):
                pass
            line.inbox.take_in()
            if line.inbox.arrived and not line.inbox.waits_for_claim:
                self._return_arrived(line)
            self._tend(line)

    def _tend(self, line: Line) -> None:
        now = time.monotonic()
        if now - self._tended < self.options.guard_after / 10:
            return
        self._tended = now
        if line.connection.version >= (3, 12) or not self._held:
            return  # there the consumer itself says how long
        for _, held in list(self._held.values()):
            if now - held.since > self.options.guard_after:
                line.guard.take(line.inbox, held, {letters.LOST: held.lost + 1})

    # --- settling -------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        """What follows and what replaces a message is confirmed before it is acknowledged.
        Results of the rpc backend go ahead of the acknowledgement on the same channel: whoever is
        cut off in between has sent both or neither of them."""
        with self._lock:
            line = self._line
            if line is None or not line.connection.alive:
                self.line()  # raises if it cannot be reached; what was held is lost
                return [Settled.LOST for _ in settlements]
            taken: dict[int, Held] = {}
            answers: list[Outcome] = []
            parcels: list[Parcel] = []
            replies: list[bytes] = []
            for settlement in settlements:
                held = self._present(settlement.delivery)
                tag = settlement.delivery.tag
                if held is None or tag in taken:
                    answers.append(Settled.LOST)
                    continue
                assert isinstance(tag, int)
                self._write(line.sender, settlement, held, parcels, replies)
                taken[tag] = held
                answers.append(Settled.SETTLED)
            for tag in taken:
                del self._held[tag]
            self._carry_out(line, taken.values(), parcels, replies)
            self._rouse(line)
            return answers

    def _present(self, delivery: Delivery) -> Held | None:
        if not isinstance(delivery.tag, int):
            return None
        owner, held = self._held.get(delivery.tag, (None, None))
        return held if owner == delivery.owner else None

    def _write(
        self,
        sender: Sender,
        settlement: Settlement,
        held: Held,
        parcels: list[Parcel],
        replies: list[bytes],
    ) -> None:
        """The frames of one settlement."""
        for record in settlement.records:
            if record.reply_to:
                replies.append(sender.reply(record))
        for message in settlement.messages:
            parcels.append(sender.parcel(message))
        verdict = settlement.verdict
        if verdict is Verdict.DEFER:
            changes = {letters.NOTE: settlement.note or None, letters.BEGUN: None}
            parcels.append(sender.copy(held.letter, changes, settlement.due_at))
        elif verdict is Verdict.RELEASE:
            parcels.append(sender.copy(held.letter, {letters.BEGUN: None}))
        elif verdict is Verdict.BURY:
            parcels.append(sender.dead(held.letter, settlement.reason))

    def _carry_out(
        self,
        line: Line,
        taken: Collection[Held],
        parcels: Sequence[Parcel],
        replies: Sequence[bytes],
    ) -> None:
        inbox, connection = line.inbox, line.connection
        if replies:
            connection.published += len(replies)
            inbox.outbox.extend(replies)
        if parcels or (replies and self.options.results_persistent):
            inbox.flush()
            line.sender.send(parcels)
        inbox.outbox.append(inbox.acks([held.tag for held in taken]))
        inbox.flush()

    def _put_back(self, held: Sequence[Held]) -> None:
        line = self._line
        if line is not None and line.connection.alive and held:
            self._replace(line, [(one, line.sender.copy(one.letter, {})) for one in held])
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

    def own_workers(self) -> list[WorkerInfo]:
        with self._lock:
            now = self.options.clock()
            held = Counter(owner.lease for owner, _ in self._held.values())
            return [
                WorkerInfo(
                    name=worker.name,
                    lease=worker.lease,
                    hostname=worker.hostname,
                    pid=worker.pid,
                    alive=True,
                    since=self._leases_since[worker.lease],
                    expires_at=now + worker.ttl,
                    in_flight=held[worker.lease],
                )
                for worker in sorted(self._leases.values(), key=lambda w: (w.name, w.lease))
            ]

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
            return Removed(count=count, parts=tuple(self._deliver(held, owner) for held in parts))

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


class Line:
    """A connection and what is done over it."""

    def __init__(
        self, connection: Connection, queues: Mapping[str, QueueSpec] | None, options: Options
    ) -> None:
        self.connection = connection
        self.topology = Topology(connection, queues, options.delayed_queue_type)
        self.sender = Sender(connection, self.topology, options)
        self.inbox = Inbox(connection, self.topology)
        self.guard = Guard(connection, self.topology, self.sender)

    def prepare(self) -> None:
        """Make what takes the server a while, when nobody waits for it."""
        self.topology.own_chain()
        self.topology.expect_delayed()

    def give_back(self) -> None:
        """Before closing: what has arrived and was not claimed goes back uncounted."""
        if not self.connection.alive:
            return
        self.inbox.unsubscribe(wait=True)
        self.inbox.take_in()
        arrived = list(self.inbox.arrived)
        if arrived:
            self.sender.send([self.sender.copy(held.letter, {}) for held in arrived])
            self.inbox.outbox.append(self.inbox.acks([held.tag for held in arrived]))
        self.inbox.flush()


def _sleep(fds: tuple[int, int], seconds: float) -> None:
    """Until the server says something, or somebody wakes us."""
    poller = select.poll()
    for fd in fds:
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    for fd, _ in poller.poll(seconds * 1000):
        if fd == fds[1]:
            try:
                os.read(fd, 4096)
            except OSError:
                pass  # closed, or read by another thread
