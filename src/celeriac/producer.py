"""Publishing and waiting for many callers at once.

A synchronous caller publishes in its own thread; callers who find the connection busy wait, and
the first of them then sends what all of them brought, in one batch. Only asyncio callers use
helper threads, started on first use (async_producer.py). Everything here belongs to one process:
after a fork the child builds its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import OperationalError
from celeriac.message import Join, Message, TaskRecord

if TYPE_CHECKING:
    from celeriac.app.connected import ConnectedApp
    from celeriac.async_producer import AsyncPublisher, AsyncWaiter
    from celeriac.contracts import Broker, ResultBackend
    from celeriac.retry import RetryPolicy


class _Ticket:
    """Messages of one caller who found the connection busy. ``woken`` is released when they are
    dealt with, or when this caller ``leads``: then it sends all that wait, its own among them."""

    __slots__ = ("error", "joins", "leads", "messages", "policy", "woken")

    def __init__(
        self, messages: Sequence[Message], joins: Sequence[Join], policy: RetryPolicy | None
    ) -> None:
        self.messages = messages
        self.joins = joins
        self.policy = policy
        self.leads = False
        self.error: BaseException | None = None
        self.woken = threading.Lock()
        self.woken.acquire()


class Producer:
    """The way to broker and result backend for one process. Thread-safe."""

    def __init__(self, app: ConnectedApp) -> None:
        self.app = app
        self.pid = os.getpid()
        self._door = threading.Lock()  # held for moments only
        self._sending = False  # somebody uses the broker
        self._waiting: list[_Ticket] = []
        self._opening = threading.Lock()
        self._broker: Broker | None = None
        self._results: ResultBackend | None = None
        self._no_results = False
        self._async_publisher: AsyncPublisher | None = None
        self._async_waiter: AsyncWaiter | None = None

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

    # --- publishing -----------------------------------------------------------------------------

    def publish(
        self,
        messages: Sequence[Message],
        joins: Sequence[Join] = (),
        *,
        policy: RetryPolicy | None = None,
    ) -> None:
        """All are durable when it returns. Raises OperationalError within
        ``broker_publish_timeout`` seconds. ``policy``: how often to try, if not as the settings
        say."""
        patience: float = self.app.conf.broker_publish_timeout
        deadline = time.monotonic() + patience
        with self._door:
            alone = not self._sending
            if alone:
                self._sending = True
            else:
                ticket = _Ticket(messages, joins, policy)
                self._waiting.append(ticket)
        if not alone:
            self._send_with_others(ticket, patience, deadline)
            return
        try:
            self._send(messages, joins, deadline, policy)
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Whoever has waited longest sends next."""
        with self._door:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].woken.release()
            else:
                self._sending = False

    def _send_with_others(self, ticket: _Ticket, patience: float, deadline: float) -> None:
        try:
            self._await_turn(ticket, patience)
            if ticket.leads:
                self._lead(deadline)
        finally:
            # Also when an exception from outside (a soft time limit) ends the wait.
            with self._door:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
            if ticket.leads:
                self._pass_on()
        if ticket.error is not None:
            raise ticket.error

    def _await_turn(self, ticket: _Ticket, patience: float) -> None:
        """Wait until the ticket is dealt with or leads."""
        if ticket.woken.acquire(timeout=patience):
            return
        with self._door:
            if ticket in self._waiting and not ticket.leads:
                raise OperationalError(
                    f"Could not publish within {patience:g} s: other threads of this process were "
                    "publishing all that time. Raise broker_publish_timeout, or see why the "
                    "broker is slow."
                )
        # It leads, or is being sent by somebody who is bounded by the same time.
        if not ticket.woken.acquire(timeout=patience):
            raise OperationalError(
                f"Publishing did not end within {2 * patience:g} s: whether the broker has the "
                "message is not known. See why it is slow."
            )

    def _lead(self, deadline: float) -> None:
        """Send what all waiting callers brought, as one batch."""
        with self._door:
            tickets, self._waiting = self._waiting, []
        unsent: BaseException | None = OperationalError(
            "The thread that published this together with its own messages was interrupted: "
            "whether the broker has it is not known."
        )
        try:
            self._send_batch(tickets, deadline)
            unsent = None
        except BaseException as exc:
            tickets[0].error = exc
            raise
        finally:
            for ticket in tickets[1:]:
                ticket.error = ticket.error or unsent
                ticket.woken.release()

    def _send_batch(self, tickets: list[_Ticket], deadline: float) -> None:
        """Those without a policy of their own together; one by one if the batch is refused for
        what is in it."""
        usual = [ticket for ticket in tickets if ticket.policy is None]
        apart = [ticket for ticket in tickets if ticket.policy is not None]
        if len(usual) > 1:
            messages = [message for ticket in usual for message in ticket.messages]
            joins = [join for ticket in usual for join in ticket.joins]
            try:
                self._send(messages, joins, deadline)
            except OperationalError as exc:
                for ticket in usual:
                    ticket.error = exc
            except Exception:
                apart += usual
        else:
            apart += usual
        for ticket in apart:
            try:
                self._send(ticket.messages, ticket.joins, deadline, ticket.policy)
            except Exception as exc:
                ticket.error = exc

    def _send(
        self,
        messages: Sequence[Message],
        joins: Sequence[Join],
        deadline: float,
        policy: RetryPolicy | None = None,
    ) -> None:
        try:
            self.broker.publish(messages, joins)
        except OperationalError as error:
            self._send_again(messages, joins, deadline, policy, error)

    def _send_again(
        self,
        messages: Sequence[Message],
        joins: Sequence[Join],
        deadline: float,
        policy: RetryPolicy | None,
        error: OperationalError,
    ) -> None:
        """After a failure: as the policy says, or ``task_publish_retry_policy``, within the
        time."""
        if policy is None:
            if not self.app.conf.task_publish_retry:
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

    # --- for coroutines -------------------------------------------------------------------------

    async def apublish(
        self,
        messages: Sequence[Message],
        joins: Sequence[Join] = (),
        *,
        policy: RetryPolicy | None = None,
    ) -> None:
        """``publish`` for coroutines."""
        with self._door:
            if self._async_publisher is None:
                from celeriac.async_producer import AsyncPublisher

                self._async_publisher = AsyncPublisher(self)
            publisher = self._async_publisher
        await publisher.publish(messages, joins, policy)

    async def await_ready(self, task_id: str, timeout: float | None) -> TaskRecord | None:
        """The record of the task once it is ready; None after ``timeout`` seconds."""
        with self._door:
            if self._async_waiter is None:
                from celeriac.async_producer import AsyncWaiter

                self._async_waiter = AsyncWaiter(self)
            waiter = self._async_waiter
        return await waiter.wait(task_id, timeout)

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the connections; they are opened again when needed. Coroutines that still
        wait get OperationalError."""
        with self._door:
            parts: tuple[Any, ...] = (self._async_publisher, self._async_waiter)
            self._async_publisher = self._async_waiter = None
        for part in parts:
            if part is not None:
                part.stop()
        with self._opening:
            open_ones: tuple[Any, ...] = (self._broker, self._results)
            self._broker = self._results = None
            self._no_results = False
        for driver in open_ones:
            if driver is not None:
                driver.close()
