"""The application: configuration, task registry, sending."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Concatenate, Literal, TypeVar, cast, overload

from celeriac import current, drivers, execution, signals, states
from celeriac.canvas.compiling import Compiler, ends, errbacks_of
from celeriac.canvas.composite import Composite
from celeriac.canvas.signature import Signature, maybe_signature, signature
from celeriac.conf import Settings
from celeriac.contracts import Broker, EventBus, QueueAdmin, ResultBackend, ScheduleStore
from celeriac.current import get_current_app
from celeriac.exceptions import ImproperlyConfigured, NotCapable
from celeriac.finder import find_app
from celeriac.local import Proxy
from celeriac.message import Delivery, Join, Message, Owner, Worker
from celeriac.producer import Producer
from celeriac.records import Records
from celeriac.registry import TaskRegistry
from celeriac.request import Request, current_request, running_request
from celeriac.result import AsyncResult, GroupResult, ResultSet, oldest
from celeriac.result import AsyncResult as Result
from celeriac.retry import RetryPolicy
from celeriac.routing import Queues, Router
from celeriac.sending import Sender, properties_of, zone_of
from celeriac.task import P, R, Task, argument_check, checked_args
from celeriac.task import Task as BaseTask
from celeriac.utils import uuid

logger = logging.getLogger("celeriac.app")

Self = TypeVar("Self")

DEFAULT_BROKER = "sqlite:///celeriac.db"
# Messages of a bulk that are published in one round trip.
BULK = 1000


class Celeriac:
    """An application. ``broker`` and ``backend`` are URLs; any setting may be given by name."""

    task_cls: Any = Task
    on_configure: Any = None  # a signal, unless a subclass has a method of this name
    _said_default = False

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        task_cls: Any = None,
        set_as_current: bool = True,
        autofinalize: bool = True,
        strict_typing: bool = True,
        changes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.main = main
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.finalized = False
        self.node_name = socket.gethostname()
        if self.on_configure is None:
            self.on_configure = signals.Signal("on_configure")
        self.on_after_configure = signals.Signal("on_after_configure", {"source"})
        self.on_after_finalize = signals.Signal("on_after_finalize")
        self.on_after_fork = signals.Signal("on_after_fork")
        self._conf: Settings | None = None
        self._config_source = (config_source, namespace, False) if config_source else None
        self._preconf = {**(changes or {}), **settings}
        if broker is not None:
            self._preconf["broker_url"] = broker
        if backend is not None:
            self._preconf["result_backend"] = backend
        if include is not None:
            self._preconf["include"] = list(include)
        if task_cls is not None:
            self.task_cls = _imported(task_cls)
        self._tasks = TaskRegistry()
        self._task_base: Any = None
        self._lock = threading.RLock()
        self._finalizing = False
        self._inherited: list[Producer] = []
        self._discover: list[Callable[[], None]] = []
        self._periodic: dict[str, dict[str, Any]] = {}  # added before there were settings
        self._producer: Producer | None = None
        self._sender: Sender | None = None
        self._records: tuple[int, Records] | None = None
        self._queues: tuple[int, Queues] | None = None
        self._group_result: Any = None
        current.add_app(self)
        if set_as_current:
            self.set_current()

    # --- configuration ------------------------------------------------------------------------

    @property
    def conf(self) -> Settings:
        """The settings; read from their source when first used."""
        if self._conf is None:
            with self._lock:
                if self._conf is None:
                    self._conf = self._configure()
                    self._conf.beat_schedule.update(self._periodic)
                    self.on_after_configure.send(sender=self, source=self._conf)
        assert self._conf is not None
        return self._conf

    def _configure(self) -> Settings:
        conf = Settings()
        if self._config_source is not None:
            source, namespace, silent = self._config_source
            conf.load_object(source, namespace=namespace, silent=silent)
        if self._preconf:
            conf.update(self._preconf)
        hook = self.on_configure
        if not isinstance(hook, signals.Signal):
            self._conf = conf
            hook()
        elif hook.receivers:
            self._conf = conf
            hook.send(sender=self)
        return conf

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read the settings from a module, its dotted name, a class or a mapping; with
        ``namespace="CELERY"`` only ``CELERY_...`` names count. Read when first needed (``force``,
        or when settings were used already: now). What code has set still wins over it."""
        self._config_source = (obj, namespace, silent)
        if self._conf is not None:
            self._conf.load_object(obj, namespace=namespace, silent=silent)
        elif force:
            _ = self.conf

    def config_from_envvar(self, variable: str, silent: bool = False, force: bool = False) -> None:
        """As ``config_from_object``, with the module's name in an environment variable."""
        name = os.environ.get(variable)
        if name:
            self.config_from_object(name, silent=silent, force=force)
        elif not silent:
            raise ImproperlyConfigured(
                f"The environment variable {variable} is not set: set it to the name of the "
                "module that holds the settings."
            )

    def add_defaults(self, values: Mapping[str, Any]) -> None:
        """Settings that the configuration may override."""
        self.conf.add_defaults(values)

    @property
    def broker_url(self) -> str:
        """The URL of the broker; says once when it is the default one."""
        url = self.conf.broker_url
        if isinstance(url, list | tuple):
            url = ";".join(str(one) for one in url)  # for a driver that can fail over
        if url:
            return str(url)
        if not Celeriac._said_default:
            Celeriac._said_default = True
            logger.warning(
                "No broker is configured: using %s in %s. Set broker_url (or the environment "
                "variable CELERIAC_BROKER_URL) to choose another.",
                DEFAULT_BROKER,
                os.getcwd(),
            )
        return DEFAULT_BROKER

    @property
    def backend_url(self) -> str | None:
        """The URL of the result backend. Brokers that keep results themselves are the default."""
        url = self.conf.result_backend
        if url is None:
            broker = self.broker_url
            return broker if drivers.keeps_results(broker) else None
        if str(url).startswith("disabled"):
            return None
        return drivers.results_beside(str(url), self.broker_url)

    @property
    def timezone(self) -> tzinfo:
        return zone_of(self.conf.timezone)

    def now(self) -> datetime:
        """Now, in the application's time zone."""
        return datetime.now(self.timezone)

    # --- drivers --------------------------------------------------------------------------------

    def make_broker(self) -> Broker:
        """A new, unopened broker."""
        url = self.broker_url
        broker = drivers.open_broker(
            url, self._driver_options(url, self.conf.broker_transport_options)
        )
        use_queues = getattr(broker, "use_queues", None)  # the optional power Declares
        if use_queues is not None:
            use_queues(self.queues)
        return broker

    def make_results(self) -> ResultBackend | None:
        """A new, unopened result backend; None if there is none."""
        url = self.backend_url
        if url is None:
            return None
        return drivers.open_results(
            url,
            self._driver_options(url, self.conf.result_backend_transport_options, results=True),
        )

    def _driver_options(
        self, url: str, given: Mapping[str, Any], *, results: bool = False
    ) -> Mapping[str, Any]:
        """The driver's options: those of its own mapping, and before them its settings."""
        named = drivers.settings_of(url, results=results)
        if not named:
            return given
        found = {option: getattr(self.conf, setting) for option, setting in named.items()}
        return {**{key: value for key, value in found.items() if value is not None}, **given}

    @property
    def reply_to(self) -> str:
        """Where results of tasks that this process sends are to go, if they are sent. Raises
        OperationalError."""
        url = self.backend_url
        if url is None or not drivers.sends_results(url):
            return ""
        return str(getattr(self.producer.results, "reply_to", ""))

    def make_schedules(self) -> ScheduleStore | None:
        """A new, unopened store for periodic tasks: the broker's, else the result backend's; None
        if neither has one."""
        for url, given, results in (
            (self.broker_url, self.conf.broker_transport_options, False),
            (self.backend_url, self.conf.result_backend_transport_options, True),
        ):
            if url is not None:
                options = self._driver_options(url, given, results=results)
                store = drivers.open_schedules(url, options)
                if store is not None:
                    return store
        return None

    def make_bus(self) -> EventBus | None:
        """A new event bus of the broker, if it has one."""
        try:
            url = self.broker_url
            return drivers.open_bus(
                url, self._driver_options(url, self.conf.broker_transport_options)
            )
        except NotCapable:
            return None

    def admin(self) -> QueueAdmin:
        """The queues as operators see them. Raises NotCapable."""
        return drivers.admin_of(self.producer.broker)

    @property
    def producer(self) -> Producer:
        """What publishes and waits in this process."""
        producer = self._producer
        if producer is None or producer.pid != os.getpid():
            with self._lock:
                producer = self._producer
                if producer is None or producer.pid != os.getpid():
                    producer = self._producer = Producer(self)
        return producer

    def _after_fork(self) -> None:
        """In a forked child: a thread that held the lock does not exist here, and the connections
        are the parent's. They are kept unused: to close them could disturb the parent."""
        self._lock = threading.RLock()
        self._finalizing = False
        if self._producer is not None:
            self._inherited.append(self._producer)
        self._producer = self._sender = None
        self.on_after_fork.send(sender=self)

    def results_or_raise(self) -> ResultBackend:
        """The open result backend. Raises as ``check_results``."""
        results = self.producer.results
        if results is None:
            raise _no_results()
        return results

    def check_results(self) -> None:
        """Raises NotImplementedError, as Celery does, if no result backend is configured."""
        if self.backend_url is None:
            raise _no_results()

    @property
    def backend(self) -> ResultBackend | None:
        return self.producer.results

    @property
    def records(self) -> Records:
        generation = self.conf.generation
        if self._records is None or self._records[0] != generation:
            self._records = generation, Records(self)
        return self._records[1]

    def publish_policy(self) -> RetryPolicy:
        return RetryPolicy.of(self.conf.task_publish_retry_policy)

    @property
    def queues(self) -> Queues:
        generation = self.conf.generation
        if self._queues is None or self._queues[0] != generation:
            self._queues = generation, Queues(self.conf)
        return self._queues[1]

    @property
    def router(self) -> Router:
        return Router(self.conf, self.queues)

    # --- tasks ----------------------------------------------------------------------------------

    @property
    def Task(self) -> Any:
        """The base class of this application's tasks."""
        if self._task_base is None:
            base = _imported(self.task_cls)
            self._task_base = type("Task", (base,), {"app": self, "abstract": True})
        return self._task_base

    @Task.setter
    def Task(self, base: Any) -> None:
        self._task_base = base

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks, by name."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    # The three forms: @app.task, @app.task(bind=True, ...) and @app.task(...).
    @overload
    def task(self, function: Callable[P, R], /) -> BaseTask[P, R]: ...

    @overload
    def task(
        self, /, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], BaseTask[P, R]]: ...

    @overload
    def task(
        self, /, *, bind: Literal[False] = False, **options: Any
    ) -> Callable[[Callable[P, R]], BaseTask[P, R]]: ...

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Make a function a task. Options are attributes of Task; ``name``, ``bind`` (the
        function takes the task as its first argument) and ``base`` besides."""
        if function is not None:
            if not callable(function):
                raise TypeError("@app.task takes a function; its options go by name")
            return self._task_from_function(function, **options)

        def decorator(fun: Any) -> Any:
            return self._task_from_function(fun, **options)

        return decorator

    def _task_from_function(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        base: Any = None,
        bind: bool = False,
        **options: Any,
    ) -> Any:
        name = name or self.gen_task_name(function.__name__, function.__module__)
        known = self._tasks.get(name)
        if known is not None:
            return self._tasks.same(known, function)
        for left_out in ("shared", "lazy", "filter"):
            options.pop(left_out, None)
        run = function
        if options.get("pydantic"):
            from celeriac.validation import validated

            run = validated(function, bind=bind, options=options)
        base = _imported(base) if base is not None else self.Task
        made = type(
            function.__name__,
            (base,),
            {
                "app": self,
                "name": name,
                "run": run if bind else staticmethod(run),
                "abstract": False,
                "__doc__": function.__doc__,
                "__module__": function.__module__,
                "__wrapped__": staticmethod(function),
                "_check": staticmethod(argument_check(function, skip_first=bind)),
                "_takes_task": bind,
                **options,
            },
        )
        return self.register_task(made())

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register an object of a Task class (or the class)."""
        if isinstance(task, type):
            task = task()
        cls = type(task)
        # On the object, not its class: a class may have several, and subclasses.
        if not task.name:
            task.name = self.gen_task_name(cls.__name__, cls.__module__)
        if task.app is not self:
            task.app = self
        if "_check" not in cls.__dict__ and cls.run is not BaseTask.run:
            task._check = argument_check(task.run, skip_first=False)
        for option, value in options.items():
            setattr(task, option, value)
        self._tasks[task.name] = task
        if self.finalized:
            self._bind(task)
        return task

    def gen_task_name(self, name: str, module: str | None) -> str:
        """``module.name``; ``__main__`` is called after the application."""
        if module == "__main__" and self.main:
            module = self.main
        return f"{module}.{name}" if module else name

    def finalize(self, auto: bool = False) -> None:
        """Complete the registry: shared tasks, settings of tasks. Happens by itself (``auto``) when
        a task is first sent or looked up. Other threads wait until it is done."""
        if self.finalized:
            return
        with self._lock:
            if self.finalized or self._finalizing:  # the latter: called by what is called here
                return
            if auto and not self.autofinalize:
                raise RuntimeError(
                    f"{self!r} was made with autofinalize=False: call its finalize() before its "
                    "tasks are sent or looked up."
                )
            self._finalizing = True
            try:
                self._complete_registry()
                self.finalized = True
            finally:
                self._finalizing = False
        self.on_after_finalize.send(sender=self)

    def _complete_registry(self) -> None:
        from celeriac import builtins

        builtins.add_to(self)
        current.make_shared(self)
        while unbound := [task for task in self._tasks.values() if not task._bound]:
            for task in unbound:
                self._bind(task)

    def _bind(self, task: Any) -> None:
        annotations = self.conf.task_annotations
        for source in annotations if isinstance(annotations, list | tuple) else [annotations]:
            if not source:
                continue
            found = {**source.get("*", {}), **source.get(task.name, {})}
            for option, value in found.items():
                # On the class, so that a function becomes a method (on_failure and the like).
                setattr(type(task), option, value)
        task.bind(self)

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import ``related_name`` of each package when the worker starts (``force``: now)."""

        def discover() -> None:
            names = packages() if callable(packages) else packages
            for package in names or ():
                _import_related(package, related_name)

        if force:
            discover()
        else:
            self._discover.append(discover)

    def import_modules(self) -> None:
        """Import what ``include`` and ``imports`` name and what is to be discovered."""
        signals.import_modules.send(sender=self)
        for module in itertools.chain(self.conf.imports or (), self.conf.include or ()):
            importlib.import_module(module)
        while self._discover:
            self._discover.pop(0)()

    # --- periodic tasks -------------------------------------------------------------------------

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add an entry to ``beat_schedule``; its name. ``schedule`` is a number of seconds, a
        timedelta, or one of ``celeriac.schedules``; ``sig`` a task or signature. ``opts`` are
        calling options, or such of the entry (``overlap``, ``catch_up``, ``jitter``, ...)."""
        from celeriac.schedules.periodic import periodic_entry

        name, entry = periodic_entry(schedule, sig, args, kwargs, name, opts)
        target = self._periodic if self._conf is None else self._conf.beat_schedule
        target[name] = entry
        return name

    # --- sending --------------------------------------------------------------------------------

    @property
    def sender(self) -> Sender:
        sender = self._sender
        if sender is None or sender.generation != self.conf.generation or sender.pid != os.getpid():
            sender = self._sender = Sender(self)
        return sender

    def send_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a call by the task's name; it need not be known here. Options, errors and what
        it promises are those of ``Task.apply_async``."""
        message, task = self._message(name, args, kwargs, task_type, options)
        self.producer.publish((message,), policy=self._policy(options))
        return self._sent(message, task, options)

    async def asend_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``send_task`` for coroutines."""
        message, task = self._message(name, args, kwargs, task_type, options)
        await self.producer.apublish((message,), policy=self._policy(options))
        return self._sent(message, task, options)

    def send_many(self, signatures: Iterable[Signature[Any]]) -> list[AsyncResult[Any]]:
        """Send many calls, hundreds in one round trip; the results in order. What was sent
        before an error stays sent."""
        if self.conf.task_always_eager:
            return [sig.apply() for sig in signatures]
        results: list[AsyncResult[Any]] = []
        calls = iter(signatures)
        while batch := list(itertools.islice(calls, BULK)):
            if any(isinstance(sig, Composite) for sig in batch):
                results += [sig.apply_async() for sig in batch]
                continue
            for sig in batch:
                if sig.type is not None:
                    sig.type.check_arguments(sig.args, sig.kwargs)
            built = [
                self._message(sig.task, sig.args, sig.kwargs, sig.type, sig.options)
                for sig in batch
            ]
            self.producer.publish([message for message, _ in built])
            for (message, task), sig in zip(built, batch, strict=True):
                results.append(self._sent(message, task, sig.options))
        return results

    def send_canvas(
        self,
        sig: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Any:
        """Send what of a chain, group or chord can begin now; the result of the whole, None for
        an empty chain. Raises as ``send_task``."""
        if self.conf.task_always_eager:
            return sig.apply(args, kwargs, **options)
        result, compiled = self._compile(sig, args, kwargs, options)
        joins = self._joins_opened(compiled)
        policy = self._policy(options)
        for batch in _batches(compiled.messages):
            self.producer.publish(batch, joins, policy=policy)
            joins = ()
        return self._canvas_sent(result, compiled, options)

    async def asend_canvas(
        self,
        sig: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Any:
        """``send_canvas`` for coroutines."""
        if self.conf.task_always_eager:
            return sig.apply(args, kwargs, **options)
        result, compiled = self._compile(sig, args, kwargs, options)
        import asyncio  # here: whoever sends from a coroutine has it already

        joins = await asyncio.to_thread(self._joins_opened, compiled)
        policy = self._policy(options)
        for batch in _batches(compiled.messages):
            await self.producer.apublish(batch, joins, policy=policy)
            joins = ()
        return self._canvas_sent(result, compiled, options)

    def _joins_opened(self, compiled: Compiler) -> Sequence[Join]:
        """Open the joins where their parts will be counted; what is left of them is opened by
        the broker with the first messages."""
        if not compiled.joins:
            return ()
        results = self.results_or_raise()
        if not results.capabilities.joins:
            raise NotImplementedError(
                f"{results.store} cannot count the parts of a chord: set result_backend to a "
                "store that can, such as redis:// or sqlite://."
            )
        if drivers.one_store(self.producer.broker, results):
            return compiled.joins
        results.open_joins(compiled.joins)
        return ()

    def _compile(
        self,
        sig: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> tuple[Any, Compiler]:
        self.tasks  # noqa: B018  the options of tasks are known from now on
        frozen = sig.clone(args, kwargs)
        frozen._app = self
        given = {key: value for key, value in options.items() if value is not None}
        result = frozen.freeze(given.pop("task_id", None))
        compiled = Compiler(self._first_message, self.conf.result_chord_expires)
        compiled.add(frozen, (), None, given)
        return result, compiled

    def _first_message(
        self,
        sig: Signature[Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Message:
        task = self._tasks.get(sig.task)
        if task is not None:
            task.check_arguments(args, kwargs)
        return self.sender.message(sig.task, args, kwargs, options, task)

    def _canvas_sent(self, result: Any, compiled: Compiler, options: Mapping[str, Any]) -> Any:
        if signals.after_task_publish.receivers:
            for message in compiled.messages:
                self._tell_published(message)
        request = running_request()
        if request is not None and result is not None and options.get("add_to_parent", True):
            running = request._task
            if running is None or running.trail:
                request.children.append(oldest(result))
        return result

    def _send_calls(
        self, task: Any, calls: Iterable[Sequence[Any]], options: Mapping[str, Any]
    ) -> list[AsyncResult[Any]]:
        """``Task.delay_many``."""
        check = task._check if task.typing else None
        if self.conf.task_always_eager:
            return [task.apply_async(tuple(call), **options) for call in calls]
        policy = self._policy(options)
        results: list[AsyncResult[Any]] = []
        pending = iter(calls)
        while batch := [tuple(call) for call in itertools.islice(pending, BULK)]:
            if check is not None:
                for args in batch:
                    check(*args)
            messages = self._messages(task, batch, options)
            self.producer.publish(messages, policy=policy)
            results.extend(self._all_sent(messages, task, options))
        return results

    def _all_sent(
        self, messages: list[Message], task: Any, options: Mapping[str, Any]
    ) -> list[AsyncResult[Any]]:
        """``_sent`` for a batch; what it looks at is the same for all."""
        if signals.after_task_publish.receivers or running_request() is not None or options:
            return [self._sent(message, task, options) for message in messages]
        name, ignored = task.name, bool(task.ignore_result)
        results: list[AsyncResult[Any]] = [
            AsyncResult(message.id, None, name, self) for message in messages
        ]
        if ignored:
            for result in results:
                result.ignored = True
        return results

    def _messages(
        self, task: Any, calls: list[tuple[Any, ...]], options: Mapping[str, Any]
    ) -> list[Message]:
        """One message for each tuple of arguments."""
        sender = self.sender
        plan = None if signals.before_task_publish.receivers else sender.plan(task, options)
        if plan is not None:
            return [sender.planned(plan, args, {}) for args in calls]
        return [sender.message(task.name, args, {}, options, task) for args in calls]

    def _message(
        self,
        name: str,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        task: Any,
        options: Mapping[str, Any],
    ) -> tuple[Any, Any]:
        if task is None:
            task = self.tasks.get(name)
        if type(args) is not tuple:
            args = checked_args(name, args)
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"{name}: kwargs must be a mapping, not {type(kwargs).__name__}")
        sender = self.sender
        if not options and task is not None and not signals.before_task_publish.receivers:
            plan = sender.plan(task, options)
            if plan is not None:
                return sender.planned(plan, args, kwargs or {}), task
        return sender.message(name, args, kwargs or {}, options, task), task

    def _sent(self, message: Any, task: Any, options: Mapping[str, Any]) -> AsyncResult[Any]:
        """After publishing: the signal, the result, and its place among the sender's children."""
        if signals.after_task_publish.receivers:
            self._tell_published(message)
        result: AsyncResult[Any] = AsyncResult(
            message.id, app=self, task_name=task.name if task is not None else None
        )
        if options.get("ignore_result") or (task is not None and task.ignore_result):
            result.ignored = options.get("ignore_result") is not False
        request = running_request()
        if request is not None:
            running = request._task
            if options.get("add_to_parent", True) and (running is None or running.trail):
                request.children.append(result)
        return result

    def _tell_published(self, message: Message) -> None:
        from celeriac.protocol.task import decode

        sent = decode(message, frozenset((message.content_type,)))
        signals.after_task_publish.send(
            sender=sent.headers["task"],
            headers=sent.headers,
            body=(sent.args, sent.kwargs, sent.embed),
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=properties_of(message),
        )

    def _policy(self, options: Mapping[str, Any]) -> RetryPolicy | None:
        """The calling options ``retry`` and ``retry_policy``; None: as the settings say."""
        if not options or ("retry" not in options and "retry_policy" not in options):
            return None
        retry, given = options.get("retry"), options.get("retry_policy")
        if retry is None:
            retry = self.conf.task_publish_retry
        if not retry:
            return RetryPolicy(max_retries=0)
        return RetryPolicy.of(given, self.publish_policy())

    def _replace(self, request: Request, sig: Any) -> None:
        """``Task.replace``: what is sent when the running call is settled."""
        given = {
            "root_id": request.root_id,
            "parent_id": request.parent_id,
            "chain": request.chain,
            "group_id": request.group,
            "group_index": request.group_index,
            "chord": request.chord,
            "replaced_task_nesting": request.replaced_task_nesting + 1,
        }
        options = {key: value for key, value in given.items() if value is not None}
        if request.chord is None:
            options.pop("group_index", None)
        sig = sig.clone()
        sig.freeze(request.id)
        compiled = Compiler(self._first_message, self.conf.result_chord_expires)
        compiled.add(sig, (), None, options)
        request._followups = [*(request._followups or ()), *compiled.messages]
        request._joins = [*(request._joins or ()), *compiled.joins]
        request._replaced = True

    def _retry_message(
        self,
        task: Any,
        request: Request,
        retry: Any,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
    ) -> Any:
        return self.sender.retry(task, request, retry, args, kwargs, options)

    def _store_state(self, task_id: str | None, run: str, state: str | None, meta: Any) -> None:
        """``Task.update_state``."""
        request = running_request()
        if request is not None and request.is_eager and request.id == task_id:
            return  # nothing is stored of a call that is run in place, while it runs
        results = self.producer.results
        if task_id and state and results is not None:
            results.put([self.records.write(task_id, run, state, meta)])

    def _store_outcome(self, request: Request, outcome: Any) -> None:
        """Eager mode with ``task_store_eager_result``."""
        results = self.producer.results
        if results is not None and request.id and outcome.state in states.READY_STATES:
            trace = outcome.einfo.traceback if outcome.einfo is not None else None
            record = self.records.write(
                request.id,
                request.id,
                outcome.state,
                outcome.value,
                traceback=trace,
                request=request,
            )
            results.put([record])

    def fail_unsent(self, sig: Signature[Any], exc: BaseException) -> None:
        """Store this failure for every task of a signature that will not be sent, and tell its
        errbacks."""
        results = self.producer.results
        if results is not None:
            ids = [end.id for end in ends(sig) if end.id]
            results.put([self.records.write(id, uuid(), states.FAILURE, exc) for id in ids])
        for member, errbacks in errbacks_of(sig):
            options = member.get("options") or {}
            request = Request(id=options.get("task_id"), task=member["task"])
            for errback in errbacks:
                told = maybe_signature(errback, app=self, clone=True)
                if told.type is not None and execution.takes_several(told.type, len(told.args)):
                    self.call_errback(request, told, exc)
                else:
                    told.apply_async((request.id,))

    def call_errback(self, request: Request, errback: Any, exc: BaseException) -> None:
        """Call the errback of a task that was run in place."""
        execution.call_errback(self, request, errback, exc)

    # --- results and control --------------------------------------------------------------------

    def AsyncResult(self, id: str, **kwargs: Any) -> Result[Any]:
        """The result of the task with this id."""
        kwargs.setdefault("app", self)
        return AsyncResult(id, **kwargs)

    @property
    def GroupResult(self) -> Any:
        """The class of the results of this application's groups."""
        if self._group_result is None:
            self._group_result = type("GroupResult", (GroupResult,), {"_bound": self})
        return self._group_result

    def ResultSet(self, results: Iterable[Result[Any]], **kwargs: Any) -> ResultSet:
        return ResultSet(results, app=self, **kwargs)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        kwargs["app"] = self
        return signature(*args, **kwargs)

    def revoke(
        self, ids: str | Sequence[str], terminate: bool = False, signal: str | int = "SIGTERM"
    ) -> None:
        """Cancel tasks. Those that wait are settled as REVOKED at once; those that run are killed
        with ``terminate``. The ids stay cancelled for ``revoke_expires`` seconds, across restarts.
        Raises NotCapable if the broker cannot."""
        wanted = [ids] if isinstance(ids, str) else [str(one) for one in ids]
        if not wanted:
            return
        until = time.time() + self.conf.revoke_expires
        with self.operating() as owner:
            broker = self.producer.broker
            found = broker.cancel(owner, wanted, until, terminate, _signal_name(signal))
            self.settle_removed(found)
        bus = self.make_bus() if terminate else None
        if bus is not None:
            bus.emit("cancel")
            bus.close()

    @property
    def control(self) -> Any:
        """Celery's names for acting on running workers."""
        from celeriac.control import Control

        return Control(self)

    def operating(self, ttl: float = 60.0) -> Any:
        """A context in which this process is an owner that may take messages to settle them;
        what it does not settle goes back to its queue."""
        return _Operator(self.producer.broker, ttl)

    def settle_removed(self, deliveries: Sequence[Delivery], reason: str = "revoked") -> int:
        """Settle deliveries that were taken out of their queues, as REVOKED."""
        if not deliveries:
            return 0
        from celeriac.removal import settle_removed

        return settle_removed(self, deliveries, reason)

    # --- life -----------------------------------------------------------------------------------

    @property
    def current_task(self) -> Any:
        """The task that runs in this context, called directly or not; None outside."""
        request = current_request()
        return request._task if request is not None else None

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker runs here; tasks that it calls directly are looked through."""
        request = running_request()
        return request._task if request is not None else None

    def set_current(self) -> None:
        current.set_current_app(self)

    def set_default(self) -> None:
        current.set_default_app(self)

    def close(self) -> None:
        """Let go of all connections."""
        if self._producer is not None and self._producer.pid == os.getpid():
            self._producer.close()
        self._producer = None

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Run the command line with this application; ``argv`` defaults to the process's."""
        from celeriac.cli import main

        main(args=list(sys.argv[1:] if argv is None else argv), obj=self)

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Run a worker: ``app.worker_main(["worker", "-l", "info"])``."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in arguments:
            raise ValueError(
                "worker_main() runs the worker command: its arguments must hold 'worker', as in "
                'app.worker_main(["worker", "--loglevel=INFO"])'
            )
        self.start(arguments)

    def bugreport(self) -> str:
        from celeriac.report import report

        return report(self)

    def __repr__(self) -> str:
        return f"<Celeriac {self.main or '__main__'} at {id(self):#x}>"


Celery = Celeriac


class _Operator:
    """A lease for the time of one operation."""

    def __init__(self, broker: Broker, ttl: float) -> None:
        self._broker = broker
        self._ttl = ttl
        self._lease = f"operator-{uuid()}"

    def __enter__(self) -> Owner:
        self._broker.register(
            Worker(lease=self._lease, ttl=self._ttl, name="operator", pid=os.getpid())
        )
        return Owner(self._lease, 0, 1)

    def __exit__(self, *exc_info: object) -> None:
        self._broker.unregister(self._lease)


# --- module level names -------------------------------------------------------------------------


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(
    *, bind: Literal[False] = False, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(function: Any = None, /, **options: Any) -> Any:
    """A task of every application: it is registered with all, and used with the current one."""

    def share(fun: Callable[..., Any]) -> Any:
        current.share(lambda app: app._task_from_function(fun, **options))

        def find() -> Any:
            app = get_current_app()
            name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
            return app.tasks[name]

        return Proxy(find, name=fun.__name__, doc=fun.__doc__)

    return share(function) if function is not None else share


def app_or_default(app: Celeriac | None = None) -> Celeriac:
    return app if app is not None else get_current_app()


current_app = cast(Celeriac, Proxy(get_current_app, name="current_app"))
current_task = cast(Any, Proxy(lambda: getattr(current_request(), "_task", None)))


def _batches(messages: list[Message]) -> Iterator[list[Message]]:
    for start in range(0, len(messages), BULK):
        yield messages[start : start + BULK]


def _no_results() -> NotImplementedError:
    return NotImplementedError(
        f"No result backend is configured: set result_backend, for example to {DEFAULT_BROKER}."
    )


def _imported(value: Any) -> Any:
    """A class, or the class that ``"module:Class"`` or ``"module.Class"`` names."""
    if not isinstance(value, str):
        return value
    module, _, name = value.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def _signal_name(value: str | int) -> str:
    """``SIGKILL`` for that, for 9 and for ``signal.SIGKILL``."""
    import signal

    return signal.Signals(value).name if isinstance(value, int) else str(value)


def _import_related(package: str, related_name: str | None) -> None:
    """Import ``package.related_name`` if there is such a module; errors inside it come out. A
    class in a package (Django's ``polls.apps.PollsConfig``) stands for the package."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as exc:
        outer = package.rpartition(".")[0]
        if not outer or not (exc.name == package or package.startswith(f"{exc.name}.")):
            raise
        return _import_related(outer, related_name)
    if not related_name:
        return
    name = f"{package}.{related_name}"
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return
    if spec is not None:
        importlib.import_module(name)


__all__ = [
    "Celeriac",
    "Celery",
    "app_or_default",
    "current_app",
    "current_task",
    "find_app",
    "get_current_app",
    "shared_task",
]
