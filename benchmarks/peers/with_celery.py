"""Celery: a prefork pool of two, default settings."""

from __future__ import annotations

from celery import Celery, chain, chord

from benchmarks.peers.place import BROKER, RESULTS

app = Celery("shop", broker=BROKER, backend=RESULTS)

if RESULTS:

    @app.task(name="noop")
    def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count

    noop = app.task(name="noop")(count)


def send() -> None:
    noop.delay()


def send_and_wait() -> None:
    noop.delay().get(timeout=30)


def workflow(kind: str, size: int) -> None:
    steps = [noop.si() for _ in range(size)]
    sig = chain(steps) if kind == "chain" else chord(steps, noop.si())
    sig.apply_async().get(timeout=300)
