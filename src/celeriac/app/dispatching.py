"""From a call, many calls or a workflow to published messages and their results."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac import drivers, signals
from celeriac.canvas.compiling import Compiler, answered
from celeriac.canvas.composite import Composite
from celeriac.canvas.signature import Signature
from celeriac.message import Join, Message
from celeriac.request import running_request
from celeriac.result import AsyncResult, oldest
from celeriac.retry import RetryPolicy
from celeriac.sending import Sender, plan_of, planned, properties_of
from celeriac.task import checked_args

if TYPE_CHECKING:
    from celeriac.app.base import Celeriac

# Messages of a bulk that are published in one round trip.
BULK = 1000


class Dispatcher:
    """What sends for one application."""

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._sender: Sender | None = None

    @property
    def sender(self) -> Sender:
        """What builds messages; made anew when settings were changed, and in a forked child."""
        sender = self._sender
        if (
            sender is None
            or sender.generation != self._app.conf.generation
            or sender.pid != os.getpid()
        ):
            sender = self._sender = Sender(self._app)
        return sender

    def message(
        self,
        name: str,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        task: Any,
        options: Mapping[str, Any],
    ) -> tuple[Any, Any]:
        """The message of one call, and its task if that is known here."""
        if task is None:
            task = self._app.tasks.get(name)
        if type(args) is not tuple:
            args = checked_args(name, args)
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"{name}: kwargs must be a mapping, not {type(kwargs).__name__}")
        sender = self.sender
        if not options and task is not None and not signals.before_task_publish.receivers:
            plan = plan_of(sender, task, options)
            if plan is not None:
                return planned(plan, args, kwargs or {}), task
        return sender.message(name, args, kwargs or {}, options, task), task

    def sent(self, message: Any, task: Any, options: Mapping[str, Any]) -> AsyncResult[Any]:
        """After publishing: the signal, the result, and its place among the sender's children."""
        if signals.after_task_publish.receivers:
            self.tell_published(message)
        result: AsyncResult[Any] = AsyncResult(
            message.id, app=self._app, task_name=task.name if task is not None else None
        )
        if options.get("ignore_result") or (task is not None and task.ignore_result):
            result.ignored = options.get("ignore_result") is not False
        request = running_request()
        if request is not None:
            running = request._task
            if options.get("add_to_parent", True) and (running is None or running.trail):
                request.children.append(result)
        return result

    def tell_published(self, message: Message) -> None:
        """Send ``after_task_publish``."""
        from celeriac.protocol.reading import decode

        sent = decode(message, frozenset((message.content_type,)))
        signals.after_task_publish.send(
            sender=sent.headers["task"],
            headers=sent.headers,
            body=(sent.args, sent.kwargs, sent.embed),
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=properties_of(message),
        )

    def policy(self, options: Mapping[str, Any]) -> RetryPolicy | None:
        """The calling options ``retry`` and ``retry_policy``; None: as the settings say."""
        if not options or ("retry" not in options and "retry_policy" not in options):
            return None
        retry, given = options.get("retry"), options.get("retry_policy")
        if retry is None:
            retry = self._app.conf.task_publish_retry
        if not retry:
            return RetryPolicy(max_retries=0)
        return RetryPolicy.of(given, self._app.publish_policy())

    def send_calls(
        self, task: Any, calls: Iterable[Sequence[Any]], options: Mapping[str, Any]
    ) -> list[AsyncResult[Any]]:
        """``Task.delay_many``."""
        check = task._check if task.typing else None
        if self._app.conf.task_always_eager:
            return [task.apply_async(tuple(call), **options) for call in calls]
        policy = self.policy(options)
        results: list[AsyncResult[Any]] = []
        pending = iter(calls)
        while batch := [tuple(call) for call in itertools.islice(pending, BULK)]:
            if check is not None:
                for args in batch:
                    check(*args)
            messages = self._messages(task, batch, options)
            self._app.producer.publish(messages, policy=policy)
            results.extend(self._all_sent(messages, task, options))
        return results

    def _all_sent(
        self, messages: list[Message], task: Any, options: Mapping[str, Any]
    ) -> list[AsyncResult[Any]]:
        """``sent`` for a batch; what it looks at is the same for all."""
        if signals.after_task_publish.receivers or running_request() is not None or options:
            return [self.sent(message, task, options) for message in messages]
        app, name, ignored = self._app, task.name, bool(task.ignore_result)
        results: list[AsyncResult[Any]] = [
            AsyncResult(message.id, None, name, app) for message in messages
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
        plan = None if signals.before_task_publish.receivers else plan_of(sender, task, options)
        if plan is not None:
            return [planned(plan, args, {}) for args in calls]
        return [sender.message(task.name, args, {}, options, task) for args in calls]

    def send_many(self, signatures: Iterable[Signature[Any]]) -> list[AsyncResult[Any]]:
        """Send many calls, hundreds in one round trip; the results in order. What was sent
        before an error stays sent."""
        if self._app.conf.task_always_eager:
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
                self.message(sig.task, sig.args, sig.kwargs, sig.type, sig.options) for sig in batch
            ]
            self._app.producer.publish([message for message, _ in built])
            for (message, task), sig in zip(built, batch, strict=True):
                results.append(self.sent(message, task, sig.options))
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
        if self._app.conf.task_always_eager:
            return sig.apply(args, kwargs, **options)
        result, compiled = self._compile(sig, args, kwargs, options)
        joins = self._joins_opened(compiled)
        policy = self.policy(options)
        for batch in _batches(compiled.messages):
            self._app.producer.publish(batch, joins, policy=policy)
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
        if self._app.conf.task_always_eager:
            return sig.apply(args, kwargs, **options)
        result, compiled = self._compile(sig, args, kwargs, options)
        import asyncio  # here: whoever sends from a coroutine has it already

        joins = await asyncio.to_thread(self._joins_opened, compiled)
        policy = self.policy(options)
        for batch in _batches(compiled.messages):
            await self._app.producer.apublish(batch, joins, policy=policy)
            joins = ()
        return self._canvas_sent(result, compiled, options)

    def _joins_opened(self, compiled: Compiler) -> Sequence[Join]:
        """Open the joins where their parts will be counted; what is left of them is opened by
        the broker with the first messages."""
        if not compiled.joins:
            return ()
        results = self._app.results_or_raise()
        if not results.capabilities.joins:
            raise NotImplementedError(
                f"{results.store} cannot count the parts of a chord: set result_backend to a "
                "store that can, such as redis:// or sqlite://."
            )
        if drivers.one_store(self._app.producer.broker, results):
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
        self._app.tasks  # noqa: B018  the options of tasks are known from now on
        frozen = sig.clone(args, kwargs)
        frozen._app = self._app
        given = {key: value for key, value in options.items() if value is not None}
        result = frozen.freeze(given.pop("task_id", None))
        if reply_to := given.get("reply_to") or self.sender.reply_to:
            answered(frozen, reply_to)
        compiled = Compiler(self.first_message, self._app.conf.result_chord_expires)
        compiled.add(frozen, (), None, given)
        return result, compiled

    def first_message(
        self,
        sig: Signature[Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Message:
        """Of a call with which a workflow begins; its arguments are checked."""
        task = self._app._tasks.get(sig.task)
        if task is not None:
            task.check_arguments(args, kwargs)
        return self.sender.message(sig.task, args, kwargs, options, task)

    def _canvas_sent(self, result: Any, compiled: Compiler, options: Mapping[str, Any]) -> Any:
        if signals.after_task_publish.receivers:
            for message in compiled.messages:
                self.tell_published(message)
        request = running_request()
        if request is not None and result is not None and options.get("add_to_parent", True):
            running = request._task
            if running is None or running.trail:
                request.children.append(oldest(result))
        return result


def _batches(messages: list[Message]) -> Iterator[list[Message]]:
    for start in range(0, len(messages), BULK):
        yield messages[start : start + BULK]
