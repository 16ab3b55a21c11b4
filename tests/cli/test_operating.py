"""``celeriac status``, ``queues``, ``purge`` and ``dead``."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from celeriac.message import MessageState

if TYPE_CHECKING:
    from tests.cli.conftest import Project


def sent(project: Project, *ids: str, queue: str = "celery", **options: float) -> None:
    with project.app() as app:
        for task_id in ids:
            app.send_task("tasks.add", [1, 2], task_id=task_id, queue=queue, **options)


# --- status ---------------------------------------------------------------------------------------


def test_status_without_a_worker(project: Project) -> None:
    """Exit status 69, with --json too; a client's own lease is no worker."""
    sent(project, "a", "b")
    done = project.run("-A", "tasks", "status")
    assert done.returncode == 69
    assert "No worker is alive." in done.stdout
    assert "celery" in done.stdout
    with project.app() as app, app.operating():
        done = project.run("-A", "tasks", "status", "--json")
    assert done.returncode == 69
    shown = json.loads(done.stdout)
    assert (shown["alive"], shown["workers"]) == (0, [])
    assert shown["queues"][0]["waiting"] == 2


def test_status_with_workers(project: Project) -> None:
    first = project.start_worker("-c", "1", "-n", "first@%h")
    project.start_worker("-c", "1", "-n", "second@here")
    project.good("call", "tasks.nap", "-a", "[600]")
    project.wait_until((project.directory / "napping").exists)
    shown = project.json("status")
    assert shown["alive"] == 2
    first_seen, second_seen = shown["workers"]
    assert second_seen["name"] == "second@here"
    assert first_seen["in_flight"] + second_seen["in_flight"] == 1
    assert shown["queues"][0]["in_flight"] == 1
    only = project.json("status", "-d", "second@here")
    assert [one["name"] for one in only["workers"]] == ["second@here"]
    table = project.good("status")
    assert first_seen["name"] in table
    assert "alive" in table
    first.send_signal(signal.SIGQUIT)
    first.wait(30)
    assert project.json("status")["alive"] == 1


# --- queues ---------------------------------------------------------------------------------------


def test_queues_list(project: Project) -> None:
    assert project.good("queues", "list") == "No queue holds anything.\n"
    sent(project, "a", "b", queue="mail")
    sent(project, "c", countdown=1000)
    project.bury("d")
    [first, second] = project.json("queues", "list")
    assert first == {
        "name": "celery",
        "waiting": 0,
        "delayed": 1,
        "in_flight": 0,
        "dead": 1,
        "paused": False,
        "oldest": None,
    }
    assert (second["name"], second["waiting"]) == ("mail", 2)
    head, *rows = project.good("queues", "list").splitlines()
    assert head.split()[:2] == ["QUEUE", "WAITING"]
    assert [row.split()[0] for row in rows] == ["celery", "mail"]


def test_pause_and_resume(project: Project) -> None:
    project.good("queues", "pause", "mail")
    project.start_worker("-c", "1", "-Q", "celery,mail=2")
    task_id = project.good("call", "tasks.send", "-a", '["x"]').strip()
    assert project.good("call", "tasks.add", "-a", "[1, 1]", "--wait", "30") == "2\n"
    with project.app() as app:
        assert [one.state for one in app.admin().find([task_id])] == [MessageState.WAITING]
    assert "paused" in project.good("queues", "list")
    assert project.good("queues", "resume", "mail", "celery") == (
        "mail is resumed.\ncelery was not paused.\n"
    )
    assert project.good("result", task_id, "--timeout", "30") == "x\n"


def test_pause_of_a_mistyped_queue(project: Project) -> None:
    done = project.run("-A", "tasks", "queues", "pause", "mial")
    assert done.returncode == 0
    assert "is the name right?" in done.stderr


# --- purge ----------------------------------------------------------------------------------------


def test_purge_asks(project: Project) -> None:
    sent(project, "a", "b")
    sent(project, "c", countdown=1000)
    sent(project, "d", queue="mail")
    refused = project.run("-A", "tasks", "purge", answer="n\n")
    assert refused.returncode == 1
    assert "Remove 3 messages (celery: 3)?" in refused.stdout
    assert "--force" in project.bad("-A", "tasks", "purge")
    assert project.json("queues", "list")[0]["waiting"] == 2
    assert project.good("purge", answer="y\n").endswith("Removed 3 messages.\n")
    assert [one["name"] for one in project.json("queues", "list")] == ["mail"]
    assert "nothing to remove" in project.good("purge")


def test_purge_selected(project: Project) -> None:
    for queue in ("a", "b", "c"):
        sent(project, f"{queue}-1", queue=queue)
    project.bury("dead", queue="a")
    assert project.good("purge", "-f", "-Q", "a,b", "-X", "b") == "Removed 1 message.\n"
    assert project.good("queues", "purge", "c", "-f") == "Removed 1 message.\n"
    assert [(one["name"], one["dead"]) for one in project.json("queues", "list")] == [
        ("a", 1),
        ("b", 0),
    ]
    assert "No queue is left" in project.bad("-A", "tasks", "purge", "-Q", "a", "-X", "a", code=2)


def test_purged_parts_of_a_workflow_are_settled(project: Project) -> None:
    """What a workflow waits for ends as REVOKED."""
    sent(project, "lonely")
    with project.app() as app:
        app.send_task(
            "tasks.add", [1, 2], task_id="part", group_id="g", chord={"task": "tasks.add"}
        )
        count = app.control.purge()
        assert count == 2
        assert app.AsyncResult("part").state == "REVOKED"
        assert app.admin().queues() == []


# --- dead -----------------------------------------------------------------------------------------


