"""RQ: a pool of two workers of the default kind, which forks for each job; results are kept for
500 s, its default, or not at all."""

from __future__ import annotations

from redis import Redis
from rq import Queue

from benchmarks.peers.place import BROKER, RESULTS

queue = Queue("default", connection=Redis.from_url(BROKER))
KEPT = 500 if RESULTS else 0

if RESULTS:

    def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count as noop


def send() -> None:
    queue.enqueue(noop, result_ttl=KEPT)


def send_and_wait() -> None:
    queue.enqueue(noop, result_ttl=KEPT).latest_result(timeout=30)


def send_many(number: int) -> None:
    for start in range(0, number, 1000):
        some = range(start, min(start + 1000, number))
        queue.enqueue_many([Queue.prepare_data(noop, result_ttl=KEPT) for _ in some])
