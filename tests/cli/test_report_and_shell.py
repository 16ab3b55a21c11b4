"""``celeriac report``, ``celeriac shell``, and ``app.control``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from celeriac import Celeriac, __version__
from celeriac.report import promises, report

if TYPE_CHECKING:
    from tests.cli.conftest import Project


def test_report(project: Project) -> None:
    text = project.good("report")
    assert f"celeriac {__version__}" in text
    assert "tasks: tasks.add, tasks.echo" in text
    assert "sqlite:///shop.db" in text
    assert "synchronous" in text  # how durable the file is
    assert "One store" in text
    assert "broker_url: 'sqlite:///shop.db' (code)" in text


def test_report_connects_to_nothing(project: Project) -> None:
    project.good("report")
    assert not (project.directory / "shop.db").exists()


def test_report_hides_secrets() -> None:
    with Celeriac(
        "shop",
        broker="sqlite:///shop.db",
        backend="redis://user:hunter2@host/0",
        redis_password="hunter2",
        broker_transport_options={"password": "hunter2"},
        set_as_current=False,
    ) as app:
        text = report(app)
        assert app.bugreport() == text
    assert "hunter2" not in text
    assert "redis://user:" in text


def test_report_names_a_driver_that_is_missing() -> None:
    with Celeriac("shop", backend="tarantool://host/0", set_as_current=False) as app:
        assert "No driver is installed for tarantool://" in report(app)


def test_promises_follow_the_drivers() -> None:
    with Celeriac("shop", broker="memory://a", set_as_current=False) as app:
        said = promises(app)
        assert any(one.startswith("One store") for one in said)
        assert "Accepted: what was sent is gone when this process ends." in said
    with Celeriac("shop", broker="memory://a", backend="memory://b", set_as_current=False) as app:
        assert any(one.startswith("Two stores") for one in promises(app))
    with Celeriac("shop", broker="memory://a", backend="disabled://", set_as_current=False) as app:
        assert "Results are not kept." in promises(app)
    with Celeriac("shop", broker="nosuch://a", set_as_current=False) as app:
        assert promises(app) == []
        assert "nosuch" in report(app)


def test_shell(project: Project) -> None:
    """The application, its tasks by their short names, and AsyncResult are defined."""
    answer = "print(app.main, add.name, AsyncResult('x').app is app)\nprint(add.delay(1, 2).id)\n"
    shown = project.good("shell", "--python", answer=answer)
    assert "shop tasks.add True" in shown
    [task_id] = re.findall(r"\w{8}-[\w-]+", shown)
    assert "waiting in celery" in project.bad("-A", "tasks", "result", task_id)


def test_shell_without_tasks(project: Project) -> None:
    done = project.run("-A", "tasks", "shell", "-P", "-T", answer="add\n")
    assert "NameError" in done.stderr


def test_control_revokes() -> None:
    with Celeriac("shop", broker="memory://control", set_as_current=False) as app:
        one, two = app.send_task("a"), app.send_task("b")
        app.control.revoke(one.id, reply=True, timeout=1)
        app.control.terminate([two.id], signal="SIGKILL")
        assert (one.state, two.state) == ("REVOKED", "REVOKED")
        app.send_task("c")
        assert app.control.discard_all() == 1
        assert app.admin().queues() == []
