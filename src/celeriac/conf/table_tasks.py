"""The settings of the application itself, of tasks and of results."""

from __future__ import annotations

from celeriac.conf.kinds import (
    ANY,
    BOOL,
    INT,
    MAPPING,
    NAMES,
    NUMBER,
    QUEUES,
    RATE,
    SECONDS,
    TEXT,
    TIMEZONE,
    at_least,
    maybe,
    one_of,
)
from celeriac.conf.setting import accepted, derived, later, setting

_STORED_OR_REPEATED = (
    "a task whose result cannot be stored keeps its message, and both are settled later"
)
_COUNTED = "a join counts its parts in the store and the parts carry their values: nothing polls"


class GeneralSettings:
    group = "Application"

    accept_content = setting(
        NAMES,
        ("json",),  # nothing that can run code when read
        "CELERY_ACCEPT_CONTENT",
        doc="Content types (or serializer names) that workers and result readers accept.",
    )
    result_accept_content = setting(
        NAMES, None, doc="The same for results; None: as `accept_content`."
    )
    timezone = setting(
        TIMEZONE,
        None,
        "CELERY_TIMEZONE",
        doc="The time zone of schedules and of times shown; None: UTC.",
    )
    enable_utc = accepted(
        BOOL,
        True,
        doc="Whether times in messages are in UTC.",
        reason="times in messages are always in UTC; `timezone` is the zone of schedules",
    )
    imports = setting(
        NAMES, (), "CELERY_IMPORTS", doc="Modules that the worker imports when it starts."
    )
    include = setting(
        NAMES, (), "CELERY_INCLUDE", doc="More of them: what the application's `include=` sets."
    )
    deprecated_settings = accepted(
        ANY,
        None,
        doc="Which settings were given by old names.",
        reason="old names are understood and mapped to the new ones",
    )
    override_backends = later(
        MAPPING, None, doc="More aliases of result backends: alias to the class's path."
    )


