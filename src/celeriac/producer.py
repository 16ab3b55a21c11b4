"""Publishing and waiting for many callers at once.

A synchronous caller publishes in its own thread; callers who find the connection busy wait for it
and leave together, in one batch, with the first of them that gets it. Only asyncio callers use
helper threads, started on first use. Everything here belongs to one process: after a fork the
child builds its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import OperationalError
from celeriac.message import Join, Message, TaskRecord

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import Broker, ResultBackend

# A helper thread that waits for results looks again at least this often (seconds): a lost
# notification costs no more.
SLOW_POLL = 1.0


class _Ticket:
    """Messages of one caller who found the connection busy."""

    __slots__ = ("done", "error", "joins", "messages")

    def __init__(self, messages: Sequence[Message], joins: Sequence[Join]) -> None:
        self.messages = messages
        self.joins = joins
        self.done = False
        self.error: BaseException | None = None


class Producer:
    """The way to broker and result backend for one process. Thread-safe."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.pid = os.getpid()
        self._busy = threading.Lock()
        self._opening = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._broker: Broker | None = None
        self._results: ResultBackend | None = None
        self._no_results = False
        self._async_publisher: _AsyncPublisher | None = None
        self._async_waiter: _AsyncWaiter | None = None

    @property
    def broker(self) -> Broker:
        """The broker, opened on first use. Raises OperationalError."""
        if self._broker is None:
            with self._opening:
                if self._broker is None:
                    broker = self.app.make_broker()
                    broker.open()
                    self._broker = broker
        return self._broker

    @property
    def results(self) -> ResultBackend | None:
        """The result backend, opened on first use; None if there is none."""
        if self._results is None and not self._no_results:
            with self._opening:
                if self._results is None:
                    results = self.app.make_results()
                    self._no_results = results is None
                    if results is not None:
                        results.open()
                        self._results = results
        return self._results

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> None:
        """All are durable when it returns. Raises OperationalError within
        ``broker_publish_timeout`` seconds."""
        conf = self.app.conf
        deadline = time.monotonic() + conf.broker_publish_timeout
        if self._busy.acquire(blocking=False):
            try:
                self._send(messages, joins, deadline)
            finally:
                self._busy.release()
            return
        ticket = _Ticket(messages, joins)
        self._waiting.append(ticket)
        if not self._busy.acquire(timeout=conf.broker_publish_timeout):
            if _withdrawn(self._waiting, ticket):
                raise OperationalError(
                    f"Could not publish within {conf.broker_publish_timeout} s: other threads of "
                    "this process were publishing all that time. Raise broker_publish_timeout, or "
                    "see why the broker is slow."
                )
            self._busy.acquire()  # whoever took the ticket along is bounded by the same time
        try:
            if not ticket.done:
                self._send_waiting(deadline)
        finally:
            self._busy.release()
        if ticket.error is not None:
            raise ticket.error

    def _send_waiting(self, deadline: float) -> None:
        """Send what all waiting callers brought, as one batch; alone if the batch fails."""
        tickets = [self._waiting.popleft() for _ in range(len(self._waiting))]
        messages = [message for ticket in tickets for message in ticket.messages]
        joins = [join for ticket in tickets for join in ticket.joins]
        try:
            self._send(messages, joins, deadline)
        except Exception as exc:
            for ticket in tickets:
                if len(tickets) == 1 or isinstance(exc, OperationalError):
                    ticket.error = exc
                    continue
                try:
                    self._send(ticket.messages, ticket.joins, deadline)
                except Exception as own:
                    ticket.error = own
        finally:
            for ticket in tickets:
                ticket.done = True

    def _send(self, messages: Sequence[Message], joins: Sequence[Join], deadline: float) -> None:
        try:
            self.broker.publish(messages, joins)
        except OperationalError as error:
            self._send_again(messages, joins, deadline, error)

    def _send_again(
        self,
        messages: Sequence[Message],
        joins: Sequence[Join],
        deadline: float,
        error: OperationalError,
    ) -> None:
        """After a failure: as ``task_publish_retry_policy`` says, within the time."""
        conf = self.app.conf
        if not conf.task_publish_retry:
            raise error
        policy = self.app.publish_policy()
        for delay in policy.delays():
            if time.monotonic() + delay >= deadline:
                break
            time.sleep(delay)
            try:
                self.broker.publish(messages, joins)
            except OperationalError as again:
                error = again
                continue
            return
        raise error

    async def apublish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> None:
        """``publish`` for coroutines."""
        if self._async_publisher is None:
            self._async_publisher = _AsyncPublisher(self)
        await self._async_publisher.publish(messages, joins)

    async def await_ready(self, task_id: str, timeout: float | None) -> TaskRecord | None:
        """The record of the task once it is ready; None after ``timeout`` seconds."""
        if self._async_waiter is None:
            self._async_waiter = _AsyncWaiter(self)
        return await self._async_waiter.wait(task_id, timeout)

    def close(self) -> None:
        """Let go of the connections; they are opened again when needed."""
        for part in (self._async_publisher, self._async_waiter):
            if part is not None:
                part.stop()
        self._async_publisher = self._async_waiter = None
        for driver in (self._broker, self._results):
            if driver is not None:
                driver.close()
        self._broker = self._results = None


