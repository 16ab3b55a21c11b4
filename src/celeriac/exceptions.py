"""Every error of Celeriac, with Celery's names where Celery has one.

::

    Exception
    ├── CeleriacError (= CeleryError)
    │   ├── TaskError
    │   │   ├── NotRegistered (KeyError)       AlreadyRegistered
    │   │   ├── MaxRetriesExceededError        InvalidTaskError
    │   │   ├── TaskRevokedError               ChordError
    │   │   ├── TimeoutError (builtins.TimeoutError)
    │   │   └── IncompleteStream
    │   ├── TaskPredicate                      raised by a task to say what becomes of it
    │   │   ├── Retry   Ignore   Reject
    │   ├── OperationalError                   a broker or backend cannot be reached, or refuses
    │   │   └── CorruptStore                   the store is not ours, or damaged
    │   ├── LeaseLost                          the broker no longer knows this worker
    │   ├── BackendError: BackendGetMetaError, BackendStoreError
    │   ├── ImproperlyConfigured
    │   │   ├── UnknownSetting  QueueNotFound  UnknownScheme  NotCapable
    │   │   └── MissingDependency (ImportError)
    │   ├── SecurityError
    │   └── ContentError: DecodeError, EncodeError, ContentDisallowed
    ├── SoftTimeLimitExceeded  TimeLimitExceeded  WorkerLostError  Terminated
    SystemExit
    └── WorkerShutdown  WorkerTerminate
"""

from __future__ import annotations

import builtins
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = [
    "AlreadyRegistered",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CeleriacError",
    "CeleriacWarning",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ContentDisallowed",
    "ContentError",
    "CorruptStore",
    "DecodeError",
    "EncodeError",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "LeaseLost",
    "MaxRetriesExceededError",
    "MissingDependency",
    "NotCapable",
    "NotRegistered",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "Retry",
    "SecurityError",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownScheme",
    "UnknownSetting",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
]


class CeleriacWarning(UserWarning):
    """Base of the warnings that Celeriac issues."""


CeleryWarning = CeleriacWarning


class CeleriacError(Exception):
    """Base of the errors that Celeriac raises."""


CeleryError = CeleriacError


class TaskError(CeleriacError):
    """Something about one task."""


class NotRegistered(KeyError, TaskError):
    """The task's name is not known here."""

    def __repr__(self) -> str:
        return f"NotRegistered({self.args[0] if self.args else ''!r})"


class AlreadyRegistered(TaskError):
    """Another task has this name."""


class InvalidTaskError(TaskError):
    """A message that is not a task, or not a whole one."""


class MaxRetriesExceededError(TaskError):
    """The task was retried as often as it may be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", ())
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked, has expired, or was terminated; the argument says which."""


class ChordError(TaskError):
    """A part of a chord's header did not succeed; the message names it."""


class IncompleteStream(TaskError):
    """The end of a stream of data was not reached."""


class TimeoutError(TaskError, builtins.TimeoutError):
    """A wait ended before what was waited for."""


class TaskPredicate(CeleriacError):
    """Base of what a task raises to say what becomes of it."""


class Retry(TaskPredicate):
    """The task is to be tried again.

    ``when``: seconds from now (float) or an aware datetime. ``exc``: why. ``sig``: the signature
    that is sent.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.exc = exc
        self.excs = repr(exc) if exc is not None else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def eta(self) -> datetime:
        """When the next try is due."""
        if isinstance(self.when, datetime):
            return self.when
        return datetime.now(UTC) + timedelta(seconds=self.when or 0)


class Ignore(TaskPredicate):
    """The task's state is left as it is."""


class Reject(TaskPredicate):
    """The message is not taken: kept as a dead letter, or put back with ``requeue=True``."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class OperationalError(CeleriacError):
    """A broker or result backend cannot be reached or refuses; the message names it."""


class CorruptStore(OperationalError):
    """The store is damaged, or belongs to something else."""


class LeaseLost(CeleriacError):
    """The broker no longer knows this worker: register anew, as a new owner."""


class BackendError(CeleriacError):
    """Something about a result backend."""


class BackendGetMetaError(BackendError):
    """A record could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)


class BackendStoreError(BackendError):
    """A record could not be stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)


class ImproperlyConfigured(CeleriacError):
    """A setting is wrong; the message says which, and what to do."""


class UnknownSetting(ImproperlyConfigured, AttributeError, KeyError):
    """No setting has this name; the message names the nearest one."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class QueueNotFound(ImproperlyConfigured, KeyError):
    """The queue is not among ``task_queues`` and ``task_create_missing_queues`` is off."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class UnknownScheme(ImproperlyConfigured):
    """No driver is installed for this kind of URL."""


class NotCapable(ImproperlyConfigured):
    """The broker or backend cannot do what is asked; the message names one that can."""


class MissingDependency(ImproperlyConfigured, ImportError):
    """An optional package is needed; the message says which extra brings it."""


class SecurityError(CeleriacError):
    """Something that could run foreign code, or is not signed as it must be, was refused."""


class ContentError(CeleriacError):
    """Something about the bytes of a message or result."""


class DecodeError(ContentError):
    """Bytes could not be read."""


class EncodeError(ContentError, TypeError):
    """A value could not be written; ``TypeError`` as the caller's mistake that it is."""


class ContentDisallowed(ContentError):
    """A content type that ``accept_content`` does not list."""


class SoftTimeLimitExceeded(Exception):
    """Raised inside a task when its soft time limit has passed: clean up and end."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args}"


class TimeLimitExceeded(Exception):
    """The task was killed at its hard time limit (the argument, in seconds)."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args}"


class WorkerLostError(Exception):
    """The process that ran the task died."""


class Terminated(Exception):
    """The task was killed on request."""


class WorkerTerminate(SystemExit):
    """Stop the worker at once."""


class WorkerShutdown(SystemExit):
    """Stop the worker when what runs is done."""
