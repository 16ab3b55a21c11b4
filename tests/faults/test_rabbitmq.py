"""RabbitMQ: processes killed, the server stopped, stalled and cut off. Nothing is lost."""

from __future__ import annotations

import atexit
import functools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.field import (
    Bomber,
    Ledger,
    WorkerProcess,
    environment,
    scaled,
    wait_until,
    workers,
)
from tests.servers import RabbitServer

from celeriac import Celeriac, states

TASKS = 20_000
KILLS = 100


@functools.cache
def node() -> RabbitServer:
    server = RabbitServer()
    atexit.register(server.__exit__)
    server.start()
    return server


class Ground:
    """A virtual host with tasks in it, and what came of them."""

    def __init__(self, server: RabbitServer, folder: Path, results: str) -> None:
        self.server = server
        self.folder = folder
        self.url = server.new_vhost()
        self.results = results if results == "rpc://" else f"sqlite:///{folder}/results.db"
        self.app = Celeriac("bombed", broker=self.url, backend=self.results, set_as_current=False)
        self.ledger = Ledger(folder / "ledger")
        self.ids: list[str] = []

    def send(self, tasks: int, longest: float = 0.020) -> None:
        dice = random.Random(7)
        calls = [(dice.uniform(0, longest),) for _ in range(tasks)]
        for start in range(0, tasks, 1000):
            part = calls[start : start + 1000]
            sent = self.app.send_many(self.app.signature("bombed.work", call) for call in part)
            self.ids += [result.id for result in sent]

    def environment(self) -> dict[str, str]:
        return environment(self.folder, self.url, CELERIAC_RESULT_BACKEND=self.results)

    def left(self) -> int:
        done = self.ledger.read().of("done")
        return sum(not done[task_id] for task_id in self.ids)

    def check(self) -> None:
        """Every task has run to its end, and has its result where results are kept."""
        assert self.left() == 0
        done = self.ledger.of("done")
        repeated = Counter(done[task_id] - 1 for task_id in self.ids)
        print(f"repeated so often: {dict(sorted(repeated.items()))}")
        assert repeated[0] > 0.9 * len(self.ids)
        if self.results != "rpc://":
            assert self.app.backend is not None
            found = Counter(
                record.state if record else None for record in self.app.backend.get(self.ids)
            )
            assert found == {states.SUCCESS: len(self.ids)}

    def run(self, running: list[WorkerProcess], harm: Callable[[], None], times: int) -> None:
        """Do harm so many times while tasks run; then let them all end."""
        wait_until(lambda: self.left() < len(self.ids), 60, "the first task")
        for _ in range(times):
            harm()
        wait_until(lambda: self.left() == 0, 300, "all tasks to have run")
        assert all(worker.stop() == 0 for worker in running)
        self.check()


@pytest.fixture(params=["rpc://", "sqlite"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(node(), tmp_path, request.param)
    yield made
    made.app.close()


@pytest.mark.timeout(1800)
def test_random_kills(ground: Ground) -> None:
    """Runner, agent, supervisor and whole tree, in equal parts, of two workers."""
    ground.send(scaled(TASKS))
    with workers(2, ground.environment(), "-c", "2", log=ground.folder / "log") as running:
        bomber = Bomber(running, lambda: 1, random.randrange(2**32))
        kills = scaled(KILLS)

        def strike() -> None:
            bomber.strike()
            bomber.pause(0.1, 0.6)
            for worker in running:
                if not worker.alive():
                    worker.start()

        wait_until(lambda: ground.left() < len(ground.ids), 60, "the first task")
        while bomber.count < kills and ground.left():
            strike()
        for worker in running:
            if not worker.alive():
                worker.start()
        wait_until(lambda: ground.left() == 0, 300, "all tasks to have run")
        wait_until(lambda: all(worker.ready() for worker in running), 30, "workers to be up")
        assert all(worker.stop() == 0 for worker in running)
    print(f"kills: {dict(bomber.hits)}")
    ground.check()


@pytest.mark.timeout(600)
def test_server_stopped_and_started(tmp_path: Path) -> None:
    """Five times under load."""
    with RabbitServer() as server:
        assert isinstance(server, RabbitServer)
        ground = Ground(server, tmp_path, "sqlite")
        ground.send(scaled(TASKS))

        def restart() -> None:
            server.stop()
            server.start()
            before = ground.left()
            wait_until(lambda: ground.left() < before or not before, 60, "tasks to run again")

        with workers(2, ground.environment(), "-c", "2", log=tmp_path / "log") as running:
            ground.run(running, restart, 5 if scaled(10) == 10 else 2)
        ground.app.close()


@pytest.mark.timeout(600)
def test_connections_cut(ground: Ground) -> None:
    """All connections closed by the server, again and again."""
    ground.send(scaled(TASKS))

    def cut() -> None:
        ground.server.control("close_all_connections", "for a test")
        time.sleep(0.5)

    with workers(2, ground.environment(), "-c", "2", log=ground.folder / "log") as running:
        ground.run(running, cut, 5)


@pytest.mark.timeout(600)
def test_server_stalled(ground: Ground) -> None:
    """The server stands still for longer than an answer is waited for."""
    ground.send(scaled(TASKS) // 2)

    def stall() -> None:
        ground.server.signal(signal.SIGSTOP)
        time.sleep(7.0)
        ground.server.signal(signal.SIGCONT)
        time.sleep(1.0)

    with workers(2, ground.environment(), "-c", "2", log=ground.folder / "log") as running:
        ground.run(running, stall, 1)


@pytest.mark.timeout(120)
def test_second_server_takes_over(tmp_path: Path) -> None:
    """Fail-over to the second URL when the first server is killed: producers and workers go on."""
    with RabbitServer() as first:
        assert isinstance(first, RabbitServer)
        second = node()
        ground = Ground(second, tmp_path, "sqlite")
        both = f"{first.new_vhost()};{ground.url}"
        app = Celeriac("bombed", broker=both, set_as_current=False)
        env = {**ground.environment(), "BOMBED_URL": both}
        with workers(1, env, "-c", "2", log=tmp_path / "log") as running:
            before = app.send_task("bombed.work", (0.0,)).id
            wait_until(lambda: bool(ground.ledger.read().of("done")[before]), 30, "the first")
            first.kill()
            after = app.send_task("bombed.work", (0.0,)).id
            wait_until(lambda: bool(ground.ledger.read().of("done")[after]), 30, "the second")
            assert running[0].stop() == 0
        app.close()
        ground.app.close()
