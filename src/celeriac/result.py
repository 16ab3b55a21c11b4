"""Results: what became of a call, read from the result backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celeriac import states
from celeriac.exceptions import IncompleteStream, TimeoutError
from celeriac.protocol import results as documents
from celeriac.protocol.task import parse_time
from celeriac.request import running_request
from celeriac.utils import uuid

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
        parents = follow_parents and propagate and self.parent is not None
        if self._meta is None:
            self._wait(timeout, on_interval, interval, parents)
        assert self._meta is not None
        if parents and self._meta["status"] in states.PROPAGATE_STATES:
            self._raise_of_parents()
        if on_message is not None:
            on_message(self._meta)
        value = self._conclude(propagate)
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    wait = get

    def _raise_of_parents(self) -> None:
        """Raise what the first of those before this one raised, if any has failed: it tells more
        than what its end has made of the others."""
        above: list[AsyncResult[Any]] = []
        for parent in reversed(list(self._parents())):
            above += _leaves([parent])
        ResultSet(above, app=self.app)._refresh()
        for one in above:
            if one._meta is not None:
                one._conclude(True)

    def _parents(self) -> Iterator[Any]:
        """Those before this one, the nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def _wait(
        self,
        timeout: float | None,
        on_interval: Callable[[], object] | None,
        interval: float,
        parents: bool = False,
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
            if parents:
                self._raise_of_parents()
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
        if (
            propagate
            and self.parent is not None
            and self._meta is not None
            and self._meta["status"] in states.PROPAGATE_STATES
        ):
            self._raise_of_parents()
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
        ``terminate=True``. Of a workflow: every task that has not ended, also those that are not
        sent yet. Durable: see docs/cancelling.md."""
        _revoke([self], self.app, terminate, signal)

    def forget(self) -> None:
        """Delete what is stored of it and of those before it."""
        ids = [one.id for one in _tree([self])]
        for one in _tree([self]):
            one._meta = None
        self.app.results_or_raise().delete(ids)

    # --- workflows ----------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """``(parent, result)`` of this and of all that its tasks have sent, level by level.
        Raises IncompleteStream at one that has not ended, unless ``intermediate``."""
        waiting: list[tuple[Any, Any]] = [(None, self)]
        for parent, node in waiting:
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"{node} has not ended")

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """``(result, value)`` of this and of all that its tasks have sent; waits for each."""
        waiting: list[Any] = [self]
        for node in waiting:
            yield node, node.get(**kwargs)
            waiting.extend(node.children or ())

    def get_leaf(self) -> Any:
        """The value of the last of ``iterdeps``."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def build_graph(
        self, intermediate: bool = False, formatter: Any = None
    ) -> dict[Any, list[Any]]:
        """Each result with those that its task has sent."""
        graph: dict[Any, list[Any]] = {}
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.setdefault(node, [])
            if parent is not None:
                graph[parent].append(node)
        return graph

    @property
    def graph(self) -> dict[Any, list[Any]]:
        return self.build_graph(intermediate=True)

    def explain(self, file: Any = None) -> None:
        """Print the workflow that ends with this result, with the state of each task."""
        from celeriac.workflow import drawn, tree_of_result

        print(drawn(tree_of_result(self)), file=file)

    @property
    def supports_native_join(self) -> bool:
        return True

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
        app: Celeriac | None = None,
    ) -> None:
        super().__init__(id, task_name=name, app=app)
        self._meta = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "name": name,
        }

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, **kwargs: Any
    ) -> R:
        if propagate and self.parent is not None and self.failed():
            self._raise_of_parents()
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

    def _refresh(self) -> list[AsyncResult[Any]]:
        """Read all that have not ended, in one round trip; those of groups inside too."""
        leaves = _leaves(self.results)
        open_ones = [one for one in leaves if one._meta is None and not one.ignored]
        if open_ones:
            app = self.app
            records = app.results_or_raise().get([result.id for result in open_ones])
            for result, record in zip(open_ones, records, strict=True):
                if record is not None and record.ready:
                    result._meta = app.records.read(record)
        return leaves

    def _states(self) -> list[str | None]:
        leaves = self._refresh()
        return [None if one._meta is None else one._meta["status"] for one in leaves]

    def ready(self) -> bool:
        """Have all ended? Those without results are not waited for."""
        return all(one._meta is not None or one.ignored for one in self._refresh())

    def waiting(self) -> bool:
        return not self.ready()

    def successful(self) -> bool:
        return all(
            one._meta["status"] == states.SUCCESS if one._meta is not None else one.ignored
            for one in self._refresh()
        )

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
        for result in _leaves(self.results):
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
        values = [_value_of(result, propagate) for result in self.results]
        if callback is None:
            return values
        for result, value in zip(self.results, values, strict=True):
            callback(result.id, value)
        return []

    get = join_native = join

    def iter_native(self, timeout: float | None = None, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """``(id, document)`` as they end."""
        for result, _ in self.iterate(timeout, propagate=False):
            yield result.id, result._meta

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """``get`` for coroutines."""
        assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        for one in self._refresh():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            await one.aget(left, propagate)
        return [_value_of(result, propagate) for result in self.results]

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def revoke(self, connection: Any = None, terminate: bool = False, **kwargs: Any) -> None:
        """Cancel every task that has not ended."""
        _revoke([self], self.app, terminate, kwargs.get("signal"))

    def forget(self) -> None:
        for result in _leaves(self.results):
            result._meta = None
        self.app.results_or_raise().delete([result.id for result in _leaves(self.results)])

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


class GroupResult(ResultSet):
    """The results of the tasks of a group, in its order. Saved under its id, it can be restored
    by anybody who knows that."""

    _bound: Any = None  # app.GroupResult is a class of its own, which has its application here

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: Any = None,
        app: Celeriac | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results or (), app=app if app is not None else self._bound)
        self.id = id if id is not None else uuid()
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        return self.results

    def save(self, backend: Any = None) -> GroupResult:
        """Store which results it has (not what they are)."""
        self.app.results_or_raise().put([self.app.records.write_group(self.id, self.as_tuple())])
        return self

    def delete(self, backend: Any = None) -> None:
        """Remove what ``save`` has stored."""
        self.app.results_or_raise().delete([documents.group_key(self.id)])

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """The group that was saved under this id; None if there is none."""
        app = app if app is not None else cls._bound
        if app is None:
            from celeriac.app import get_current_app

            app = get_current_app()
        record = app.results_or_raise().get([documents.group_key(id)])[0]
        if record is None:
            return None
        return cast(GroupResult, result_from_tuple(app.records.read_group(record), app))

    def as_tuple(self) -> Any:
        parent = self.parent
        head = self.id, parent.as_tuple() if parent is not None else None
        return head, [result.as_tuple() for result in self.results]

    def explain(self, file: Any = None) -> None:
        """Print the workflow that ends with these results, with the state of each task."""
        from celeriac.workflow import drawn, tree_of_result

        print(drawn(tree_of_result(self)), file=file)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results) == (self.id, self.results)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(result.id for result in self.results)}]>"

    def __reduce__(self) -> Any:
        return GroupResult, (self.id, self.results, self.parent)


