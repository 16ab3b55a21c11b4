"""AsyncResult: what became of one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celeriac import states
from celeriac.exceptions import TimeoutError
from celeriac.protocol.times import parse_time
from celeriac.result import dependents, ending
from celeriac.result.blocking import assert_will_not_block
from celeriac.result.trees import leaves, refresh, revoke, tree

if TYPE_CHECKING:
    from celeriac.app import Celeriac

R = TypeVar("R")

# A wait looks again at least this often (seconds), should a notification be lost.
SLOW_POLL = 1.0


class AsyncResult(Generic[R]):
    """The result of a call that was sent. Reading ``state`` and the like asks the backend, until
    it has said that the task has ended."""

    TimeoutError = TimeoutError
    _members: Any = None  # those of a set or group
    _waiting: Sequence[ending.Waiting] = ()  # to be called when it ends

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Celeriac | None = None,
        parent: Any = None,
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult needs the id of a task, not None")
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
    def backend(self) -> Any:
        """The open result backend of the application; None if there is none."""
        return self.app.backend

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
            above += leaves([parent])
        refresh(above, self.app)
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
                ending.note_end(self, self.app.records.read(found[0]))
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
            ending.note_end(self, self.app.records.read(record))
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
            ending.note_end(self, meta)
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
        from celeriac.result.tuples import result_from_tuple  # here: it knows this class

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

    def then(
        self,
        callback: Callable[[Any], object],
        on_error: Callable[[Any], object] | None = None,
        weak: bool = False,
    ) -> None:
        """Call ``callback(result)`` once it is known here that the task has ended: now, or in the
        call that finds out (``get``, ``state``, …; nothing looks by itself). What it raises goes
        to ``on_error``."""
        ending.when_all_ended(self, [] if self.ready() else [self], callback, on_error)

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
        revoke([self], self.app, terminate, signal)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any] | Sequence[str],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Cancel all tasks that carry one of these stamps: see ``app.revoke_stamped``."""
        self.app.revoke_stamped(headers, terminate=terminate, signal=signal or "SIGTERM")

    def forget(self) -> None:
        """Delete what is stored of it and of those before it."""
        ids = [one.id for one in tree([self])]
        for one in tree([self]):
            one._meta = None
        self.app.results_or_raise().delete(ids)

    # --- workflows ----------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """``(parent, result)`` of this and of all that its tasks have sent, level by level.
        Raises IncompleteStream at one that has not ended, unless ``intermediate``."""
        return dependents.iterdeps(self, intermediate)

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """``(result, value)`` of this and of all that its tasks have sent; waits for each."""
        return dependents.collect(self, **kwargs)

    def get_leaf(self) -> Any:
        """The value of the last of ``iterdeps``."""
        return dependents.leaf_of(self)

    def build_graph(
        self, intermediate: bool = False, formatter: Any = None
    ) -> dict[Any, list[Any]]:
        """Each result with those that its task has sent."""
        return dependents.graph_of(self, intermediate)

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
