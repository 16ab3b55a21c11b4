"""How a worker's processes log: Celery's formats and signals, or one JSON object a line."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from celeriac import signals
from celeriac.request import current_request
from celeriac.utils.log import LoggingProxy, mlevel, task_logger
from celeriac.worker.options import WorkerOptions, expand_path

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_COLORS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "35", "DEBUG": "34"}
_UNKNOWN = "???"


class _State:
    """What this process has set up; a forked one inherits it."""

    process_name = "MainProcess"
    hostname = ""
    configured = False
    handled = False  # by a receiver of the signal setup_logging
    stream: TextIO | None = None
    handlers: list[tuple[logging.Logger, logging.Handler]] = []
    stdouts: tuple[Any, Any] = (None, None)


class ProcessName(logging.Filter):
    """Puts the process's name into records; ``multiprocessing`` knows nothing of our processes."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.processName = _State.process_name
        return True


class ColorFormatter(logging.Formatter):
    """Colours a line by its level, on terminals."""

    def __init__(self, fmt: str, datefmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelname) if self.use_color else None
        return f"\x1b[1;{color}m{text}\x1b[0m" if color else text


class TaskFormatter(ColorFormatter):
    """Adds ``task_name`` and ``task_id`` of the running task to the record."""

    def format(self, record: logging.LogRecord) -> str:
        record.__dict__.update(task_fields(record))
        return super().format(record)


def task_fields(record: logging.LogRecord, missing: Any = _UNKNOWN) -> dict[str, Any]:
    """The task that a record is about: its own fields, else the task that runs."""
    request = current_request()
    return {
        "task_name": getattr(record, "task_name", None) or getattr(request, "task", 0) or missing,
        "task_id": getattr(record, "task_id", None) or getattr(request, "id", 0) or missing,
    }


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, worker, process, and
    task_name, task_id, exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "worker": _State.hostname,
            "process": record.processName,
        }
        fields |= {key: value for key, value in task_fields(record, None).items() if value}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["exception"] = record.exc_text
        return msgspec.json.encode(fields).decode()


def setup(app: Celeriac, options: WorkerOptions, index: int = 0) -> None:
    """Set up logging in the worker's first process, or in a spawned one."""
    conf = app.conf
    level = mlevel(options.loglevel)
    path = expand_path(options.logfile, options.hostname, index) if options.logfile else None
    colorize = _colorize(options, path)
    _State.hostname = options.hostname
    _State.configured = True
    common = {"loglevel": level, "logfile": path, "colorize": colorize}
    receivers = signals.setup_logging.send(sender=None, format=conf.worker_log_format, **common)
    _State.handled = bool(receivers)
    if _State.handled:
        return
    root = logging.getLogger()
    if conf.worker_hijack_root_logger:
        for handler in list(root.handlers):
            root.removeHandler(handler)
    _State.stream = None
    if not root.handlers:
        formatter = ColorFormatter(conf.worker_log_format, conf.worker_log_datefmt, colorize)
        _add_handler(root, path, JsonFormatter() if options.log_json else formatter)
        root.setLevel(level)
    signals.after_setup_logger.send(
        sender=None, logger=root, format=conf.worker_log_format, **common
    )
    _setup_task_logger(app, options, path, level, colorize)
    if conf.worker_redirect_stdouts:
        _redirect(conf.worker_redirect_stdouts_level)


def _setup_task_logger(
    app: Celeriac, options: WorkerOptions, path: str | None, level: int, colorize: bool
) -> None:
    conf = app.conf
    if not task_logger.handlers:
        formatter = TaskFormatter(
            conf.worker_task_log_format, conf.worker_task_log_datefmt, colorize
        )
        _add_handler(task_logger, path, JsonFormatter() if options.log_json else formatter)
        task_logger.setLevel(level)
        task_logger.propagate = False
    signals.after_setup_task_logger.send(
        sender=None,
        logger=task_logger,
        loglevel=level,
        logfile=path,
        format=conf.worker_task_log_format,
        colorize=colorize,
    )


def setup_child(app: Celeriac, options: WorkerOptions, name: str, index: int) -> TextIO:
    """Set up logging in a child: its name, and its own file where the pattern says so. The
    stream to which a traceback of the whole process may be written."""
    _State.process_name = name
    if not _State.configured:
        setup(app, options, index)
    elif not _State.handled and options.logfile and index:
        path = expand_path(options.logfile, options.hostname, index)
        if path != expand_path(options.logfile, options.hostname):
            _reopen(path)
    return _State.stream or _stderr()


def stream() -> TextIO:
    """Where this process logs to, as a file: the log file, or the standard error stream."""
    return _State.stream or _stderr()


def _add_handler(logger: logging.Logger, path: str | None, formatter: logging.Formatter) -> None:
    handler: logging.StreamHandler[Any]
    if path:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    else:
        handler = logging.StreamHandler(_stderr())
    handler.setFormatter(formatter)
    handler.addFilter(ProcessName())
    logger.addHandler(handler)
    _State.handlers = [*_State.handlers, (logger, handler)]
    _State.stream = handler.stream


def _reopen(path: str) -> None:
    """Write to another file from now on; the old one is not this process's business."""
    before, _State.handlers = _State.handlers, []
    for logger, handler in before:
        logger.removeHandler(handler)
        handler.close()
        if handler.formatter is not None:
            _add_handler(logger, path, handler.formatter)


def restore_stdouts() -> None:
    """Printing prints again, once the worker has ended."""
    if isinstance(sys.stdout, LoggingProxy):
        sys.stdout = _State.stdouts[0]
    if isinstance(sys.stderr, LoggingProxy):
        sys.stderr = _State.stdouts[1]


def _redirect(level: str | int) -> None:
    _State.stdouts = (sys.stdout, sys.stderr)
    proxy: Any = LoggingProxy(logging.getLogger("celeriac.redirected"), level)
    sys.stdout = proxy
    sys.stderr = proxy


def _colorize(options: WorkerOptions, path: str | None) -> bool:
    if options.log_color is not None:
        return options.log_color
    return path is None and "NO_COLOR" not in os.environ and _stderr().isatty()


def _stderr() -> TextIO:
    if sys.__stderr__ is None:
        raise RuntimeError("there is no standard error stream: give a --logfile")
    return sys.__stderr__
