"""RabbitMQ: processes killed, the server stopped, and everything between it and the workers broken.
Nothing is lost."""

from __future__ import annotations

import atexit
import functools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.drivers import redis_stage
from tests.faults.field import (
    FULL,
    Bomber,
    Ledger,
    WorkerProcess,
    environment,
    scaled,
    wait_until,
    workers,
)
from tests.faults.test_kills import SEATS, durations
from tests.proxy import Proxy
from tests.servers import RabbitServer

from celeriac import Celeriac, states
from celeriac.routing import Broadcast

TASKS = 20_000
BROADCASTS = 2_000
KILLS = 100
TIMEOUT = 1.0  # seconds within which the server must answer
RESTARTS = 5 if FULL else 2


@functools.cache
def node() -> RabbitServer:
    server = RabbitServer()
    atexit.register(server.__exit__)
    server.start()
    return server


def results_url(kind: str, folder: Path) -> str:
    if kind == "redis":
        server = redis_stage.shared_server()
        server.call("FLUSHALL")
        return server.url
    return f"sqlite:///{folder}/results.db" if kind == "sqlite" else kind


class Ground:
    """A virtual host with tasks in it, and what came of them."""

    def __init__(self, url: str, folder: Path, results: str) -> None:
        self.folder = folder
        self.url = url
        self.results = results_url(results, folder)
        self.app = Celeriac("bombed", broker=url, backend=self.results, set_as_current=False)
        self.env = environment(folder, url, CELERIAC_RESULT_BACKEND=self.results)
        self.ledger = Ledger(folder / "ledger")
        self.ids: list[str] = []
        self._left: set[str] = set()
        self._read = 0

    def send(self, calls: list[tuple[float]], queues: Sequence[str] = ("celery",)) -> None:
        """So many seconds each, to each of the queues."""
        work = [
            self.app.signature("bombed.work", call, queue=queue)
            for call in calls
            for queue in queues
        ]
        for start in range(0, len(work), 1000):
            ids = [result.id for result in self.app.send_many(work[start : start + 1000])]
            self.ids += ids
            self._left |= set(ids)

    def send_short(self, count: int, rng: random.Random) -> None:
        self.send([(rng.uniform(0, 0.020),) for _ in range(count)])

    def left(self) -> int:
        """How many have not run to their end. Reads what was written since the last time."""
        if self.ledger.path.exists():
            with self.ledger.path.open() as file:
                file.seek(self._read)
                new = file.read()
            whole = new.rfind("\n") + 1
            self._read += len(new[:whole].encode())
            self._left -= {line.split()[1] for line in new[:whole].splitlines() if line[0] == "d"}
        return len(self._left)

    def states(self) -> Counter[str | None]:
        assert self.app.backend is not None
        return Counter(one.state if one else None for one in self.app.backend.get(self.ids))

    def check(self, *, replied: bool = True) -> int:
        """Every task has run to its end and has its result; how many ran more than once."""
        assert self.left() == 0
        if replied:
            wanted = {states.SUCCESS: len(self.ids)}
            wait_until(lambda: self.states() == wanted, 10, "all results to have come")
        starts = self.ledger.read().of("start")
        often = dict(sorted(Counter(starts.values()).items()))
        print(f"{len(self.ids)} tasks, starts of each: {often}")
        return sum(times > 1 for times in starts.values())

    def harmed(self, harm: Callable[[], None], times: int) -> None:
        """Two workers, harmed so many times while tasks run; then all of them end."""
        with workers(2, self.env, "-c", "2", log=self.folder / "log") as running:
            wait_until(lambda: self.left() < len(self.ids), 60, "the first task")
            for _ in range(times):
                assert self.left(), "all has run before all harm was done"
                harm()
            wait_until(lambda: self.left() == 0, 300, "all tasks to have run")
            assert [worker.stop() for worker in running] == [0, 0]
        assert "Traceback" not in (self.folder / "log").read_text()

    def go_on(self) -> None:
        """Some more tasks have ended."""
        before = self.left()
        wait_until(lambda: self.left() < max(before - 20, 1), 60, "tasks to run again")


Make = Callable[..., Ground]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Ground] = []

    def ground(results: str, url: str = "") -> Ground:
        made.append(Ground(url or node().new_vhost(), tmp_path, results))
        return made[-1]

    yield ground
    for one in made:
        one.app.close()


