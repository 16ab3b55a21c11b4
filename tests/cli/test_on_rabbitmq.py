"""The commands on RabbitMQ: what AMQP lets be done is done, the rest is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import TASKS, Project
from tests.drivers.rabbitmq_stage import shared_server


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    project.url = shared_server().new_vhost()
    line = 'app = Celeriac("shop", broker="sqlite:///shop.db")\n'
    assert line in TASKS
    here = (
        f'app = Celeriac("shop", broker="{project.url}", backend="rpc://")\n'
        'app.conf.broker_native_delayed_delivery_queue_type = "classic"\n'
        'app.conf.task_queues = ["celery", "mail"]\n'
    )
    project.write("tasks.py", TASKS.replace(line, here))
    yield project
    project.close()


def test_call_and_worker(project: Project) -> None:
    worker = project.start_worker("-c", "1", "-Q", "celery,mail")
    assert project.good("call", "tasks.add", "-a", "[1, 2]", "--wait", "30") == "3\n"
    assert project.good("call", "tasks.send", "-a", '["x"]', "--wait", "30") == "x\n"
    done = project.run("-A", "tasks", "call", "tasks.fail", "-a", '["why"]', "--wait", "30")
    assert done.returncode == 1
    assert "ValueError: why" in done.stderr
    shown = project.json("status")
    assert (shown["alive"], len(shown["workers"])) == (1, 1)
    assert shown["workers"][0]["pid"] == worker.pid
    assert project.stop(worker) == 0
    assert project.run("-A", "tasks", "status").returncode == 69


def test_queues_and_purge(project: Project) -> None:
    assert project.good("queues", "list") == "No queue holds anything.\n"
    for _ in range(3):
        project.good("call", "tasks.add", "-a", "[1, 2]")
    project.good("call", "tasks.send", "-a", '["x"]')
    assert {one["name"]: one["waiting"] for one in project.json("queues", "list")} == {
        "celery": 3,
        "mail": 1,
    }
    assert "cannot pause" in project.bad("-A", "tasks", "queues", "pause", "mail")
    assert project.good("purge", "-f", "-Q", "celery") == "Removed 3 messages.\n"
    assert [one["name"] for one in project.json("queues", "list")] == ["mail"]


def test_dead_letters(project: Project) -> None:
    project.bury("a", "b", reason="out of stock")
    shown = project.json("dead", "list")
    assert {(one["id"], one["reason"]) for one in shown} == {
        ("a", "out of stock"),
        ("b", "out of stock"),
    }
    assert "out of stock" in project.good("dead", "show", "a")
    project.good("dead", "retry", "a")
    project.good("dead", "delete", "b", "-f")
    assert project.json("dead", "list") == []
    [waiting] = project.json("queues", "list")
    assert (waiting["name"], waiting["waiting"]) == ("celery", 1)


def test_revoke(project: Project) -> None:
    """A task that waits is refused when its turn comes."""
    task_id = project.good("call", "tasks.add", "-a", "[1, 2]").strip()
    project.good("revoke", task_id)
    project.start_worker("-c", "1")
    assert project.good("call", "tasks.add", "-a", "[1, 1]", "--wait", "30") == "2\n"
    assert "revoked" in project.log()


def test_report(project: Project) -> None:
    said = project.good("report")
    assert "RabbitMQ" in said
    assert "guest:guest" not in said
