"""Celeriac and its peers on one Redis, in turn, round after round.

What is measured of whom ends up in ``run.Figures``: the name of a figure, the system, one value a
round. ``docs/benchmarks.md`` says what each figure is and under which settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import canvas, environments
from benchmarks.broker import Redis
from benchmarks.clock import watch
from benchmarks.peers import CELERIAC, LPUSH, Peer, tally
from benchmarks.run import Figures
from benchmarks.stage import ROOT, Effort, Workers, median, percentile, workers

START = 0.5  # seconds before the first task: what a worker does when it starts is not measured here


class Comparison:
    """Measures on one server, and the figures found so far."""

    def __init__(self, redis: Redis, peers: Sequence[Peer], effort: Effort) -> None:
        self.redis = redis
        self.systems = [CELERIAC, *peers]
        self.effort = effort
        self.figures: Figures = {}
        self.idle_commands: dict[str, dict[str, int]] = {}

    def note(self, figure: str, peer: Peer, value: float) -> None:
        self.figures.setdefault(figure, {}).setdefault(peer.name, []).append(value)

    def each_round(self, measure: Callable[[Peer], None]) -> None:
        """The measure for each system in turn, so many rounds."""
        for _ in range(self.effort.rounds):
            for peer in self.systems:
                self.redis.flush()
                try:
                    measure(peer)
                except (RuntimeError, TimeoutError) as error:
                    if peer is CELERIAC:
                        raise
                    print(f"{peer.title} is left out of a round: {error}", file=sys.stderr)
        self.redis.flush()

    # --- processes ----------------------------------------------------------------------------

    def environment(self, results: bool, more: dict[str, str]) -> dict[str, str]:
        found = {"BENCH_BROKER": self.redis.broker_url, **more}
        if results:
            found["BENCH_RESULTS"] = self.redis.results_url
        return found

    @contextmanager
    def worker(
        self, peer: Peer, *, results: bool = True, more: dict[str, str] | None = None
    ) -> Iterator[Workers]:
        program, *arguments = peer.worker
        arguments = [word.replace("{broker}", self.redis.broker_url) for word in arguments]
        command = [environments.program(peer, program), *arguments]
        with workers(command, self.environment(results, more or {}), peer.copies) as running:
            yield running

    def send(
        self,
        peer: Peer,
        action: str,
        count: int,
        *,
        results: bool = True,
        more: dict[str, str] | None = None,
    ) -> list[float]:
        """Have a process of the peer's environment send; what it answers (sender.py)."""
        python = environments.program(peer, "python")
        done = subprocess.run(
            [python, "-m", "benchmarks.peers.sender", peer.module, action, str(count)],
            env={**os.environ, **self.environment(results, more or {})},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{peer.title} cannot {action}: {done.stderr[-2000:]}")
        return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]

    # --- the parts ----------------------------------------------------------------------------

    def rates(self) -> None:
        """No-op tasks a second, results on and off; the queue is filled beforehand."""
        self.each_round(lambda peer: self.note("results", peer, self.rate(peer)))
        self.each_round(lambda peer: self.note("no_results", peer, self.rate_unstored(peer)))

    def rate(self, peer: Peer, tasks: int = 0, waiting: int = 0) -> float:
        """From the first to the last stored result, as counted in the store."""
        tasks = tasks or self.effort.count(peer.tasks)
        self.send(peer, "fill", tasks + waiting)
        with self.worker(peer) as running:
            stored = peer.stored
            span = watch(lambda: self.redis.stored(stored, tasks), tasks, check=running.check)
        return span.rate

    def rate_unstored(self, peer: Peer) -> float:
        """From the first to the last run, as the runs themselves count (tally.py)."""
        tasks = self.effort.count(peer.tasks)
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(tally.SIZE)
            more = {"BENCH_TALLY": file.name}
            self.send(peer, "fill", tasks, results=False, more=more)
            with self.worker(peer, results=False, more=more) as running:
                counted = tally.Tally(file.name)
                return watch(counted.total, tasks, check=running.check).rate

    def sending(self) -> None:
        """Calls of ``delay()`` a second from one process, one by one and many at once, beside a
        bare LPUSH of the same bytes. No worker runs."""
        self.each_round(self._send_one_by_one)

    def _send_one_by_one(self, peer: Peer) -> None:
        calls = self.effort.count(peer.calls)
        [seconds] = self.send(peer, "delay", calls)
        self.note("delay", peer, calls / seconds)
        if peer is CELERIAC:
            self._push_bare(calls)
        if peer.bulk:
            self.redis.flush()
            many = self.effort.count(peer.bulk)
            [seconds] = self.send(peer, "bulk", many)
            self.note("bulk", peer, many / seconds)

    def _push_bare(self, calls: int) -> None:
        self.redis.select(0)
        message = self.redis.call("LINDEX", "celery", 0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "message"
            file.write_bytes(message)
            self.redis.flush()
            [seconds] = self.send(LPUSH, "delay", calls, more={"BENCH_MESSAGE": str(file)})
        self.note("delay", LPUSH, calls / seconds)

    def waiting(self) -> None:
        """Send and wait for the result, one after the other; then what the same worker costs."""
        self.each_round(self._wait_and_rest)

    def _wait_and_rest(self, peer: Peer) -> None:
        more = {"BENCH_WAITS": "1"}
        with self.worker(peer, more=more) as running:
            time.sleep(START)
            taken = self.send(peer, "wait", self.effort.count(1000), more=more)
            self.note("wait_median", peer, 1000 * median(taken))
            self.note("wait_p99", peer, 1000 * percentile(taken, 0.99))
            self.note("memory", peer, running.pss())
            time.sleep(self.effort.settle)
            self._rest(peer, running)

    def _rest(self, peer: Peer, running: Workers) -> None:
        before, start = self.redis.by_command(), time.perf_counter()
        commands, requests = self.redis.served()
        used = running.cpu(self.effort.idle)
        now_commands, now_requests = self.redis.served()
        seconds = time.perf_counter() - start
        after = self.redis.by_command()
        self.note("idle_cpu", peer, used)  # below, 1 is the look itself
        self.note("idle_commands", peer, (now_commands - commands - 1) / seconds)
        self.note("idle_requests", peer, (now_requests - requests - 1) / seconds)
        self.idle_commands[peer.name] = {
            name: calls - before.get(name, 0)
            for name, calls in after.items()
            if calls > before.get(name, 0) and name != "info"
        }

    def backlog(self) -> None:
        """Celeriac's rate with a thousand messages waiting behind, and with a million."""
        tasks = self.effort.count(100_000, 20_000)
        for _ in range(self.effort.rounds):
            for figure, waiting in (
                ("thousand_waiting", 1000),
                ("million_waiting", self.effort.count(1_000_000)),
            ):
                self.redis.flush()
                self.note(figure, CELERIAC, self.rate(CELERIAC, tasks, waiting))
        self.redis.flush()


PARTS: dict[str, Callable[[Comparison], None]] = {
    "rates": Comparison.rates,
    "sending": Comparison.sending,
    "waiting": Comparison.waiting,
    "workflows": canvas.on_redis,
    "backlog": Comparison.backlog,
}
