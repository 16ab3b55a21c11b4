"""Celeriac on RabbitMQ beside Celery, dramatiq and bare pika: ``python -m benchmarks.rabbitmq``.

``--peers PYTHON`` is an interpreter that has celery, dramatiq[rabbitmq] and pika; without it only
Celeriac is measured. A private node is started for it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

from tests.servers import RabbitServer

from benchmarks.stage import (
    QUICK,
    ROOT,
    Effort,
    interleaved,
    median,
    percentile,
    wait_for,
    workers,
)
from celeriac import Celeriac
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.topology import Topology
from celeriac.drivers.rabbitmq.urls import read_options

QUEUE = "celery"


class Measured:
    """The measurements on one node."""

    def __init__(self, server: RabbitServer, peers: str | None, effort: Effort) -> None:
        self.server = server
        self.peers = peers
        self.effort = effort
        self.tasks = effort.count(40_000)

    # --- taking tasks -----------------------------------------------------------------------------

    def celeriac(self, task: str) -> float:
        url = self.server.new_vhost()
        with Celeriac("shop", broker=url, backend="rpc://", set_as_current=False) as app:
            names = {"noop": "benchmarks.rabbitmq_shop.noop", "ignored": _IGNORED}
            sent = app.task(lambda: None, name=names[task], ignore_result=task == "ignored")  # type: ignore[call-overload]
            sent.delay_many([()] * self.tasks)
            command = [sys.executable, "-m", "celeriac", "-A", "benchmarks.rabbitmq_shop:app"]
            return self._drained(url, [*command, "worker", "-c", "2", "-l", "WARNING"], 1)

    def celery(self, task: str) -> float:
        url = self.server.new_vhost()
        module = "benchmarks.rabbitmq_peers.celery_app"
        self._peer(url, module, task, str(self.tasks))
        command = [self._peers, "-m", "celery", "-A", f"{module}:app", "worker"]
        return self._drained(url, [*command, "-c", "2", "-l", "WARNING"], 1)

    def dramatiq(self, task: str) -> float:
        url = self.server.new_vhost()
        module = "benchmarks.rabbitmq_peers.dramatiq_app"
        self._peer(url, module, task, str(self.tasks))
        return self._drained(url, [self._peers, "-m", "dramatiq", module, "-p", "2"], 1)

    def bare(self, task: str) -> float:
        url = self.server.new_vhost()
        self._peer(url, "benchmarks.rabbitmq_peers.bare", "publish", str(self.tasks))
        return self._drained(url, [self._peers, "-m", "benchmarks.rabbitmq_peers.bare", task], 2)

    def _drained(self, url: str, command: list[str], copies: int) -> float:
        """Tasks a second, while the queue goes from 90 to 10 per cent."""
        connection = Connection(read_options(url, {}), "benchmark")
        topology = Topology(connection, None, "quorum")
        upper, lower = 0.9 * self.tasks, 0.1 * self.tasks
        marks: list[tuple[float, int]] = []

        def below(limit: float) -> Callable[[], bool]:
            def look() -> bool:
                depth = topology.depth(QUEUE)
                left = depth[0] if depth else 0
                if left <= limit:
                    marks.append((time.perf_counter(), left))
                return left <= limit

            return look

        with workers(command, {"BENCH_URL": url}, copies) as running:
            wait_for(below(upper), 120, "the first tasks")
            wait_for(below(lower), 300, "the last tasks")
            running.check()
        connection.close()
        (start, before), (end, after) = marks
        return (before - after) / (end - start)

    # --- sending ----------------------------------------------------------------------------------

    def delay(self) -> float:
        calls = self.effort.count(5000)
        url = self.server.new_vhost()
        with Celeriac("shop", broker=url, set_as_current=False) as app:
            noop = app.task(lambda: None, name="noop")  # type: ignore[call-overload]
            noop.delay()
            start = time.perf_counter()
            for _ in range(calls):
                noop.delay()
            return calls / (time.perf_counter() - start)

    def bare_delay(self) -> float:
        url = self.server.new_vhost()
        calls = str(self.effort.count(5000))
        return float(self._peer(url, "benchmarks.rabbitmq_peers.bare", "publish", calls))

    def bulk(self) -> float:
        calls = self.effort.count(30_000)
        url = self.server.new_vhost()
        with Celeriac("shop", broker=url, set_as_current=False) as app:
            noop = app.task(lambda: None, name="noop")  # type: ignore[call-overload]
            noop.delay()
            start = time.perf_counter()
            noop.delay_many([()] * calls)
            return calls / (time.perf_counter() - start)

    def latency(self) -> list[float]:
        """Seconds from delay() to the result."""
        url = self.server.new_vhost()
        command = [sys.executable, "-m", "celeriac", "-A", "benchmarks.rabbitmq_shop:app", "worker"]
        with (
            workers([*command, "-c", "2", "-l", "WARNING"], {"BENCH_URL": url}),
            Celeriac("shop", broker=url, backend="rpc://", set_as_current=False) as app,
        ):
            noop = app.task(lambda: None, name="benchmarks.rabbitmq_shop.noop")  # type: ignore[call-overload]
            for _ in range(20):
                noop.delay().get(timeout=30)
            times = []
            for _ in range(self.effort.count(500)):
                start = time.perf_counter()
                noop.delay().get(timeout=30)
                times.append(time.perf_counter() - start)
            return times

    @property
    def _peers(self) -> str:
        assert self.peers is not None
        return self.peers

    def _peer(self, url: str, module: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._peers, "-m", module, *arguments],
            env={**os.environ, "BENCH_URL": url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return done.stdout


_IGNORED = "benchmarks.rabbitmq_shop.ignored"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="a Python that has celery, dramatiq and pika")
    parser.add_argument("--quick", action="store_true", help="one short round, only to try it")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else Effort(share=arguments.share)
    with RabbitServer() as server:
        assert isinstance(server, RabbitServer)
        measured = Measured(server, arguments.peers, effort)
        measures: dict[str, Callable[[], float]] = {
            "with results: celeriac": lambda: measured.celeriac("noop"),
            "ignored: celeriac": lambda: measured.celeriac("ignored"),
            "delay(): celeriac": measured.delay,
            "bulk: celeriac": measured.bulk,
        }
        if arguments.peers:
            measures |= {
                "with results: celery": lambda: measured.celery("noop"),
                "with results: bare pika": lambda: measured.bare("noop"),
                "ignored: celery": lambda: measured.celery("ignored"),
                "ignored: dramatiq": lambda: measured.dramatiq("ignored"),
                "ignored: bare pika": lambda: measured.bare("ignored"),
                "delay(): bare pika": measured.bare_delay,
            }
        for what, values in sorted(interleaved(effort.rounds, **measures).items()):
            shown = ", ".join(f"{value:,.0f}" for value in values)
            print(f"{what:28} {median(values):10,.0f}/s   ({shown})", flush=True)
        times = measured.latency()
        print(
            f"{'send and wait':28} {1000 * median(times):.2f} ms median, "
            f"{1000 * percentile(times, 0.99):.2f} ms at 99 %"
        )


if __name__ == "__main__":
    main()
