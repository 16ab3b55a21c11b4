"""A runner: claim, run, settle, in the main thread of a process, alone with the broker. What all
pools share; each pool's own way to run tasks is in pools/."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from celeriac import states
from celeriac.contracts import Broker, ResultBackend
from celeriac.exceptions import LeaseLost, OperationalError
from celeriac.message import Delivery, Owner, Settlement, Tag, Verdict
from celeriac.settling import Settling
from celeriac.worker.bell import Waker
from celeriac.worker.executor import Executor, Job
from celeriac.worker.limits import RateLimits
from celeriac.worker.pace import Pace
from celeriac.worker.process import (
    EXIT_MEMORY,
    EXIT_OK,
    EXIT_RECYCLED,
    Predecessor,
)
from celeriac.worker.settler import Settler
from celeriac.worker.slots import SlotState, SlotTable, Stopping

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.worker.options import WorkerOptions

logger = logging.getLogger("celeriac.worker.runner")

# One wait for messages (seconds). An idle runner that is to stop is woken: see bell.py.
WAIT = 2.0
MAX_BYTES = 16 * 1024 * 1024
# How long pools that run several tasks in a process let a suspect run alone, and wait for that.
ALONE = 10.0


def main(
    app: Celeriac,
    options: WorkerOptions,
    table: SlotTable,
    slot: int,
    incarnation: int,
    *,
    predecessor: Predecessor | None = None,
) -> int:
    """The life of one runner process; its exit code."""
    from celeriac.worker import pools

    return pools.runner_class(options.pool)(
        app, options, table, slot, incarnation, predecessor
    ).run()


class Link:
    """A runner's connections: thrown away and built anew after an error."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.broker: Broker = app.make_broker()
        self.results: ResultBackend | None = app.make_results()

    def open(self) -> None:
        self.broker.open()
        if self.results is not None:
            self.results.open()

    def close(self) -> None:
        self.broker.close()
        if self.results is not None:
            self.results.close()


