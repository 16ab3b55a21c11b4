"""Celeriac on RabbitMQ beside Celery, dramatiq and bare pika, in turn, round after round, on one
private node. ``docs/benchmarks.md`` says what each figure is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from tests.servers import RabbitServer

from benchmarks import environments
from benchmarks.peers import Peer
from benchmarks.run import Bar, aligned
from benchmarks.stage import ROOT, Effort, median, percentile, wait_for, workers
from celeriac import Celeriac
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.topology import Topology
from celeriac.drivers.rabbitmq.urls import read_options

QUEUE: Final = "celery"
PEERS: Final = Peer(
    name="rabbitmq",
    title="peers on RabbitMQ",
    packages=("celery==5.*", "dramatiq[rabbitmq]==2.*", "pika==1.*"),
    versions=("celery", "kombu", "amqp", "dramatiq", "pika"),
)
# Tasks of one measured run: some seconds of work for each.
TASKS: Final = {"celeriac": 60_000, "celery": 8000, "dramatiq": 20_000, "bare pika": 60_000}
CALLS: Final = 5000
BULK: Final = 30_000
WAITS: Final = 500

TITLES: Final = {
    "results": ("No-op tasks, results by rpc://", "/s"),
    "ignored": ("No-op tasks, results ignored", "/s"),
    "delay": ("Sending one by one, confirmed", "/s"),
    "bulk": ("Sending many in one call", "/s"),
    "wait_median": ("Send and wait, median", " ms"),
    "wait_p99": ("Send and wait, 99th percentile", " ms"),
}
SYSTEMS: Final = ("celeriac", "celery", "dramatiq", "bare pika")


def installed() -> bool:
    from shutil import which

    return which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


class Comparison:
    """The measurements on one node, and the figures found so far. ``peers``: whether others are
    measured, too."""

    def __init__(self, server: RabbitServer, effort: Effort, *, peers: bool) -> None:
        self.server = server
        self.effort = effort
        self.peers = peers
        self.figures: dict[str, dict[str, list[float]]] = {}

    def note(self, figure: str, system: str, value: float) -> None:
        self.figures.setdefault(figure, {}).setdefault(system, []).append(value)

    def in_turn(self, figure: str, measures: Mapping[str, Callable[[], float]]) -> None:
        """Each system's measure once a round."""
        for _ in range(self.effort.rounds):
            for system, measure in measures.items():
                if self.peers or system == "celeriac":
                    self.note(figure, system, measure())

    # --- taking tasks ---------------------------------------------------------------------------

    def rate(self, system: str, task: str) -> float:
        """Tasks a second, while the queue goes from 90 to 10 per cent."""
        tasks = self.effort.count(TASKS[system])
        url = self.server.new_vhost()
        python = environments.program(PEERS, "python")
        module = f"benchmarks.rabbitmq_peers.{system.replace(' ', '_')}"
        if system == "celeriac":
            self._fill(url, task, tasks)
            command = [sys.executable, "-m", "celeriac", "-A", "benchmarks.rabbitmq_shop:app"]
            command += ["worker", "-c", "2", "-l", "WARNING"]
        else:
            self._peer(url, module, task, str(tasks))
        if system == "celery":
            command = [python, "-m", "celery", "-A", f"{module}:app", "worker", "-c", "2"]
            command += ["-l", "WARNING"]
        elif system == "dramatiq":
            command = [python, "-m", "dramatiq", module, "-p", "2"]
        elif system == "bare pika":
            command = [python, "-m", module, f"consume {task}"]
        return self._drained(url, command, tasks, copies=2 if system == "bare pika" else 1)

    def _fill(self, url: str, task: str, tasks: int) -> None:
        with Celeriac("shop", broker=url, backend="rpc://", set_as_current=False) as app:
            ignored = task == "ignored"
            name = f"benchmarks.rabbitmq_shop.{task}"
            sent = app.task(lambda: None, name=name, ignore_result=ignored)  # type: ignore[call-overload]
            sent.delay_many([()] * tasks)

    def _drained(self, url: str, command: list[str], tasks: int, copies: int) -> float:
        connection = Connection(read_options(url, {}), "benchmark")
        topology = Topology(connection, None, "quorum")
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
            wait_for(below(0.9 * tasks), 120, "the first tasks")
            wait_for(below(0.1 * tasks), 300, "the last tasks")
            running.check()
        connection.close()
        (start, before), (end, after) = marks
        return (before - after) / (end - start)

    # --- sending --------------------------------------------------------------------------------

    def delay(self) -> float:
        calls = self.effort.count(CALLS)
        with Celeriac("shop", broker=self.server.new_vhost(), set_as_current=False) as app:
            noop = app.task(lambda: None, name="noop")  # type: ignore[call-overload]
            noop.delay()
            start = time.perf_counter()
            for _ in range(calls):
                noop.delay()
            return calls / (time.perf_counter() - start)

    def peer_delay(self, system: str) -> float:
        module = f"benchmarks.rabbitmq_peers.{system.replace(' ', '_')}"
        calls = str(self.effort.count(CALLS))
        return float(self._peer(self.server.new_vhost(), module, "ignored", calls))

    def bulk(self) -> float:
        calls = self.effort.count(BULK)
        with Celeriac("shop", broker=self.server.new_vhost(), set_as_current=False) as app:
            noop = app.task(lambda: None, name="noop")  # type: ignore[call-overload]
            noop.delay()
            start = time.perf_counter()
            noop.delay_many([()] * calls)
            return calls / (time.perf_counter() - start)

    def waits(self) -> list[float]:
        """Seconds from delay() to the result."""
        url = self.server.new_vhost()
        command = [sys.executable, "-m", "celeriac", "-A", "benchmarks.rabbitmq_shop:app", "worker"]
        with (
            workers([*command, "-c", "2", "-l", "WARNING"], {"BENCH_URL": url}),
            Celeriac("shop", broker=url, backend="rpc://", set_as_current=False) as app,
        ):
            noop = app.task(lambda: None, name="benchmarks.rabbitmq_shop.results")  # type: ignore[call-overload]
            times = []
            for number in range(20 + self.effort.count(WAITS)):
                start = time.perf_counter()
                noop.delay().get(timeout=30)
                if number >= 20:
                    times.append(time.perf_counter() - start)
            return times

    def _peer(self, url: str, module: str, *arguments: str) -> str:
        done = subprocess.run(
            [environments.program(PEERS, "python"), "-m", module, *arguments],
            env={**os.environ, "BENCH_URL": url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


# --- parts ----------------------------------------------------------------------------------------


def rates(comparison: Comparison) -> None:
    for figure, systems in (
        ("results", ("celeriac", "celery", "bare pika")),
        ("ignored", SYSTEMS),
    ):
        measures = {
            system: lambda system=system, figure=figure: comparison.rate(system, figure)  # type: ignore[misc]
            for system in systems
        }
        comparison.in_turn(figure, measures)


def sending(comparison: Comparison) -> None:
    comparison.in_turn(
        "delay",
        {
            "celeriac": comparison.delay,
            **{
                system: lambda system=system: comparison.peer_delay(system)  # type: ignore[misc]
                for system in SYSTEMS[1:]
            },
        },
    )
    comparison.in_turn("bulk", {"celeriac": comparison.bulk})


def waiting(comparison: Comparison) -> None:
    for _ in range(comparison.effort.rounds):
        times = comparison.waits()
        comparison.note("wait_median", "celeriac", 1000 * median(times))
        comparison.note("wait_p99", "celeriac", 1000 * percentile(times, 0.99))


PARTS: Final[Mapping[str, Callable[[Comparison], None]]] = {
    "rates": rates,
    "sending": sending,
    "waiting": waiting,
}


# --- what came of it ------------------------------------------------------------------------------


def bars(figures: Mapping[str, Mapping[str, list[float]]]) -> list[Bar]:
    """What Celeriac is held against, of the figures that were measured."""

    def middle(figure: str, system: str = "celeriac") -> float | None:
        values = figures.get(figure, {}).get(system)
        return median(values) if values else None

    def against(figure: str, system: str, least: float, wanted: str, show: str) -> Bar:
        mine, other = middle(figure), middle(figure, system)
        if mine is None or other is None:
            return Bar(figure, wanted, "not measured", None)
        share = mine / other
        return Bar(figure, wanted, show.format(share), share >= least)

    bulk = middle("bulk")
    times = "{:.1f} times"
    found = [
        against("results", "celery", 4.0, ">= 4 x Celery", times),
        against("ignored", "dramatiq", 1.4, ">= 1.4 x Dramatiq", times),
        against("delay", "bare pika", 0.8, ">= 80 % of bare pika", "{:.0%}"),
        Bar(
            "bulk",
            ">= 10,000/s",
            "not measured" if bulk is None else f"{bulk:,.0f}/s",
            None if bulk is None else bulk >= 10_000,
        ),
    ]
    return [bar for bar in found if bar.figure in figures]


def table(figures: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The medians, a column for each system, then the bars."""
    names = [name for name in SYSTEMS if any(name in found for found in figures.values())]
    rows = [["", *names]]
    for figure, (title, unit) in TITLES.items():
        if figure in figures:
            found = figures[figure]
            places = 2 if unit == " ms" else 0
            rows.append(
                [
                    title,
                    *(
                        f"{median(found[name]):,.{places}f}{unit}" if name in found else "-"
                        for name in names
                    ),
                ]
            )
    words = {True: "met", False: "MISSED", None: ""}
    judged = [
        [TITLES[bar.figure][0], bar.wanted, bar.found, words[bar.met]] for bar in bars(figures)
    ]
    return "\n".join([*aligned(rows), "", *(aligned(judged) if judged else [])])
