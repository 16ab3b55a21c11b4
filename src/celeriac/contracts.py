"""What a driver is: the words that the application and the worker speak to every system.

All calls are synchronous, batch first (one call, one round trip) and may be made from any thread;
a call that waits blocks no other. Each raises ``OperationalError`` when the system cannot be
reached within its time-out, and leaves nothing half done. Every transition checks the owner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from celeriac.message import (
    Arrival,
    Completes,
    Delivery,
    Join,
    Message,
    MessageState,
    Outcome,
    Owner,
    Peeked,
    Pulse,
    QueueInfo,
    Removed,
    ScheduleChanges,
    ScheduleRecord,
    Settlement,
    Tag,
    TaskRecord,
    Unfinished,
    Upkeep,
    Worker,
    WorkerInfo,
)


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a system can promise. The application refuses at start-up what it cannot."""

    survives_process: bool = True  # what was published survives the death of every process
    shared: bool = True  # several processes can use it at once
    delayed: bool = True  # due_at waits in the store
    dedupe: bool = True  # remembers dedupe keys
    priorities: bool = True
    highest_priority: int = 9  # the number that goes first: 9 (AMQP) or 0 (Celery's Redis)
    durable_cancel: bool = True
    joins: bool = True  # arrivals are counted in the store
    expires_results: bool = False  # by itself, without anybody's upkeep
    leases: bool = True  # judged by heartbeats; else the connection, and others take over at once
    whole: bool = True  # publish and settle are one transaction
    front: bool = True  # what comes back goes ahead of what waits
    by_id: bool = True  # waiting and delayed messages can be found and taken out (peek, cancel, …)
    pauses: bool = True
    broadcasts: bool = False  # every worker can be given a copy of a message
    keeps_records: bool = True  # results can be read by anybody, again and again
    upkeep_every: float = 1.0  # seconds between two calls of maintain; below 5
    durability: str = ""  # one sentence for `celeriac report`


class ExchangeSpec(Protocol):
    """An exchange as an application describes it (routing/queues.py)."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def durable(self) -> bool: ...
    @property
    def auto_delete(self) -> bool: ...
    @property
    def arguments(self) -> dict[str, Any] | None: ...
    @property
    def passive(self) -> bool: ...
    @property
    def no_declare(self) -> bool: ...


class QueueSpec(Protocol):
    """A queue as an application describes it (routing/queues.py)."""

    @property
    def name(self) -> str: ...
    @property
    def exchange(self) -> ExchangeSpec: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def queue_arguments(self) -> dict[str, Any] | None: ...
    @property
    def binding_arguments(self) -> dict[str, Any] | None: ...
    @property
    def durable(self) -> bool: ...
    @property
    def exclusive(self) -> bool: ...
    @property
    def auto_delete(self) -> bool: ...
    @property
    def no_declare(self) -> bool | None: ...
    @property
    def expires(self) -> float | None: ...
    @property
    def message_ttl(self) -> float | None: ...
    @property
    def max_length(self) -> int | None: ...
    @property
    def max_length_bytes(self) -> int | None: ...
    @property
    def max_priority(self) -> int | None: ...
    @property
    def broadcast(self) -> bool:
        """Does each worker find what is sent here in a queue of its ``own``?"""

    def own(self, lease: str) -> QueueSpec:
        """The queue in which the worker with this lease finds what is sent here."""


class Declares(Protocol):
    """An optional power of a broker: it has queues, exchanges and bindings of its own, and
    declares them as the application describes them."""

    def use_queues(self, queues: Mapping[str, QueueSpec]) -> None:
        """The application's queues, before ``open``. Looking an unknown one up may make it."""


class TellsEnds(Protocol):
    """An optional power of a broker that hands out again by itself what a dead process held."""

    def ended(self, ids: Sequence[str], why: str, limit: float) -> None:
        """The process that ran these tasks was ended on purpose; ``why`` as in Predecessor. For a
        while their deliveries carry the note ``ended <why> <limit>``."""


class Tended(Protocol):
    """An optional power of a broker that has something to do while its claims are worked on."""

    def tend(self) -> None:
        """Called twice a minute or more often while tasks run for long and nothing is claimed,
        from any thread."""


@runtime_checkable
class TellsUnfinished(Protocol):
    """An optional power of a result backend that counts joins."""

    def unfinished(self, older: float, limit: int) -> list[Unfinished]:
        """Open joins with a plan that were opened, or told of here, ``older`` seconds ago or
        more. From now on they count as told of: of several that ask, one is told."""


