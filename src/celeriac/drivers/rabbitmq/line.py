"""A connection and what is done over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celeriac.contracts import QueueSpec
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.consuming import Held, Inbox
from celeriac.drivers.rabbitmq.guarding import Guard
from celeriac.drivers.rabbitmq.publishing import Parcel, Sender
from celeriac.drivers.rabbitmq.topology import Topology
from celeriac.drivers.rabbitmq.urls import Options
from celeriac.message import Worker


class Line:
    """One connection of a broker with its topology, what it sends, takes in and guards."""

    def __init__(
        self, connection: Connection, queues: Mapping[str, QueueSpec] | None, options: Options
    ) -> None:
        self.connection = connection
        self.topology = Topology(connection, queues, options.delayed_queue_type)
        self.sender = Sender(connection, self.topology, options)
        self.inbox = Inbox(connection, self.topology)
        self.guard = Guard(connection, self.topology, self.sender)

    def prepare(self, worker: Worker) -> None:
        """Make what takes the server a while, when nobody waits for it, and what is this
        worker's alone."""
        self.topology.own_chain()
        self.topology.expect_delayed()
        self.topology.keep_own(worker)

    def replace(self, parked: Sequence[tuple[Held, Parcel]]) -> None:
        """Acknowledge these when what replaces them is safe."""
        self.sender.send([parcel for _, parcel in parked])
        self.inbox.outbox.append(self.inbox.acks([held.tag for held, _ in parked]))

    def return_arrived(self) -> None:
        """What was not claimed yet goes back, to the end of its queue, counted as nothing; no more
        comes until the next claim."""
        if not self.connection.alive:
            return
        self.inbox.unsubscribe(wait=True)
        self.inbox.take_in()
        arrived = self.inbox.arrived
        if arrived:
            self.replace([(held, self.sender.copy(held.letter, {})) for held in arrived])
            arrived.clear()
        self.inbox.flush()
