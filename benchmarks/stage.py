"""What the measurements share: workers as real processes, memory and time as the system counts
them, medians."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from celeriac import Celeriac

ROOT = Path(__file__).parent.parent


@contextmanager
def worker(url: str, *options: str, concurrency: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """A running worker; it is ready when the block begins."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celeriac", "-A", "benchmarks.shop:app", "worker"),
            *("-c", str(concurrency), "-l", "WARNING", *options),
        ],
        env={**os.environ, "BENCH_URL": url},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker's processes."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def pss(process: subprocess.Popen[bytes]) -> float:
    """MB of memory that the tree uses, shared pages divided among their users."""
    return sum(one.memory_full_info().pss for one in tree(process)) / 1e6


def cpu(process: subprocess.Popen[bytes], seconds: float) -> float:
    """The share of one core that the tree uses, in per cent."""

    def used() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in tree(process))

    before, start = used(), time.perf_counter()
    time.sleep(seconds)
    return 100 * (used() - before) / (time.perf_counter() - start)


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.05)


def done_times(app: Celeriac, ids: Sequence[str]) -> list[float]:
    """When each ended, as stored with its result; epoch seconds, in order of time."""
    assert app.backend is not None
    times = []
    for start in range(0, len(ids), 1000):
        for record in app.backend.get(ids[start : start + 1000]):
            if record is not None and record.ready:
                done = app.AsyncResult(record.id).app.records.read(record)["date_done"]
                times.append(_epoch(done))
    return sorted(times)


def _epoch(text: str) -> float:
    from celeriac.protocol.task import parse_time

    value = parse_time(text)
    assert value is not None
    return value


def interleaved(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Each measure once a round, in turn; the figures of each."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
