"""Workflows: what a chain and a chord cost from ``apply_async`` to ``get``, and how that grows.

``python -m benchmarks.canvas [URL]``; a temporary SQLite file without one.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from celeriac import Celeriac, chain, chord

ROUNDS = 5
Row = tuple[str, str, str]


@contextmanager
def worker(url: str) -> Iterator[None]:
    """A running worker with two processes."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celeriac", "-A", "benchmarks.shop:app"),
            *("--result-backend", url, "worker"),
            *("-c", "2", "-l", "WARNING"),
        ],
        env={**os.environ, "BENCH_URL": url},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def measure(url: str) -> Iterator[Row]:
    """Rows of what was measured: what, figure, bar."""
    app = Celeriac("bench", broker=url, backend=url, set_as_current=False)
    noop = app.signature("benchmarks.shop.noop", (), immutable=True)

    def run(make: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            start = time.perf_counter()
            make().apply_async().get(timeout=120)  # type: ignore[attr-defined]
            return time.perf_counter() - start

        return timed

    def header(size: int) -> Callable[[], float]:
        return run(lambda: chord([noop.clone() for _ in range(size)], noop.clone()))

    def steps(size: int) -> Callable[[], float]:
        return run(lambda: chain(noop.clone() for _ in range(size)))

    with worker(url):
        steps(1)()  # the worker is up
        few, many = _in_turn(steps(100), steps(1000), ROUNDS)
        yield "chain of 100", f"{few * 1e3:8.1f} ms", ""
        yield "chain of 1,000", f"{many * 1e3:8.1f} ms  ({many / few:.1f} x)", "at most 15 x"
        few, many = _in_turn(header(1000), header(10_000), 3)
        yield "chord of 1,000", f"{few * 1e3:8.1f} ms", ""
        yield "chord of 10,000", f"{many * 1e3:8.1f} ms  ({many / few:.1f} x)", "at most 11 x"
    app.close()


def _in_turn(
    few: Callable[[], float], many: Callable[[], float], rounds: int
) -> tuple[float, float]:
    """Medians of both, measured one after the other."""
    figures = [(few(), many()) for _ in range(rounds)]
    return (
        statistics.median(figure for figure, _ in figures),
        statistics.median(figure for _, figure in figures),
    )


def workflows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield from measure(f"sqlite:///{folder}/bench.db")


PARTS = {"workflows": workflows}


def main() -> None:
    for url in sys.argv[1:] or [""]:
        for what, figure, bar in measure(url) if url else workflows():
            print(f"{what:24} {figure:32} {bar}", flush=True)


if __name__ == "__main__":
    main()
