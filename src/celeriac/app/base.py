"""Celeriac: the application that callers see."""

from __future__ import annotations

import importlib
import itertools
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Literal, TypeVar, overload

from celeriac import current, drivers, signals
from celeriac.app import making
from celeriac.app.connected import ConnectedApp
from celeriac.app.dispatching import Dispatcher
from celeriac.app.importing import import_related, imported
from celeriac.app.operating import Operator, ids_stamped, revoke
from celeriac.canvas.signature import Signature, signature
from celeriac.contracts import QueueAdmin
from celeriac.message import Delivery
from celeriac.registry import TaskRegistry
from celeriac.request import current_request, running_request
from celeriac.result import AsyncResult, GroupResult, ResultSet
from celeriac.result import AsyncResult as Result
from celeriac.sending import Sender
from celeriac.task import P, R, Task
from celeriac.task import Task as BaseTask

Self = TypeVar("Self")


class Celeriac(ConnectedApp):
    """An application. ``broker`` and ``backend`` are URLs; any setting may be given by name."""

    task_cls: Any = Task

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
        super().__init__(
            broker=broker,
            backend=backend,
            include=include,
            config_source=config_source,
            namespace=namespace,
            settings={**(changes or {}), **settings},
        )
        self.main = main
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.finalized = False
        self.node_name = socket.gethostname()
        self.on_after_finalize = signals.Signal("on_after_finalize")
        if task_cls is not None:
            self.task_cls = imported(task_cls)
        self.dispatcher = Dispatcher(self)
        self._tasks = TaskRegistry()
        self._task_base: Any = None
        self._finalizing = False
        self._imported = False
        self._discover: list[Callable[[], None]] = []
        self._group_result: Any = None
        current.add_app(self)
        if set_as_current:
            self.set_current()

    # --- tasks ----------------------------------------------------------------------------------

    @property
    def Task(self) -> Any:
        """The base class of this application's tasks."""
        if self._task_base is None:
            base = imported(self.task_cls)
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
            return making.make_task(self, function, **options)

        def decorator(fun: Any) -> Any:
            return making.make_task(self, fun, **options)

        return decorator

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register an object of a Task class (or the class)."""
        return making.register(self, task, **options)

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
                making.complete_registry(self)
                self.finalized = True
            finally:
                self._finalizing = False
        self.on_after_finalize.send(sender=self)

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
                import_related(package, related_name)

        if force:
            discover()
        else:
            self._discover.append(discover)

    def import_modules(self) -> None:
        """Import what ``include`` and ``imports`` name and what is to be discovered."""
        if not self._imported:
            self._imported = True
            signals.import_modules.send(sender=self)
        for module in itertools.chain(self.conf.imports or (), self.conf.include or ()):
            importlib.import_module(module)
        while self._discover:
            self._discover.pop(0)()

    # --- sending --------------------------------------------------------------------------------

    @property
    def sender(self) -> Sender:
        """What builds messages."""
        return self.dispatcher.sender

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
        message, task = self.dispatcher.message(name, args, kwargs, task_type, options)
        self.producer.publish((message,), policy=self.dispatcher.policy(options))
        return self.dispatcher.sent(message, task, options)

    async def asend_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``send_task`` for coroutines."""
        message, task = self.dispatcher.message(name, args, kwargs, task_type, options)
        await self.producer.apublish((message,), policy=self.dispatcher.policy(options))
        return self.dispatcher.sent(message, task, options)

    def send_many(self, signatures: Iterable[Signature[Any]]) -> list[AsyncResult[Any]]:
        """Send many calls, hundreds in one round trip; the results in order. What was sent
        before an error stays sent."""
        return self.dispatcher.send_many(signatures)

    # --- results --------------------------------------------------------------------------------

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

    # --- operating ------------------------------------------------------------------------------

    def admin(self) -> QueueAdmin:
        """The queues as operators see them. Raises NotCapable."""
        return drivers.admin_of(self.producer.broker)

    def revoke(
        self, ids: str | Sequence[str], terminate: bool = False, signal: str | int = "SIGTERM"
    ) -> None:
        """Cancel tasks. Those that wait are settled as REVOKED at once; those that run are killed
        with ``terminate``. The ids stay cancelled for ``revoke_expires`` seconds, across restarts.
        Raises NotCapable if the broker cannot."""
        revoke(self, ids, terminate, signal)

    def revoke_stamped(
        self,
        stamps: Mapping[str, Any] | Iterable[str],
        terminate: bool = False,
        signal: str | int = "SIGTERM",
    ) -> list[str]:
        """Cancel the tasks that have been sent, have not ended, and carry one of these stamps:
        name to value or values, or ``name=value`` each; their ids. What is sent later is not
        affected. Raises NotCapable if the broker does not show its messages."""
        ids = ids_stamped(self, stamps)
        revoke(self, ids, terminate, signal)
        return ids

    def operating(self, ttl: float = 60.0) -> Any:
        """A context in which this process is an owner that may take messages to settle them;
        what it does not settle goes back to its queue."""
        return Operator(self.producer.broker, ttl)

    def settle_removed(self, deliveries: Sequence[Delivery], reason: str = "revoked") -> int:
        """Settle deliveries that were taken out of their queues, as REVOKED."""
        if not deliveries:
            return 0
        from celeriac.removal import settle_removed

        return settle_removed(self, deliveries, reason)

    @property
    def control(self) -> Any:
        """Celery's names for acting on running workers."""
        from celeriac.control import Control

        return Control(self)

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

    def _after_fork(self) -> None:
        self._finalizing = False
        super()._after_fork()

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
