"""Three schedulers, one of which is killed all the time: every run is sent, and runs once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.faults.field import FULL, HERE, wait_until

from celeriac import Celeriac

SECONDS = 300 if FULL else 60
EVERY = {"one": 1.0, "two": 2.0, "cron": 60.0}
STORES = {"sqlite": lambda folder: f"sqlite:///{folder}/queue.db"}


class Run(NamedTuple):
    entry: str
    nominal: float
    at: float


class Stage:
    """The processes, and what they write down."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "BEATEN_URL": url, "BEATEN_NOTES": str(folder)}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "celeriac", "-q", "-A", "beaten:app", *command],
                env=self.env,
                cwd=HERE,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self.start("beat", "-S", "beaten:Hesitant")

    def lines(self, file: str) -> list[list[str]]:
        path = self.folder / file
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self) -> list[Run]:
        return [
            Run(entry, datetime.fromisoformat(nominal).timestamp(), float(at))
            for entry, nominal, at, _ in self.lines("runs")
        ]

    def last_word(self, pid: int) -> str:
        words = [word for word, of in self.lines("schedulers") if of == str(pid)]
        return words[-1] if words else ""


@contextmanager
def processes(*started: subprocess.Popen[bytes]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Whatever happens, none is left behind."""
    running = list(started)
    try:
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def catch_between(stage: Stage, schedulers: list[subprocess.Popen[bytes]]) -> int:
    """The scheduler that has sent and not recorded at this moment; any, if none comes there."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        said = stage.lines("schedulers")
        if said and said[-1][0] == "sent":
            for number, process in enumerate(schedulers):
                if str(process.pid) == said[-1][1]:
                    return number
        time.sleep(0.002)
    return random.randrange(len(schedulers))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("store", STORES)
def test_every_run_once_though_schedulers_are_killed(tmp_path: Path, store: str) -> None:
    url = STORES[store](tmp_path)
    stage = Stage(tmp_path, url)
    seed = random.randrange(2**32)
    random.seed(seed)
    kills: Counter[str] = Counter()
    with processes(
        stage.start("worker", "-c", "2"), *(stage.scheduler() for _ in range(3))
    ) as all_:
        wait_until(lambda: len(stage.runs()) > 2, 60, "the first runs")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(random.uniform(2, 4) if kills.total() % 2 else random.uniform(0, 2))
            number = random.randrange(3) if kills.total() % 2 else catch_between(stage, all_[1:])
            victim = all_[1 + number]
            victim.kill()
            victim.wait(10)
            kills[stage.last_word(victim.pid) or "starting"] += 1
            all_[1 + number] = stage.scheduler()
        wait_until(lambda: all(stage.last_word(p.pid) for p in all_[1:]), 30, "all to be up")
        until = time.time() - 2.0
        app = Celeriac("beaten", broker=url, set_as_current=False)
        for process in all_[1:]:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in all_[1:]] == [0, 0, 0]
        admin = app.admin()
        wait_until(
            lambda: not sum(q.waiting + q.in_flight for q in admin.queues()), 30, "the last runs"
        )
        all_[0].send_signal(signal.SIGTERM)
        assert all_[0].wait(40) == 0
        app.close()
    check(stage.runs(), until, kills, seed)
    assert kills["sent"] >= SECONDS // 20, "too few kills came between sending and recording"


def check(runs: list[Run], until: float, kills: Counter[str], seed: int) -> None:
    """Nothing missing between the first run and ``until``, nothing twice."""
    by_entry: dict[str, Counter[float]] = defaultdict(Counter)
    for run in runs:
        by_entry[run.entry][run.nominal] += 1
    late = sorted(run.at - run.nominal for run in runs)
    print(f"\nseed {seed}: {SECONDS} s, kills by what the scheduler had done last: {dict(kills)}")
    print(f"runs: { {entry: len(times) for entry, times in by_entry.items()} }")
    print(f"late: median {late[len(late) // 2]:.3f} s, worst {late[-1]:.3f} s")
    for entry, every in EVERY.items():
        times = by_entry[entry]
        assert times, f"{entry} never ran"
        twice = [nominal for nominal, count in times.items() if count > 1]
        assert not twice, f"{entry} ran twice for {twice}"
        first, last = min(times), max(times)
        steps = round((last - first) / every)
        missing = [
            first + k * every
            for k in range(steps + 1)
            if not any(abs(first + k * every - nominal) < 0.001 for nominal in times)
        ]
        assert not missing, f"{entry} did not run for {missing}"
        assert last > until - every, f"{entry} stopped at {last}, {until - last:.1f} s early"
        assert len(times) == steps + 1, f"{entry} ran between its times"