class Broker(Protocol):
    """Keeps messages until they are settled. A message is in its queue or in flight, never in
    neither."""

    capabilities: Capabilities
    # Equal for a broker and a result backend that can change in one transaction. A URL of the
    # driver's scheme, without a password.
    store: str

    def open(self) -> None:
        """Connect and make the store ready. Raises OperationalError naming the URL."""

    def close(self) -> None:
        """Let go of the connection; waiting calls return. May be called twice."""

    def wake(self) -> None:
        """Make calls that wait return now, with what there is; nothing comes to them any more.
        From any thread."""

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> int:
        """All durable in the store when it returns, or none. How many were not dropped by key.
        A key is seen for ``dedupe_window`` seconds (an option of the driver; a day) from the
        first publish, longer than its message lives. Joins are opened in the same transaction."""

    def register(self, worker: Worker) -> None:
        """Take or renew the lease that ``worker`` names."""

    def unregister(self, lease: str) -> None:
        """Give the lease back; what its owners still hold returns to the front, not counted
        as lost but marked as redelivered, for it may have been started. The mark of ``begin``
        stays: the next claim shows it."""

    def heartbeat(self, lease: str) -> Pulse:
        """Renew the lease, if it is still there: one that has lapsed is, until a maintain has
        collected it. A cancelled running id is told at every heartbeat until it is settled."""

    def claim(
        self,
        owner: Owner,
        queues: Sequence[str],
        limit: int,
        max_bytes: int = 16 * 1024 * 1024,
        wait: float = 0.0,
    ) -> list[Delivery]:
        """Take up to ``limit`` due messages, queues in the order given, in each the best priority
        and then the oldest first, paused queues left out. Always at least one if there is one,
        however large. A message that was lost before is handed out alone. Blocks up to ``wait``
        seconds while there is nothing. Raises LeaseLost if the owner's lease is gone.

        A delayed message takes its place when it becomes due, as if it was published then; the
        claim that finds it due may put it there. ``wait`` is real time, whatever the clock. A wait
        that has ended in vain may be ready for the next claim, which should follow."""

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        """Mark "not again" just before starting (at most once). The tags no longer held."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        """Apply each settlement whole, in order, in one transaction; one answer for each.

        ``keep`` is a wish, which a driver may pass over; where it is granted the answer is Kept. A
        message that is due later, has a dedupe key or whose id is cancelled is never kept, nor one
        for a queue that is paused or not among those, nor one of several.

        A refused record (see ResultBackend) doesn't make a settlement lost. Those of a batch that
        are released go ahead of what waits in their queue with their priority, in the order of
        the batch, without the mark of ``begin``. DEFER without ``due_at``: to the end, now.

        An arrival at a join that is unknown, complete or expired changes nothing (a driver that
        shares its joins with Celery keeps what comes before its join). A token that is
        not the one told last for its join is as none: the answer is Completes again. A token for
        a join that somebody else has completed meanwhile (a part that was sent twice) is answered
        by Completes without parts, and nothing is done: settle again without what would have
        followed the join, and without its token."""

    def recover(self, dead: Owner, new: Owner, running: Collection[Tag]) -> list[Delivery]:
        """Move to ``new`` what ``dead``, a process of the same worker, held, in order and with
        their tags. Only those that were ``running`` count as lost. None of them is redelivered
        alone: the caller releases the others before it runs the one that was lost. ``dead``
        equal to ``new``: what it holds, nothing changed; for one that never got the answer to
        its claim."""

    def maintain(self, owner: Owner, upkeep: Upkeep) -> list[Delivery]:
        """Due messages up; messages of dead leases back to the front, each counted as lost;
        expired dead letters, results, keys and joins gone. Those that were begun or were lost
        ``max_deliveries`` times are handed to ``owner`` instead, to be settled. Leases are judged
        only when the owner's own was renewed without a gap for one whole lease, its own."""

    def cancel(
        self,
        owner: Owner,
        ids: Sequence[str],
        until: float,
        terminate: bool = False,
        signal: str = "SIGTERM",
    ) -> list[Delivery]:
        """Remember the ids as cancelled until then. Their waiting and delayed messages are handed
        to ``owner`` to be settled; those in flight show up in their worker's heartbeat. Raises
        LeaseLost if the owner's lease is gone: a client registers one for the time it takes.
        Cancelling again never shortens ``until`` and never takes ``terminate`` back."""


