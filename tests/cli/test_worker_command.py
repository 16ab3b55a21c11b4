"""``celeriac worker``: what its options do, and what it says of those that do nothing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celeriac import Celeriac
from celeriac.cli.root import celeriac
from celeriac.worker import supervisor
from celeriac.worker.options import WorkerOptions

if TYPE_CHECKING:
    from tests.cli.conftest import Project


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[WorkerOptions]:
    """What workers are told to be, without starting them."""
    told: list[WorkerOptions] = []

    def run_worker(app: Celeriac, options: WorkerOptions) -> int:
        told.append(options)
        return 0

    monkeypatch.setattr(supervisor, "run_worker", run_worker)
    for name in list(os.environ):
        if name.startswith(("CELERIAC_", "CELERY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CELERIAC_INCLUDE", "")  # what --include does to it is undone
    return told


def invoke(*args: str, **settings: Any) -> Any:
    with Celeriac("shop", broker="memory://options", set_as_current=False, **settings) as app:
        return CliRunner().invoke(
            celeriac, ["worker", *args], obj=app, auto_envvar_prefix="CELERIAC"
        )


def test_defaults_are_the_settings(started: list[WorkerOptions]) -> None:
    result = invoke(worker_concurrency=3, worker_pool="solo", task_default_queue="mine")
    assert (result.exit_code, result.output) == (0, "")
    [options] = started
    assert (options.pool, options.queues) == ("solo", ["mine"])
    assert (options.loglevel, options.grace) == ("WARNING", 25.0)


def test_every_option_arrives(started: list[WorkerOptions]) -> None:
    result = invoke(
        "-c", "5", "-P", "prefork", "-Q", "a,b=3,c", "-X", "c", "-n", "me@%%", "-l", "info",
        "-f", "%n.log", "--log-json", "--time-limit", "9.5", "--soft-time-limit", "8",
        "--max-tasks-per-child", "7", "--max-memory-per-child", "60000", "--grace", "done",
        "--pool-start-method", "spawn", "--pidfile", "x.pid",
    )  # fmt: skip
    assert (result.exit_code, result.output) == (0, "")
    [o] = started
    assert (o.concurrency, o.pool, o.hostname, o.loglevel) == (5, "processes", "me@%", "INFO")
    assert (o.queues, o.queue_weights) == (["a", "b"], {"b": 3})
    assert (o.logfile, o.log_json, o.pidfile) == ("%n.log", True, "x.pid")
    assert (o.time_limit, o.soft_time_limit, o.grace) == (9.5, 8.0, None)
    assert (o.max_tasks_per_child, o.max_memory_per_child) == (7, 60000)
    assert o.start_method == "spawn"


def test_weights_in_settings_stay(started: list[WorkerOptions]) -> None:
    """-Q without a weight takes the one of the settings."""
    invoke("-Q", "a,b=2", worker_queue_weights={"a": 5, "b": 5})
    assert started[0].queue_weights == {"a": 5, "b": 2}


def test_options_in_the_environment(
    started: list[WorkerOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_WORKER_HOSTNAME", "one@here")
    monkeypatch.setenv("CELERY_WORKER_LOGLEVEL", "debug")
    monkeypatch.setenv("CELERIAC_WORKER_QUEUES", "a,b")
    invoke("-Q", "c")
    assert (started[0].hostname, started[0].loglevel) == ("one@here", "DEBUG")
    assert started[0].queues == ["c"]


def test_options_without_effect_are_said_once(started: list[WorkerOptions]) -> None:
    args = ["--without-gossip", "--without-mingle", "-O", "fair", "--prefetch-multiplier", "1"]
    result = invoke(*args, "-E")
    assert result.exit_code == 0
    [line] = result.stderr.splitlines()
    assert line.startswith("Without effect here: --without-gossip (workers do not gossip), ")
    assert "--optimization" in line
    assert "--prefetch-multiplier" in line
    assert "--task-events" in line
    help_ = CliRunner().invoke(celeriac, ["worker", "--help"]).output
    assert "gossip" not in help_


@pytest.mark.parametrize(
    "args",
    [["--autoscale", "8,2"], ["--uid", "nobody"], ["--umask", "077"]],
)
def test_options_that_are_refused(started: list[WorkerOptions], args: list[str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert args[0] in result.output
    assert started == []


def test_the_options_for_periodic_tasks(started: list[WorkerOptions]) -> None:
    assert invoke("-B", "-s", "file", "--scheduler", "m:Class").exit_code == 0
    assert invoke().exit_code == 0
    beat, none = started
    assert (beat.beat, beat.beat_schedule_filename, beat.beat_scheduler) == (
        True,
        "file",
        "m:Class",
    )
    assert none.beat is False


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-P", "gevnet"], "no pool 'gevnet'"),
        (["-c", "many"], "concurrency"),
        (["-Q", "a=none"], "'a=none'"),
        (["-Q", "a", "-X", "a"], "No queue is left"),
        (["--grace", "later"], "worker_shutdown_grace"),
        (["-l", "loud"], "loud"),
        (["-P", "threads", "--time-limit", "5"], "task_time_limit"),
        (["-I", "no_such_module"], "no_such_module"),
    ],
)
def test_wrong_options(started: list[WorkerOptions], args: list[str], words: str) -> None:
    result = invoke(*args)
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert started == []


def test_worker_needs_an_application(project: Project) -> None:
    said = project.bad("worker", code=2)
    assert "celeriac -A tasks worker" in said
    assert "tasks.py seems to hold one" in said
    assert "needs the application" in project.bad("-b", project.url, "worker", code=2)


def test_worker_runs_and_stops(project: Project) -> None:
    project.write("more.py", "from tasks import app\n@app.task\ndef extra(): return 'more'\n")
    worker = project.start_worker("-c", "1", "--include", "more", "--pidfile", "worker.pid")
    assert (project.directory / "worker.pid").read_text().strip() == str(worker.pid)
    assert "At least once" in project.log()
    assert project.good("call", "more.extra", "--wait", "30", "--force") == "more\n"
    assert project.stop(worker) == 0
    assert not (project.directory / "worker.pid").exists()
    assert project.run("-A", "tasks", "status").returncode == 69


def test_quiet_worker_has_no_banner(project: Project) -> None:
    project.start_worker("-c", "1", "-O", "fair", CELERIAC_QUIET="1")
    assert "Promises" not in project.log()
    assert "Without effect" not in project.log()


def test_worker_that_cannot_start(project: Project) -> None:
    """A broker that no process can share; a pid file of a running process."""
    said = project.bad("-b", "memory://", "-A", "tasks", "worker")
    assert "--pool=solo" in said
    project.write("worker.pid", f"{os.getpid()}\n")
    said = project.bad("-A", "tasks", "worker", "--pidfile", "worker.pid")
    assert str(os.getpid()) in said
    assert "none/x.pid" in project.bad("-A", "tasks", "worker", "--pidfile", "none/x.pid")
    project.write("file", "")
    assert "file" in project.bad("-A", "tasks", "worker", "--logfile", "file/x.log")


def test_worker_purges_first(project: Project) -> None:
    with project.app() as app:
        for _ in range(3):
            app.send_task("tasks.add", [1, 2])
        app.send_task("tasks.add", [1, 2], queue="mail")
    project.start_worker("-c", "1", "--purge")
    assert "Removed 3 messages from celery." in project.log()
    assert [one["name"] for one in project.json("queues", "list")] == ["mail"]


def test_options_reach_spawned_processes(project: Project) -> None:
    """-b, --config and -I hold in the processes that import the application anew, too."""
    other = f"sqlite:///{project.directory}/other.db"
    project.write("settings.py", "result_expires = 12345\ntask_serializer = 'json'\n")
    project.write(
        "more.py",
        "from tasks import app\n@app.task\n"
        "def seen(): return [app.conf.result_expires, __name__]\n",
    )
    worker = project.start_worker(
        "-c", "1", "--pool-start-method", "spawn", "-I", "more",
        CELERIAC_BROKER=other, CELERIAC_CONFIG_MODULE="settings",
    )  # fmt: skip
    done = project.run("-b", other, "call", "more.seen", "--wait", "40")
    assert done.stdout == '[12345, "more"]\n', done.stderr + project.log()
    assert project.stop(worker) == 0
    assert not (project.directory / "shop.db").exists()


def test_restart(project: Project) -> None:
    """SIGHUP starts the same command anew, in the directory that it was told to work in."""
    inner = project.directory / "inner"
    inner.mkdir()
    (inner / "tasks.py").write_text((project.directory / "tasks.py").read_text())
    worker = project.start_worker("-c", "1", CELERIAC_WORKDIR="inner")
    worker.send_signal(signal.SIGHUP)
    project.wait_until(lambda: project.log().count(" ready.") == 2 or worker.poll() is not None)
    assert worker.poll() is None, project.log()
    assert project.stop(worker) == 0
    assert (inner / "shop.db").exists()
    assert "nowhere" in project.bad("--workdir", "nowhere", "-A", "tasks", "status")


def test_detached_worker(project: Project) -> None:
    """It runs on after the command has ended, logs to a file, and stops on SIGTERM."""
    pid = int(project.good("worker", "-c", "1", "-D", "-n", "back@%h", "-l", "info"))
    try:
        project.wait_until(lambda: project.alive() == 1)
        assert os.getsid(pid) == pid
        assert project.good("call", "tasks.add", "-a", "[1, 1]", "--wait", "30") == "2\n"
    finally:
        os.kill(pid, signal.SIGTERM)
    project.wait_until(lambda: project.alive() == 0)
    assert "ready" in (project.directory / "back.log").read_text()


def test_detached_worker_that_fails(project: Project) -> None:
    project.write("worker.pid", f"{os.getpid()}\n")
    said = project.bad("-A", "tasks", "worker", "-D", "-f", "w.log", "--pidfile", "worker.pid")
    assert "ended at once, with exit code 1" in said
    assert str(os.getpid()) in (project.directory / "w.log").read_text()
