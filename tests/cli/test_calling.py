"""``celeriac call``, ``result`` and ``revoke``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from celeriac.message import MessageState
from celeriac.protocol.reading import decode_headers

if TYPE_CHECKING:
    from tests.cli.conftest import Project


def test_call_prints_the_id(project: Project) -> None:
    task_id = project.good("call", "tasks.add", "-a", "[2, 3]").strip()
    with project.app() as app:
        [found] = app.admin().find([task_id])
    assert found.state is MessageState.WAITING
    assert decode_headers(found.message.headers)["task"] == "tasks.add"
    assert found.message.queue == "celery"


def test_call_takes_all_options(project: Project) -> None:
    task_id = project.good(
        "call", "tasks.echo", "-k", '{"to": ["ä", 1]}', "--countdown", "3600", "--expires", "7200",
        "--queue", "slow", "--priority", "7",
    ).strip()  # fmt: skip
    with project.app() as app:
        [found] = app.admin().find([task_id])
    message = found.message
    assert found.state is MessageState.DELAYED
    assert (message.queue, message.priority) == ("slow", 7)
    assert message.due_at is not None
    assert message.expires_at is not None
    assert message.expires_at - message.due_at == pytest.approx(3600, abs=5)
    assert decode_headers(message.headers)["kwargsrepr"] == "{'to': ['ä', 1]}"


@pytest.mark.parametrize("given", ["2036-02-03T04:05:06", "2036-02-03T05:05:06+01:00"])
def test_call_at_a_time(project: Project, given: str) -> None:
    """A time without a zone is meant in the application's, which is UTC here."""
    task_id = project.good("call", "tasks.add", "-a", "[1, 1]", "--eta", given).strip()
    with project.app() as app:
        [found] = app.admin().find([task_id])
    assert found.message.due_at == 2085624306.0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-a", "[1"], ["'[1' is not JSON", "write it like"]),
        (["-a", '{"x": 1}'], ["is not a list"]),
        (["-k", "[1]"], ["is not an object"]),
        (["-k", "{x: 1}"], ["is not JSON"]),
        (["--eta", "tomorrow"], ["'tomorrow' is not a time", "ISO 8601"]),
        (["--expires", "soon"], ["a number of seconds"]),
        (["--countdown", "x"], ["'x' is not a valid float"]),
    ],
)
def test_call_with_a_wrong_option(project: Project, args: list[str], words: list[str]) -> None:
    said = project.bad("-A", "tasks", "call", "tasks.add", *args, code=2)
    for word in words:
        assert word in said


def test_call_with_wrong_arguments(project: Project) -> None:
    said = project.bad("-A", "tasks", "call", "tasks.add", "-a", "[1]")
    assert "tasks.add cannot be called so" in said
    assert "'y'" in said
    assert project.json("queues", "list") == []


def test_call_of_an_unknown_task(project: Project) -> None:
    """A name nearly known is refused; another one is sent, as Celery does."""
    for name in ("tasks.ad", "shop.tasks.add"):
        said = project.bad("-A", "tasks", "call", name)
        assert "tasks.add" in said
        assert "--force" in said
    assert project.json("queues", "list") == []
    forced = project.run("-A", "tasks", "call", "tasks.ad", "--force")
    assert forced.returncode == 0
    other = project.run("-A", "tasks", "call", "warehouse.pack")
    assert other.returncode == 0
    assert "sent by its name" in other.stderr
    assert project.json("queues", "list")[0]["waiting"] == 2


def test_call_sends_though_eager(project: Project) -> None:
    project.good("call", "tasks.add", "-a", "[1, 2]", CELERIAC_TASK_ALWAYS_EAGER="1")
    assert project.json("queues", "list")[0]["waiting"] == 1


def test_call_and_wait(project: Project) -> None:
    """With a worker: results, errors, time-outs, and what result says of them afterwards."""
    project.start_worker("-c", "1")
    assert project.good("call", "tasks.add", "-a", "[2, 3]", "--wait", "30") == "5\n"
    echoed = project.good("call", "tasks.echo", "-k", '{"a": ["ä"]}', "--wait", "30")
    assert json.loads(echoed) == {"a": ["ä"]}
    assert "FAILURE: ValueError: no luck" in project.bad(
        "-A", "tasks", "call", "tasks.fail", "-a", '["no luck"]', "--wait", "30"
    )
    failed = project.good("call", "tasks.fail", "-a", '["again"]').strip()
    assert "FAILURE: ValueError: again" in project.bad(
        "-A", "tasks", "result", failed, "--timeout", "30"
    )
    traceback = project.run("-A", "tasks", "result", failed, "--traceback")
    assert traceback.returncode == 1
    assert "raise ValueError(text)" in traceback.stdout
    shown = json.loads(project.run("-A", "tasks", "result", failed, "--json").stdout)
    assert (shown["state"], shown["error"]) == (
        "FAILURE",
        {"type": "ValueError", "message": "again"},
    )
    added = project.good("call", "tasks.add", "-a", '["a", "b"]').strip()
    assert project.good("result", added, "--timeout", "30") == "ab\n"
    assert project.json("result", added)["result"] == "ab"


def test_wait_without_a_worker(project: Project) -> None:
    said = project.bad("-A", "tasks", "call", "tasks.add", "-a", "[2, 3]", "--wait", "0.1")
    assert "has not ended within 0.1 s" in said
    assert "celeriac status" in said


def test_no_result_backend(project: Project) -> None:
    off = ["--result-backend", "disabled://", "-A", "tasks"]
    said = project.bad(*off, "call", "tasks.add", "-a", "[1, 2]", "--wait", "1")
    assert "no result backend" in said
    assert project.json("queues", "list") == []
    assert "no result backend" in project.bad(*off, "result", "x")


def test_result_of_what_has_not_ended(project: Project) -> None:
    task_id = project.good("call", "tasks.add", "-a", "[2, 3]", "--countdown", "99").strip()
    assert "delayed in celery" in project.bad("-A", "tasks", "result", task_id)
    assert "Nothing is known" in project.bad("-A", "tasks", "result", "x", "--timeout", "0.1")


# --- revoke ---------------------------------------------------------------------------------------


def test_revoke_waiting(project: Project) -> None:
    waiting = project.good("call", "tasks.add", "-a", "[2, 3]").strip()
    delayed = project.good("call", "tasks.add", "-a", "[2, 3]", "--countdown", "99").strip()
    said = project.good("revoke", waiting, delayed, "never-sent").splitlines()
    assert said[0] == f"{waiting}: was waiting in celery, and will not run"
    assert said[1] == f"{delayed}: was delayed in celery, and will not run"
    assert said[2].startswith("never-sent: is in no queue")
    assert project.json("queues", "list") == []
    assert "REVOKED" in project.bad("-A", "tasks", "result", delayed)


def test_revoke_running(project: Project) -> None:
    project.start_worker("-c", "1")
    task_id = project.good("call", "tasks.nap", "-a", "[600]").strip()
    project.wait_until((project.directory / "napping").exists)
    said = project.good("revoke", task_id, "--terminate", "--signal", "kill")
    assert "is killed if it runs" in said
    assert "REVOKED" in project.bad("-A", "tasks", "result", task_id, "--timeout", "30")


def test_revoke_with_a_wrong_signal(project: Project) -> None:
    said = project.bad("-A", "tasks", "revoke", "x", "--signal", "NICE", code=2)
    assert "'NICE' is no signal" in said
