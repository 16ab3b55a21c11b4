"""What happens, told to whoever has connected to it: Celery's signals.

A signal costs nothing while nobody listens: senders ask ``if task_prerun.receivers:`` first.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import types
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias, TypeVar, cast, overload

from celeriac.retry import RetryPolicy, attempts

log = logging.getLogger("celeriac.signals")

Receiver: TypeAlias = Callable[..., Any]
R = TypeVar("R", bound=Receiver)

# For connect(retry=True). Celery goes on for ever; here no wait is without an end.
_RETRY = RetryPolicy(max_retries=None, interval_start=2.0, interval_step=2.0, interval_max=30.0)
_RETRY_BUDGET = 600.0


class _Connection:
    """One receiver of a signal. The sender is held, so that its identity cannot be another
    object's later on. A proxy is resolved when it has to be compared and no sooner: connecting
    to a shared task must not finalise an application."""

    __slots__ = ("name", "reference", "retry", "sender", "strong")

    def __init__(
        self, name: Hashable, receiver: Receiver, sender: Any, reference: Any, retry: bool
    ) -> None:
        self.name = name
        self.sender = sender
        self.reference = reference
        self.strong = None if reference is not None else receiver
        self.retry = retry

    def receiver(self) -> Receiver | None:
        """None if it was weakly connected and is gone."""
        found: Receiver | None = self.strong if self.reference is None else self.reference()
        return found

    def hears(self, sender: Hashable) -> bool:
        """Whether what the sender of this identity sends is for the receiver."""
        if self.sender is None:
            return True
        try:
            return _identity(_real(self.sender)) == sender
        except Exception:
            # A shared task that this application does not have: then it is not the sender.
            log.debug("The sender of %r cannot be resolved", self.name, exc_info=True)
            return False

    def is_same(self, name: Hashable, sender: Any) -> bool:
        """Whether it is the connection of this receiver to exactly this sender."""
        if self.name != name:
            return False
        return _identity(self.sender) == _identity(sender) or (
            (_is_proxy(self.sender) or _is_proxy(sender))
            and _identity(_real(self.sender)) == _identity(_real(sender))
        )


class Signal:
    """Something that happens. ``receivers`` is true while somebody is connected."""

    __slots__ = ("__weakref__", "_dead", "_lock", "name", "providing_args", "receivers")

    def __init__(self, name: str = "", providing_args: Iterable[str] = ()) -> None:
        self.name = name
        self.providing_args = frozenset(providing_args)
        # Always the same list: senders may keep it and look whether it is empty.
        self.receivers: list[_Connection] = []
        self._lock = threading.Lock()
        self._dead = False

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={sorted(self.providing_args)}>"

    @overload
    def connect(
        self,
        receiver: R,
        sender: Any = ...,
        weak: bool = ...,
        dispatch_uid: Hashable = ...,
        retry: bool = ...,
    ) -> R: ...
    @overload
    def connect(
        self,
        receiver: None = None,
        sender: Any = ...,
        weak: bool = ...,
        dispatch_uid: Hashable = ...,
        retry: bool = ...,
    ) -> Callable[[R], R]: ...
    def connect(
        self,
        receiver: Any = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Any:
        """Have ``receiver(signal=, sender=, **arguments)`` called. Also a decorator, with and
        without arguments; the receiver is returned as it was.

        ``sender``: only what this one sends (the same object, or an equal string). ``weak``: the
        connection does not keep the receiver alive, which for a lambda or an inner function
        means not at all: pass ``weak=False``. The same receiver, or another one with the same
        ``dispatch_uid``, is connected once for a sender. ``retry``: a receiver that raises is
        tried again with growing pauses, for ten minutes at most, while the sender waits; such a
        receiver is kept alive.
        """
        if receiver is None:
            return lambda fun: self.connect(fun, sender, weak, dispatch_uid, retry)
        if not callable(receiver):
            raise TypeError(f"{receiver!r} cannot receive {self.name}: it cannot be called.")
        if not _takes_any_keyword(receiver):
            raise ValueError(
                f"Signal receivers must accept keyword arguments: add **kwargs to {receiver!r}, "
                f"because {self.name} may come to say more."
            )
        name = dispatch_uid or _identity(receiver)
        reference = self._refer(receiver) if weak and not retry else None
        connection = _Connection(name, receiver, sender, reference, retry)
        with self._lock:
            self._sweep()
            known = [(c.name, _identity(c.sender)) for c in self.receivers]
            if (name, _identity(sender)) not in known:
                self.receivers.append(connection)
        return receiver

    def _refer(self, receiver: Receiver) -> Any:
        kind = weakref.WeakMethod if inspect.ismethod(receiver) else weakref.ref
        return kind(receiver, self._note_death)

    def _note_death(self, _reference: Any) -> None:
        # Called by the garbage collector at any point, perhaps under our lock: only note it.
        self._dead = True

    def _sweep(self) -> None:
        """Drop the connections whose receivers are gone. The caller holds the lock."""
        if self._dead:
            self._dead = False
            self.receivers[:] = [c for c in self.receivers if c.receiver() is not None]

    def disconnect(
        self,
        receiver: Receiver | None = None,
        sender: Any = None,
        weak: bool | None = None,
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Undo ``connect`` with the same receiver (or ``dispatch_uid``) and sender; whether there
        was something to undo. ``weak`` is there for Celery's sake."""
        name = dispatch_uid or _identity(receiver)
        with self._lock:
            self._sweep()
            before = len(self.receivers)
            self.receivers[:] = [c for c in self.receivers if not c.is_same(name, sender)]
            return len(self.receivers) < before

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether what this sender sends reaches anybody."""
        return bool(self.receivers) and bool(self._listening(sender))

    def _listening(self, sender: Any) -> list[tuple[Receiver, bool]]:
        if self._dead:
            with self._lock:
                self._sweep()
        identity = _identity(_real(sender))
        found = []
        for connection in self.receivers[:]:
            receiver = connection.receiver()
            if receiver is not None and connection.hears(identity):
                found.append((receiver, connection.retry))
        return found

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:
        """Call the receivers, in the order in which they connected. For each the receiver and
        what it returned, or the exception it raised, which is logged and hinders nobody."""
        if not self.receivers:
            return []
        responses: list[tuple[Receiver, Any]] = []
        for receiver, retry in self._listening(sender):
            call = _retrying if retry else _once
            try:
                response = call(receiver, {"signal": self, "sender": sender, **named})
            except Exception as exc:
                log.exception("The receiver %r of the signal %s raised", receiver, self.name)
                responses.append((receiver, exc))
            else:
                responses.append((receiver, response))
        return responses

    send_robust = send  # Django's name; in Celery the two have always been the same


def _once(receiver: Receiver, arguments: dict[str, Any]) -> Any:
    return receiver(**arguments)


def _retrying(
    receiver: Receiver,
    arguments: dict[str, Any],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    failure: Exception | None = None
    for _ in attempts(_RETRY, budget=_RETRY_BUDGET, clock=clock, sleep=sleep):
        try:
            return receiver(**arguments)
        except Exception as exc:
            failure = exc
            log.warning("The receiver %r raised %r; it is tried again", receiver, exc)
    assert failure is not None  # there is always a first attempt
    raise failure


def _takes_any_keyword(receiver: Receiver) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return True  # built-in callables do not tell
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _is_proxy(sender: Any) -> bool:
    """Asked of the class: a proxy itself would hand the question on to what it stands for."""
    return hasattr(type(sender), "_get_current_object")


def _real(sender: Any) -> Any:
    """What a proxy stands for, or the sender itself."""
    return sender._get_current_object() if _is_proxy(sender) else sender


def _identity(target: Any) -> Hashable:
    """Strings are the same when they are equal, methods when object and function are the same,
    anything else when it is one object."""
    # By type(), because isinstance() asks a proxy for the class of what it stands for.
    if issubclass(type(target), str | bytes):
        return cast(Hashable, target)
    if type(target) is types.MethodType:
        return (id(target.__self__), id(target.__func__))
    return id(target)


# Sent by whoever publishes; the sender is the task's name.
before_task_publish = Signal(
    "before_task_publish",
    ("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish = Signal(
    "after_task_publish", ("body", "exchange", "routing_key", "headers", "properties")
)

# Sent in the process that runs the task; the sender is the task.
task_prerun = Signal("task_prerun", ("task_id", "task", "args", "kwargs"))
task_postrun = Signal("task_postrun", ("task_id", "task", "args", "kwargs", "retval", "state"))
task_success = Signal("task_success", ("result", "runtime"))
task_retry = Signal("task_retry", ("request", "reason", "einfo"))
task_failure = Signal(
    "task_failure", ("task_id", "exception", "args", "kwargs", "traceback", "einfo")
)
task_internal_error = Signal(
    "task_internal_error",
    ("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"),
)
task_revoked = Signal("task_revoked", ("request", "terminated", "signum", "expired"))

# Sent by the worker that takes messages; the sender is the consumer.
task_received = Signal("task_received", ("request",))
task_rejected = Signal("task_rejected", ("message", "exc"))
task_unknown = Signal("task_unknown", ("message", "exc", "name", "id"))
task_sent = Signal("task_sent", ("task_id", "task", "args", "kwargs", "eta", "taskset"))  # unsent

# The life of a worker and of its processes.
celeryd_init = Signal("celeryd_init", ("instance", "conf", "options"))
celeryd_after_setup = Signal("celeryd_after_setup", ("instance", "conf"))
import_modules = Signal("import_modules")
worker_init = Signal("worker_init")
worker_before_create_process = Signal("worker_before_create_process")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown", ("pid", "exitcode"))
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down", ("sig", "how", "exitcode"))
worker_shutdown = Signal("worker_shutdown")
heartbeat_sent = Signal("heartbeat_sent")

# Logging.
setup_logging = Signal("setup_logging", ("loglevel", "logfile", "format", "colorize"))
after_setup_logger = Signal(
    "after_setup_logger", ("logger", "loglevel", "logfile", "format", "colorize")
)
after_setup_task_logger = Signal(
    "after_setup_task_logger", ("logger", "loglevel", "logfile", "format", "colorize")
)

# Beat, the command line, eventlet.
beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
user_preload_options = Signal("user_preload_options", ("app", "options"))
eventlet_pool_started = Signal("eventlet_pool_started")
eventlet_pool_preshutdown = Signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = Signal("eventlet_pool_postshutdown")
eventlet_pool_apply = Signal("eventlet_pool_apply", ("target", "args", "kwargs"))
