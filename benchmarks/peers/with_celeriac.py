"""Celeriac: two runners, default settings."""

from __future__ import annotations

from benchmarks.peers.place import BROKER, RESULTS
from celeriac import Celeriac

app = Celeriac("shop", broker=BROKER, backend=RESULTS)

if RESULTS:

    @app.task
    def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count

    noop = app.task(name="noop")(count)


def send() -> None:
    noop.delay()


def send_and_wait() -> None:
    noop.delay().get(timeout=30)


def send_many(number: int) -> None:
    noop.delay_many([()] * number)
