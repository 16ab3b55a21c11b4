"""The process tree, with real processes: stand-ins that do as they are told (worker_stage.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.idling import costs_of

from celeriac.worker.options import WorkerOptions
from celeriac.worker.process import EXIT_MEMORY, EXIT_RECYCLED, EXIT_SHUTDOWN, EXIT_TERMINATE
from celeriac.worker.supervisor import ECHO

HERE = Path(__file__).parent


class Tree:
    """A supervisor and its children."""

    def __init__(self, stage: Path, **options: Any) -> None:
        self.stage = stage
        environment: dict[str, str] = options.pop("environment", {})
        prefix: list[str] = options.pop("prefix", [])
        self.inside = bool(prefix)  # another process namespace
        values: dict[str, Any] = {
            "app": "worker_stage:app",
            "hostname": "celery@test",
            "lease_name": "celery@test.1",
            "queues": ["celery"],
            "concurrency": 2,
            "grace": 5.0,
            "loglevel": "INFO",
            **options,
        }
        text = msgspec.json.encode(WorkerOptions(**values)).decode()
        self.log = open(stage / "log", "w+")  # noqa: SIM115 - closed in end()
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(HERE / "worker_stage.py"), text],
            env={**os.environ, "STAGE": str(stage), "PYTHONPATH": str(HERE), **environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def events(self, what: str = "", **like: Any) -> list[dict[str, Any]]:
        try:
            lines = (self.stage / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [
            event
            for event in found
            if (not what or event["what"] == what)
            and all(event.get(key) == value for key, value in like.items())
        ]

    def wait(self, what: str, count: int = 1, seconds: float = 10.0, **like: Any) -> dict[str, Any]:
        """Wait for the event to have happened ``count`` times; the last of them."""
        until(lambda: len(self.events(what, **like)) >= count, self.text, seconds)
        return self.events(what, **like)[count - 1]

    def tell(self, who: str | int, *words: object) -> None:
        path = self.stage / f"do-{who}"
        temporary = path.with_name(f"new-{who}")
        temporary.write_text(" ".join(str(word) for word in words))
        temporary.rename(path)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def exit_code(self, seconds: float = 10.0) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.text()) from None

    def text(self) -> str:
        return (self.stage / "log").read_text()

    def pids(self) -> list[int]:
        """Every process that was ever in the tree, where its numbers are ours."""
        if self.inside:
            return [self.pid]
        return [self.pid, *{e["pid"] for e in self.events() if e["what"] in ("runner", "agent")}]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.log.close()
        for pid in self.pids():
            until(lambda pid=pid: not alive(pid), self.text)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], object], text: Callable[[], str], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, text()
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Tree]]:
    trees: list[Tree] = []

    def make(**options: Any) -> Tree:
        trees.append(Tree(tmp_path, **options))
        return trees[-1]

    yield make
    for tree in trees:
        tree.end()


def ready(tree: Tree, runners: int = 2) -> Tree:
    tree.wait("runner", runners)
    return tree


def runner_in(tree: Tree, slot: int, incarnation: int = 1) -> dict[str, Any]:
    return tree.wait("runner", slot=slot, incarnation=incarnation)


# --- starting and stopping ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_agent_first_then_runners_and_a_clean_end(start: Callable[..., Tree], method: str) -> None:
    tree = ready(start(start_method=method))
    assert tree.events()[0]["what"] == "agent"
    assert {event["ppid"] for event in tree.events("runner")} == {tree.pid}
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert len(tree.events("stopped")) == 2
    assert tree.events("left", stopping="WARM")
    assert [event["what"] for event in tree.events()][-2:] == ["left", "ended"]


def test_a_broker_that_is_down_ends_the_start(start: Callable[..., Tree], tmp_path: Path) -> None:
    (tmp_path / "no-broker").touch()
    tree = start()
    assert tree.exit_code() == 1
    assert tree.wait("ended")["failure"] == "The broker is down: start it."
    assert not tree.events("runner")
    assert "Traceback" not in tree.text()


def test_warm_stop_waits_for_what_runs(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 1.0)
    tree.wait("started")
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert tree.events("finished", task="a")
    assert tree.events("left", stopping="WARM")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_one_warm_stop(
    start: Callable[..., Tree], number: int
) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 0.5)
    tree.wait("started")
    os.killpg(tree.pid, number)
    assert tree.exit_code() == 0
    assert tree.events("finished", task="a")


def test_after_the_grace_period_what_is_left_is_killed(start: Callable[..., Tree]) -> None:
    tree = ready(start(grace=0.3))
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    begin = time.monotonic()
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert 0.3 <= time.monotonic() - begin < 3.0
    assert not tree.events("finished")
    assert not tree.events("runner", slot=0, incarnation=2)
    assert tree.events("left", stopping="COLD")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_the_signal_again_or_sigquit_ends_it_at_once(
    start: Callable[..., Tree], number: int
) -> None:
    tree = ready(start(grace=None))
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    tree.signal(number)
    until(lambda: "shutdown" in tree.text(), tree.text)
    while "Cold" not in tree.text():  # a SIGTERM at once after the first is its echo
        tree.signal(number)
        time.sleep(0.05)
    assert tree.exit_code() == 0
    assert not tree.events("finished")
    assert tree.events("left", stopping="COLD")


def test_a_sigterm_sent_twice_at_once_is_one_order(start: Callable[..., Tree]) -> None:
    """As by coreutils' timeout, which signals the process and then its group."""
    tree = ready(start(grace=None))
    tree.tell(0, "run", "a", 0.5)
    tree.wait("started")
    tree.signal(signal.SIGTERM)
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert tree.events("finished")
    assert tree.events("left", stopping="WARM")