# --- processes


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("results", "pool", "tasks", "kills"),
    [
        ("rpc://", "processes", scaled(TASKS), scaled(KILLS)),
        ("redis", "processes", scaled(TASKS), scaled(KILLS)),
        ("rpc://", "threads", scaled(TASKS // 2), scaled(KILLS // 4)),
        ("redis", "asyncio", scaled(TASKS // 2), scaled(KILLS // 4)),
    ],
)
def test_random_kills(
    make: Make, results: str, pool: str, tasks: int, kills: int, rng: random.Random
) -> None:
    """Runner, agent, supervisor and whole tree, in equal parts, of two workers. A killed runner's
    repeats: what it ran, and what it had just finished."""
    slots, at_once = (2, 1) if pool == "processes" else (SEATS, SEATS)
    ground = make(results)
    ground.send(durations(tasks, rng))
    options = ("-P", pool, "-c", str(slots))
    with workers(2, ground.env, *options, log=ground.folder / "log") as running:
        wait_until(lambda: ground.left() < tasks, 60, "the first task")
        bomber = Bomber(running, ground.left, rng.randrange(2**32))
        while bomber.count < kills and ground.left():
            bomber.strike()
            bomber.pause(0.1, 0.6)
        wait_until(lambda: _restarted(running) and not ground.left(), 300, "all tasks to have run")
        wait_until(lambda: all(worker.ready() for worker in running), 30, "workers to be up")
        assert [worker.stop() for worker in running] == [0, 0]
    print(f"{results}, {pool}: kills that hit: {dict(bomber.hits)}")
    ground.check()
    repeats = ground.ledger.repeats(bomber.killed)
    print(f"repeats per killed process: {dict(sorted(Counter(n for n, _ in repeats).items()))}")
    assert bomber.count >= kills, "all had run before all kills were made"
    assert all(times <= at_once + just for times, just in repeats), repeats


@pytest.mark.timeout(600)
def test_broadcasts(make: Make, rng: random.Random) -> None:
    """Each worker runs each of them once, although its runners and agents are killed: what a
    killed one held comes to another of the same worker."""
    ground = make("rpc://")
    ground.app.conf.task_queues = [Broadcast("news")]
    env = {**ground.env, "BOMBED_BROADCAST": "news"}
    hosts = ("one@here", "two@here")
    count, kills = scaled(BROADCASTS), scaled(KILLS)
    killed: dict[int, float] = {}
    running = [
        WorkerProcess(env, "-c", "2", "-n", host, log=ground.folder / host) for host in hosts
    ]
    try:
        wait_until(lambda: all(worker.ready() for worker in running), 30, "workers to be up")
        for number in range(count):
            ground.app.send_task("bombed.hear", (number,), queue="news", ignore_result=True)
            if number % (count // kills) == 0:
                worker = rng.choice(running)
                pid = rng.choice([child.pid for child in worker.children()])
                os.kill(pid, signal.SIGKILL)
                killed[pid] = time.monotonic()
                time.sleep(rng.uniform(0, 0.1))
        wanted = {f"{number}/{host}" for number in range(count) for host in hosts}
        heard = ground.ledger.read
        wait_until(lambda: heard().of("done").keys() == wanted, 60, "each to have heard all")
        assert [worker.stop() for worker in running] == [0, 0]
    finally:
        for worker in running:
            if worker.alive():
                worker.kill_tree()
    starts = Counter(heard().of("start").values())
    print(f"{count} broadcasts to two workers, {len(killed)} kills, starts of each: {dict(starts)}")
    repeats = ground.ledger.repeats(killed)
    assert all(times <= 1 + just for times, just in repeats), repeats


def _restarted(running: list[WorkerProcess]) -> bool:
    for worker in running:
        if not worker.alive():
            worker.start()
    return True


# --- the server


@pytest.mark.timeout(900)
def test_server_stopped_and_started(make: Make, rng: random.Random) -> None:
    """Under load, by turns in good order and killed. What was confirmed is on its disk."""
    with RabbitServer() as server:
        assert isinstance(server, RabbitServer)
        ground = make("sqlite", server.new_vhost())
        ground.send_short(scaled(TASKS // 2), rng)
        turns = iter(range(RESTARTS))

        def restart() -> None:
            if next(turns) % 2:
                server.kill()
            else:
                server.stop()
            server.start()
            ground.go_on()

        ground.harmed(restart, RESTARTS)
        ground.check()
        ground.app.close()


@pytest.mark.timeout(120)
def test_tasks_longer_than_the_server_allows(tmp_path: Path) -> None:
    """The consumer timeout hits no long task of a pool that is full, nor of one that ends and
    waits for it: each runs once."""
    pools, allowed = ("threads", "asyncio"), 3.5  # seconds
    with RabbitServer(f"consumer_timeout = {allowed * 1000:.0f}") as server:
        assert isinstance(server, RabbitServer)
        server.control("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
        ground = Ground(f"{server.new_vhost()}?guard_after=0.5", tmp_path, "rpc://")
        running = [
            WorkerProcess(ground.env, "-c", "1", "-P", pool, "-Q", pool, log=tmp_path / pool)
            for pool in pools
        ]
        try:
            ground.send([(2 * allowed + 2,)], queues=pools)
            wait_until(lambda: len(ground.ledger.read().of("start")) == 2, 30, "both to run")
            time.sleep(allowed + 1)
            for worker in running:
                worker.term()
            wait_until(lambda: not any(worker.alive() for worker in running), 30, "both to end")
            assert [worker.stop() for worker in running] == [0, 0]
        finally:
            for worker in running:
                if worker.alive():
                    worker.kill_tree()
        assert ground.check() == 0
        ground.app.close()


@pytest.mark.timeout(120)
def test_memory_alarm(make: Make, rng: random.Random) -> None:
    """The server stops reading from whoever publishes, replies too; workers say so, and all has
    run when it reads again."""
    ground = make("rpc://", f"{node().new_vhost()}?timeout={TIMEOUT}")
    ground.send_short(scaled(TASKS // 4), rng)
    log = ground.folder / "log"

    def alarm() -> None:
        node().control("set_vm_memory_high_watermark", "0.00001")
        try:
            said = "it takes no messages just now"
            wait_until(lambda: said in log.read_text(), 30, "a worker to say so")
        finally:
            node().control("set_vm_memory_high_watermark", "0.4")

    ground.harmed(alarm, 1)
    ground.check()


@pytest.mark.timeout(120)
def test_second_server_takes_over(make: Make) -> None:
    """Fail-over to the second URL when the first server is killed: producers and workers go on."""
    with RabbitServer() as first:
        assert isinstance(first, RabbitServer)
        ground = make("sqlite", f"{first.new_vhost()};{node().new_vhost()}")
        with workers(1, ground.env, "-c", "2", log=ground.folder / "log") as running:
            for harm in (lambda: None, first.kill):
                harm()
                ground.send([(0.0,)] * 10)
                wait_until(lambda: not ground.left(), 30, "all tasks to have run")
            assert running[0].stop() == 0


# --- the network


def through(proxy: Proxy) -> str:
    address, _, vhost = node().new_vhost().rpartition("/")
    address = address.replace(f":{node().port}", f":{proxy.port}")
    return f"{address}/{vhost}?timeout={TIMEOUT}&connect_timeout={TIMEOUT}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("results", ["rpc://", "redis"] if FULL else ["rpc://"])
def test_broken_connections(make: Make, results: str, rng: random.Random) -> None:
    """Cut, standing still for longer than an answer is waited for, half closed to either side."""
    with Proxy(node().port) as proxy:
        ground = make(results, through(proxy))
        ground.send_short(scaled(TASKS // 2), rng)

        def stall() -> None:
            proxy.stall()
            time.sleep(3 * TIMEOUT)
            proxy.resume()

        kinds = [
            proxy.cut,
            stall,
            lambda: proxy.half_close("client"),
            lambda: proxy.half_close("server"),
            proxy.cut,
        ]
        turns = iter(kinds * (10 if FULL else 1))

        def harm() -> None:
            next(turns)()
            ground.go_on()

        ground.harmed(harm, len(kinds) * (10 if FULL else 1))
        # A reply on its way through what was cut is gone: rpc:// promises no more.
        repeated = ground.check(replied=results != "rpc://")
        assert repeated < len(ground.ids) / 10


@pytest.mark.timeout(60)
def test_idle_worker_notices(make: Make) -> None:
    """A worker that waits on a connection which stands still says so, and works when it is back."""
    with Proxy(node().port) as proxy:
        ground = make("sqlite", through(proxy))
        with workers(1, ground.env, "-c", "1", log=ground.folder / "log") as running:
            ground.send([(0.0,)])
            wait_until(lambda: not ground.left(), 30, "the first task")
            proxy.stall()
            log = ground.folder / "log"
            said = "The broker cannot be reached"
            wait_until(lambda: said in log.read_text(), 20, "the worker to say so")
            proxy.resume()
            wait_until(lambda: "The broker is back" in log.read_text(), 20, "it to be back")
            ground.send([(0.0,)])
            wait_until(lambda: not ground.left(), 30, "the second task")
            assert running[0].stop() == 0
