"""The options of a task, and where those that it leaves open come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from celeriac import exceptions

# What an option left at None becomes when the task is bound to its application.
FROM_CONFIG = {
    "serializer": "task_serializer",
    "compression": "task_compression",
    "rate_limit": "task_default_rate_limit",
    "priority": "task_default_priority",
    "track_started": "task_track_started",
    "acks_late": "task_acks_late",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "ignore_result": "task_ignore_result",
    "store_eager_result": "task_store_eager_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
}
# Task attributes that are calling options; what the caller gives wins.
SENDING_OPTIONS = (
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "serializer",
    "compression",
    "expires",
    "delivery_mode",
    "ignore_result",
    "time_limit",
    "soft_time_limit",
    "mandatory",
)


class TaskOptions:
    """Every option of a task with its default; None means "as the settings say"."""

    # For code that has the task at hand: except self.MaxRetriesExceededError.
    MaxRetriesExceededError = exceptions.MaxRetriesExceededError
    OperationalError = exceptions.OperationalError

    app: ClassVar[Any] = None
    name: Any = None  # "package.module.function"
    abstract: Any = True
    typing: Any = None  # check arguments where the task is sent
    max_retries: Any = 3  # None: for ever
    default_retry_delay: Any = 180  # seconds
    autoretry_for: Any = ()
    dont_autoretry_for: Any = ()
    retry_kwargs: Any = None
    retry_backoff: Any = False  # True: 1 s, or the first delay in seconds
    retry_backoff_max: Any = 600  # seconds
    retry_jitter: Any = True
    throws: Any = ()  # expected errors: logged without a traceback
    trail: Any = True  # keep the results of tasks sent while running as children
    queue: Any = None
    exchange: Any = None
    routing_key: Any = None
    priority: Any = None
    serializer: Any = None
    compression: Any = None
    expires: Any = None
    delivery_mode: Any = None
    mandatory: Any = None
    ignore_result: Any = None
    time_limit: Any = None
    soft_time_limit: Any = None
    rate_limit: Any = None
    track_started: Any = None
    send_events: Any = True
    acks_late: Any = None  # None, True: at least once; False: at most once
    acks_on_failure_or_timeout: Any = None
    reject_on_worker_lost: Any = None
    store_errors_even_if_ignored: Any = None
    store_eager_result: Any = None
    resultrepr_maxsize: Any = 1024
    immutable: Any = False
    pydantic: Any = False
    pydantic_strict: Any = False
    pydantic_context: Any = None
    pydantic_dump_kwargs: Any = None

    _bound = False
    _sending: dict[str, Any] = {}
    _plan: Any = None  # sending/plans.py keeps here what is the same for every call
    _check: Callable[..., object] | None = None
    _names_shadow = False
    _takes_task = False  # its function takes the task as first argument (bind=True)
    is_async = False
