"""Sending much at once: one round trip to the broker for hundreds of messages.

Run it with ``python -m examples.bulk``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

import time

from celeriac import Celeriac
from examples.worker_process import own_worker

app = Celeriac("examples.bulk")
COUNT = 2000


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def shout(text: str) -> str:
    return text.upper()


def main() -> None:
    with own_worker("examples.bulk"):
        began = time.perf_counter()
        results = add.delay_many((number, 1) for number in range(COUNT))
        sent = time.perf_counter() - began
        sums = [result.get(timeout=60) for result in results]
        done = time.perf_counter() - began
        print(f"{COUNT} tasks sent in {sent:.2f} s and done in {done:.2f} s")
        print(f"in the order they were sent: {sums[:3]} ... {sums[-1]}")

        # Different tasks, with options of their own, go in one call as well.
        mixed = app.send_many([add.s(20, 3), shout.s("hello"), add.s(1, 1).set(countdown=0.5)])
        print([result.get(timeout=30) for result in mixed])


if __name__ == "__main__":
    main()
