"""The worker's agent: it keeps the lease, in a process that no task can hold up.

One loop: heartbeat, maintain, and listening for cancellations as its sleep. After an error of the
broker the connection is thrown away and a new one built. If this process is stuck or dies, the
supervisor starts another, which goes on with the same lease.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from celeriac import signals
from celeriac.contracts import Broker, EventBus, ResultBackend
from celeriac.exceptions import (
    CeleriacError,
    CorruptStore,
    ImproperlyConfigured,
    LeaseLost,
    OperationalError,
)
from celeriac.message import Delivery, Owner, Pulse, Upkeep, Worker
from celeriac.worker.control import Failed, Leave, Line, Registered, Stalled, Terminate
from celeriac.worker.options import WorkerOptions
from celeriac.worker.process import AGENT_SLOT
from celeriac.worker.slots import SlotTable
from celeriac.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.beat import EmbeddedService
    from celeriac.worker.sweeper import Sweeper

logger = logging.getLogger("celeriac.worker.agent")

NAP: Final = 0.25  # how often it looks around while there is no bus to listen to
AGAIN: Final = 0.01  # a call that wakes comes too early, if nobody was waiting yet
HANDED_AGAIN: Final = 30.0
RETRY_FIRST: Final = 0.25
RETRY_LAST: Final = 3.0  # and well below the lease: who misses an outage's end is dead


def main(app: Celeriac, options: WorkerOptions, table: SlotTable, control_fd: int) -> int:
    """The life of the agent process; its exit code."""
    return Agent(app, options, table, Line.of(control_fd)).run()


class Agent:
    """``line`` leads to the supervisor."""

    def __init__(
        self,
        app: Celeriac,
        options: WorkerOptions,
        table: SlotTable,
        line: Line,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._options = options
        self._table = table
        self._line = line
        self._clock = clock
        self._owner = Owner(options.lease_name, AGENT_SLOT, table.agent_incarnation)
        self._broker: Broker | None = None
        self._results: ResultBackend | None = None
        self._bus: EventBus | None = None
        self._watchdog = Watchdog(table, options.queues, clock=clock)
        self._handed: list[Delivery] = []
        self._handed_due = 0.0
        self._recover_from = self._owner.incarnation - 1
        self._heartbeat_due = 0.0
        self._maintain_due = 0.0
        self._maintain_every = 0.0
        self._leaving = False
        self._orphaned = False
        self._heard = threading.Event()
        self._down_since: float | None = None
        self._pause = RETRY_FIRST
        self._beat: EmbeddedService | None = None
        self._sweeper: Sweeper | None = None
        self._sweep_due = self._clock() + (options.join_sweep or 0.0)

    def run(self) -> int:
        """Keep the lease until told to leave, and close the line; 1 if the worker could not be
        started at all."""
        attending = threading.Thread(target=self._attend, name="celeriac-line", daemon=True)
        attending.start()
        try:
            return self._keep()
        finally:
            self._leaving = True
            self._line.hang_up()
            attending.join()
            self._line.close()

    def _keep(self) -> int:
        give_up = self._clock() + self._options.startup_patience
        while not self._leaving:
            try:
                if self._broker is None:
                    self._connect()
                self._turn()
                self._recovered()
            except LeaseLost:
                self._heartbeat_due = 0.0
            except OperationalError as exc:
                hopeless = isinstance(exc, CorruptStore) or self._clock() >= give_up
                if hopeless and not self._table.lease_epoch:
                    return self._fail(str(exc))
                self._outage(exc)
            except (ImproperlyConfigured, NotImplementedError) as exc:
                if self._table.lease_epoch:
                    raise
                return self._fail(str(exc))
        if self._orphaned:
            self._stop_beat()
            self._disconnect()
            return 1
        self._leave()
        return 0

    def _fail(self, text: str) -> int:
        self._line.say(Failed(text))
        self._disconnect()
        return 1

    # --- connections --------------------------------------------------------------------------

    def _connect(self) -> None:
        broker = self._app.make_broker()
        broker.open()
        self._broker = broker
        self._maintain_every = min(broker.capabilities.upkeep_every, self._options.lease / 4)
        self._bus = self._app.make_bus()
        if self._bus is not None:
            self._bus.listen(("cancel",), 0.0)  # hear from now on, before anything can run
        self._watchdog.use(broker)
        self._take_lease(broker)
        self._start_beat()

    def _disconnect(self) -> None:
        """Throw the connections away; a new one is built when it is next needed."""
        broker, results, bus = self._broker, self._results, self._bus
        self._broker = self._results = self._bus = None
        self._watchdog.use(None)
        for one in (bus, results, broker):
            try:
                if one is not None:
                    one.close()
            except (OSError, CeleriacError) as exc:
                logger.debug("Closing a broken connection: %s", exc)

    def _outage(self, exc: OperationalError) -> None:
        """Wait a little, more from time to time, never all workers at once."""
        if self._down_since is None:
            self._down_since = self._clock()
            logger.error("The broker cannot be reached, trying again: %s", exc)
        self._disconnect()
        self._sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, RETRY_LAST, self._options.lease / 4)

    def _recovered(self) -> None:
        """A whole turn went well: a broker that lets in and then refuses is not back."""
        if self._down_since is not None:
            logger.warning("The broker is back after %.1f s", self._clock() - self._down_since)
            self._down_since = None
            self._pause = RETRY_FIRST

    # --- the loop -----------------------------------------------------------------------------

    def _turn(self) -> None:
        broker = self._broker
        assert broker is not None
        now = self._clock()
        self._table.beat(now)
        if now >= self._heartbeat_due:
            self._heartbeat(broker, now)
        if self._recover_from > 0:
            self._handed += broker.recover(
                Owner(self._options.lease_name, AGENT_SLOT, self._recover_from), self._owner, ()
            )
            self._recover_from = 0
        if now >= self._maintain_due:
            self._maintain_due = now + self._maintain_every
            self._handed += broker.maintain(self._owner, self._upkeep())
        if self._handed and now >= self._handed_due:
            self._settle_handed(broker)
        if self._options.join_sweep and now >= self._sweep_due:
            self._sweep_due = now + self._options.join_sweep
            self._sweep(broker)
        stalled = self._watchdog.look(now)
        if stalled:
            self._line.say(Stalled(stalled))
        self._listen()

    def _listen(self) -> None:
        """Sleep, until something is due or a cancellation comes in."""
        due = min(self._heartbeat_due, self._maintain_due) - self._clock()
        timeout = max(due, 0.0)
        if self._bus is None:
            self._sleep(timeout)
            return
        if self._bus.listen(("cancel",), timeout):
            self._heartbeat_due = 0.0
        self._obey()

    def _sleep(self, seconds: float) -> None:
        """Sleep, in touch with the supervisor."""
        until = self._clock() + seconds
        while not self._leaving:
            self._table.beat(self._clock())
            left = until - self._clock()
            if left <= 0:
                return
            self._line.wait(min(left, NAP))
            self._obey()

    def _attend(self) -> None:
        """A thread: have the loop, which listens to the broker, hear the supervisor as well."""
        while not self._leaving and not self._line.closed:
            self._line.wait(None)
            self._wake()
            while not self._leaving and not self._heard.wait(AGAIN):
                self._wake()
            self._heard.clear()

    def _wake(self) -> None:
        """Let the loop look around."""
        bus = self._bus
        if bus is not None:
            bus.wake()

    def _obey(self) -> None:
        for word in self._line.hear():
            if isinstance(word, Leave):
                self._leaving = True
        if self._line.closed:  # the supervisor is gone: the lease is to lapse, or is another's
            self._leaving = self._orphaned = True
        self._heard.set()

    # --- lease --------------------------------------------------------------------------------

    def _take_lease(self, broker: Broker) -> None:
        """Register, or go on with the lease of the agent before."""
        first = not self._table.lease_epoch
        if first:
            self._register(broker)
            self._line.say(Registered())
        elif not broker.capabilities.leases:  # it was the connection, which is another one now
            broker.register(self._worker())
        self._heartbeat_due = 0.0 if not first else self._clock() + self._interval

    def _register(self, broker: Broker) -> None:
        broker.register(self._worker())
        self._table.bump_lease_epoch()

    def _worker(self) -> Worker:
        options = self._options
        return Worker(
            lease=options.lease_name,
            ttl=options.lease,
            name=options.hostname,
            hostname=socket.gethostname(),
            pid=self._table.supervisor_pid or os.getpid(),
            queues=tuple(dict.fromkeys(options.queues)),
        )

    @property
    def _interval(self) -> float:
        return self._options.heartbeat_interval

    def _heartbeat(self, broker: Broker, now: float) -> None:
        pulse = broker.heartbeat(self._options.lease_name)
        self._heartbeat_due = now + self._interval
        if not pulse.alive:
            logger.warning(
                "The broker had given up this worker's lease: registering anew. What its "
                "processes were running may run twice; of each, one outcome counts."
            )
            self._register(broker)
        self._pass_on(pulse)
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)

    def _pass_on(self, pulse: Pulse) -> None:
        for cancelled in pulse.cancelled:
            if cancelled.terminate:
                self._line.say(Terminate(cancelled.id, cancelled.signal))

    def _leave(self) -> None:
        """Give the lease back, and with it what is left; the supervisor waits for a while."""
        self._stop_beat()
        try:
            broker = self._broker
            if broker is None:
                broker = self._broker = self._app.make_broker()
                broker.open()
            if self._table.lease_epoch:
                broker.unregister(self._options.lease_name)
        except OperationalError as exc:
            logger.error(
                "The lease could not be given back, it ends in %g s: %s", self._options.lease, exc
            )
        self._disconnect()

    # --- periodic tasks -----------------------------------------------------------------------

    def _start_beat(self) -> None:
        """With -B: in a thread with connections of its own, so that nothing that happens to the
        schedule holds up a heartbeat."""
        options = self._options
        if not options.beat or self._beat is not None:
            return
        from celeriac.beat import EmbeddedService

        self._beat = EmbeddedService(
            self._app,
            schedule_filename=options.beat_schedule_filename,
            scheduler_cls=options.beat_scheduler,
        )
        self._beat.start()

    def _stop_beat(self) -> None:
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.stop()

    # --- upkeep -------------------------------------------------------------------------------

    def _upkeep(self) -> Upkeep:
        options = self._options
        return Upkeep(
            max_deliveries=options.max_deliveries,
            dead_expires=options.dead_expires,
            dead_max=options.dead_max,
        )

    def _settle_handed(self, broker: Broker) -> None:
        """Conclude messages that nobody will run any more. They stay ours until that is done."""
        from celeriac.worker.runner import settle_handed

        results = self._opened_results()
        try:
            settle_handed(self._app, self._options, broker, results, self._handed)
        except OperationalError:
            raise
        except Exception:  # the lease must not suffer from one message that cannot be concluded
            self._handed_due = self._clock() + HANDED_AGAIN
            logger.exception(
                "%d message(s) of dead processes could not be settled; trying again in %g s",
                len(self._handed),
                HANDED_AGAIN,
            )
        else:
            self._handed = []

    def _opened_results(self) -> ResultBackend | None:
        if self._results is None:
            results = self._app.make_results()
            if results is not None:
                results.open()
            self._results = results
        return self._results

    def _sweep(self, broker: Broker) -> None:
        """End joins that stay open though their parts have ended."""
        from celeriac.worker.sweeper import Sweeper

        results = self._opened_results()
        if results is None:
            return
        if self._sweeper is None:
            after = self._options.join_sweep or 0.0
            self._sweeper = Sweeper(self._app, self._options.hostname, after)
        try:
            self._sweeper.sweep(broker, results, self._owner)
        except OperationalError:
            raise
        except Exception:  # the lease must not suffer from one join that cannot be ended
            logger.exception("Joins that stay open could not be ended")