class ResultBackend(Protocol):
    """Keeps the records of tasks. A stored SUCCESS is never replaced; a FAILURE or REVOKED only
    by another run of the id; an unfinished state never replaces a final one of the same run."""

    capabilities: Capabilities
    store: str

    def open(self) -> None:
        """Connect and make the store ready."""

    def close(self) -> None:
        """Let go of the connection; waiting calls return. May be called twice."""

    def wake(self) -> None:
        """Make calls that wait return now, with what there is. From any thread."""

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        """Store the records; for each the one that now stands."""

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        """The records of the ids, in their order; None for an unknown or expired one."""

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        """Block until at least one of the ids is ready; all that are. Empty after ``timeout``."""

    def open_joins(self, joins: Sequence[Join]) -> None:
        """Make the places where parts meet, before any part is sent."""

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        """Count the parts in; repeating one changes nothing. See Completes."""

    def admit(self, key: str, publish_id: str) -> bool:
        """Remember the first publish id seen for the key; is this the one?"""

    def delete(self, ids: Sequence[str]) -> int:
        """Forget the records; how many there were."""

    def purge(self) -> int:
        """Remove what has expired; how many records."""


class EventBus(Protocol):
    """Lossy and bounded: never part of correctness."""

    def emit(self, topic: str, payload: bytes = b"") -> None:
        """Tell whoever listens now."""

    def listen(self, topics: Iterable[str], timeout: float) -> list[tuple[str, bytes]]:
        """What was emitted since the last call (the first call: since then), waiting up to
        ``timeout`` seconds for something."""

    def wake(self) -> None:
        """Make a ``listen`` that waits return now, with what there is. From any thread."""

    def close(self) -> None:
        """Let go of the connection; a waiting ``listen`` returns."""


class QueueAdmin(Protocol):
    """For operators and the dashboard."""

    def queues(self) -> list[QueueInfo]:
        """Every queue that holds something or is paused, by name."""

    def workers(self) -> list[WorkerInfo]:
        """Every lease that is registered, by name, with how many messages its owners hold."""

    def pause(self, queue: str, paused: bool = True) -> None:
        """Let nobody claim from the queue, or let them again; publishing goes on."""

    def peek(
        self, queue: str | None, state: MessageState, limit: int = 100, after: str = ""
    ) -> list[Peeked]:
        """Messages in claim order (delayed ones: the next due first; dead ones: latest first),
        nothing changed. Queue None: all. A cursor is good for ``after`` when its message is gone
        too."""

    def find(self, ids: Sequence[str]) -> list[Peeked]:
        """The messages with these task ids, wherever they are."""

    def revive(self, ids: Sequence[str]) -> int:
        """Dead letters back to the end of their queues, due now, as a new run each, counted as
        never lost, whatever keys were seen. How many."""

    def delete(self, owner: Owner, ids: Sequence[str]) -> Removed:
        """Remove waiting, delayed and dead messages of these ids. Raises LeaseLost as cancel."""

    def purge(self, owner: Owner, queue: str) -> Removed:
        """Remove the waiting and delayed messages of the queue. Raises LeaseLost as cancel."""


class ScheduleStore(Protocol):
    """Keeps the entries of the periodic tasks for any number of schedulers. Optional: a driver
    that has it is a module with a function ``schedules(url, options)``, like the others."""

    store: str

    def open(self) -> None:
        """Connect and make the store ready."""

    def close(self) -> None:
        """Let go of the connection. May be called twice."""

    def load(self, since: str = "") -> ScheduleChanges:
        """What has changed since the answer with this token, a save of one's own included; all,
        if the token is empty or not known (any more). Cheap while nothing changes: idle
        schedulers ask every second."""

    def save(self, records: Sequence[ScheduleRecord]) -> list[int]:
        """Store each record whose stored version is still the one it carries (0: there is none
        of its name), in one transaction. For each the new version, or 0: somebody else has
        changed it, nothing was stored. Versions grow and are never used again, not even after a
        removal."""

    def remove(self, names: Sequence[str]) -> int:
        """Forget these entries; how many there were."""


class Driver(Protocol):
    """What the entry point of a URL scheme (group ``celeriac.drivers``) must be: a factory for
    the parts of one system, not yet open. A part that the system lacks is None."""

    def broker(self, url: str, options: Mapping[str, Any]) -> Broker | None: ...

    def results(self, url: str, options: Mapping[str, Any]) -> ResultBackend | None: ...

    def bus(self, url: str, options: Mapping[str, Any]) -> EventBus | None: ...

    def admin(self, broker: Broker) -> QueueAdmin | None: ...


Clock = Callable[[], float]
"""Epoch seconds; passed in so that tests can move it."""