def test_dead_list(project: Project) -> None:
    assert project.good("dead", "list") == "There are no dead letters.\n"
    project.bury("one", "two", reason="no luck\nat all")
    project.bury("three", queue="mail")
    sent(project, "alive")
    head, *rows = project.good("dead", "list").splitlines()
    assert head.split() == ["ID", "TASK", "QUEUE", "BURIED", "LOST", "REASON"]
    assert [row.split()[0] for row in rows] == ["three", "two", "one"]
    assert rows[1].endswith("no luck at all")
    [mail] = project.json("dead", "list", "-Q", "mail")
    assert (mail["id"], mail["task"], mail["queue"]) == ("three", "tasks.add", "mail")
    few = project.run("-A", "tasks", "dead", "list", "--limit", "2", "--json")
    assert [one["id"] for one in json.loads(few.stdout)] == ["three", "two"]
    assert "there are more" in few.stderr


def test_dead_show(project: Project) -> None:
    """A rejected task: its arguments, the reason, and where it was rejected."""
    project.write(
        "tasks.py",
        (project.directory / "tasks.py").read_text()
        + "from celeriac.exceptions import Reject\n"
        + "@app.task\ndef reject(why): raise Reject(why)\n",
    )
    project.start_worker("-c", "1")
    task_id = project.good("call", "tasks.reject", "-a", '["too bad"]').strip()
    project.wait_until(lambda: project.json("dead", "list"))
    shown = project.json("dead", "show", task_id)
    assert (shown["task"], shown["queue"], shown["lost"]) == ("tasks.reject", "celery", 0)
    assert shown["args"] == ["too bad"]
    assert "too bad" in shown["reason"]
    assert shown["headers"]["origin"]
    assert shown["message"]["content_type"] == "application/json"
    text = project.good("dead", "show", task_id)
    assert "task: tasks.reject" in text
    assert "too bad" in text
    assert "There is no dead letter x" in project.bad("-A", "tasks", "dead", "show", "x")


def test_dead_show_of_what_cannot_be_read(project: Project) -> None:
    from celeriac.message import Message, Owner, Settlement, Verdict, Worker

    with project.app() as app:
        broker = app.producer.broker
        broker.publish([Message(id="m", run="m", queue="q", headers=b"{}", body=b"\xff{")])
        broker.register(Worker(lease="w", ttl=60.0))
        [delivery] = broker.claim(Owner("w", 0, 1), ["q"], 1)
        broker.settle([Settlement(delivery=delivery, verdict=Verdict.BURY, reason="unreadable")])
        broker.unregister("w")
    shown = project.json("dead", "show", "m")
    assert shown["unreadable"]
    assert shown["raw_body"] == repr(b"\xff{")
    assert "\\xff" in project.good("dead", "show", "m")
    assert project.good("dead", "list").splitlines()[1].split()[:3] == ["m", "?", "q"]


def test_dead_retry(project: Project) -> None:
    project.bury("one", "two", "three")
    project.bury("four", queue="mail")
    project.start_worker("-c", "1")
    assert (
        project.good("dead", "retry", "one", "two") == "Put 2 dead letters back into the queues.\n"
    )
    assert project.good("result", "two", "--timeout", "30") == "3\n"
    all_ = ("dead", "retry", "--queue", "celery", "--all")
    assert "Try 1 dead letter again?" in project.run("-A", "tasks", *all_).stdout
    assert project.good(*all_, "-f") == "Put 1 dead letter back into the queues.\n"
    assert project.good("result", "three", "--timeout", "30") == "3\n"
    assert [one["id"] for one in project.json("dead", "list")] == ["four"]


def test_dead_delete(project: Project) -> None:
    project.bury("one", "two", "three")
    project.bury("four", queue="mail")
    assert project.run("-A", "tasks", "dead", "delete", "one", answer="n\n").returncode == 1
    assert project.good("dead", "delete", "one", answer="y\n").endswith("Removed 1 dead letter.\n")
    assert project.good("dead", "delete", "--all", "-Q", "celery", "-f") == (
        "Removed 2 dead letters.\n"
    )
    assert [one["id"] for one in project.json("dead", "list")] == ["four"]


def test_dead_delete_spares_what_lives(project: Project) -> None:
    """An id that was sent again since has a waiting message, which must not go too."""
    project.bury("one", "two")
    sent(project, "one")
    done = project.run("-A", "tasks", "dead", "delete", "one", "two", "-f")
    assert done.returncode == 0
    assert done.stdout == "Removed 1 dead letter.\n"
    assert "one is left: it was sent again and is waiting in celery" in done.stderr
    with project.app() as app:
        found = sorted(one.state.value for one in app.admin().find(["one", "two"]))
    assert found == ["dead", "waiting"]


def test_dead_needs_a_choice(project: Project) -> None:
    project.bury("one")
    sent(project, "alive")
    for wrong in (["retry"], ["delete"], ["retry", "one", "--all"], ["retry", "-Q", "celery"]):
        assert "--all" in project.bad("-A", "tasks", "dead", *wrong, code=2)
    said = project.bad("-A", "tasks", "dead", "retry", "one", "alive", "nothing")
    assert "alive is no dead letter: it is waiting in celery" in said
    assert "There is no dead letter nothing" in said
    assert len(project.json("dead", "list")) == 1


def test_many_dead_letters(project: Project) -> None:
    """More than one page of them."""
    ids = [f"dead-{number:04}" for number in range(1100)]
    for start in range(0, len(ids), 100):
        project.bury(*ids[start : start + 100])
    listed = project.json("dead", "list", "--limit", "2000")
    assert [one["id"] for one in listed] == sorted(ids, reverse=True)
    assert project.good("dead", "retry", "--all", "-f").startswith("Put 1100 dead letters")
    assert project.json("queues", "list")[0]["waiting"] == 1100
