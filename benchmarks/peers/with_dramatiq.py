"""Dramatiq: two processes of eight threads, its default; results by its own middleware."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.place import BROKER, RESULTS

broker = RedisBroker(url=BROKER)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=RESULTS), store_results=True))
dramatiq.set_broker(broker)

if RESULTS:

    @dramatiq.actor
    def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count

    noop = dramatiq.actor(count, actor_name="noop")


def send() -> None:
    noop.send()


def send_and_wait() -> None:
    noop.send().get_result(block=True, timeout=30_000)