class BaseRunner:
    """What all pools share: connections, ownership, taking over from a predecessor."""

    def __init__(
        self,
        app: Celeriac,
        options: WorkerOptions,
        table: SlotTable,
        slot: int,
        incarnation: int,
        predecessor: Predecessor | None,
    ) -> None:
        self.app = app
        self.options = options
        self.table = table
        self.slot = table.slot(slot)
        self.predecessor = predecessor
        self.owner = Owner(options.lease_name, slot, incarnation)
        self.epoch = table.lease_epoch
        self.link = Link(app)
        limits = RateLimits(table) if options.rate_limits and table.buckets else None
        self.executor = Executor(app, options, self.link.broker, self.link.results, limits)
        settling = Settling(
            self.link.broker,
            self.link.results,
            self.executor.joiner.complete,
            self.executor.follow,
        )
        self.settler = Settler(settling, self.hurried)
        self.pace = Pace()
        self.lock = threading.Lock()
        self.pending: deque[Delivery] = deque()
        self.in_hand: set[Tag] = set()  # what runs beside the claiming, in pools that do so
        self.waker = Waker(table.bell, self._wake)
        self._tend: Callable[[], None] | None = getattr(self.link.broker, "tend", None)
        self.unsure = False  # the answer to a claim was lost: more may be ours than we know
        self.ran = 0

    # --- life ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until told to stop; the exit code."""
        self.waker.start()
        self._connect()
        if self.predecessor is not None:
            self._take_over()
        self.slot.set_state(SlotState.IDLE)
        try:
            code = self.work()
            self.settler.flush()
            return code
        finally:
            self.waker.stop()
            self.slot.set_state(SlotState.DRAINING)
            self.link.close()

    def _wake(self) -> None:
        """Let a claim that waits return."""
        self.link.broker.wake()

    def work(self) -> int:
        raise NotImplementedError

    @property
    def stopping(self) -> bool:
        return self.table.stopping != Stopping.NO

    def hurried(self) -> bool:
        """Is it time to give up what cannot be stored? Near the end of a shutdown."""
        if self.table.stopping == Stopping.COLD:
            return True
        deadline = self.table.stop_deadline
        return self.stopping and deadline > 0 and time.monotonic() > deadline - 1.0

    def _connect(self) -> None:
        """Open the connections, trying again with back-off while the broker is away."""
        delay = 0.1
        while True:
            try:
                self.link.open()
                return
            except OperationalError as exc:
                if self.stopping:
                    return
                logger.error("Cannot connect, trying again: %s", exc)
                self.waker.rung.wait(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 5.0)

    def _take_over(self) -> None:
        """Recover and settle what the processes held that were in this slot before."""
        assert self.predecessor is not None
        for dead in self.predecessor.chain():
            gone = Owner(self.owner.lease, self.owner.slot, dead.incarnation)
            running = {lost.tag for lost in dead.running}
            self._tell_ended(dead)
            deliveries = self.link.broker.recover(gone, self.owner, running)
            settlements = [
                self._after(dead, delivery, delivery.tag in running) for delivery in deliveries
            ]
            now = time.monotonic()
            for settlement in settlements:
                self.settler.add(settlement, now)
            self.settler.flush()

    def _tell_ended(self, dead: Predecessor) -> None:
        """A broker that hands out again by itself what the dead process held (the optional power
        TellsEnds) must know if the process was ended because of it."""
        tell = getattr(self.link.broker, "ended", None)
        if tell is not None and dead.running and dead.why in ("time_limit", "terminated"):
            tell([lost.task_id for lost in dead.running], dead.why, dead.limit)

    def _after(self, dead: Predecessor, delivery: Delivery, ran: bool) -> Settlement:
        """The settlement of one delivery of a dead process: it runs again, unless the process
        was ended because of it, or it has killed too many."""
        if ran and dead.why in ("time_limit", "terminated"):
            return self.executor.ended(delivery, dead.why, dead.limit)
        if ran or delivery.begun:
            admitted = self.executor.admit(delivery)
            if isinstance(admitted, Settlement):
                return admitted
        return Settlement(delivery=delivery, verdict=Verdict.RELEASE)

    # --- claiming -----------------------------------------------------------------------------

    def queues(self) -> Sequence[str]:
        """The queues in the order of this claim: as given, or by weight at random."""
        weights = self.options.queue_weights
        queues = self.options.queues
        if not weights:
            return queues
        return sorted(
            queues, key=lambda queue: random.random() ** (1.0 / weights.get(queue, 1)), reverse=True
        )

    def claim(self, limit: int, wait: float = WAIT) -> list[Delivery]:
        """Up to ``limit`` deliveries; none while the broker is away."""
        if self.table.lease_epoch != self.epoch:
            self._new_owner()
        self.slot.set_state(SlotState.CLAIMING)
        try:
            if self.unsure or self.settler.unsure:
                self._give_back_unknown()
            deliveries = self.link.broker.claim(self.owner, self.queues(), limit, MAX_BYTES, wait)
        except LeaseLost:
            self._await_lease()
            return []
        except OperationalError as exc:
            logger.error("Cannot claim, trying again: %s", exc)
            self.unsure = True
            self._reconnect()
            return []
        finally:
            self.slot.set_state(SlotState.IDLE)
        if deliveries:
            self.slot.count(claimed=len(deliveries))
        return deliveries

    def tend(self) -> None:
        """Let the broker do what it must while tasks run and nothing is claimed, if it has the
        optional power Tended."""
        if self._tend is not None:
            try:
                self._tend()
            except OperationalError as exc:
                logger.warning("Cannot tell the broker that tasks still run, trying again: %s", exc)

    def _give_back_unknown(self) -> None:
        """What a claim took whose answer never came. Known is at least what was before we ask."""
        known = set(self.in_hand)
        held = self.link.broker.recover(self.owner, self.owner, ())
        self.release([delivery for delivery in held if delivery.tag not in known])
        self.settler.flush()
        self.unsure = self.settler.unsure = False

    def _new_owner(self) -> None:
        """The lease was lost and taken anew: what this process held is not its own any more."""
        self.epoch = self.table.lease_epoch
        self.unsure = False
        self.owner = Owner(self.owner.lease, self.owner.slot, self.slot.next_incarnation())
        logger.warning("The lease was lost for a while: going on as %s.", self.owner)

    def _await_lease(self) -> None:
        """Wait a moment for the agent to register the lease again."""
        seen = self.table.lease_epoch
        until = time.monotonic() + WAIT
        while self.table.lease_epoch == seen and time.monotonic() < until and not self.stopping:
            self.waker.rung.wait(0.02)

    def _reconnect(self) -> None:
        self.waker.rung.wait(random.uniform(0.1, 0.3))
        self.link.close()
        self._connect()

    def suspect(self, delivery: Delivery) -> bool:
        """Would one more lost process bury it? Then nothing that is innocent should run beside
        it: it may be what kills them."""
        return 0 < delivery.lost >= self.options.max_deliveries - 1

    def begin(self, job: Job) -> bool:
        """The last step before the call; False if the task is not to be run here and now."""
        try:
            return self.executor.begin(job)
        except OperationalError as exc:
            logger.error("Cannot start %s, giving it back: %s", job.request, exc)
            self.release([job.delivery])
            time.sleep(random.uniform(0.1, 0.3))
            return False

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what was not started."""
        now = time.monotonic()
        for delivery in deliveries:
            self.settler.add(Settlement(delivery=delivery, verdict=Verdict.RELEASE), now)

    # --- counting and recycling ---------------------------------------------------------------

    def count(self, settlement: Settlement) -> None:
        """Add one that was run to the slot's counters."""
        state = settlement.records[0].state if settlement.records else states.SUCCESS
        if state == states.FAILURE:
            self.slot.count(failed=1)
        elif state == states.RETRY:
            self.slot.count(retried=1)
        else:
            self.slot.count(done=1)

    def within_life(self, limit: int) -> int:
        """``limit``, or how many tasks this process may still run if that is less."""
        most = self.options.max_tasks_per_child
        return min(limit, max(1, most - self.ran)) if most else limit

    def worn_out(self) -> int:
        """The exit code with which this process is to be replaced, or the worker stopped; or 0."""
        if self.executor.order:
            return self.executor.order
        options = self.options
        if options.max_tasks_per_child and self.ran >= options.max_tasks_per_child:
            return EXIT_RECYCLED
        if options.max_memory_per_child:
            rss = _resident()
            self.slot.set_rss(rss)
            if rss > options.max_memory_per_child:
                logger.warning(
                    "This process uses %d KiB, more than %d: it is replaced.",
                    rss,
                    options.max_memory_per_child,
                )
                return EXIT_MEMORY
        return EXIT_OK


def settle_handed(
    app: Celeriac,
    options: WorkerOptions,
    broker: Broker,
    results: ResultBackend | None,
    deliveries: Sequence[Delivery],
) -> None:
    """Settle what ``maintain`` handed over: messages that killed too many processes, or were
    begun at most once by one that died."""
    executor = Executor(app, options, broker, results)
    settlements = []
    for delivery in deliveries:
        admitted = executor.admit(delivery)
        if isinstance(admitted, Job):
            admitted = Settlement(delivery=delivery, verdict=Verdict.RELEASE)
        settlements.append(admitted)
    Settling(broker, results, executor.joiner.complete, executor.follow).settle(settlements)


def _resident() -> int:
    """KiB of memory that this process uses now (Linux), or at most has used (elsewhere)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * 4
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
