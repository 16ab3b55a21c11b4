"""The values that pass between the application, the drivers and the worker. Frozen, no behaviour.

Times are epoch seconds (float), durations seconds (float), sizes bytes.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """One task message as it travels: what a driver stores and hands back without reading it.

    ``headers`` is a JSON object (protocol 2) or ``b"{}"`` (protocol 1: all is in the body).
    ``run`` names one *sending*: kept by retries and redeliveries, new for a re-send.
    ``due_at`` None or past: at once. ``join`` is set on a part of a join, so that a driver which
    removes the message hands it back to be settled instead. A ``dedupe_key`` that was seen within
    the driver's window drops the message; a task id is never one.
    """

    id: str
    run: str
    queue: str
    headers: bytes
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    exchange: str = ""
    routing_key: str = ""
    priority: int = 0
    reply_to: str = ""
    delivery_mode: int = 2
    due_at: float | None = None
    expires_at: float | None = None
    join: str | None = None
    dedupe_key: str | None = None

    @property
    def size(self) -> int:
        """Bytes that count against a claim's ``max_bytes``."""
        return len(self.headers) + len(self.body)


class Owner(Struct, frozen=True, gc=False):
    """One process that may hold deliveries. A successor in the same slot is another owner."""

    lease: str
    slot: int
    incarnation: int

    def __str__(self) -> str:
        return f"{self.lease}/{self.slot}/{self.incarnation}"


class Worker(Struct, frozen=True, kw_only=True):
    """What a worker registers: ``lease`` is its own choice of name, ``ttl`` how long it lasts,
    ``queues`` what it takes from."""

    lease: str
    ttl: float
    name: str = ""
    hostname: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()


Tag: TypeAlias = int | str
"""A driver's handle for one claimed message, unique among what its store holds."""


class Delivery(Struct, frozen=True, kw_only=True):
    """A message as claimed.

    ``lost`` counts the processes that died while running it. ``begun``: the process that lost it
    had marked it "not again" (at most once). ``cancelled``: its id was cancelled.
    ``note`` is what the settlement that deferred it last wanted to remember.
    """

    message: Message
    owner: Owner
    tag: Tag
    lost: int = 0
    redelivered: bool = False
    cancelled: bool = False
    begun: bool = False
    note: str = ""
    publish_id: str = ""  # of this publish of a keyed message, if the broker forgets keys


class Verdict(enum.Enum):
    """What becomes of a delivery."""

    DONE = "done"  # gone
    DEFER = "defer"  # unchanged, back at due_at
    RELEASE = "release"  # back to the front now, counted as nothing
    BURY = "bury"  # a dead letter, with the reason


class TaskRecord(Struct, frozen=True, kw_only=True, gc=False):
    """What is stored of one task: its state and the result document (protocol/results.py)."""

    id: str
    run: str
    state: str
    ready: bool
    payload: bytes
    expires_at: float | None = None
    reply_to: str = ""  # where whoever sent the task reads, if the result is sent and not stored


class Join(Struct, frozen=True, kw_only=True, gc=False):
    """A place where ``size`` parts meet (a chord's header). Opening it again changes nothing.
    ``plan``: what is needed to end it without a message of one of its parts; drivers that tell of
    unfinished joins keep it, and don't read it."""

    id: str
    size: int
    expires_at: float | None = None
    plan: bytes = b""


class Unfinished(Struct, frozen=True, kw_only=True):
    """A join that is open for long: its plan, and the indexes of the parts that are not in."""

    join: str
    plan: bytes
    missing: tuple[int, ...]


class Arrival(Struct, frozen=True, kw_only=True, gc=False):
    """Part ``index`` of a join is in. ``value`` is JSON: a result, or an exception's form."""

    join: str
    index: int
    id: str
    state: str
    value: bytes


class Completes(Struct, frozen=True, kw_only=True):
    """The answer to a settlement or arrival that would complete a join; nothing of it was done.

    The caller builds what follows from ``parts`` (by index, the new one among them) and repeats
    the call with ``token``. No parts: somebody else has completed it; see Broker.settle.
    """

    join: str
    token: str
    parts: tuple[Arrival, ...]


