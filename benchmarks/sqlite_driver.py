"""The SQLite driver beside a plain ``sqlite3`` loop that moves the same rows.

Two processes claim 200 messages at a time and settle them with a record of 200 bytes each, from
a queue that is filled beforehand; then publishing one by one and in bulk, and waking up. Runs are
interleaved and the median is shown::

    python benchmarks/sqlite_driver.py [--messages 60000] [--rounds 3] [--waiting 1000000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.results import SqliteResultBackend
from celeriac.message import Message, Owner, Settlement, TaskRecord, Worker
from celeriac.utils import uuid

QUEUE = "celery"
CLAIM = 200
HEADERS = b'{"lang":"py","task":"tasks.noop","argsrepr":"(1, 2)"}'.ljust(420)
BODY = b'[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
RESULT = b"r" * 200
FORK = multiprocessing.get_context("fork")

PLAIN_SCHEMA = """
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, id TEXT, headers BLOB, body BLOB, owner INTEGER, published_at REAL
);
CREATE TABLE ready (seq INTEGER PRIMARY KEY);
CREATE TABLE results (id TEXT PRIMARY KEY, state TEXT, payload BLOB, expires_at REAL) WITHOUT ROWID;
"""


def message() -> Message:
    id = uuid()
    return Message(id=id, run=id, queue=QUEUE, headers=HEADERS, body=BODY, routing_key=QUEUE)


# --- the driver


def driver_fill(path: str, count: int) -> None:
    broker = SqliteBroker(f"sqlite:///{path}", {})
    broker.open()
    for _ in range(0, count, 1000):
        broker.publish([message() for _ in range(1000)])
    broker.close()


def driver_work(path: str, slot: int, limit: int, settled: int) -> None:
    broker = SqliteBroker(f"sqlite:///{path}", {})
    broker.open()
    broker.register(Worker(lease="bench", ttl=3600.0))
    owner = Owner("bench", slot, 1)
    done = 0
    while done < limit and (deliveries := broker.claim(owner, [QUEUE], CLAIM)):
        expires_at = time.time() + 86400
        for first in range(0, len(deliveries), settled):
            broker.settle(
                [
                    Settlement(
                        delivery=delivery,
                        records=(
                            TaskRecord(
                                id=delivery.message.id,
                                run=delivery.message.run,
                                state="SUCCESS",
                                ready=True,
                                payload=RESULT,
                                expires_at=expires_at,
                            ),
                        ),
                    )
                    for delivery in deliveries[first : first + settled]
                ]
            )
        done += len(deliveries)
    broker.close()


# --- the plain loop


def plain_connection(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def plain_fill(path: str, count: int) -> None:
    connection = plain_connection(path)
    connection.executescript(PLAIN_SCHEMA)
    for _ in range(0, count, 1000):
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(1000):
            row = connection.execute(
                "INSERT INTO tasks VALUES (NULL, ?, ?, ?, NULL, ?)",
                (uuid(), HEADERS, BODY, time.time()),
            )
            connection.execute("INSERT INTO ready VALUES (?)", (row.lastrowid,))
        connection.execute("COMMIT")
    connection.close()


def plain_work(path: str, slot: int, limit: int, settled: int) -> None:
    connection = plain_connection(path)
    execute = connection.execute
    done = 0
    while done < limit:
        execute("BEGIN IMMEDIATE")
        rows = execute(
            "SELECT t.seq, t.id, t.headers, t.body FROM ready AS r JOIN tasks AS t USING (seq) "
            "ORDER BY r.seq LIMIT ?",
            (CLAIM,),
        ).fetchall()
        connection.executemany(
            "UPDATE tasks SET owner = ? WHERE seq = ?", [(slot, row[0]) for row in rows]
        )
        connection.executemany("DELETE FROM ready WHERE seq = ?", [(row[0],) for row in rows])
        execute("COMMIT")
        if not rows:
            break
        for first in range(0, len(rows), settled):
            some = rows[first : first + settled]
            expires_at = time.time() + 86400
            execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, 'SUCCESS', ?, ?)",
                [(row[1], RESULT, expires_at) for row in some],
            )
            connection.executemany(
                "DELETE FROM tasks WHERE seq = ? AND owner = ?", [(row[0], slot) for row in some]
            )
            execute("COMMIT")
        done += len(rows)
    connection.close()


# --- measuring


def work_rate(
    fill: Callable[[str, int], None],
    work: Callable[[str, int, int, int], None],
    count: int,
    *,
    waiting: int = 0,
    settled: int = CLAIM,
) -> float:
    """Messages a second that two processes finish; ``waiting`` more stay in the queue."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/bench.db"
        fill(path, count + waiting)
        os.sync()  # what the filling left to be written is not the workers' to wait for
        processes = [
            FORK.Process(target=work, args=(path, slot, count // 2, settled)) for slot in (1, 2)
        ]
        started = time.perf_counter()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return count / (time.perf_counter() - started)


def single_publish(count: int = 5000) -> tuple[float, float]:
    """Microseconds of one publish, and of one plain insert of such a row."""
    with tempfile.TemporaryDirectory() as folder:
        broker = SqliteBroker(f"sqlite:///{folder}/bench.db", {})
        broker.open()
        messages = [message() for _ in range(count)]
        ours = timed(count, lambda number: broker.publish([messages[number]]))
        broker.close()
        connection = plain_connection(f"{folder}/plain.db")
        connection.executescript(PLAIN_SCHEMA)
        plain = timed(
            count,
            lambda number: connection.execute(
                "INSERT INTO tasks VALUES (NULL, ?, ?, ?, NULL, ?)",
                (messages[number].id, HEADERS, BODY, time.time()),
            ),
        )
        connection.close()
        return ours, plain


def timed(count: int, call: Callable[[int], Any]) -> float:
    started = time.perf_counter()
    for number in range(count):
        call(number)
    return (time.perf_counter() - started) / count * 1e6


def bulk_publish(count: int = 100_000) -> float:
    with tempfile.TemporaryDirectory() as folder:
        broker = SqliteBroker(f"sqlite:///{folder}/bench.db", {})
        broker.open()
        batches = [[message() for _ in range(1000)] for _ in range(count // 1000)]
        started = time.perf_counter()
        for batch in batches:
            broker.publish(batch)
        rate = count / (time.perf_counter() - started)
        broker.close()
        return rate


def wake_latencies(count: int = 200) -> tuple[list[float], list[float]]:
    """Milliseconds from a commit elsewhere to a waiting claim's return, and from the settlement
    to a waiting result's return."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        broker, results = SqliteBroker(url, {}), SqliteResultBackend(url, {})
        broker.open()
        results.open()
        mine, theirs = FORK.Pipe()
        process = FORK.Process(target=_answer, args=(url, theirs, count))
        process.start()
        mine.recv()
        claims, answers = [], []
        for _ in range(count):
            time.sleep(0.02)
            sent = message()
            broker.publish([sent])
            published_at = time.perf_counter()
            results.wait([sent.id], 5.0)
            returned_at = time.perf_counter()
            claimed_at, settled_at = mine.recv()
            claims.append((claimed_at - published_at) * 1000)
            answers.append((returned_at - settled_at) * 1000)
        process.join()
        results.close()
        broker.close()
        return claims, answers


def _answer(url: str, pipe: Any, count: int) -> None:
    broker = SqliteBroker(url, {})
    broker.open()
    broker.register(Worker(lease="bench", ttl=3600.0))
    owner = Owner("bench", 1, 1)
    pipe.send("ready")
    for _ in range(count):
        [delivery] = broker.claim(owner, [QUEUE], 1, wait=5.0)
        claimed_at = time.perf_counter()
        id = delivery.message.id
        done = TaskRecord(id=id, run=id, state="SUCCESS", ready=True, payload=RESULT)
        broker.settle([Settlement(delivery=delivery, records=(done,))])
        pipe.send((claimed_at, time.perf_counter()))
    broker.close()


def idle_cost(seconds: float = 5.0) -> float:
    """Percent of a core that a waiting claim uses."""
    with tempfile.TemporaryDirectory() as folder:
        broker = SqliteBroker(f"sqlite:///{folder}/bench.db", {})
        broker.open()
        broker.register(Worker(lease="bench", ttl=3600.0))
        before = resource.getrusage(resource.RUSAGE_SELF)
        broker.claim(Owner("bench", 1, 1), [QUEUE], 1, wait=seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        broker.close()
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return used / seconds * 100


def show(name: str, value: str, beside: str = "") -> None:
    print(f"{name:<46} {value:>16}  {beside}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=0, help="also with so many in the queue")
    arguments = parser.parse_args()
    count = arguments.messages
    print(f"SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, {Path(tempfile.gettempdir())}")
    for settled in (CLAIM, 50):
        ours, plain = [], []
        for _ in range(arguments.rounds):
            ours.append(work_rate(driver_fill, driver_work, count, settled=settled))
            plain.append(work_rate(plain_fill, plain_work, count, settled=settled))
        mine, theirs = statistics.median(ours), statistics.median(plain)
        show(
            f"claim {CLAIM}, settle {settled}, two processes",
            f"{mine:,.0f}/s",
            f"plain {theirs:,.0f}/s ({mine / theirs:.0%})",
        )
    if arguments.waiting:
        rates: dict[int, list[float]] = {1000: [], arguments.waiting: []}
        for _ in range(arguments.rounds):
            for waiting, found in rates.items():
                found.append(work_rate(driver_fill, driver_work, count, waiting=waiting))
        few, many = (statistics.median(found) for found in rates.values())
        show(f"the same with {arguments.waiting:,} waiting", f"{many:,.0f}/s", f"{many / few:.0%}")
    pairs = [single_publish() for _ in range(arguments.rounds)]
    ours_us = statistics.median(pair[0] for pair in pairs)
    plain_us = statistics.median(pair[1] for pair in pairs)
    show("publish, one by one", f"{ours_us:.1f} µs", f"plain insert {plain_us:.1f} µs")
    bulk = statistics.median(bulk_publish() for _ in range(arguments.rounds))
    show("publish, 1000 at a time", f"{bulk:,.0f}/s")
    claims, answers = wake_latencies()
    show("waking a claim: median", f"{statistics.median(claims):.2f} ms", _worst(claims))
    show(
        "waking a result's waiter: median", f"{statistics.median(answers):.2f} ms", _worst(answers)
    )
    show("a waiting claim", f"{idle_cost():.2f} % CPU")


def _worst(values: list[float]) -> str:
    return f"99 % within {statistics.quantiles(values, n=100)[98]:.2f} ms"


if __name__ == "__main__":
    main()