class TaskSettings:
    group = "Tasks"

    # True and None are the same promise, at least once: that is how Celeriac works. Only an
    # explicit False gives it up, for at most once.
    task_acks_late = setting(
        BOOL,
        None,
        "CELERY_ACKS_LATE",
        doc="None or True: a task runs at least once. False: at most once.",
    )
    task_reject_on_worker_lost = setting(
        BOOL,
        None,
        "CELERY_REJECT_ON_WORKER_LOST",
        doc="False together with `task_acks_late=True`: a task whose process died fails with "
        "WorkerLostError. Otherwise it runs again.",
    )
    # A message that kills whoever touches it must not take one worker after the other down.
    task_max_deliveries = setting(
        at_least(1),
        3,
        own=True,
        doc="How many processes may die of one message until it is buried as a dead letter.",
    )
    task_retry_on_worker_lost = accepted(
        BOOL,
        False,
        "CELERY_RETRY_ON_WORKER_LOST",
        doc="Whether a task whose process died is retried.",
        reason="it always runs again, up to task_max_deliveries times",
    )
    task_acks_on_failure_or_timeout = later(
        BOOL,
        True,
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        doc="Whether a task that failed or ran out of time is done with.",
    )
    task_acks_on_failure = later(
        BOOL, None, "CELERY_ACKS_ON_FAILURE", doc="The same for failures alone."
    )
    task_acks_on_timeout = later(
        BOOL, None, "CELERY_ACKS_ON_TIMEOUT", doc="The same for time limits alone."
    )
    task_always_eager = setting(
        BOOL,
        False,
        "CELERY_ALWAYS_EAGER",
        doc="Run tasks at once where they are called, without a broker. For tests.",
    )
    task_eager_propagates = setting(
        BOOL,
        False,
        "CELERY_EAGER_PROPAGATES_EXCEPTIONS",
        doc="Whether such a call raises what the task raises.",
    )
    task_store_eager_result = setting(
        BOOL,
        False,
        "CELERY_STORE_EAGER_RESULT",
        doc="Whether such a call's result is stored, too.",
    )
    task_annotations = setting(
        ANY, None, "CELERY_ANNOTATIONS", doc="Attributes to set on tasks by name; `*` is every one."
    )
    task_serializer = setting(
        TEXT, "json", "CELERY_TASK_SERIALIZER", doc="How arguments are written."
    )
    task_compression = setting(
        TEXT, None, "CELERY_MESSAGE_COMPRESSION", doc="How messages are compressed; None: not."
    )
    task_protocol = setting(
        one_of(1, 2), 2, "CELERY_TASK_PROTOCOL", doc="Version of the messages sent."
    )
    task_default_delivery_mode = setting(
        one_of(1, 2, "transient", "persistent"),
        2,
        "CELERY_DEFAULT_DELIVERY_MODE",
        doc="2 (persistent) or 1 (transient), for brokers that know the difference.",
    )
    task_default_priority = setting(
        INT, None, "CELERY_DEFAULT_PRIORITY", doc="Priority of tasks that have none."
    )
    task_inherit_parent_priority = setting(
        BOOL,
        False,
        "CELERY_INHERIT_PARENT_PRIORITY",
        doc="Whether a task sent by a task takes over its priority.",
    )
    task_default_rate_limit = setting(
        RATE, None, "CELERY_DEFAULT_RATE_LIMIT", doc="Rate limit of tasks that have none."
    )
    task_time_limit = setting(
        SECONDS,
        None,
        "CELERYD_TASK_TIME_LIMIT",
        doc="Seconds after which a task's process is killed.",
    )
    task_soft_time_limit = setting(
        SECONDS,
        None,
        "CELERYD_TASK_SOFT_TIME_LIMIT",
        doc="Seconds after which SoftTimeLimitExceeded is raised in a task.",
    )
    task_ignore_result = setting(
        BOOL, False, "CELERY_IGNORE_RESULT", doc="Whether results are not stored."
    )
    task_store_errors_even_if_ignored = setting(
        BOOL,
        False,
        "CELERY_STORE_ERRORS_EVEN_IF_IGNORED",
        doc="Whether failures are stored even so.",
    )
    task_track_started = setting(
        BOOL, False, "CELERY_TRACK_STARTED", doc="Whether the state STARTED is stored."
    )
    task_send_sent_event = later(
        BOOL, False, "CELERY_SEND_TASK_SENT_EVENT", doc="Whether sending a task is an event."
    )
    task_remote_tracebacks = later(
        BOOL, False, "CELERY_REMOTE_TRACEBACKS", doc="Whether `get()` shows the worker's traceback."
    )
    task_repr_maxlevels = setting(
        INT,
        3,
        "CELERY_REPR_MAXLEVELS",
        doc="How deep the representation of arguments in logs and events goes.",
    )
    task_allow_error_cb_on_chord_header = setting(
        BOOL,
        False,
        "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
        doc="Whether a chord's errback is called for the tasks of its header, too.",
    )
    # Celery's default policy, and a bound on all of it: delay() returns or raises within a known
    # time, also when the network swallows packets.
    task_publish_retry = setting(
        BOOL,
        True,
        "CELERY_TASK_PUBLISH_RETRY",
        doc="Whether publishing is tried again when the broker cannot be reached.",
    )
    task_publish_retry_policy = setting(
        MAPPING,
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
        doc="How often, and how many seconds apart.",
    )


class RoutingSettings:
    group = "Routing"

    task_routes = setting(
        ANY,
        None,
        "CELERY_ROUTES",
        doc="Where tasks go: a dict of name, glob or compiled pattern to a queue or options, a "
        "function, or a list of such.",
    )
    task_queues = setting(
        QUEUES,
        None,
        "CELERY_QUEUES",
        doc="The queues of the application; None: only the default one.",
    )
    task_default_queue = setting(
        TEXT, "celery", "CELERY_DEFAULT_QUEUE", doc="Queue of tasks without a route."
    )
    task_default_queue_type = setting(
        one_of("classic", "quorum"),
        "classic",
        "CELERY_DEFAULT_QUEUE_TYPE",
        doc="Its type, for RabbitMQ.",
    )
    task_default_exchange = derived(
        TEXT,
        lambda conf: str(conf.task_default_queue),
        "CELERY_DEFAULT_EXCHANGE",
        doc="Exchange of queues that name none.",
        default_text="`task_default_queue`",
    )
    task_default_exchange_type = setting(
        TEXT, "direct", "CELERY_DEFAULT_EXCHANGE_TYPE", doc="Its type."
    )
    task_default_routing_key = derived(
        TEXT,
        lambda conf: str(conf.task_default_queue),
        "CELERY_DEFAULT_ROUTING_KEY",
        doc="Routing key of queues that name none.",
        default_text="`task_default_queue`",
    )
    task_create_missing_queues = setting(
        BOOL,
        True,
        "CELERY_CREATE_MISSING_QUEUES",
        doc="Whether a queue that `task_queues` does not hold is made when it is named.",
    )
    task_create_missing_queue_type = setting(
        one_of("classic", "quorum"),
        "classic",
        "CELERY_CREATE_MISSING_QUEUE_TYPE",
        doc="Type of queues made so, for RabbitMQ.",
    )
    task_create_missing_queue_exchange_type = setting(
        TEXT,
        None,
        "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE",
        doc="Type of their exchanges; None: direct.",
    )
    task_queue_max_priority = setting(
        INT,
        None,
        "CELERY_QUEUE_MAX_PRIORITY",
        doc="`x-max-priority` of queues that set none, for RabbitMQ.",
    )


