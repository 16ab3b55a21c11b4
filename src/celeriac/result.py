"""Results: what became of a call, read from the result backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celeriac import states
from celeriac.exceptions import TimeoutError
from celeriac.protocol.task import parse_time
from celeriac.request import running_request

if TYPE_CHECKING:
    from celeriac.app import Celeriac

R = TypeVar("R")

# A wait looks again at least this often (seconds), should a notification be lost.
SLOW_POLL = 1.0

_may_join: ContextVar[bool] = ContextVar("celeriac_may_join", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """In this block a task may wait for results of other tasks."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


def assert_will_not_block() -> None:
    """Raises RuntimeError inside a task: a worker whose processes wait for each other stands."""
    request = running_request()
    if request is not None and not request.is_eager and not _may_join.get():
        raise RuntimeError(
            "Never call result.get() within a task: the workers could all be waiting. Use "
            "callbacks (link), or allow_join_result() if you are sure."
        )


class AsyncResult(Generic[R]):
    """The result of a call that was sent. Reading ``state`` and the like asks the backend, until
    it has said that the task has ended."""

    TimeoutError = TimeoutError

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Celeriac | None = None,
        parent: Any = None,
    ) -> None:
        self.id = id
        self._app = app
        self._name = task_name
        self.parent = parent
        self._meta: Mapping[str, Any] | None = None  # of a task that has ended
        self.ignored = False

    @property
    def app(self) -> Celeriac:
        if self._app is None:
            from celeriac.app import get_current_app

            self._app = get_current_app()
        return self._app

    @property
    def task_id(self) -> str:
        return self.id

    # --- waiting ------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait for the task and return its result.

        ``timeout``: seconds; TimeoutError after them. Raises what the task raised, or
        TaskRevokedError; with ``propagate=False`` it is returned instead. Raises
        NotImplementedError if there is no result backend, RuntimeError inside a task.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._meta is None:
            self._wait(timeout, on_interval, interval)
        assert self._meta is not None
        if on_message is not None:
            on_message(self._meta)
        value = self._conclude(propagate)
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    wait = get

    def _wait(
        self, timeout: float | None, on_interval: Callable[[], object] | None, interval: float
    ) -> None:
        backend = self.app.results_or_raise()
        deadline = None if timeout is None else time.monotonic() + timeout
        longest = SLOW_POLL if on_interval is None else min(SLOW_POLL, max(interval, 0.01))
        while True:
            left = longest if deadline is None else deadline - time.monotonic()
            found = backend.wait([self.id], max(0.0, min(longest, left)))
            if found:
                self._meta = self.app.records.read(found[0])
                return
            if on_interval is not None:
                on_interval()
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(
                    f"Task {self.id} did not end within {timeout} s; its state is {self.state}."
                )

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """``get`` for coroutines: the event loop is not blocked. ``await result`` is the same
        without a time-out. Raises as get."""
        if self.ignored:
            return cast(R, None)
        assert_will_not_block()
        if self._meta is None:
            self.app.check_results()
            record = await self.app.producer.await_ready(self.id, timeout)
            if record is None:
                raise TimeoutError(f"Task {self.id} did not end within {timeout} s.")
            self._meta = self.app.records.read(record)
        return cast(R, self._conclude(propagate))

    def _conclude(self, propagate: bool) -> Any:
        if self._meta is None:
            return None  # ignored: nothing is stored of it
        value = self._meta.get("result")
        if propagate and self._meta["status"] in states.PROPAGATE_STATES:
            raise _as_exception(value)
        return value

    # --- reading ------------------------------------------------------------------------------

    def _read(self) -> Mapping[str, Any]:
        if self._meta is not None:
            return self._meta
        record = self.app.results_or_raise().get([self.id])[0]
        if record is None:
            return _PENDING
        meta = self.app.records.read(record)
        if record.ready:
            self._meta = meta
        return meta

    @property
    def state(self) -> str:
        """The state as stored; PENDING for an id that nothing is stored of."""
        return str(self._read()["status"])

    status = state

    @property
    def result(self) -> Any:
        """What the task returned, or the exception it raised, or the meta of a custom state."""
        return self._read().get("result")

    info = result

    @property
    def traceback(self) -> str | None:
        return self._read().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        """When it ended; aware."""
        done = parse_time(self._read().get("date_done"))
        return None if done is None else datetime.fromtimestamp(done, self.app.timezone)

    @property
    def children(self) -> list[AsyncResult[Any]] | None:
        """The results of the tasks that it has sent, once it has ended."""
        children = self._read().get("children")
        if children is None:
            return None
        return [result_from_tuple(child, self.app) for child in children]

    @property
    def name(self) -> str | None:
        return self._read().get("name") or self._name

    @property
    def args(self) -> Any:
        return self._read().get("args")

    @property
    def kwargs(self) -> Any:
        return self._read().get("kwargs")

    @property
    def worker(self) -> str | None:
        return self._read().get("worker")

    @property
    def retries(self) -> int | None:
        return self._read().get("retries")

    @property
    def queue(self) -> str | None:
        return self._read().get("queue")

    def ready(self) -> bool:
        """Has it ended?"""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Is anything stored of this id?"""
        return self._read() is not _PENDING

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Raise what the task raised, if it has failed; else the value so far."""
        meta = self._read()
        value = meta.get("result")
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            raise _as_exception(value)
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    # --- acting -------------------------------------------------------------------------------

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel the task: while it waits it will not run; running, it is killed with
        ``terminate=True``. Durable: see docs/cancelling.md."""
        self.app.revoke(self.id, terminate=terminate, signal=signal or "SIGTERM")

    def forget(self) -> None:
        """Delete what is stored of it."""
        self._meta = None
        self.app.results_or_raise().delete([self.id])

    def as_tuple(self) -> Any:
        parent = self.parent
        return (self.id, parent.as_tuple() if parent is not None else None), None

    def as_list(self) -> list[str]:
        ids = [self.id]
        if self.parent is not None:
            ids.extend(self.parent.as_list())
        return ids

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> Any:
        return AsyncResult, (self.id, None, self._name)


_PENDING: Mapping[str, Any] = {"status": states.PENDING, "result": None}


def _as_exception(value: Any) -> BaseException:
    return value if isinstance(value, BaseException) else Exception(value)


class EagerResult(AsyncResult[R]):
    """The result of a call that was run in place."""

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(id, task_name=name)
        self._meta = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "name": name,
        }

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, **kwargs: Any
    ) -> R:
        return cast(R, self._conclude(propagate))

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        return cast(R, self._conclude(propagate))

    def _conclude(self, propagate: bool) -> Any:
        # Of a task that was ignored or rejected there is no value, though there is an exception.
        ended = self.state in states.READY_STATES
        return super()._conclude(propagate) if ended else None

    def ready(self) -> bool:
        return True

    @property
    def supports_native_join(self) -> bool:
        return False

    def forget(self) -> None:
        return None

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        self._meta = {**(self._meta or {}), "status": states.REVOKED}

    def __reduce__(self) -> Any:
        meta = self._meta or {}
        args = (self.id, self.result, self.state, meta.get("traceback"), meta.get("name"))
        return EagerResult, args


class ResultSet:
    """Several results, asked together."""

    def __init__(
        self, results: Iterable[AsyncResult[Any]], app: Celeriac | None = None, **kwargs: Any
    ) -> None:
        self.results: list[AsyncResult[Any]] = list(results)
        self._app = app

    @property
    def app(self) -> Celeriac:
        if self._app is None:
            self._app = self.results[0].app if self.results else None
        if self._app is None:
            from celeriac.app import get_current_app

            self._app = get_current_app()
        return self._app

    def add(self, result: AsyncResult[Any]) -> None:
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: AsyncResult[Any] | str) -> None:
        """Raises KeyError if it is not among them."""
        try:
            self.results.remove(cast("AsyncResult[Any]", result))
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: AsyncResult[Any] | str) -> None:
        if result in self.results:
            self.remove(result)

    def update(self, results: Iterable[AsyncResult[Any]]) -> None:
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results.clear()

    def _refresh(self) -> None:
        """Read all that have not ended, in one round trip."""
        open_ones = [one for one in self.results if one._meta is None and not one.ignored]
        if not open_ones:
            return
        app = self.app
        records = app.results_or_raise().get([result.id for result in open_ones])
        for result, record in zip(open_ones, records, strict=True):
            if record is not None and record.ready:
                result._meta = app.records.read(record)

    def _states(self) -> list[str | None]:
        self._refresh()
        return [None if result._meta is None else result._meta["status"] for result in self.results]

    def ready(self) -> bool:
        return all(state is not None for state in self._states())

    def waiting(self) -> bool:
        return not self.ready()

    def successful(self) -> bool:
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        return any(state == states.FAILURE for state in self._states())

    def completed_count(self) -> int:
        """How many succeeded."""
        return sum(state == states.SUCCESS for state in self._states())

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        self._refresh()
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def iterate(
        self, timeout: float | None = None, propagate: bool = True
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """``(result, value)`` as they end. Raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pending: dict[str, list[AsyncResult[Any]]] = {}
        for result in self.results:
            if result._meta is None and not result.ignored:
                pending.setdefault(result.id, []).append(result)
            else:
                yield result, result._conclude(propagate)
        app = self.app
        while pending:
            left = SLOW_POLL if deadline is None else deadline - time.monotonic()
            found = app.results_or_raise().wait(list(pending), max(0.0, min(SLOW_POLL, left)))
            for record in found:
                meta = app.records.read(record)
                for result in pending.pop(record.id, ()):
                    result._meta = meta
                    yield result, result._conclude(propagate)
            if pending and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{len(pending)} of the tasks did not end within {timeout} s.")

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,
        on_message: Any = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> list[Any]:
        """Wait for all; their values in order, None for an ignored one. Raises the first error
        that comes."""
        if disable_sync_subtasks:
            assert_will_not_block()
        for result, _ in self.iterate(timeout, propagate=False):
            if propagate:
                result._conclude(True)
            if on_interval is not None:
                on_interval()
        values = [result._conclude(propagate) for result in self.results]
        if callback is None:
            return values
        for result, value in zip(self.results, values, strict=True):
            callback(result.id, value)
        return []

    get = join_native = join

    def revoke(self, connection: Any = None, terminate: bool = False, **kwargs: Any) -> None:
        ids = [result.id for result in self.results]
        self.app.revoke(ids, terminate=terminate, signal=kwargs.get("signal") or "SIGTERM")

    def forget(self) -> None:
        for result in self.results:
            result._meta = None
        self.app.results_or_raise().delete([result.id for result in self.results])

    @property
    def children(self) -> list[AsyncResult[Any]]:
        return self.results

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any]:
        return self.results[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(result.id for result in self.results)}]>"


def result_from_tuple(value: Any, app: Celeriac | None = None) -> AsyncResult[Any]:
    """The result that ``as_tuple`` wrote."""
    if isinstance(value, AsyncResult):
        return value
    head, _ = value
    task_id, parent = head if isinstance(head, list | tuple) else (head, None)
    made: AsyncResult[Any] = AsyncResult(
        task_id, app=app, parent=result_from_tuple(parent, app) if parent else None
    )
    return made
