"""What a running task knows of its call: ``self.request``, and the stack of running tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.message import Delivery, Join, Message


class Request:
    """The call that a task is running for; every header of the message is an attribute.

    The attributes below are Celery's and stand for what the message did not say. Custom headers
    given to ``apply_async(headers=...)`` are attributes too.
    """

    id: str | None = None
    task: str | None = None
    lang: str = "py"
    args: Any = None
    kwargs: Any = None
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    is_eager: bool = False
    called_directly: bool = True
    hostname: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    chord: Any = None
    chain: Any = None
    callbacks: Any = None
    errbacks: Any = None
    origin: str | None = None
    timelimit: Any = (None, None)
    loglevel: int | None = None
    logfile: str | None = None
    utc: bool = True
    ignore_result: bool | None = False
    shadow: str | None = None
    stamps: Any = None
    stamped_headers: Any = None
    replaced_task_nesting: int = 0
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    reply_to: str | None = None
    priority: int | None = None
    run: str | None = None
    _children: list[Any] | None = None
    _delivery: Delivery | None = None
    _delivery_info: dict[str, Any] | None = None
    _outer: Request | None = None
    _task: Any = None  # the Task object that runs
    _entering = False  # a worker calls the task through its own __call__
    _header_names: tuple[str, ...] = ()
    _followups: list[Message] | None = None  # retries sent with throw=False, replacements
    _joins: list[Join] | None = None  # those of the replacements
    _replaced = False  # another call has taken its place
    _added: list[Any] | None = None  # signatures that its chord is to wait for, too
    _over_limit: BaseException | None = None  # why a running coroutine is cancelled

    def __init__(self, *args: Mapping[str, Any], **kwargs: Any) -> None:
        self.update(*args, **kwargs)

    @property
    def correlation_id(self) -> str | None:
        return self.id

    @property
    def taskset(self) -> str | None:
        return self.group

    @property
    def time_limit(self) -> float | None:
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        return self.timelimit[1] if self.timelimit else None

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that this one has sent."""
        if self._children is None:
            self._children = []
        return self._children

    @children.setter
    def children(self, value: list[Any] | None) -> None:
        self._children = value

    @property
    def delivery_info(self) -> dict[str, Any]:
        """``exchange``, ``routing_key``, ``priority`` and ``redelivered`` (true after a loss)."""
        if self._delivery_info is None:
            delivery = self._delivery
            if delivery is None:
                return {}
            message = delivery.message
            self._delivery_info = {
                "exchange": message.exchange,
                "routing_key": message.routing_key or message.queue,
                "priority": message.priority,
                "redelivered": delivery.redelivered,
                "lost": delivery.lost,
                "queue": message.queue,
            }
        return self._delivery_info

    @delivery_info.setter
    def delivery_info(self, value: dict[str, Any] | None) -> None:
        self._delivery_info = value

    @property
    def headers(self) -> dict[str, Any]:
        """The caller's own headers: those that are not of the protocol."""
        own = self.__dict__
        if "_headers" in own:
            return own["_headers"]  # type: ignore[no-any-return]
        names = (name for name in self._header_names if name not in PROTOCOL_HEADERS)
        return {name: own[name] for name in names if name in own}

    @headers.setter
    def headers(self, value: Mapping[str, Any] | None) -> None:
        self.__dict__["_headers"] = dict(value or {})

    @property
    def properties(self) -> dict[str, Any]:
        return {
            "correlation_id": self.id,
            "reply_to": self.reply_to or "",
            "delivery_info": self.delivery_info,
            "priority": self.delivery_info.get("priority", 0),
        }

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)

    def update(self, *args: Mapping[str, Any], **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            if key in _READ_ONLY:  # a custom header of this name stays among the headers
                self.__dict__[key] = value
            else:
                setattr(self, key, value)

    def clear(self) -> None:
        self.__dict__.clear()

    def as_execution_options(self) -> dict[str, Any]:
        """The options with which the same call is sent again."""
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": self.soft_time_limit,
            "time_limit": self.time_limit,
            "headers": self.custom_headers(),
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
            "ignore_result": self.ignore_result,
            "stamped_headers": self.stamped_headers,
            "stamps": self.stamps,
        }

    def custom_headers(self) -> dict[str, Any]:
        """The headers that are not of the protocol: the caller's own."""
        return {key: value for key, value in self.headers.items() if key not in PROTOCOL_HEADERS}

    def __repr__(self) -> str:
        return f"<Request: {self.task}[{self.id}] retries={self.retries}>"


PROTOCOL_HEADERS = frozenset(
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id "
    "argsrepr kwargsrepr origin ignore_result replaced_task_nesting stamped_headers stamps "
    "compression run redelivered delivery_info".split()
)

_READ_ONLY = frozenset(
    name
    for name, member in vars(Request).items()
    if isinstance(member, property) and member.fset is None
)

_current: ContextVar[Request | None] = ContextVar("celeriac_request", default=None)

push = _current.set
pop = _current.reset


def current_request() -> Request | None:
    """The request of the task that runs in this context, the innermost one; None outside."""
    return _current.get()


def running_request() -> Request | None:
    """The request of the task that a worker runs here; direct calls of tasks are looked through."""
    request = _current.get()
    while request is not None and request.called_directly:
        request = request._outer
    return request


@contextmanager
def pushed(request: Request) -> Iterator[Request]:
    """Make it the current request for the block."""
    request._outer = _current.get()
    token = _current.set(request)
    try:
        yield request
    finally:
        _current.reset(token)
