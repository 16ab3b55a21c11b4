"""Publishing and waiting for coroutines: one helper thread each, shared by all event loops of
the process, so that no loop is ever blocked and all that is there goes in one round trip."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import OperationalError
from celeriac.message import Join, Message, TaskRecord

if TYPE_CHECKING:
    from celeriac.contracts import ResultBackend
    from celeriac.producer import Producer
    from celeriac.retry import RetryPolicy

# The waiter looks again at least this often (seconds): a lost notification costs no more.
SLOW_POLL = 1.0
# A wake-up that came a moment too early for the driver is repeated after this time (seconds).
WAKE_AGAIN = 0.005
_STOP_PATIENCE = 5.0


class _Call:
    """One ``publish`` of a coroutine."""

    __slots__ = ("future", "joins", "loop", "messages", "policy")

    def __init__(
        self, messages: Sequence[Message], joins: Sequence[Join], policy: RetryPolicy | None
    ) -> None:
        self.messages = messages
        self.joins = joins
        self.policy = policy
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def end(self, error: BaseException | None) -> None:
        _resolve(self.loop, self.future, None, error)


class AsyncPublisher:
    """Publishes what coroutines bring."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._inbox: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="celeriac-publish", daemon=True)
        self._thread.start()

    async def publish(
        self, messages: Sequence[Message], joins: Sequence[Join], policy: RetryPolicy | None
    ) -> None:
        """Bounded as ``Producer.publish`` is, for every call is in one of its next two batches."""
        call = _Call(messages, joins, policy)
        with self._lock:
            if self._stopped:
                raise _closed()
            self._inbox.put(call)
        await call.future

    def stop(self) -> None:
        """What was brought is published first."""
        with self._lock:
            self._stopped = True
            self._inbox.put(None)
        self._thread.join(timeout=_STOP_PATIENCE)

    def _work(self) -> None:
        while True:
            batch = [self._inbox.get()]
            while not self._inbox.empty():
                batch.append(self._inbox.get())
            calls = [call for call in batch if call is not None]
            self._send([call for call in calls if call.policy is None])
            for call in calls:
                if call.policy is not None:
                    self._send([call])
            if len(calls) < len(batch):
                return

    def _send(self, calls: list[_Call]) -> None:
        if not calls:
            return
        messages = [message for call in calls for message in call.messages]
        joins = [join for call in calls for join in call.joins]
        try:
            self._producer.publish(messages, joins, policy=calls[0].policy)
        except Exception as error:
            if len(calls) == 1 or isinstance(error, OperationalError):
                for call in calls:
                    call.end(error)
            else:  # one of them is at fault
                for call in calls:
                    self._send([call])
        else:
            for call in calls:
                call.end(None)


class AsyncWaiter:
    """Waits for the results of all coroutines together."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._lock = threading.Lock()
        self._futures: dict[str, list[Any]] = {}
        self._wanted = threading.Event()
        self._asked = False  # an id has come since the thread took the ids it waits for
        self._results: ResultBackend | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="celeriac-wait", daemon=True)
        self._thread.start()

    async def wait(self, task_id: str, timeout: float | None) -> TaskRecord | None:
        """The record, once it is ready; None after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TaskRecord] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            if self._stopped:
                raise _closed()
            self._futures.setdefault(task_id, []).append(entry)
            first, self._asked = not self._asked, True
        if first:
            self._wake(loop)
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return None
        finally:
            self._forget(task_id, entry)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the thread look at the new id now, not after its wait for the old ones."""
        self._wanted.set()
        if self._asked:
            if self._results is not None:
                self._results.wake()
            loop.call_later(WAKE_AGAIN, self._wake, loop)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        self._wanted.set()
        if self._results is not None:
            self._results.wake()
        self._thread.join(timeout=_STOP_PATIENCE)
        self._fail(_closed())

    def _forget(self, task_id: str, entry: Any) -> None:
        with self._lock:
            entries = self._futures.get(task_id)
            if entries and entry in entries:
                entries.remove(entry)
                if not entries:
                    del self._futures[task_id]

    def _work(self) -> None:
        while not self._stopped:
            self._wanted.wait(timeout=60.0)
            with self._lock:
                self._asked = False
                ids = list(self._futures)
                if not ids:
                    self._wanted.clear()
                    continue
            try:
                records = self._wait(ids)
            except Exception as exc:
                self._fail(exc, ids)
                continue
            for record in records:
                with self._lock:
                    entries = self._futures.pop(record.id, [])
                for loop, future in entries:
                    _resolve(loop, future, record, None)

    def _wait(self, ids: list[str]) -> list[TaskRecord]:
        if self._results is None:
            self._results = self._producer.results
        assert self._results is not None  # AsyncResult refuses to wait without a backend
        return self._results.wait(ids, SLOW_POLL)

    def _fail(self, error: BaseException, ids: list[str] | None = None) -> None:
        with self._lock:
            found = [self._futures.pop(one, []) for one in ids or list(self._futures)]
        for loop, future in (entry for entries in found for entry in entries):
            _resolve(loop, future, None, error)


def _closed() -> OperationalError:
    return OperationalError("The application was closed while a coroutine was using it.")


def _resolve(loop: Any, future: Any, value: Any, error: BaseException | None) -> None:
    """Set a future of another thread's loop, unless that loop has gone."""

    def deliver() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop was closed; nobody waits any more
        return
