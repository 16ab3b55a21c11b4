"""``celeriac schedules``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from celeriac.beat import SharedScheduler
from celeriac.message import MessageState

if TYPE_CHECKING:
    from tests.cli.conftest import Project

CODE = """
app.conf.result_expires = None
app.conf.beat_schedule = {
    "hourly": {"task": "tasks.add", "schedule": 3600.0, "args": (1, 2)},
}
"""


@pytest.fixture
def timed(project: Project) -> Project:
    """The project with an entry in its code, which a scheduler has stored."""
    path = project.directory / "tasks.py"
    path.write_text(path.read_text() + CODE)
    app = project.app()
    app.conf.update(
        result_expires=None,
        beat_schedule={"hourly": {"task": "tasks.add", "schedule": 3600.0, "args": (1, 2)}},
    )
    scheduler = SharedScheduler(app)
    scheduler.close()
    return project


def test_the_whole_life(timed: Project) -> None:
    cron = ("--cron", "0 7 * * mon-fri", "--timezone", "Europe/Berlin")
    said = timed.good(
        "schedules", "add", "report", "tasks.echo", *cron, "-k", '{"x": 1}', "-Q", "q"
    )
    assert said.startswith("report is added; its first run is at ")
    assert "07:00:00+" in said
    shown = {one["name"]: one for one in timed.json("schedules", "list")}
    assert set(shown) == {"hourly", "report"}
    report = shown["report"]
    assert (report["schedule"], report["timezone"]) == ("0 7 * * mon-fri", "Europe/Berlin")
    assert (report["kwargs"], report["options"]) == ({"x": 1}, {"queue": "q"})
    assert (report["source"], report["runs"], report["last_run"]) == ("user", 0, None)
    assert shown["hourly"]["source"] == "code"

    assert timed.good("schedules", "pause", "report") == "report is paused.\n"
    listed = timed.good("schedules", "list").splitlines()
    assert listed[0].split()[:3] == ["name", "schedule", "task"]
    assert any(line.startswith("report") and "paused" in line for line in listed)
    assert timed.good("schedules", "resume", "report", "hourly").splitlines() == [
        "report is resumed.",
        "hourly was not paused.",
    ]
    assert timed.good("schedules", "remove", "report") == "report is removed.\n"
    assert [one["name"] for one in timed.json("schedules", "list")] == ["hourly"]


def test_next(timed: Project) -> None:
    lines = timed.good("schedules", "next", "hourly", "-n", "3").splitlines()
    assert len(lines) == 3
    assert lines == sorted(lines)
    assert timed.json("schedules", "next", "hourly")[:3] == lines


def test_run(timed: Project) -> None:
    task_id = timed.good("schedules", "run", "hourly").strip()
    with timed.app() as app:
        (found,) = app.admin().peek(None, MessageState.WAITING)
    assert found.message.id == task_id


@pytest.mark.parametrize(
    ("args", "said", "code"),
    [
        (["pause", "nothing"], "There is no periodic task nothing. There are: hourly.", 1),
        (["remove", "hourly"], "in the application's code", 1),
        (["add", "x", "t"], "one of --every, --cron and --solar", 2),
        (["add", "x", "t", "--every", "0"], "an interval of 0 s", 2),
        (["add", "x", "t", "--cron", "0 0 31 2 *"], "would never run", 2),
        (["add", "x", "t", "--cron", "* * * *"], "4 fields", 2),
        (["add", "x", "t", "--every", "5", "--timezone", "Nowhere"], "Nowhere", 1),
        (["add", "hourly", "t", "--every", "5"], "hourly already", 1),
    ],
)
def test_mistakes(timed: Project, args: list[str], said: str, code: int) -> None:
    assert said in timed.bad("-A", "tasks", "schedules", *args, code=code)


def test_an_unknown_task_is_said(timed: Project) -> None:
    done = timed.run("-A", "tasks", "schedules", "add", "x", "tasks.nothing", "--every", "60")
    assert done.returncode == 0
    assert "no task tasks.nothing" in done.stderr


def test_code_that_no_scheduler_has_stored(project: Project) -> None:
    path = project.directory / "tasks.py"
    path.write_text(path.read_text() + CODE)
    done = project.run("-A", "tasks", "schedules", "list")
    assert done.returncode == 0
    assert done.stdout == "There are no periodic tasks.\n"
    assert "no scheduler has been started with it yet (hourly)" in done.stderr


def test_beat_needs_the_application(project: Project) -> None:
    assert "needs the application" in project.bad("beat", code=2)