class ResultSettings:
    group = "Results"

    result_backend = setting(
        TEXT,
        None,
        "CELERY_RESULT_BACKEND",
        doc="URL of the result backend.",
        environment=("CELERY_RESULT_BACKEND",),
    )
    result_backend_transport_options = setting(
        MAPPING,
        {},
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
        doc="Options for the result backend's driver.",
    )
    result_serializer = setting(
        TEXT, "json", "CELERY_RESULT_SERIALIZER", doc="How results are written."
    )
    result_compression = setting(
        TEXT, None, "CELERY_RESULT_COMPRESSION", doc="How they are compressed; None: not."
    )
    result_expires = setting(
        maybe(SECONDS),
        86400.0,
        "CELERY_TASK_RESULT_EXPIRES",
        doc="Seconds for which results are kept; None or 0: for ever.",
    )
    result_failure_expires = setting(
        SECONDS,
        None,
        "CELERY_RESULT_FAILURE_EXPIRES",
        doc="The same for failures; None: as `result_expires`.",
    )
    result_chord_expires = setting(
        SECONDS,
        None,
        "CELERY_RESULT_CHORD_EXPIRES",
        doc="Seconds after which a chord that never had all its parts is forgotten; None: 30 days.",
    )
    result_chord_sweep_interval = setting(
        SECONDS,
        60.0,
        own=True,
        doc="Seconds between two looks for chords that are open though all their parts have ended; "
        "None or 0: nobody looks.",
    )
    result_extended = setting(
        BOOL,
        False,
        "CELERY_RESULT_EXTENDED",
        doc="Whether name, arguments, worker, retries and queue are stored with the result.",
    )
    # Cancelled must mean cancelled, also for a message that a network fault hands in days later.
    revoke_expires = setting(
        SECONDS,
        7 * 86400.0,
        own=True,
        doc="Seconds for which a revoked id stays revoked, also when it is sent again.",
    )
    result_persistent = setting(
        BOOL, None, "CELERY_RESULT_PERSISTENT", doc="Whether results sent as messages are durable."
    )
    result_exchange = later(
        TEXT, "celeryresults", "CELERY_RESULT_EXCHANGE", doc="Exchange of results as messages."
    )
    result_exchange_type = later(TEXT, "direct", "CELERY_RESULT_EXCHANGE_TYPE", doc="Its type.")
    result_cache_max = accepted(
        INT,
        -1,
        "CELERY_MAX_CACHED_RESULTS",
        doc="How many results a client keeps in memory.",
        reason="a client keeps no results but those its AsyncResult objects hold",
    )
    result_chord_join_timeout = accepted(
        SECONDS,
        3.0,
        "CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        doc="Seconds to wait for each result of a chord's header.",
        reason=_COUNTED,
    )
    result_chord_retry_interval = accepted(
        SECONDS,
        1.0,
        "CELERY_RESULT_CHORD_RETRY_INTERVAL",
        doc="Seconds between two looks whether a chord's header is done.",
        reason=_COUNTED,
    )
    result_backend_always_retry = accepted(
        BOOL,
        False,
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        doc="Whether storing a result is tried again.",
        reason=_STORED_OR_REPEATED,
    )
    result_backend_max_retries = accepted(
        NUMBER,
        float("inf"),
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
        doc="How often.",
        reason=_STORED_OR_REPEATED,
    )
    result_backend_base_sleep_between_retries_ms = accepted(
        INT,
        10,
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        doc="How many milliseconds apart at first.",
        reason=_STORED_OR_REPEATED,
    )
    result_backend_max_sleep_between_retries_ms = accepted(
        INT,
        10000,
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        doc="How many milliseconds apart at most.",
        reason=_STORED_OR_REPEATED,
    )
