"""Three schedulers, one of which is killed all the time: every run is sent, and runs once. On each
store; side by side, because it is done in real time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.drivers import rabbitmq_stage, redis_stage
from tests.faults.field import FULL, HERE, wait_until

from celeriac import Celeriac

SECONDS = 300 if FULL else 60
EVERY = {"one": 1.0, "two": 2.0, "cron": 60.0}


class Place(NamedTuple):
    """Where messages wait, and where results are kept; schedules are at the first that can."""

    broker: str
    backend: str


def redis(db: int) -> str:
    return redis_stage.shared_server().url.removesuffix("0") + str(db)


STORES: dict[str, Callable[[Path], Place]] = {
    "sqlite": lambda folder: Place(f"sqlite:///{folder}/queue.db", f"sqlite:///{folder}/queue.db"),
    "redis": lambda _: Place(redis(0), redis(1)),
    "rabbitmq+redis": lambda _: Place(rabbitmq_stage.shared_server().new_vhost(), redis(2)),
}


class Run(NamedTuple):
    entry: str
    nominal: float
    at: float


class Stage:
    """The processes, and what they write down."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self.place = place
        self.env = {
            **os.environ,
            "BEATEN_URL": place.broker,
            "BEATEN_BACKEND": place.backend,
            "BEATEN_NOTES": str(folder),
        }

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

    def last_words(self) -> list[str]:
        """What a scheduler did last, and its process id."""
        try:
            with (self.folder / "schedulers").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 100))
                return file.read().decode().splitlines()[-1].split()
        except (FileNotFoundError, IndexError):
            return ["nothing", ""]

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


def catch_between(stage: Stage, schedulers: list[subprocess.Popen[bytes]]) -> int | None:
    """The scheduler that has sent and not recorded at this moment; None if none comes there."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        word, pid = stage.last_words()
        if word == "sent":
            for number, process in enumerate(schedulers):
                if str(process.pid) == pid:
                    return number
        time.sleep(0.002)
    return None


class Outcome(NamedTuple):
    """``until``: up to when schedulers ran. ``kills``: by what the scheduler had done last."""

    runs: list[Run]
    until: float
    kills: Counter[str]
    seed: int


def bombard(folder: Path, place: Place) -> Outcome:
    """Run it for a while, killing a scheduler every two to four seconds."""
    stage = Stage(folder, place)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    kills: Counter[str] = Counter()
    with processes(
        stage.start("worker", "-c", "2"), *(stage.scheduler() for _ in range(3))
    ) as all_:
        wait_until(lambda: len(stage.runs()) > 2, 60, "the first runs")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            between = kills.total() % 2 == 0
            time.sleep(rng.uniform(1, 2) if between else rng.uniform(2, 4))
            number = catch_between(stage, all_[1:]) if between else None
            number = rng.randrange(3) if number is None else number
            victim = all_[1 + number]
            # With nobody to take over nothing would be shown but that a start takes its time.
            others = [process.pid for process in all_[1:] if process is not victim]
            wait_until(lambda: any(map(stage.last_word, others)), 30, "another to be up")  # noqa: B023
            victim.kill()
            victim.wait(10)
            kills[stage.last_word(victim.pid) or "starting"] += 1
            all_[1 + number] = stage.scheduler()
        wait_until(lambda: all(stage.last_word(p.pid) for p in all_[1:]), 30, "all to be up")
        until = time.time() - 2.0
        for process in all_[1:]:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in all_[1:]] == [0, 0, 0]
        with Celeriac("beaten", broker=place.broker, set_as_current=False) as app:
            admin = app.admin()
            wait_until(
                lambda: not sum(q.waiting + q.in_flight for q in admin.queues()), 30, "the last"
            )
        all_[0].send_signal(signal.SIGTERM)
        assert all_[0].wait(40) == 0
    return Outcome(stage.runs(), until, kills, seed)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """All that this module is asked for, at the same time."""
    wanted = [
        item.callspec.params["store"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(len(wanted)) as pool:
        folders = {store: tmp_path_factory.mktemp("beaten") for store in wanted}
        places = {store: STORES[store](folder) for store, folder in folders.items()}
        yield {store: pool.submit(bombard, folders[store], places[store]) for store in wanted}


@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("store", STORES)
def test_every_run_once_though_schedulers_are_killed(
    outcomes: dict[str, Future[Outcome]], store: str
) -> None:
    outcome = outcomes[store].result()
    check(store, outcome)
    assert outcome.kills["sent"] >= SECONDS // 20, "too few came between sending and recording"
    assert outcome.kills.total() >= SECONDS // 6


def check(store: str, outcome: Outcome) -> None:
    """Nothing missing between the first run and ``until``, nothing twice."""
    runs, until, kills, seed = outcome
    by_entry: dict[str, Counter[float]] = defaultdict(Counter)
    for run in runs:
        by_entry[run.entry][run.nominal] += 1
    late = sorted(run.at - run.nominal for run in runs)
    print(f"\n{store}, seed {seed}: {SECONDS} s, kills by what was done last: {dict(kills)}")
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