def test_a_task_may_stop_the_worker(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(1, "exit", EXIT_SHUTDOWN)
    assert tree.exit_code() == 0
    assert tree.events("left", stopping="WARM")


def test_a_task_may_end_the_worker_at_once(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    tree.tell(1, "exit", EXIT_TERMINATE)
    assert tree.exit_code() == 0
    assert tree.events("left", stopping="COLD")


@pytest.mark.alone
def test_a_stuck_agent_does_not_keep_the_worker_from_ending(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell("agent", "hang")
    until(lambda: not (tree.stage / "do-agent").exists(), tree.text)
    tree.signal(signal.SIGTERM)
    tree.wait("stopped", 2)
    time.sleep(ECHO)  # sooner it would be taken for an echo of the first one
    tree.signal(signal.SIGTERM)
    until(lambda: "without waiting" in tree.text() or "Cold" in tree.text(), tree.text)
    if "without waiting" not in tree.text():
        tree.signal(signal.SIGTERM)
    assert tree.exit_code(5) == 0


# --- dying and being replaced ------------------------------------------------------------------


def test_a_killed_runner_gets_a_successor_that_knows_what_it_ran(
    start: Callable[..., Tree],
) -> None:
    tree = ready(start())
    first = runner_in(tree, 0)
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    killed = time.monotonic()
    os.kill(first["pid"], signal.SIGKILL)
    second = runner_in(tree, 0, 2)
    assert second["at"] - killed < 0.5
    was = second["predecessor"]
    assert (was["incarnation"], was["why"]) == (1, "lost")
    assert was["running"] == [{"tag": "a-tag", "task_id": "a", "name": "stage.task"}]
    assert "SIGKILL" in was["detail"]
    assert len(tree.events("runner", slot=1)) == 1


def test_a_runner_that_ends_by_itself_in_the_middle_of_a_task_is_a_loss(
    start: Callable[..., Tree],
) -> None:
    """As a task that calls os._exit(0) does."""
    tree = ready(start())
    tree.tell(0, "vanish", "a")
    was = runner_in(tree, 0, 2)["predecessor"]
    assert (was["why"], was["detail"]) == ("lost", "ended with exit code 0")
    assert was["running"][0]["task_id"] == "a"


@pytest.mark.parametrize(("code", "why"), [(EXIT_RECYCLED, "recycled"), (EXIT_MEMORY, "memory")])
def test_recycling_is_no_loss(start: Callable[..., Tree], code: int, why: str) -> None:
    tree = ready(start())
    for incarnation in range(2, 6):
        tree.tell(0, "exit", code)
        was = runner_in(tree, 0, incarnation)["predecessor"]
        assert (was["why"], was["running"]) == (why, [])
    assert "ERROR" not in tree.text()


def test_predecessors_of_a_process_that_never_began_are_handed_on(
    start: Callable[..., Tree], tmp_path: Path
) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    (tmp_path / "broken").touch()
    os.kill(runner_in(tree, 0)["pid"], signal.SIGKILL)
    runner_in(tree, 0, 2)
    (tmp_path / "broken").unlink()
    tree.wait("runner", 3, slot=0)

    def last() -> dict[str, Any]:
        return tree.events("runner", slot=0)[-1]

    was = last()["predecessor"]
    while was["earlier"]:
        was = was["earlier"][0]
    assert [lost["task_id"] for lost in was["running"]] == ["a"]


def test_runners_that_cannot_start_are_not_started_all_the_time(
    start: Callable[..., Tree], tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    tree = start()
    until(lambda: "before they could run anything" in tree.text(), tree.text)
    time_before = time.monotonic()
    count = len(tree.events("runner"))
    until(lambda: tree.text().count("trying again in") >= 3, tree.text)
    spent = time.monotonic() - time_before
    assert (len(tree.events("runner")) - count) / spent < 10
    (tmp_path / "broken").unlink()
    tree.tell(0, "run", "a", 0)
    tree.wait("finished", seconds=15)


def test_a_dead_agent_is_replaced_and_says_goodbye(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    first = tree.wait("agent")
    os.kill(first["pid"], signal.SIGKILL)
    second = tree.wait("agent", 2)
    assert second["incarnation"] == 2
    assert second["at"] - first["at"] < 5.0
    tree.tell("agent", "exit", 7)
    tree.wait("agent", 3)
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert tree.events("left", pid=tree.wait("agent", 3)["pid"])
    assert len(tree.events("runner")) == 2


def test_an_agent_that_is_stuck_is_replaced(start: Callable[..., Tree]) -> None:
    tree = ready(start(heartbeat_interval=0.1, lease=1.0, environment={"STAGE_SILENCE": "0.5"}))
    tree.tell("agent", "hang")
    tree.wait("agent", 2)
    assert "stuck" in tree.text()


def test_when_the_supervisor_dies_its_whole_tree_goes(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    children = [pid for pid in tree.pids() if pid != tree.pid]
    assert len(children) == 3
    tree.signal(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in children), tree.text, 2.0)


# --- ending tasks from outside -----------------------------------------------------------------


def test_a_hard_time_limit_kills_the_task(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60, 0.7)
    begun = tree.wait("started")["at"]
    second = runner_in(tree, 0, 2)
    assert 0.7 <= second["at"] - begun < 1.2
    was = second["predecessor"]
    assert (was["why"], was["limit"], was["running"][0]["task_id"]) == ("time_limit", 0.7, "a")


def test_a_task_that_keeps_its_limit_is_left_alone(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 0.6, 30)
    tree.wait("finished", task="a")
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0
    assert len(tree.events("runner", slot=0)) == 1


def test_terminate_kills_the_task_that_was_meant(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60)
    tree.tell(1, "run", "b", 60)
    tree.wait("started", 2)
    tree.tell("agent", "terminate", "a", "SIGTERM")
    was = runner_in(tree, 0, 2)["predecessor"]
    assert (was["why"], was["signal"], was["running"][0]["task_id"]) == (
        "terminated",
        "SIGTERM",
        "a",
    )
    assert len(tree.events("runner", slot=1)) == 1


def test_terminate_waits_a_moment_for_a_task_that_is_about_to_start(
    start: Callable[..., Tree],
) -> None:
    tree = ready(start())
    tree.tell("agent", "terminate", "a", "KILL")
    until(lambda: not (tree.stage / "do-agent").exists(), tree.text)
    tree.tell(0, "run", "a", 60)
    assert runner_in(tree, 0, 2)["predecessor"]["why"] == "terminated"


def test_another_signal_is_passed_on_as_it_is(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    tree.tell("agent", "terminate", "a", "SIGUSR1")
    until(lambda: "worker_stage.py" in tree.text(), tree.text)  # its stack, in the log
    assert len(tree.events("runner", slot=0)) == 1


# --- the rest ----------------------------------------------------------------------------------


def test_sigusr1_shows_every_process(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.signal(signal.SIGUSR1)
    until(lambda: tree.text().count("(most recent call first)") >= 4, tree.text)
    assert "in run" in tree.text()
    tree.signal(signal.SIGTERM)
    assert tree.exit_code() == 0


def test_sighup_stops_warm_to_start_anew(start: Callable[..., Tree]) -> None:
    tree = ready(start())
    tree.tell(0, "run", "a", 0.3)
    tree.wait("started")
    tree.signal(signal.SIGHUP)
    assert tree.exit_code() == 0
    assert tree.events("finished", task="a")
    assert tree.wait("ended")["restart"] is True


def test_a_pool_of_threads_is_one_process_with_all_slots(start: Callable[..., Tree]) -> None:
    tree = start(pool="threads", concurrency=5)
    tree.tell(0, "run", "a", 60)
    tree.wait("started")
    assert len(tree.events("runner")) == 1


@pytest.mark.alone
def test_the_supervisor_is_idle_when_nothing_happens(start: Callable[..., Tree]) -> None:
    tree = ready(start(concurrency=4), 4)
    supervisor = psutil.Process(tree.pid)
    switches = supervisor.num_ctx_switches().voluntary
    (share,), dear = costs_of([supervisor], 3.0)
    assert share <= 0.001 * dear
    assert supervisor.num_ctx_switches().voluntary - switches <= 8
    assert supervisor.num_threads() == 1


def test_as_process_1_it_buries_orphans(start: Callable[..., Tree]) -> None:
    prefix = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], timeout=10).returncode:
        pytest.skip("this system lets nobody make a process namespace")
    tree = start(prefix=prefix)
    assert tree.wait("runner")["ppid"] == 1
    inner = psutil.Process(tree.pid).children()[0]
    tree.tell(0, "orphan")
    tree.wait("orphaned")
    assert len(inner.children()) >= 3
    until(lambda: len(inner.children()) == 3, tree.text)  # the agent and two runners
    assert not any(child.status() == psutil.STATUS_ZOMBIE for child in inner.children())
    os.kill(inner.pid, signal.SIGTERM)
    assert tree.exit_code() == 0
    assert tree.events("left")
