"""Real processes: beat, workers with -B, what they cost, and clocks that are set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from tests.drivers import rabbitmq_stage, redis_stage
from tests.idling import costs_of
from tests.servers import executable

from celeriac import Celeriac

TASKS = """\
import os, time
from celeriac import Celeriac

app = Celeriac("timed", broker="sqlite:///q.db", result_expires=None)


@app.task(bind=True)
def note(self, what):
    fd = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{what} {self.request.beat_nominal} {time.time()} {time.monotonic()}\\n".encode())
    os.close(fd)


def entry(every, what, **more):
    return {"task": "tasks.note", "schedule": every, "args": (what,), **more}
"""
COMMAND = str(Path(sys.executable).with_name("celeriac"))


class Project:
    """A directory with an application, and the processes that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("CELERIAC_")}
        self.running: list[subprocess.Popen[bytes]] = []

    def schedule(self, text: str) -> None:
        (self.folder / "tasks.py").write_text(f"{TASKS}\n\napp.conf.beat_schedule = {text}\n")

    def start(self, *command: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [COMMAND, "-A", "tasks", *command],
                cwd=self.folder,
                env={**self.env, **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(40)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def notes(self, what: str = "") -> list[list[str]]:
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split() for line in lines if line.startswith(what)]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


def nominals(notes: list[list[str]]) -> list[str]:
    return [nominal for _, nominal, _, _ in notes]


def test_beat_and_a_worker(project: Project) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    worker = project.start("worker", "-c", "1")
    beat = project.start("beat", "-l", "info", "--pidfile", "beat.pid")
    project.wait_until(lambda: len(project.notes()) >= 4)
    assert (project.folder / "beat.pid").read_text().strip() == str(beat.pid)
    assert project.stop(beat) == 0
    assert not (project.folder / "beat.pid").exists()
    assert project.stop(worker) == 0
    assert "celeriac beat: sqlite:///q.db, celeriac.beat.shared.SharedScheduler" in project.log()
    assert "Scheduler: Sending due task a (tasks.note)" in project.log()
    found = nominals(project.notes())
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("pool", ["processes", "threads", "solo"])
def test_workers_with_beat(project: Project, pool: str) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    workers = [project.start("worker", "-P", pool, "-c", "1", "-B", "-n", f"w{n}") for n in (1, 2)]
    project.wait_until(lambda: len(project.notes()) >= 5)
    assert [project.stop(worker) for worker in workers] == [0, 0]
    found = nominals(project.notes())
    assert len(set(found)) == len(found), "two workers sent the same run"


@pytest.mark.parametrize("store", ["redis+sqlite", "rabbitmq+redis"])
def test_workers_with_beat_elsewhere(project: Project, store: str) -> None:
    """Where the broker drops what is sent twice, and where the workers must."""
    redis = redis_stage.shared_server()
    redis.call("FLUSHALL")
    env = {
        "CELERIAC_BROKER_URL": redis.url,
        "CELERIAC_RESULT_BACKEND": f"sqlite:///{project.folder}/results.db",
    }
    if store == "rabbitmq+redis":
        rabbit = rabbitmq_stage.shared_server().new_vhost()
        env = {"CELERIAC_BROKER_URL": rabbit, "CELERIAC_RESULT_BACKEND": redis.url}
    project.schedule('{"a": entry(0.25, "a")}')
    workers = [project.start("worker", "-c", "1", "-B", "-n", f"w{n}", **env) for n in (1, 2)]
    project.wait_until(lambda: len(project.notes()) >= 5)
    assert [project.stop(worker) for worker in workers] == [0, 0]
    found = nominals(project.notes())
    assert len(set(found)) == len(found), "a run was run twice"
    assert b"schedules_at" in redis.call("KEYS", "*"), "the schedule is at Redis"


def test_a_worker_with_beat_where_no_store_keeps_the_schedule(project: Project) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    rabbit = rabbitmq_stage.shared_server().new_vhost()
    env = {"CELERIAC_BROKER_URL": rabbit, "CELERIAC_RESULT_BACKEND": "rpc://"}
    worker = project.start("worker", "-c", "1", "-B", **env)
    project.wait_until(lambda: len(project.notes()) >= 3)
    assert project.stop(worker) == 0
    assert (project.folder / "celeriacbeat-schedule.db").exists()
    assert "which other machines do not see" in project.log()


def test_another_takes_over_from_a_dead_one(project: Project) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    project.start("worker", "-c", "1")
    first = project.start("beat")
    project.wait_until(lambda: len(project.notes()) >= 2)
    second = project.start("beat")
    project.wait_until(lambda: project.log().count("celeriac beat:") == 2)
    first.kill()
    first.wait(10)
    killed = len(project.notes())
    project.wait_until(lambda: len(project.notes()) >= killed + 6)
    assert second.poll() is None
    times = [float(at) for _, _, at, _ in project.notes()]
    assert max(b - a for a, b in pairwise(times)) < 3.0
    found = nominals(project.notes())
    assert len(set(found)) == len(found)


def test_a_wrong_schedule_is_refused_at_the_start(project: Project) -> None:
    project.schedule('{"a": {"task": "tasks.note", "schedul": 5}}')
    for command in (["beat"], ["worker", "-B"]):
        process = project.start(*command)
        assert process.wait(30) == 1
    assert project.log().count("Did you mean 'schedule'?") == 2
    assert "Traceback" not in project.log()


def test_beat_on_a_broker_in_memory_is_refused(project: Project) -> None:
    project.schedule("{}")
    process = project.start("beat", CELERIAC_BROKER_URL="memory://")
    assert process.wait(30) == 1
    assert "worker -P solo -B" in project.log()


def test_another_scheduler(project: Project) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    beat = project.start("beat", "-S", "celeriac.beat:PersistentScheduler", "-s", "mine.db")
    project.wait_until(lambda: (project.folder / "mine.db").exists())
    app = Celeriac("look", broker=f"sqlite:///{project.folder}/q.db", set_as_current=False)
    project.wait_until(lambda: sum(q.waiting for q in app.admin().queues()) >= 2)
    app.close()
    assert project.stop(beat) == 0
    wrong = project.start("beat", "-S", "nothing")
    assert wrong.wait(30) == 1
    assert "There is no scheduler 'nothing'" in project.log()


def test_in_the_background(project: Project) -> None:
    project.schedule('{"a": entry(0.25, "a")}')
    starter = project.start("beat", "-D", "--pidfile", "beat.pid", "-f", "beat.log", "-l", "info")
    assert starter.wait(30) == 0
    pidfile = project.folder / "beat.pid"
    project.wait_until(lambda: pidfile.exists() and bool(pidfile.read_text().strip()))
    running = psutil.Process(int(pidfile.read_text()))
    try:
        log = project.folder / "beat.log"
        project.wait_until(lambda: "Sending due task a" in log.read_text())
    finally:
        running.terminate()
    assert running.wait(20) in (0, None)


@pytest.mark.alone
def test_an_idle_scheduler_costs_next_to_nothing(project: Project) -> None:
    """At most 0.2 % of a processor, with a thousand entries that are not due."""
    project.schedule('{f"a{n}": entry(3600, "a") for n in range(1000)}')
    redis = redis_stage.shared_server()
    redis.call("FLUSHALL")
    stores = {"sqlite": "sqlite:///q.db", "redis": redis.url}
    beats = {
        store: project.start("beat", CELERIAC_BROKER_URL=url, CELERIAC_RESULT_BACKEND=url)
        for store, url in stores.items()
    }
    project.wait_until(lambda: (project.folder / "q.db").exists())
    project.wait_until(lambda: b"schedules_at" in redis.call("KEYS", "*"))
    time.sleep(2.0)  # until they have begun: what they cost from then on is measured
    shares, dear = costs_of([psutil.Process(beat.pid) for beat in beats.values()], 10.0)
    for store, share in zip(beats, shares, strict=True):
        print(f"\nidle scheduler on {store}: {100 * share:.3f} % of a processor, x {dear:.1f}")
        assert share <= 0.002 * dear
    assert [project.stop(beat) for beat in beats.values()] == [0, 0]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_ten_thousand_due_at_the_same_second(project: Project, store: str) -> None:
    from celeriac.beat import SharedScheduler
    from celeriac.schedules import crontab
    from celeriac.testing import FakeClock

    url = f"sqlite:///{project.folder}/q.db"
    if store == "redis":
        redis_stage.shared_server().call("FLUSHALL")
        url = redis_stage.shared_server().url
    app = Celeriac("many", broker=url, backend=url, set_as_current=False)
    app.conf.beat_schedule = {
        f"e{n}": {"task": "t", "schedule": crontab(), "args": (n,)} for n in range(10_000)
    }
    clock = FakeClock(1_699_999_990.0)  # ten seconds before a full minute
    scheduler = SharedScheduler(app, clock=clock, elapsed=clock)
    scheduler._stepped_back = 0.0
    scheduler.tick()
    clock.advance(50.001)
    begun, worked = time.monotonic(), time.process_time()
    scheduler.tick()
    took, work = time.monotonic() - begun, time.process_time() - worked
    print(f"\n10,000 entries sent and recorded on {store} in {took:.2f} s, {work:.2f} s of work")
    assert sum(q.waiting for q in app.admin().queues()) == 10_000
    assert work < 2.5  # a second altogether, on a machine that does nothing else
    scheduler.close()
    app.close()


# --- a clock that is set --------------------------------------------------------------------------


class Clock:
    """The clock that the processes of a project see; elapsed time stays true."""

    def __init__(self, project: Project) -> None:
        self.file = project.folder / "clock"
        self.set(0)
        executable("faketime")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self.file)


