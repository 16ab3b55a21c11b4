"""Workflows: what a chain and a chord cost from ``apply_async`` to ``get``, and how that grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from benchmarks.peers import CELERIAC, Peer
from benchmarks.sqlite import Row, shop, store, worker
from benchmarks.stage import Effort, interleaved, median
from celeriac import chain, chord

if TYPE_CHECKING:
    from benchmarks.redis import Comparison

# Name of the figure, kind, steps or parts; the larger ones are of Celeriac alone.
BOTH = (("chain", "chain", 100), ("chord", "chord", 1000))
ALONE = (("chain_long", "chain", 1000), ("chord_large", "chord", 10_000))


def on_redis(comparison: Comparison) -> None:
    """Milliseconds of each workflow of no-op tasks, sent and waited for by a process of its own.
    The worker is up and has run some before."""
    comparison.each_round(lambda peer: _workflows(comparison, peer))


def _workflows(comparison: Comparison, peer: Peer) -> None:
    if not peer.workflows:
        return
    more = {"BENCH_WAITS": "1"}
    with comparison.worker(peer, more=more):
        comparison.send(peer, "wait", 20, more=more)
        for figure, kind, size in (*BOTH, *(ALONE if peer is CELERIAC else ())):
            [seconds] = comparison.send(peer, kind, comparison.effort.count(size), more=more)
            comparison.note(figure, peer, 1000 * seconds)


def on_sqlite(effort: Effort) -> Iterator[Row]:
    """The same on a file, with what growing ten times costs."""
    with store() as (_folder, url), shop(url) as (_, noop), worker(url):

        def run(kind: str, size: int) -> Callable[[], float]:
            def timed() -> float:
                start = time.perf_counter()
                steps = [noop.si() for _ in range(size)]
                sig = chain(steps) if kind == "chain" else chord(steps, noop.si())
                sig.apply_async().get(timeout=300)
                return time.perf_counter() - start

            return timed

        noop.delay().get(timeout=60)  # the worker is up
        for kind, size, bar in (("chain", 100, 15), ("chord", 1000, 11)):
            few, many = effort.count(size, 10), effort.count(10 * size, 100)
            found = interleaved(effort.rounds, few=run(kind, few), many=run(kind, many))
            small, large = median(found["few"]), median(found["many"])
            yield f"{kind} of {few:,}", f"{1e3 * small:.1f} ms", ""
            grown = f"{1e3 * large:.1f} ms, {large / small:.1f} times"
            yield f"{kind} of {many:,}", grown, f"<= {bar} times"