def oldest(result: Any) -> Any:
    """The first of those that lead to this result; itself, if none does."""
    while result.parent is not None:
        result = result.parent
    return result


def _leaves(results: Iterable[Any]) -> list[AsyncResult[Any]]:
    """The results of tasks, those of groups inside among them."""
    found: list[AsyncResult[Any]] = []
    for result in results:
        if isinstance(result, ResultSet):
            found += _leaves(result.results)
        else:
            found.append(result)
    return found


def _tree(results: Iterable[Any]) -> list[AsyncResult[Any]]:
    """The results of all tasks of the workflows that end with these."""
    found: dict[str, AsyncResult[Any]] = {}
    waiting = list(results)
    while waiting:
        result = waiting.pop()
        parent = getattr(result, "parent", None)
        if parent is not None:
            waiting.append(parent)
        if isinstance(result, ResultSet):
            waiting.extend(result.results)
        else:
            found.setdefault(result.id, result)
    return list(found.values())


def _revoke(results: Iterable[Any], app: Celeriac, terminate: bool, signal: str | None) -> None:
    nodes = _tree(results)
    if len(nodes) > 1 and app.backend_url is not None:
        ResultSet(nodes, app=app)._refresh()
        nodes = [node for node in nodes if node._meta is None]
    # From the end: what a task is about to send is cancelled before the task is.
    app.revoke([node.id for node in nodes], terminate=terminate, signal=signal or "SIGTERM")


def _value_of(result: Any, propagate: bool) -> Any:
    if isinstance(result, ResultSet):
        return [_value_of(one, propagate) for one in result.results]
    return result._conclude(propagate)


def result_from_tuple(value: Any, app: Celeriac | None = None) -> Any:
    """The result that ``as_tuple`` wrote."""
    if isinstance(value, AsyncResult | GroupResult):
        return value
    head, members = value
    id, parent = head if isinstance(head, list | tuple) else (head, None)
    above = result_from_tuple(parent, app) if parent else None
    if members is not None:
        return GroupResult(id, [result_from_tuple(one, app) for one in members], above, app)
    made: AsyncResult[Any] = AsyncResult(id, app=app, parent=above)
    return made
