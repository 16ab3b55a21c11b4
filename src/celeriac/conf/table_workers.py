"""The settings of workers, of beat, and of what workers say and hear."""

from __future__ import annotations

from celeriac.conf.kinds import (
    BOOL,
    CLASS,
    CONCURRENCY,
    GRACE,
    INT,
    LEVEL,
    MAPPING,
    NUMBER,
    SECONDS,
    SECRET,
    TEXT,
    WEIGHTS,
    at_least,
    maybe,
    one_of,
    seconds,
)
from celeriac.conf.setting import accepted, derived, later, setting

_NO_PREFETCH = "claims adapt by themselves to how long tasks take; nothing is reserved ahead"
_ONE_SHUTDOWN = "every shutdown is bounded, by worker_shutdown_grace"
_NO_BOOTSTEPS = "the worker is not built of Celery's components"


class WorkerSettings:
    group = "Workers"

    worker_concurrency = setting(
        CONCURRENCY,
        None,
        "CELERYD_CONCURRENCY",
        doc='How many tasks run at once; None or "auto": as many as there are CPUs.',
    )
    worker_pool = setting(
        TEXT,
        "prefork",
        "CELERYD_POOL",
        doc="Where tasks run: prefork (processes), threads, asyncio or solo.",
    )
    # How long a dead worker's messages wait: short enough to be of use, long enough for a pause
    # of the machine. Heartbeats at a third of it, so that two may be lost.
    worker_lease = setting(
        seconds(above=0.0),
        15.0,
        own=True,
        doc="Seconds without a heartbeat after which a worker counts as dead.",
    )
    worker_heartbeat_interval = derived(
        seconds(above=0.0),
        lambda conf: conf.worker_lease / 3.0,
        own=True,
        doc="Seconds between heartbeats.",
        default_text="a third of `worker_lease` (5.0)",
    )
    # Below the 30 seconds after which Kubernetes and Heroku kill.
    worker_shutdown_grace = setting(
        GRACE,
        25.0,
        own=True,
        doc='Seconds a worker goes on with what runs when it is told to stop; None or "done": '
        "until all is done.",
    )
    # A deployment in steps has new messages meet old workers for a while.
    unknown_task_wait = setting(
        SECONDS,
        30.0,
        own=True,
        doc="Seconds a message of an unknown task waits for a worker that knows it, before it is "
        "buried as a dead letter.",
    )
    dead_letter_expires = setting(
        maybe(SECONDS),
        30 * 86400.0,
        own=True,
        doc="Seconds for which dead letters are kept; None: until somebody decides.",
    )
    # Else one bad deployment fills the disk that the good messages need.
    dead_letter_max = setting(
        maybe(at_least(0)),
        100_000,
        own=True,
        doc="How many of them are kept, the latest; None: all.",
    )
    worker_queue_weights = setting(
        WEIGHTS,
        {},
        own=True,
        doc="How often a queue's turn comes, by its name; 1 for those not named. "
        "`worker -Q a,b=3` says the same.",
    )
    worker_max_tasks_per_child = setting(
        at_least(1),
        None,
        "CELERYD_MAX_TASKS_PER_CHILD",
        doc="Tasks after which a process is replaced.",
    )
    worker_max_memory_per_child = setting(
        at_least(1),
        None,
        "CELERYD_MAX_MEMORY_PER_CHILD",
        doc="Resident memory in KiB above which a process is replaced after its task.",
    )
    worker_disable_rate_limits = setting(
        BOOL, False, "CELERY_DISABLE_RATE_LIMITS", doc="Whether rate limits are not kept."
    )
    worker_pool_start_method = setting(
        one_of("fork", "spawn", "forkserver"),
        "fork",
        "CELERYD_POOL_START_METHOD",
        doc="How processes are started.",
    )
    worker_pool_restarts = later(
        BOOL, False, "CELERYD_POOL_RESTARTS", doc="Whether remote control may restart the pool."
    )
    worker_autoscaler = later(
        CLASS, None, "CELERYD_AUTOSCALER", doc="Class that grows and shrinks the pool."
    )
    worker_direct = later(
        BOOL, False, "CELERY_WORKER_DIRECT", doc="Whether each worker has a queue of its own."
    )
    worker_detect_quorum_queues = later(
        BOOL,
        True,
        "CELERYD_DETECT_QUORUM_QUEUES",
        doc="Whether delayed delivery follows from quorum queues.",
    )
    worker_prefetch_multiplier = accepted(
        INT,
        4,
        "CELERYD_PREFETCH_MULTIPLIER",
        doc="How many messages each process reserves ahead.",
        reason=_NO_PREFETCH,
    )
    worker_disable_prefetch = accepted(
        BOOL,
        False,
        "CELERYD_DISABLE_PREFETCH",
        doc="Whether none is reserved ahead.",
        reason=_NO_PREFETCH,
    )
    worker_enable_prefetch_count_reduction = accepted(
        BOOL,
        True,
        "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        doc="Whether fewer are reserved after a lost connection.",
        reason=_NO_PREFETCH,
    )
    worker_eta_task_limit = accepted(
        INT,
        None,
        "CELERYD_ETA_TASK_LIMIT",
        doc="How many delayed tasks a worker holds.",
        reason="delayed messages wait in the broker, never in a worker",
    )
    worker_soft_shutdown_timeout = accepted(
        SECONDS,
        0.0,
        "CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        doc="Seconds between warm and cold shutdown.",
        reason=_ONE_SHUTDOWN,
    )
    worker_enable_soft_shutdown_on_idle = accepted(
        BOOL,
        False,
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        doc="Whether an idle worker takes that time, too.",
        reason=_ONE_SHUTDOWN,
    )
    worker_cancel_long_running_tasks_on_connection_loss = accepted(
        BOOL,
        False,
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        doc="Whether tasks are ended when the connection is lost.",
        reason="a worker cut off for longer than its lease is fenced: what it finishes changes "
        "nothing",
    )
    worker_deduplicate_successful_tasks = accepted(
        BOOL,
        False,
        "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        doc="Whether a redelivered task that has succeeded is left out.",
        reason="a message leaves its queue in the step that stores its result",
    )
    worker_state_db = accepted(
        TEXT,
        None,
        "CELERYD_STATE_DB",
        doc="File that keeps the revoked ids.",
        reason="revoked ids are kept by the broker, for revoke_expires seconds",
    )
    worker_lost_wait = accepted(
        SECONDS,
        10.0,
        "CELERYD_WORKER_LOST_WAIT",
        doc="Seconds until a dead process's task counts as lost.",
        reason="a dead process is noticed at once, and its results are in the store or not",
    )
    worker_proc_alive_timeout = accepted(
        SECONDS,
        4.0,
        "CELERYD_PROC_ALIVE_TIMEOUT",
        doc="Seconds a new process may take to come up.",
        reason="a process claims its first message when it is up",
    )
    worker_pool_putlocks = accepted(
        BOOL,
        True,
        "CELERYD_POOL_PUTLOCKS",
        doc="Whether the pool uses locks.",
        reason="no task passes through a parent process",
    )
    worker_agent = accepted(
        CLASS, None, "CELERYD_AGENT", doc="Class of an agent (cell).", reason=_NO_BOOTSTEPS
    )
    worker_consumer = accepted(
        CLASS, None, "CELERYD_CONSUMER", doc="Class of the consumer.", reason=_NO_BOOTSTEPS
    )
    worker_timer = accepted(
        CLASS, None, "CELERYD_TIMER", doc="Class of the timer.", reason=_NO_BOOTSTEPS
    )
    worker_timer_precision = accepted(
        NUMBER, 1.0, "CELERYD_TIMER_PRECISION", doc="Its precision.", reason=_NO_BOOTSTEPS
    )


