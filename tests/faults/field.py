"""Workers to be killed, who kills them, and the counting afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.drivers.redis_stage import shared_server

from celeriac import Celeriac
from celeriac.message import MessageState, Peeked

FULL = os.environ.get("CELERIAC_FAULTS") == "full"
HERE = Path(__file__).parent


def scaled(count: int) -> int:
    """The whole count in ``make faults``, a tenth of it in ``make test``."""
    return count if FULL else max(1, count // 10)


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait for the condition; fails with ``what`` was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


class WorkerProcess:
    """A worker as a service manager would run it: started again when it has died."""

    def __init__(self, env: dict[str, str], *options: str, log: Path) -> None:
        self.env = env
        self.options = options
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "celeriac",
                    "-A",
                    "bombed:app",
                    "worker",
                    "-l",
                    "WARNING",
                    *self.options,
                ],
                env=self.env,
                cwd=HERE,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        assert self.process is not None
        return self.process.poll() is None

    def ready(self) -> bool:
        """Has it its agent, and a runner that takes messages?"""
        return len(self.children()) > 1

    def tree(self) -> list[int]:
        """The pids of all of its processes, itself first."""
        return [self.pid, *(child.pid for child in self.children())]

    def runners(self) -> list[int]:
        """The pids of its runners."""
        return [child.pid for child in self.children()[1:]]

    def term(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self, timeout: float) -> int:
        """Wait for its end; the exit status."""
        assert self.process is not None
        return self.process.wait(timeout)

    def children(self) -> list[psutil.Process]:
        """Its agent and runners, the agent first (it is started first)."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
            return sorted(found, key=lambda child: (child.create_time(), child.pid))
        except psutil.NoSuchProcess:
            return []

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill_tree(self) -> list[int]:
        """SIGKILL to all of its processes; their pids."""
        victims = self.tree()
        for pid in victims:
            _kill(pid)
        assert self.process is not None
        self.process.wait(10)
        return victims


