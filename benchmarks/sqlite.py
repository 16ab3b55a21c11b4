"""Celeriac on SQLite: speed beside plain ``sqlite3`` loops, latency, and what waiting costs."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import plain
from benchmarks.stage import (
    Effort,
    Workers,
    done_times,
    interleaved,
    median,
    percentile,
    wait_for,
    worker_command,
    workers,
)
from celeriac import Celeriac

Row = tuple[str, str, str]  # what, figure, bar


@contextmanager
def store() -> Iterator[tuple[Path, str]]:
    """An empty folder and the URL of a database in it."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder:
        path = Path(folder) / "bench.db"
        yield path, f"sqlite:///{path}"


@contextmanager
def worker(url: str) -> Iterator[Workers]:
    """A worker of two runners on this store."""
    command = worker_command("benchmarks.shop:app")
    with workers(command, {"BENCH_URL": url}) as running:
        yield running


@contextmanager
def shop(url: str) -> Iterator[tuple[Celeriac, Any]]:
    """The application of shop.py on this store, and its noop task."""
    app = Celeriac("shop", broker=url, set_as_current=False)
    try:
        yield app, app.task(lambda: None, name="benchmarks.shop.noop")  # type: ignore[call-overload]
    finally:
        app.close()


def rate(tasks: int, waiting: int = 0) -> float:
    """No-op tasks a second with stored results, two runners; ``waiting`` more stay behind."""
    with store() as (_, url), shop(url) as (app, noop):
        ids = [result.id for result in noop.delay_many([()] * tasks)]
        for _ in range(waiting // 10_000):
            noop.delay_many([()] * 10_000)
        gc.collect()
        with worker(url):
            assert app.backend is not None
            app.AsyncResult(ids[-1]).get(timeout=120)
            wait_for(lambda: len(done_times(app, ids)) == tasks, 60, "the last results")
        times = done_times(app, ids)
        return (tasks - 1) / (times[-1] - times[0])


def plain_rate(tasks: int) -> float:
    with store() as (path, _):
        plain.insert_many(plain.connect(path), tasks)
        return tasks / plain.consume(path)


def delay_rate(calls: int) -> float:
    """``delay()`` one by one, each durable when it returns."""
    with store() as (_, url), shop(url) as (_, noop):
        noop.delay()
        start = time.perf_counter()
        for _ in range(calls):
            noop.delay()
        return calls / (time.perf_counter() - start)


def plain_insert_rate(calls: int) -> float:
    with store() as (path, _):
        connection = plain.connect(path)
        start = time.perf_counter()
        for _ in range(calls):
            plain.insert_one(connection)
        return calls / (time.perf_counter() - start)


def bulk_rate(calls: int) -> float:
    with store() as (_, url), shop(url) as (_, noop):
        noop.delay()
        start = time.perf_counter()
        noop.delay_many([()] * calls)
        return calls / (time.perf_counter() - start)


def plain_bulk_rate(calls: int) -> float:
    with store() as (path, _):
        connection = plain.connect(path)
        start = time.perf_counter()
        plain.insert_many(connection, calls)
        return calls / (time.perf_counter() - start)


def speed(effort: Effort) -> list[Row]:
    tasks, calls, many = effort.count(40_000), effort.count(10_000), effort.count(50_000)
    figures = interleaved(
        effort.rounds,
        rate=lambda: rate(tasks),
        plain_rate=lambda: plain_rate(tasks),
        delay=lambda: delay_rate(calls),
        plain_insert=lambda: plain_insert_rate(calls),
        bulk=lambda: bulk_rate(many),
        plain_bulk=lambda: plain_bulk_rate(many),
    )
    mid = {name: median(values) for name, values in figures.items()}
    return [
        _ratio("no-op tasks with results", mid["rate"], mid["plain_rate"], "20,000/s or 60 %"),
        _ratio("delay() one by one", mid["delay"], mid["plain_insert"], "10,000/s or 50 %"),
        _ratio("delay_many()", mid["bulk"], mid["plain_bulk"], "80,000/s or 40 %"),
    ]


def _ratio(what: str, ours: float, plain_one: float, bar: str) -> Row:
    figure = f"{ours:,.0f}/s; plain loop {plain_one:,.0f}/s; {100 * ours / plain_one:.0f} %"
    return what, figure, f">= {bar}"


def latency(effort: Effort) -> list[Row]:
    """Send and wait, and idle cost, with a worker of two runners."""
    with store() as (_, url), shop(url) as (_, noop), worker(url) as process:
        for _ in range(20):
            noop.delay().get(timeout=30)
        times = []
        for _ in range(effort.count(1000)):
            start = time.perf_counter()
            noop.delay().get(timeout=30)
            times.append(time.perf_counter() - start)
        time.sleep(effort.settle)
        used = process.cpu(effort.idle)
        size = process.pss()
    return [
        ("send and wait, median", f"{1000 * median(times):.2f} ms", "<= 3 ms"),
        ("send and wait, 99th percentile", f"{1000 * percentile(times, 0.99):.2f} ms", "<= 15 ms"),
        ("idle worker, memory (PSS)", f"{size:.0f} MB", "<= 60 MB"),
        ("idle worker, CPU", f"{used:.2f} % of a core", "<= 1 %"),
    ]


def backlog(effort: Effort) -> list[Row]:
    """The rate with a million messages waiting behind, beside that with a thousand."""
    tasks, waiting = effort.count(20_000, 5000), effort.count(1_000_000)
    figures = interleaved(
        effort.rounds,
        million=lambda: rate(tasks, waiting=waiting),
        thousand=lambda: rate(tasks, waiting=10_000),
    )
    many, few = median(figures["million"]), median(figures["thousand"])
    figure = f"{many:,.0f}/s beside {few:,.0f}/s: {100 * many / few:.0f} %"
    return [(f"{waiting:,} waiting", figure, ">= 85 %")]


def delayed(effort: Effort) -> list[Row]:
    """How late due messages start, and what 100,000 delayed ones cost a worker."""
    with store() as (_, url), shop(url) as (app, noop), worker(url) as process:
        noop.delay().get(timeout=30)
        late = app.task(lambda due: None, name="benchmarks.shop.late")  # type: ignore[call-overload]
        results = []
        for number in range(effort.count(100)):
            countdown = 0.5 + number * 0.037
            results.append(late.apply_async((time.time() + countdown,), countdown=countdown))
        lateness = [result.get(timeout=30) for result in results]
        before = process.uss()
        for _ in range(effort.count(10)):
            noop.delay_many([()] * 10_000, countdown=3600)
        time.sleep(effort.settle)
        noop.delay().get(timeout=30)
        grown = process.uss() - before
    delayed = f"{effort.count(10) * 10_000:,} delayed for an hour"
    return [
        ("a due message starts, median", f"{1000 * median(lateness):.0f} ms late", "<= 100 ms"),
        ("a due message starts, latest", f"{1000 * max(lateness):.0f} ms late", "<= 500 ms"),
        (delayed, f"{grown:+.1f} MB in the worker", "nothing"),
    ]


PARTS = {"speed": speed, "latency": latency, "delayed": delayed, "backlog": backlog}