@pytest.mark.timeout(180)
def test_a_clock_that_is_set_by_an_hour(project: Project) -> None:
    clock = Clock(project)
    project.schedule(
        '{"a": entry(0.25, "a"), "b": entry(0.25, "b", catch_up="all"),'
        ' "c": {**entry(1, "c"), "schedule": __import__("celeriac.schedules").schedules.crontab()}}'
    )
    project.start("worker", "-c", "1")
    # Without -l the log has what went wrong, and what was done to the clock.
    beats = [project.start("beat", **clock.env) for _ in range(2)]

    def count() -> int:
        return len(project.notes("a"))

    def pace(seconds: float) -> float:
        before = count()
        begun = time.monotonic()
        time.sleep(seconds)  # what is measured is how much comes in that time
        return (count() - before) / (time.monotonic() - begun)

    project.wait_until(lambda: count() >= 4)
    for setting in (3600, 0, -3600, 0):
        clock.set(setting)
        before = count()
        begun = time.monotonic()
        project.wait_until(lambda: count() >= before + 3)  # noqa: B023
        waited = time.monotonic() - begun
        assert waited < 10, f"it stood still for {waited:.1f} s after the clock was set"
        rate = pace(2.0)
        assert 2.0 <= rate <= 8.0, f"{rate:.1f} runs a second after the clock was set"
    assert [project.stop(beat) for beat in beats] == [0, 0]
    assert "The clock was set forward by 3600 s" in project.log()
    assert "The clock was set back by 3600 s" in project.log()
    for what in "ab":
        found = nominals(project.notes(what))
        assert len(set(found)) == len(found), "a nominal time was run twice"
    assert len(project.notes("b")) < 2 * len(project.notes("a")), "catch_up=all was flooded"
    assert len(project.notes("c")) < 15
    # libfaketime itself makes a sleep fail at times when it has set the clock back.
    assert project.log().count("Traceback") == project.log().count("OSError: [Errno 22]")