class LogSettings:
    group = "Logging"

    worker_hijack_root_logger = setting(
        BOOL,
        True,
        "CELERYD_HIJACK_ROOT_LOGGER",
        doc="Whether the worker sets up the root logger, removing its handlers.",
    )
    worker_log_format = setting(
        TEXT,
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        "CELERYD_LOG_FORMAT",
        doc="Format of the worker's log lines.",
    )
    worker_log_datefmt = setting(
        TEXT, None, "CELERYD_LOG_DATEFMT", doc="Format of the time in them."
    )
    worker_task_log_format = setting(
        TEXT,
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        "CELERYD_TASK_LOG_FORMAT",
        doc="Format of the lines that tasks log.",
    )
    worker_task_log_datefmt = setting(
        TEXT, None, "CELERYD_TASK_LOG_DATEFMT", doc="Format of the time in them."
    )
    worker_log_color = setting(
        BOOL, None, "CELERYD_LOG_COLOR", doc="Whether levels are coloured; None: on a terminal."
    )
    # For log collectors that would have to take text lines apart again.
    worker_log_json = setting(
        BOOL, False, own=True, doc="One JSON object a line instead of the formats above."
    )
    worker_redirect_stdouts = setting(
        BOOL,
        True,
        "CELERY_REDIRECT_STDOUTS",
        doc="Whether what tasks print is logged.",
    )
    worker_redirect_stdouts_level = setting(
        LEVEL, "WARNING", "CELERY_REDIRECT_STDOUTS_LEVEL", doc="The level at which it is."
    )


