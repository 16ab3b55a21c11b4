"""What the measurements share: workers as real processes, memory and time as the system counts
them, medians."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from celeriac import Celeriac
from celeriac.protocol.times import parse_time

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Effort:
    """How much is measured: the full run, or a quick look at whether everything works."""

    rounds: int = 3
    share: float = 1.0  # of the full counts
    idle: float = 20.0  # seconds that an idle worker is watched
    settle: float = 2.0  # seconds that it is left alone before

    def count(self, full: int, least: int = 1) -> int:
        return max(least, int(full * self.share))


FULL = Effort()
QUICK = Effort(rounds=1, share=0.1, idle=2.0, settle=0.5)


class Workers:
    """Processes of one system that work together, and their children."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
        self.processes = list(processes)
        self.log = log

    def tree(self) -> list[psutil.Process]:
        found = []
        for process in self.processes:
            parent = psutil.Process(process.pid)
            found += [parent, *parent.children(recursive=True)]
        return found

    def check(self) -> None:
        """Raises if one has ended, with the last it said."""
        for process in self.processes:
            if process.poll() is not None:
                said = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"a worker ended with status {process.returncode}: {said}")

    def stop(self, patience: float = 1.0) -> None:
        """By SIGTERM; whoever is left after ``patience`` seconds is killed: all is measured."""
        running = [process for process in self.processes if process.poll() is None]
        tree = self.tree() if len(running) == len(self.processes) else []
        for process in running:
            process.send_signal(signal.SIGTERM)
        for left in psutil.wait_procs(tree, patience)[1]:
            left.kill()
        for process in running:
            process.kill()
            process.wait()

    def pss(self) -> float:
        """MB of memory that the tree uses, shared pages divided among their users."""
        return sum(one.memory_full_info().pss for one in self.tree()) / 1e6

    def uss(self) -> float:
        """MB that the tree's processes have for themselves alone."""
        return sum(one.memory_full_info().uss for one in self.tree()) / 1e6

    def cpu(self, seconds: float) -> float:
        """The share of one core that the tree uses, in per cent."""
        tree = self.tree()
        before, start = sum(map(_cpu_seconds, tree)), time.perf_counter()
        time.sleep(seconds)
        used = sum(map(_cpu_seconds, tree)) - before
        return 100 * used / (time.perf_counter() - start)


def _cpu_seconds(process: psutil.Process) -> float:
    """What a process has used so far. Linux knows it to the nanosecond, by the clock that
    clock_getcpuclockid(3) makes of a process id; elsewhere it is counted in ticks of 10 ms."""
    if sys.platform == "linux":
        return time.clock_gettime(((~process.pid) << 3) | 2)
    return float(sum(process.cpu_times()[:2]))


@contextmanager
def workers(
    command: Sequence[str], environment: Mapping[str, str], copies: int = 1
) -> Iterator[Workers]:
    """Processes that run this command from the project's folder, stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-bench-"))
    log = folder / "log"
    running = Workers([], log)
    try:
        with log.open("ab") as output:
            for _ in range(copies):
                running.processes.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **environment},
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                )
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def worker_command(app: str) -> list[str]:
    """Celeriac's worker with two runners."""
    program = [sys.executable, "-m", "celeriac"]
    return [*program, "-A", app, "worker", "-c", "2", "-l", "WARNING"]


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