class Settlement(Struct, frozen=True, kw_only=True):
    """Everything that finishing one delivery changes. Applied whole or not at all.

    ``records``: results to store, the task's own first. ``messages`` follow (links, retries).
    ``due_at`` and ``note`` go with DEFER, ``reason`` with BURY. ``offered``, with DEFER: workers of
    another implementation on the same queue may take it before ``due_at``. ``tokens``: join id to
    token, for joins that a former try was told it completes. ``keep``: queues of which the owner
    takes messages: if nothing waits in any of them, the one message that follows may stay with it
    (Kept), as if it had been claimed at once.
    """

    delivery: Delivery
    verdict: Verdict = Verdict.DONE
    records: tuple[TaskRecord, ...] = ()
    messages: tuple[Message, ...] = ()
    joins: tuple[Join, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    tokens: dict[str, str] = {}
    due_at: float | None = None
    note: str = ""
    reason: str = ""
    offered: bool = False
    keep: tuple[str, ...] = ()


class Settled(enum.Enum):
    """What became of a settlement."""

    SETTLED = "settled"
    LOST = "lost"  # another owner has it, or it is gone: nothing was changed


class Kept(Struct, frozen=True):
    """The settlement is settled, and its owner holds the message that follows as this delivery."""

    delivery: Delivery


Outcome: TypeAlias = Settled | Kept | Completes


class Cancelled(Struct, frozen=True, kw_only=True, gc=False):
    """A running task whose id was cancelled; ``signal`` is a name such as ``SIGTERM``."""

    id: str
    terminate: bool
    signal: str


class Pulse(Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat: is the lease still ours, and which running ids were cancelled."""

    alive: bool
    cancelled: tuple[Cancelled, ...] = ()


class Upkeep(Struct, frozen=True, kw_only=True):
    """Bounds that ``maintain`` holds. None: no bound."""

    max_deliveries: int = 3
    dead_expires: float | None = 30 * 86400.0
    dead_max: int | None = 100_000


class QueueInfo(Struct, frozen=True, kw_only=True):
    """Counts of one queue; ``oldest_at`` is when its oldest waiting message was published."""

    name: str
    waiting: int
    delayed: int
    in_flight: int
    dead: int
    paused: bool
    oldest_at: float | None = None


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One lease as an operator sees it. ``name`` is ``operator`` for a client that holds one for
    the time of one operation. Not ``alive``: it has lapsed, and nobody has collected what it holds
    yet. ``since``: from when on it was renewed without a gap."""

    name: str
    lease: str
    hostname: str
    pid: int
    alive: bool
    since: float
    expires_at: float
    in_flight: int


class MessageState(enum.Enum):
    """Where a stored message is."""

    WAITING = "waiting"
    DELAYED = "delayed"
    IN_FLIGHT = "in flight"
    DEAD = "dead"


class Peeked(Struct, frozen=True, kw_only=True):
    """A stored message as an operator sees it; ``cursor`` is passed as ``after`` for more."""

    message: Message
    state: MessageState
    cursor: str
    lost: int = 0
    reason: str = ""
    at: float | None = None  # published, or buried


class Removed(Struct, frozen=True, kw_only=True):
    """What a removal did: ``count`` messages are gone; ``parts``, not among them, belong to joins
    or need a record, are held by the caller's owner now, and must be settled by it. Dead letters
    are never parts: what they belong to was told when they were buried."""

    count: int
    parts: tuple[Delivery, ...] = ()


class ScheduleRecord(Struct, frozen=True, kw_only=True):
    """One entry of the periodic tasks, as the schedulers share it.

    ``payload`` says what is sent and when (JSON, beat/entries.py); drivers don't read it.
    ``source``: "code", from the application's configuration, or "user", added at run time.
    ``anchor``: the instant from which an interval counts. ``last_nominal``: the nominal time up to
    which all is decided. ``last_run_at``: when a message was sent last, ``count``: how often.
    ``state`` is the scheduler's own. ``version``: the change that stored it; 0: not stored yet.
    """

    name: str
    payload: bytes
    source: str
    anchor: float
    paused: bool = False
    last_nominal: float | None = None
    last_run_at: float | None = None
    count: int = 0
    state: bytes = b""
    version: int = 0


class ScheduleChanges(Struct, frozen=True, kw_only=True):
    """What has changed in a schedule store. ``whole``: ``records`` are all there are, others are
    gone. ``token``: to be asked with the next time."""

    token: str
    records: tuple[ScheduleRecord, ...] = ()
    whole: bool = False