class EventSettings:
    group = "Events and remote control"

    worker_send_task_events = later(
        BOOL, False, "CELERY_SEND_EVENTS", doc="Whether workers send task events (`-E`)."
    )
    worker_enable_remote_control = later(
        BOOL, True, "CELERY_ENABLE_REMOTE_CONTROL", doc="Whether workers obey remote control."
    )
    event_queue_ttl = later(
        SECONDS, 5.0, "CELERY_EVENT_QUEUE_TTL", doc="Seconds for which an event is kept."
    )
    event_queue_expires = later(
        SECONDS,
        60.0,
        "CELERY_EVENT_QUEUE_EXPIRES",
        doc="Seconds after which a listener's queue that nobody reads is removed.",
    )
    event_queue_prefix = later(
        TEXT, "celeryev", "CELERY_EVENT_QUEUE_PREFIX", doc="How the names of such queues begin."
    )
    event_queue_exclusive = later(
        BOOL, True, "CELERY_EVENT_QUEUE_EXCLUSIVE", doc="Whether they belong to one connection."
    )
    event_queue_durable = later(
        BOOL, False, "CELERY_EVENT_QUEUE_DURABLE", doc="Whether they outlive the broker."
    )
    event_exchange = later(TEXT, "celeryev", "CELERY_EVENT_EXCHANGE", doc="The exchange of events.")
    event_serializer = later(TEXT, "json", "CELERY_EVENT_SERIALIZER", doc="How events are written.")
    control_exchange = later(TEXT, "celery", doc="How the names of its exchanges begin.")
    control_queue_ttl = later(SECONDS, 300.0, doc="Seconds for which a command is kept.")
    control_queue_expires = later(
        SECONDS, 10.0, doc="Seconds after which a command queue that nobody reads is removed."
    )
    control_queue_exclusive = later(BOOL, True, doc="Whether it belongs to one connection.")
    control_queue_durable = later(BOOL, False, doc="Whether it outlives the broker.")


class BeatSettings:
    group = "Beat"

    beat_schedule = setting(
        MAPPING, {}, "CELERYBEAT_SCHEDULE", doc="The periodic tasks: name to entry (schedules.md)."
    )
    beat_scheduler = setting(
        CLASS,
        None,
        "CELERYBEAT_SCHEDULER",
        doc="Class of the scheduler, or the name of its entry point; None: Celeriac's own.",
    )
    beat_schedule_filename = setting(
        TEXT,
        "celerybeat-schedule",
        "CELERYBEAT_SCHEDULE_FILENAME",
        doc="File in which the schedule is kept where neither the broker nor the result backend "
        "can. The default stands for `celeriacbeat-schedule.db`.",
    )
    beat_max_loop_interval = setting(
        SECONDS,
        0,
        "CELERYBEAT_MAX_LOOP_INTERVAL",
        doc="Seconds between two looks at the schedule, at most; 0: the scheduler's own (5).",
    )
    beat_sync_every = setting(
        INT,
        0,
        "CELERYBEAT_SYNC_EVERY",
        doc="Tasks sent between two times that a scheduler of another package writes its state; "
        "0: by the clock. Celeriac's own writes it at once.",
    )
    beat_cron_starting_deadline = setting(
        INT,
        None,
        "CELERYBEAT_CRON_STARTING_DEADLINE",
        doc="Seconds by which a missed run of a crontab may be late and is still made up for.",
    )
    beat_enable_remote_control = later(
        BOOL, False, "CELERYBEAT_ENABLE_REMOTE_CONTROL", doc="Whether beat obeys remote control."
    )
    beat_remote_control_max_tick_age = later(
        SECONDS,
        None,
        "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        doc="Seconds without a tick after which beat does not answer.",
    )


class SecuritySettings:
    group = "Security"

    security_key = later(
        TEXT,
        None,
        "CELERY_SECURITY_KEY",
        doc="File of the private key that signs messages.",
        secret=True,
    )
    security_key_password = later(
        SECRET, None, "CELERY_SECURITY_KEY_PASSWORD", doc="Its password.", secret=True
    )
    security_certificate = later(
        TEXT, None, "CELERY_SECURITY_CERTIFICATE", doc="File of the certificate."
    )
    security_cert_store = later(
        TEXT, None, "CELERY_SECURITY_CERT_STORE", doc="Files of the certificates to trust."
    )
    security_digest = later(TEXT, "sha256", "CELERY_SECURITY_DIGEST", doc="The digest signed.")
