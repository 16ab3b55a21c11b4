"""A process that is going to be killed: ``python -m celeriac.testing.victim ROLE URL ARGUMENT``.

It uses a store until it dies and tells on standard output what it was told: one line, written in
one piece, for each call that has returned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from celeriac.contracts import Broker
from celeriac.drivers import open_broker, open_results
from celeriac.message import Owner, Settlement, Worker
from celeriac.testing.samples import QUEUE, message, record

BATCH = 5  # messages in one publish
CLAIM = 7  # messages in one claim
TTL = 1.0  # seconds, of a victim's lease


def tell(line: str) -> None:
    """Unbuffered: what was told survives the kill."""
    os.write(1, line.encode() + b"\n")


def publish(broker: Broker, name: str) -> None:
    """Publish batch after batch; tells the number of each that is durable."""
    number = 0
    while True:
        broker.publish([message(f"{name}-{number}-{part}") for part in range(BATCH)])
        tell(str(number))
        number += 1


def work(broker: Broker, lease: str) -> None:
    """When a line comes in: claim and settle with a record and a message that follows; tells each
    claim and each settlement."""
    broker.register(Worker(lease=lease, ttl=TTL, pid=os.getpid()))
    owner = Owner(lease, 1, 1)
    tell("ready")
    sys.stdin.readline()
    while True:
        deliveries = broker.claim(owner, [QUEUE], CLAIM, wait=0.2)
        for delivery in deliveries:
            tell(f"claimed {delivery.message.id} {delivery.lost}")
        broker.settle(
            [
                Settlement(
                    delivery=delivery,
                    records=(record(delivery.message.id),),
                    messages=(message(f"next-{delivery.message.id}", queue="next"),),
                )
                for delivery in deliveries
            ]
        )
        for delivery in deliveries:
            tell(f"settled {delivery.message.id}")
        broker.heartbeat(lease)


def publish_once(broker: Broker, id: str) -> None:
    """Publish one message when a line comes in."""
    tell("ready")
    sys.stdin.readline()
    broker.publish([message(id)])


def put_once(url: str, id: str) -> None:
    """Store one record when a line comes in."""
    results = open_results(url)
    results.open()
    tell("ready")
    sys.stdin.readline()
    results.put([record(id)])
    results.close()


def main(role: str, url: str, argument: str) -> None:
    if role == "put-once":
        return put_once(url, argument)
    roles: dict[str, Callable[[Broker, str], None]] = {
        "publish": publish,
        "work": work,
        "publish-once": publish_once,
    }
    broker = open_broker(url)
    broker.open()
    roles[role](broker, argument)
    broker.close()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
