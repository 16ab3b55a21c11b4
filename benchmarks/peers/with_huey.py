"""Huey: two worker processes. Results of None are stored (``store_none``), because the no-op's
result is None; ``notify_result``, without which a waiting caller polls, is on where it waits."""

from __future__ import annotations

from huey import RedisHuey

from benchmarks.peers.place import BROKER, RESULTS, WAITS

app = RedisHuey(
    "shop", url=BROKER, results=RESULTS is not None, store_none=True, notify_result=WAITS
)

if RESULTS:

    @app.task()
    def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count

    noop = app.task(name="noop")(count)


def send() -> None:
    noop()


def send_and_wait() -> None:
    noop().get(blocking=True, timeout=30)
