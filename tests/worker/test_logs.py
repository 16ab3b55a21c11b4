"""Logging of the worker's processes, and the loggers of tasks."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, signals
from celeriac.exceptions import ImproperlyConfigured
from celeriac.request import Request, pushed
from celeriac.utils.log import LoggingProxy, get_logger, get_task_logger, mlevel, task_logger
from celeriac.worker import logs
from celeriac.worker.options import WorkerOptions


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    state = {name: value for name, value in vars(logs._State).items() if not name.startswith("__")}
    before = [(one, one.handlers[:], one.level, one.propagate) for one in (root, task_logger)]
    streams = sys.stdout, sys.stderr
    for one in (root, task_logger):
        one.handlers[:] = []
    yield
    sys.stdout, sys.stderr = streams
    for _, handler in logs._State.handlers:
        handler.close()
    for name, value in state.items():
        setattr(logs._State, name, value)
    for one, handlers, level, propagate in before:
        one.handlers[:] = handlers
        one.setLevel(level)
        one.propagate = propagate


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("logs", broker="memory://", set_as_current=False)


def options(path: Path, **more: Any) -> WorkerOptions:
    values: dict[str, Any] = {
        "app": "logs",
        "hostname": "w1@host.example.com",
        "lease_name": "w1.1",
        "queues": ["celery"],
        "loglevel": "INFO",
        "logfile": str(path / "%n%I.log"),
    }
    return WorkerOptions(**(values | more))


@pytest.fixture
def running() -> Iterator[Request]:
    request = Request(id="some-id", task="shop.send")
    with pushed(request):
        yield request


def test_celerys_format(app: Celeriac, tmp_path: Path) -> None:
    logs.setup(app, options(tmp_path))
    logging.getLogger("shop").info("paid %s", "twice")
    logging.getLogger("shop").debug("not said")
    (line,) = (tmp_path / "w1.log").read_text().splitlines()
    assert line.startswith("[2")
    assert line.endswith(": INFO/MainProcess] paid twice")


def test_a_task_logger_names_the_task(app: Celeriac, tmp_path: Path, running: Request) -> None:
    logs.setup(app, options(tmp_path))
    get_task_logger("shop.tasks").warning("half full")
    (line,) = (tmp_path / "w1.log").read_text().splitlines()
    assert line.endswith(": WARNING/MainProcess] shop.send[some-id]: half full")


def test_outside_of_a_task_it_says_so(app: Celeriac, tmp_path: Path) -> None:
    logs.setup(app, options(tmp_path))
    get_task_logger("shop.other").warning("hm")
    assert "???[???]: hm" in (tmp_path / "w1.log").read_text()


def test_one_json_object_a_line(app: Celeriac, tmp_path: Path, running: Request) -> None:
    logs.setup(app, options(tmp_path, log_json=True))
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        get_task_logger("shop.json").exception("it %s", "failed")
    logging.getLogger("shop").info("fine")
    first, second = (json.loads(line) for line in (tmp_path / "w1.log").read_text().splitlines())
    assert first["time"].endswith("+00:00")
    assert (first["level"], first["logger"], first["message"]) == (
        "ERROR",
        "shop.json",
        "it failed",
    )
    assert (first["worker"], first["task_name"], first["task_id"]) == (
        "w1@host.example.com",
        "shop.send",
        "some-id",
    )
    assert "ValueError: bad\nnews" in first["exception"]
    assert "exception" not in second


def test_records_about_another_task_name_that_one(
    app: Celeriac, tmp_path: Path, running: Request
) -> None:
    logs.setup(app, options(tmp_path, log_json=True))
    logging.getLogger("shop").info("lost", extra={"task_id": "other", "task_name": "shop.pay"})
    line = json.loads((tmp_path / "w1.log").read_text())
    assert (line["task_id"], line["task_name"]) == ("other", "shop.pay")


def test_what_tasks_print_is_logged(app: Celeriac, tmp_path: Path) -> None:
    logs.setup(app, options(tmp_path))
    print("one", "line")
    print("no end", end="")
    sys.stdout.flush()
    lines = (tmp_path / "w1.log").read_text().splitlines()
    assert [line.split("] ")[1] for line in lines] == ["one line", "no end"]
    assert all("WARNING" in line for line in lines)
    logs.restore_stdouts()
    assert not isinstance(sys.stdout, LoggingProxy)


def test_the_root_logger_is_taken_over_only_if_wanted(tmp_path: Path) -> None:
    mine = logging.StreamHandler(io.StringIO())
    logging.getLogger().handlers[:] = [mine]
    app = Celeriac("a", broker="memory://", worker_hijack_root_logger=False, set_as_current=False)
    logs.setup(app, options(tmp_path))
    assert logging.getLogger().handlers == [mine]
    app = Celeriac("b", broker="memory://", set_as_current=False)
    logs.setup(app, options(tmp_path))
    assert mine not in logging.getLogger().handlers


def test_a_receiver_of_setup_logging_does_it_all(app: Celeriac, tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []

    def mine(**kwargs: Any) -> None:
        said.append(kwargs)

    signals.setup_logging.connect(mine)
    logging.getLogger().handlers[:] = []
    try:
        logs.setup(app, options(tmp_path))
    finally:
        signals.setup_logging.disconnect(mine)
    assert said[0]["loglevel"] == logging.INFO
    assert said[0]["logfile"] == str(tmp_path / "w1.log")
    assert logging.getLogger().handlers == []
    assert not isinstance(sys.stdout, LoggingProxy)
    assert not (tmp_path / "w1.log").exists()


def test_the_signals_after_setup(app: Celeriac, tmp_path: Path) -> None:
    loggers: list[logging.Logger] = []

    def add(logger: logging.Logger, **kwargs: Any) -> None:
        assert logger.handlers
        loggers.append(logger)

    signals.after_setup_logger.connect(add)
    signals.after_setup_task_logger.connect(add)
    try:
        logs.setup(app, options(tmp_path))
    finally:
        signals.after_setup_logger.disconnect(add)
        signals.after_setup_task_logger.disconnect(add)
    assert loggers == [logging.getLogger(), task_logger]


def test_a_child_has_its_name_and_where_wanted_its_file(app: Celeriac, tmp_path: Path) -> None:
    wanted = options(tmp_path)
    logs.setup(app, wanted)
    logging.getLogger("shop").info("main")
    stream = logs.setup_child(app, wanted, "Runner-2", 2)
    logging.getLogger("shop").info("child")
    get_task_logger("shop.child").info("task")
    child = (tmp_path / "w1-2.log").read_text()
    assert "INFO/Runner-2] child" in child
    assert "???[???]: task" in child
    assert "main" in (tmp_path / "w1.log").read_text()
    assert "main" not in child
    os.write(stream.fileno(), b"a stack\n")
    assert "a stack" in (tmp_path / "w1-2.log").read_text()


def test_a_shared_file_stays_shared(app: Celeriac, tmp_path: Path) -> None:
    wanted = options(tmp_path, logfile=str(tmp_path / "all.log"))
    logs.setup(app, wanted)
    handlers = logging.getLogger().handlers[:]
    logs.setup_child(app, wanted, "Runner-1", 1)
    assert logging.getLogger().handlers == handlers


def test_colours_on_a_terminal_only(
    app: Celeriac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", screen)
    monkeypatch.setattr(screen, "isatty", lambda: True)
    logs.setup(app, options(tmp_path, logfile=None))
    logging.getLogger("shop").error("red")
    assert screen.getvalue().startswith("\x1b[1;31m[")
    assert not logs._colorize(options(tmp_path), "a file")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not logs._colorize(options(tmp_path), None)


def test_loggers_of_applications() -> None:
    assert get_task_logger("shop.x") is get_task_logger("shop.x")
    assert get_task_logger("shop.x").parent is task_logger
    assert get_logger("store").parent is logging.getLogger("celeriac")
    with pytest.raises(RuntimeError, match="__name__"):
        get_task_logger("celeriac.task")


@pytest.mark.parametrize(
    ("level", "number"), [("info", 20), ("WARNING", 30), (10, 10), ("15", 15), (None, 0)]
)
def test_levels(level: Any, number: int) -> None:
    assert mlevel(level) == number


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="DEBUG"):
        mlevel("loud")
