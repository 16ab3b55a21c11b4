"""Loggers for applications, by Celery's names: ``from celeriac.utils.log import get_task_logger``.

How records are written is the worker's business (worker/logs.py); a program that is no worker
sees ordinary loggers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from celeriac.exceptions import ImproperlyConfigured

__all__ = [
    "LOG_LEVELS",
    "LoggingProxy",
    "base_logger",
    "get_logger",
    "get_task_logger",
    "mlevel",
    "task_logger",
    "worker_logger",
]

LOG_LEVELS = logging.getLevelNamesMapping()
LOG_LEVELS.setdefault("FATAL", logging.FATAL)

base_logger = logging.getLogger("celeriac")
task_logger = logging.getLogger("celeriac.task")
worker_logger = logging.getLogger("celeriac.worker")
_RESERVED = frozenset({"celeriac", "celeriac.task"})


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, below the logger of Celeriac unless it already has a parent."""
    logger = logging.getLogger(name)
    if logger.parent is logging.root and logger is not base_logger:
        logger.parent = base_logger
    return logger


def get_task_logger(name: str) -> logging.Logger:
    """A logger whose records carry the running task's name and id (``worker_task_log_format``)."""
    if name in _RESERVED:
        raise RuntimeError(f"the logger name {name!r} is taken by Celeriac: use __name__")
    logger = logging.getLogger(name)
    if not _below(logger, task_logger):
        logger.parent = task_logger
    return logger


def _below(logger: logging.Logger, top: logging.Logger) -> bool:
    above = logger.parent
    while above is not None:
        if above is top:
            return True
        above = above.parent
    return False


def mlevel(level: str | int | None) -> int:
    """A level's number: of a name in any case, of a number, or of its digits; None is 0."""
    if level is None:
        return logging.NOTSET
    if isinstance(level, int):
        return level
    if level.isdigit():
        return int(level)
    try:
        return LOG_LEVELS[level.upper()]
    except KeyError:
        raise ImproperlyConfigured(
            f"There is no log level {level!r}; the levels are "
            "DEBUG, INFO, WARNING, ERROR, CRITICAL."
        ) from None


class LoggingProxy:
    """A text stream that logs each line written to it: what tasks print. Lines are put together
    for each thread; what a log handler itself prints is dropped, as it would come back for ever.
    """

    mode = "w"
    name: str | None = None
    encoding = "utf-8"
    errors = "replace"
    closed = False

    def __init__(self, logger: logging.Logger, loglevel: int | str = logging.WARNING) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel)
        self._mine = threading.local()

    def write(self, data: str | bytes) -> int:
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
        if getattr(self._mine, "logging", False) or self.closed:
            return 0
        *lines, rest = (getattr(self._mine, "rest", "") + text).split("\n")
        self._mine.rest = rest
        for line in lines:
            self._log(line)
        return len(data)

    def _log(self, line: str) -> None:
        if not line.strip():
            return
        self._mine.logging = True
        try:
            self.logger.log(self.loglevel, "%s", line.rstrip())
        finally:
            self._mine.logging = False

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what has no line end yet."""
        rest, self._mine.rest = getattr(self._mine, "rest", ""), ""
        if rest and not getattr(self._mine, "logging", False):
            self._log(rest)

    def close(self) -> None:
        self.closed = True

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False
