"""Task: a function that can run elsewhere, and how it is called, sent and retried."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from celeriac import execution
from celeriac.canvas import chunks, xmap, xstarmap
from celeriac.canvas.signature import Signature, maybe_signature
from celeriac.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celeriac.request import Request, current_request, pop, push
from celeriac.retry import backoff_delay
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.execution import ExceptionInfo
    from celeriac.result import AsyncResult, EagerResult

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

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


class Task(Generic[P, R]):
    """One task of an application. There is one object of it in each process, shared by all calls.

    Subclass it for behaviour shared by several tasks (``base=``), or write ``run`` and register
    an object of it. Options are class attributes; None means "as the settings say".
    """

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
    _plan: Any = None  # sending.py keeps here what is the same for every call
    _check: Callable[..., object] | None = None
    _names_shadow = False
    _takes_task = False  # its function takes the task as first argument (bind=True)
    is_async = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "abstract" not in cls.__dict__:
            cls.abstract = False

    # --- life -------------------------------------------------------------------------------

    def bind(self, app: Celeriac) -> None:
        """Take from the settings what the options leave open. Called once, by the application."""
        conf = app.conf
        # What the task itself says goes over routes; a mere setting is used where nothing is said.
        self._sending = {
            option: value
            for option in SENDING_OPTIONS
            if (value := getattr(self, option, None)) is not None
        }
        for option, setting in FROM_CONFIG.items():
            if getattr(self, option, None) is None:
                setattr(self, option, getattr(conf, setting))
        self._sending["ignore_result"] = self.ignore_result
        if self.typing is None:
            self.typing = app.strict_typing
        self._names_shadow = type(self).shadow_name is not Task.shadow_name
        execution.prepare(self)
        self._bound = True
        self.on_bound(app)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self._bound and name in SENDING_OPTIONS:  # changed later on, for calls from now on
            sending = {key: old for key, old in self._sending.items() if key != name}
            if value is not None:
                sending[name] = value
            object.__setattr__(self, "_sending", sending)
            object.__setattr__(self, "_plan", None)

    def on_bound(self, app: Celeriac) -> None:
        """Called when the task is bound to its application; for subclasses."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body of the task; subclasses write it, the decorator sets it."""
        raise NotImplementedError(f"task {self.name} has no run(): define one")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, as a function."""
        running = current_request()
        if running is not None and running._entering and running._task is self:
            # A worker calls through an overridden __call__ that calls this one: the same call.
            running._entering = False
            return cast(R, self.run(*args, **kwargs))
        request = Request(args=args, kwargs=kwargs, task=self.name, called_directly=True)
        request._task = self
        request._outer = running
        token = push(request)
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            pop(token)

    @property
    def request(self) -> Request:
        """The call that this task runs for in this context; an empty one outside."""
        request = current_request()
        while request is not None and request._task is not self:
            request = request._outer
        return request if request is not None else Request(task=self.name)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make a request current by hand; for tests."""
        request = Request(*args, **kwargs)
        request._task = self
        request._outer = current_request()
        push(request)

    def pop_request(self) -> None:
        """Undo ``push_request``."""
        request = current_request()
        push(request._outer if request is not None else None)

    @property
    def backend(self) -> Any:
        return self.app.backend

    @property
    def __name__(self) -> str:
        return str(self.name).rsplit(".", 1)[-1]

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main if self.app else None}>"

    def __reduce__(self) -> Any:
        return _by_name, (self.name,)

    # --- sending ----------------------------------------------------------------------------

    @overload
    def delay(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...

    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Send the call. When it returns, the message is durable in the broker.

        Raises TypeError if the arguments do not fit the function, EncodeError if they cannot be
        written, OperationalError if the broker cannot be reached within
        ``broker_publish_timeout`` seconds.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``delay`` with options: ``countdown``, ``eta``, ``expires``, ``queue``, ``priority``,
        ``headers``, ``ignore_result``, ``serializer``, … (docs/calling.md). Raises as delay."""
        app = self.app
        if type(args) is not tuple:
            args = checked_args(self.name, args)
        if not self._bound:
            app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **(kwargs or {}))
        if app.conf.task_always_eager:
            return self.apply(
                args,
                kwargs,
                task_id=task_id or uuid(),
                link=link,
                link_error=link_error,
                shadow=shadow,
                **options,
            )
        if task_id is not None:
            options["task_id"] = task_id
        if link is not None:
            options["link"] = link
        if link_error is not None:
            options["link_error"] = link_error
        if shadow is not None:
            options["shadow"] = shadow
        return cast(
            "AsyncResult[Any]", app.send_task(self.name, args, kwargs, task_type=self, **options)
        )

    @overload
    async def adelay(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...

    @overload
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """``delay`` for coroutines: the event loop is not blocked. Raises as delay."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``apply_async`` for coroutines."""
        app = self.app
        if type(args) is not tuple:
            args = checked_args(self.name, args)
        if not self._bound:
            app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **(kwargs or {}))
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        return cast(
            "AsyncResult[Any]",
            await app.asend_task(self.name, args, kwargs, task_type=self, **options),
        )

    @overload
    def delay_many(
        self: Task[P, Coroutine[Any, Any, T]], calls: Iterable[Sequence[Any]], **options: Any
    ) -> list[AsyncResult[T]]: ...

    @overload
    def delay_many(
        self, calls: Iterable[Sequence[Any]], **options: Any
    ) -> list[AsyncResult[R]]: ...

    def delay_many(self, calls: Iterable[Sequence[Any]], **options: Any) -> list[Any]:
        """Send one call for each tuple of arguments, hundreds in one round trip; the results in
        order. Options are those of ``apply_async``, the same for all. Raises as delay; what was
        sent before an error stays sent."""
        app = self.app
        if not self._bound:
            app.finalize(auto=True)
        return cast("list[Any]", app._send_calls(self, calls, options))

    def check_arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError if the arguments do not fit the function, unless ``typing`` is off."""
        if not self._bound:
            self.app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **kwargs)

    # --- canvas -----------------------------------------------------------------------------

    @overload
    def signature(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[T]: ...

    @overload
    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]: ...

    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[Any]:
        """A description of the call, to be sent or passed on."""
        immutable = bool(options.pop("immutable", False) or self.immutable)
        return Signature(self, args, kwargs, options, immutable=immutable, app=self.app)

    subtask = signature

    @overload
    def s(self: Task[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> Signature[T]: ...

    @overload
    def s(self, *args: Any, **kwargs: Any) -> Signature[R]: ...

    def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """``signature`` with the arguments written as in a call."""
        return self.signature(args, kwargs)

    @overload
    def si(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...

    @overload
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...

    def si(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """An immutable signature: it takes no result of the task before it."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> Any:
        """One task that calls this one with each item."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Any:
        """One task that calls this one with the arguments that each item is."""
        return xstarmap(self.s(), it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """``starmap`` in tasks of ``n`` items each."""
        return chunks(self.s(), it, n, app=self.app)

    # --- running here -----------------------------------------------------------------------

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        **options: Any,
    ) -> EagerResult[Any]:
        """Run the call here and now, with retries, handlers and signals as in a worker; nothing
        is sent. ``throw``: raise what the task raises (default: ``task_eager_propagates``)."""
        if not self._bound:
            self.app.finalize(auto=True)
        return execution.apply(
            self,
            checked_args(self.name, args),
            dict(kwargs or {}),
            task_id=str(task_id) if task_id is not None else uuid(),
            retries=retries,
            throw=self.app.conf.task_eager_propagates if throw is None else throw,
            link=link,
            link_error=link_error,
            options=options,
        )

    # --- while running ----------------------------------------------------------------------

    def retry(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Try this call again later: same id, ``retries`` + 1.

        Raises Retry (with ``throw=False`` returns it); ``exc``, or MaxRetriesExceededError, when
        it was retried ``max_retries`` times; called as a function, the error being handled.
        """
        request = self.request
        if request.called_directly:
            _raise_current(exc)
        retries = request.retries + 1
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and retries > limit:
            if exc is not None:
                raise exc
            raise MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{request.args} "
                f"kwargs:{request.kwargs}: it was retried {limit} times",
                task_args=request.args,
                task_kwargs=request.kwargs,
            )
        if eta is None and countdown is None:
            countdown = self.default_retry_delay
        made = Retry(
            exc=exc,
            when=eta if eta is not None else countdown,
            is_eager=request.is_eager,
            sig=self.signature_from_request(request, args, kwargs, retries=retries, **options),
        )
        if not request.is_eager:
            message = self.app._retry_message(self, request, made, args, kwargs, options)
            # Asked for twice (the Retry of the first time was caught): once is enough.
            others = [other for other in request._followups or () if other.id != message.id]
            request._followups = [*others, message]
        if throw:
            raise made
        return made

    def signature_from_request(
        self,
        request: Request | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> Signature[Any]:
        """The signature of the call that is running, with other arguments where given."""
        request = request if request is not None else self.request
        options = {**request.as_execution_options(), **extra}
        return self.signature(
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
            **{key: value for key, value in options.items() if value is not None},
        )

    def replace(self, sig: Signature[Any]) -> Any:
        """Let another task, or a whole workflow, take the place of this call: its id, what follows
        it, its part of a chord. A group gives the list of its results. Nothing after this line is
        run. Eagerly, its result is returned."""
        request = self.request
        if sig.subtask_type == "chunks":
            sig = sig.group()  # type: ignore[attr-defined]
        if sig.subtask_type == "group":
            sig = sig | self.app.signature("celery.accumulate", kwargs={"index": 0})
        if request.called_directly:
            raise RuntimeError(f"{self.name} was called as a function: there is nothing to replace")
        replacement = sig.clone()
        for errback in request.errbacks or ():
            replacement.link_error(errback)
        for callback in request.callbacks or ():
            replacement.link(callback)
        return self.on_replace(replacement)

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Send what takes the place of this call; for subclasses."""
        request = self.request
        if request.is_eager:
            return sig.apply().get(disable_sync_subtasks=False)
        self.app._replace(request, sig)
        raise Ignore("Replaced by new task")

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Let the chord that this call is part of wait for one more task, which is sent when this
        call has succeeded; its result comes after those of the header. Raises ValueError if the
        call is not part of a chord. ``lazy``: return the signature, else the result to be."""
        request = self.request
        if request.chord is None or request.group is None:
            raise ValueError(f"{self.name}[{request.id}] is not part of the header of a chord")
        added = sig.clone()
        result = added.freeze()
        request._added = [*(request._added or ()), added]
        return added if lazy else result

    def autoretry(self, exc: BaseException) -> None:
        """Raise Retry if ``autoretry_for`` names the error; ``exc`` itself when all tries are
        used up; otherwise return."""
        if not self.autoretry_for or isinstance(exc, Ignore | Retry | Reject):
            return
        if not isinstance(exc, tuple(self.autoretry_for)):
            return
        if self.dont_autoretry_for and isinstance(exc, tuple(self.dont_autoretry_for)):
            return
        how = dict(self.retry_kwargs or {})
        if self.retry_backoff:
            how["countdown"] = backoff_delay(
                self.request.retries,
                factor=1.0 if self.retry_backoff is True else float(self.retry_backoff),
                maximum=float(self.retry_backoff_max),
                jitter=bool(self.retry_jitter),
                random=random.random,
            )
        self.retry(exc=exc, **how)

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state of your own, with ``meta`` as what ``result.info`` gives."""
        request = self.request
        self.app._store_state(task_id or request.id, request.run or "", state, meta)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """The result of the call with this id."""
        return cast("AsyncResult[R]", self.app.AsyncResult(task_id, **kwargs))

    # --- handlers, for subclasses -----------------------------------------------------------

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the task runs, in its process; an error fails the task."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after the task returned."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo
    ) -> None:
        """Called after the task failed."""

    def on_retry(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo
    ) -> None:
        """Called when the task is to be retried."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Any,
        kwargs: Any,
        einfo: ExceptionInfo | None,
    ) -> None:
        """Called last, whatever happened."""

    def shadow_name(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """Another name for this call in logs; for subclasses."""
        return None


def checked_args(name: str, args: Any) -> tuple[Any, ...]:
    """Arguments as a tuple. Raises TypeError for a text and the like, whose parts would be taken
    for arguments."""
    if args is None:
        return ()
    if isinstance(args, str | bytes | Mapping | Set) or not isinstance(args, Iterable):
        raise TypeError(f"{name}: args must be a list or tuple, not {type(args).__name__}")
    return tuple(args)


def _by_name(name: str) -> Any:
    from celeriac.app import get_current_app

    return get_current_app().tasks[name]


def _raise_current(exc: BaseException | None) -> None:
    """A task called as a function cannot be retried: raise what went wrong instead."""
    import sys

    current = sys.exc_info()[1]
    if current is not None and (exc is None or exc is current):
        raise current
    if exc is not None:
        raise exc
    raise Retry("Task can be retried", None)


def argument_check(function: Callable[..., Any], *, skip_first: bool) -> Callable[..., object]:
    """A function with the same parameters that does nothing: calling it checks arguments at the
    price of a call. Of a builtin that does not tell its parameters, nothing is checked."""
    import inspect
    import keyword

    try:
        signature = inspect.signature(function)
    except ValueError:
        return lambda *args, **kwargs: None
    parameters = list(signature.parameters.values())
    if skip_first and parameters:
        parameters = parameters[1:]
    shown: list[str] = []
    star = False
    for position, parameter in enumerate(parameters):
        kind = parameter.kind
        text = parameter.name + ("" if parameter.default is inspect.Parameter.empty else "=None")
        if kind is inspect.Parameter.VAR_POSITIONAL:
            text, star = "*" + text, True
        elif kind is inspect.Parameter.VAR_KEYWORD:
            text = "**" + text
        elif kind is inspect.Parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        shown.append(text)
        following = parameters[position + 1] if position + 1 < len(parameters) else None
        last = following is None or following.kind is not inspect.Parameter.POSITIONAL_ONLY
        if kind is inspect.Parameter.POSITIONAL_ONLY and last:
            shown.append("/")
    name = getattr(function, "__name__", "task")
    name = name if name.isidentifier() and not keyword.iskeyword(name) else "task"
    space: dict[str, Any] = {}
    exec(f"def {name}({', '.join(shown)}): pass", space)  # only names that Python has accepted
    return cast("Callable[..., object]", space[name])


__all__ = ["P", "R", "T", "Task", "argument_check", "maybe_signature"]