def _withdrawn(waiting: deque[_Ticket], ticket: _Ticket) -> bool:
    try:
        waiting.remove(ticket)
    except ValueError:
        return False
    return True


class _AsyncPublisher:
    """One helper thread that publishes what coroutines bring, all that is there at once."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="celeriac-publish", daemon=True)
        self._thread.start()

    async def publish(self, messages: Sequence[Message], joins: Sequence[Join]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._inbox.put((messages, joins, loop, future))
        await future

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join(timeout=5.0)

    def _work(self) -> None:
        while True:
            batch = [self._inbox.get()]
            while not self._inbox.empty():
                batch.append(self._inbox.get())
            calls = [call for call in batch if call is not None]
            self._send(calls)
            if len(calls) < len(batch):
                return

    def _send(self, calls: list[Any]) -> None:
        if not calls:
            return
        messages = [message for call in calls for message in call[0]]
        joins = [join for call in calls for join in call[1]]
        error: BaseException | None = None
        try:
            self._producer.publish(messages, joins)
        except Exception as exc:
            error = exc
        for own, own_joins, loop, future in calls:
            mine = error
            if error is not None and len(calls) > 1 and not isinstance(error, OperationalError):
                mine = self._alone(own, own_joins)
            _resolve(loop, future, None, mine)

    def _alone(self, messages: Sequence[Message], joins: Sequence[Join]) -> BaseException | None:
        try:
            self._producer.publish(messages, joins)
        except Exception as exc:
            return exc
        return None


class _AsyncWaiter:
    """One helper thread that waits for the results of all coroutines together."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._lock = threading.Lock()
        self._futures: dict[str, list[Any]] = {}
        self._wanted = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="celeriac-wait", daemon=True)
        self._thread.start()

    async def wait(self, task_id: str, timeout: float | None) -> TaskRecord | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TaskRecord] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            self._futures.setdefault(task_id, []).append(entry)
        self._wanted.set()
        results = self._producer.results
        if results is not None:
            results.wake()
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return None
        finally:
            self._forget(task_id, entry)

    def stop(self) -> None:
        self._stopped = True
        self._wanted.set()
        if self._producer.results is not None:
            self._producer.results.wake()
        self._thread.join(timeout=5.0)

    def _forget(self, task_id: str, entry: Any) -> None:
        with self._lock:
            entries = self._futures.get(task_id)
            if entries and entry in entries:
                entries.remove(entry)
                if not entries:
                    del self._futures[task_id]

    def _work(self) -> None:
        results = self._producer.results
        assert results is not None  # AsyncResult refuses to wait without a backend
        while not self._stopped:
            self._wanted.wait(timeout=60.0)
            with self._lock:
                ids = list(self._futures)
                if not ids:
                    self._wanted.clear()
                    continue
            try:
                records = results.wait(ids, SLOW_POLL)
            except Exception as exc:
                self._fail(ids, exc)
                continue
            for record in records:
                with self._lock:
                    entries = self._futures.pop(record.id, [])
                for loop, future in entries:
                    _resolve(loop, future, record, None)

    def _fail(self, ids: list[str], error: BaseException) -> None:
        for task_id in ids:
            with self._lock:
                entries = self._futures.pop(task_id, [])
            for loop, future in entries:
                _resolve(loop, future, None, error)


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