def send_signal(pids: Iterable[int], number: int) -> None:
    """The signal to all of them that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _kill(pid: int) -> None:
    send_signal([pid], signal.SIGKILL)


@dataclass
class Line:
    word: str
    id: str
    pid: int
    at: float


@dataclass
class Ledger:
    """What the tasks wrote down."""

    path: Path
    lines: list[Line] = field(default_factory=list)

    def read(self) -> Ledger:
        self.lines = []
        if self.path.exists():
            whole_lines = self.path.read_text().rpartition("\n")[0]  # one may be being written
            for text in whole_lines.splitlines():
                # A kill may cut a line short, where it crosses a page: the next one is behind it.
                word, task_id, pid, at = text.split()[-4:]
                whole = next((one for one in ("start", "done") if word.endswith(one)), word)
                self.lines.append(Line(whole, task_id, int(pid), float(at)))
        return self

    def of(self, word: str) -> Counter[str]:
        return Counter(line.id for line in self.lines if line.word == word)

    def lines_of(self, task_id: str, word: str = "start") -> list[Line]:
        """The lines that this task has written, in order."""
        return [line for line in self.read().lines if (line.id, line.word) == (task_id, word)]

    def repeats(self, killed: dict[int, float]) -> list[tuple[int, int]]:
        """For each killed process that had started anything: how many of its runs were repeated,
        and how many it had finished in its last 10 ms."""
        starts: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            if line.word == "start":
                starts[line.id].append(line)
        of_pid: dict[int, set[str]] = defaultdict(set)
        for task_id, runs in starts.items():
            for run in runs[:-1]:  # the last run is nobody's repeat
                of_pid[run.pid].add(task_id)
        finished: Counter[int] = Counter()
        for line in self.lines:
            if line.word == "done" and line.pid in killed and killed[line.pid] - line.at <= 0.010:
                finished[line.pid] += 1
        pids = {line.pid for line in self.lines if line.pid in killed}
        return [(len(of_pid[pid]), finished[pid]) for pid in sorted(pids)]


class Bomber:
    """Kills parts of workers at random moments, in equal parts."""

    def __init__(self, workers: list[WorkerProcess], held: Callable[[], int], seed: int) -> None:
        self.workers = workers
        self.held = held  # deliveries in flight now
        self.random = random.Random(seed)
        self.killed: dict[int, float] = {}
        self.hits: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return sum(self.hits.values())

    def strike(self) -> None:
        """One kill; it counts if messages were claimed at that moment."""
        worker = self.random.choice(self.workers)
        if not worker.alive():
            worker.start()
            return
        children = worker.children()
        if len(children) < 2:  # not up yet
            return
        parts = ["runner", "agent", "supervisor", "tree"]
        part = min(parts, key=lambda name: (self.hits[name], self.random.random()))
        before = self.held()
        now = time.monotonic()
        if part == "runner":
            victims = [self.random.choice(children[1:]).pid]
        elif part == "agent":
            victims = [children[0].pid]
        else:
            victims = [worker.pid, *(child.pid for child in children)]
        for pid in victims if part != "supervisor" else victims[:1]:
            _kill(pid)
        if part in ("supervisor", "tree"):
            assert worker.process is not None
            worker.process.wait(10)
            worker.start()
        for pid in victims:
            self.killed[pid] = now
        if before:
            self.hits[part] += 1

    def pause(self, low: float = 0.3, high: float = 1.3) -> None:
        time.sleep(self.random.uniform(low, high))


@contextmanager
def workers(
    count: int, env: dict[str, str], *options: str, log: Path
) -> Iterator[list[WorkerProcess]]:
    """That many workers; whatever happens, none is left behind."""
    running = [WorkerProcess(env, *options, log=log) for _ in range(count)]
    try:
        yield running
    finally:
        for worker in running:
            if worker.alive():
                worker.kill_tree()


class Field:
    """One store, and what a test does with it. ``url`` and ``results``: of a server that the test
    has started; ``folder``: where an SQLite file is to be."""

    def __init__(
        self,
        path: Path,
        store: str = "sqlite",
        *,
        folder: Path | None = None,
        url: str = "",
        results: str = "",
        **more: str,
    ) -> None:
        self.path = path
        self.database = (folder or path) / "queue.db"
        if store == "sqlite":
            self.url, self.results = f"sqlite:///{self.database}", ""
        elif url:
            self.url, self.results = url, results
        else:
            self.url, self.results = emptied_redis()
        if self.results:
            more["CELERIAC_RESULT_BACKEND"] = self.results
        self.env = environment(path, self.url, **more)
        self.app = Celeriac(
            "bombed", broker=self.url, backend=self.results or None, set_as_current=False
        )
        self.admin = self.app.admin()
        self.ledger = Ledger(path / "ledger")
        self.log = path / "log"

    def send(self, name: str, *args: object, **options: object) -> str:
        """Send a task of bombed.py; its id."""
        return self.app.send_task(f"bombed.{name}", args, **options).id

    def send_all(self, name: str, calls: Sequence[tuple[object, ...]]) -> list[str]:
        """Send it many times; the ids."""
        return [
            result.id
            for start in range(0, len(calls), 1000)
            for result in self.app.send_many(
                self.app.signature(f"bombed.{name}", call) for call in calls[start : start + 1000]
            )
        ]

    def held(self) -> int:
        return sum(info.in_flight for info in self.admin.queues())

    def left(self) -> int:
        """What has not ended: waiting, delayed and in flight."""
        return sum(q.waiting + q.delayed + q.in_flight for q in self.admin.queues())

    def drained(self, timeout: float = 60.0) -> None:
        wait_until(lambda: not self.left(), timeout, "the queue to drain")

    def dead(self) -> list[Peeked]:
        return self.admin.peek(None, MessageState.DEAD)

    def states(self, ids: Sequence[str]) -> Counter[str | None]:
        """How many of the tasks are in which state."""
        backend = self.app.backend
        assert backend is not None
        return Counter(None if one is None else one.state for one in backend.get(ids))

    def started(self, task_id: str, times: int = 1, timeout: float = 20.0) -> Line:
        """Wait until the task was started so often; the last of these."""
        wait_until(
            lambda: len(self.ledger.lines_of(task_id)) >= times,
            timeout,
            f"start {times} of {task_id}",
        )
        return self.ledger.lines_of(task_id)[times - 1]

    def logged(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @contextmanager
    def workers(
        self, *each: str, env: dict[str, str] | None = None
    ) -> Iterator[list[WorkerProcess]]:
        """A worker for each text of options, up and running; none is left behind."""
        made: list[WorkerProcess] = []
        try:
            for number, options in enumerate(each):
                name = f"w{number}@field"
                made.append(
                    WorkerProcess(env or self.env, "-n", name, *options.split(), log=self.log)
                )
            wait_until(lambda: all(one.ready() for one in made), 30, "workers to be up")
            yield made
        finally:
            for one in made:
                send_signal(one.tree(), signal.SIGCONT)
                if one.alive():
                    one.kill_tree()

    def close(self) -> None:
        self.app.close()


def emptied_redis() -> tuple[str, str]:
    """The URLs of broker and results on a server that all tests share, with nothing in it."""
    server = shared_server()
    server.call("FLUSHALL")
    return server.url, f"redis://127.0.0.1:{server.port}/1"


def environment(tmp_path: Path, url: str, **more: str) -> dict[str, str]:
    """The variables that bombed.py reads."""
    return {
        **os.environ,
        "BOMBED_URL": url,
        "BOMBED_LEDGER": str(tmp_path / "ledger"),
        **more,
    }
