"""The pool solo: everything in one process, for debugging, tests and one task per container.

The runner has the main thread and the agent another one, so a task that never lets go of the
interpreter also stops the heartbeat. Time limits from outside do not exist here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.worker import logs
from celeriac.worker.agent import Agent
from celeriac.worker.bell import Waker
from celeriac.worker.control import Failed, Leave, Line, Registered
from celeriac.worker.options import WorkerOptions
from celeriac.worker.process import (
    EXIT_SHUTDOWN,
    EXIT_TERMINATE,
    run_in_pool_process,
)
from celeriac.worker.slots import SlotTable, Stopping
from celeriac.worker.startup import announce, bucket_count, prepare, set_rate_limits

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.worker")

_JOIN = 10.0


class Solo:
    """One worker in one process; what receivers of the worker signals are given."""

    def __init__(self, app: Celeriac, options: WorkerOptions) -> None:
        self.app = app
        self.options = options
        self.hostname = options.hostname
        self.concurrency = 1
        self.failure = ""
        self.table = SlotTable.create(1, bucket_count(app))
        self._line, theirs = Line.pair()
        self._agent = _SoloAgent(app, options, self.table, theirs)
        self._thread = threading.Thread(target=self._keep_lease, name="celeriac-agent", daemon=True)
        self._before: dict[int, Any] = {}

    def run(self) -> int:
        """Work until told to stop; the exit code."""
        set_rate_limits(self.app, self.options, self.table)
        slot = self.table.slot(0)
        slot.occupy(os.getpid())
        incarnation = slot.next_incarnation()
        self.table.next_agent_incarnation()
        self._take_orders()
        self._thread.start()
        try:
            if not self._registered():
                return 1 if self.failure else 0
            announce(self)
            return self._work(incarnation)
        finally:
            self.table.bell.ring()  # whatever the reason: nobody waits for it any more
            self._line.say(Leave())
            self._thread.join(_JOIN)
            self._line.close()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Begin to end, as SIGTERM does; from any thread."""
        self._obey(signal.SIGTERM, None)

    def _keep_lease(self) -> None:
        """The agent's thread. Without it the worker cannot go on."""
        try:
            self._agent.run()
        except Exception:
            logger.critical("The agent ended by an error: stopping", exc_info=True)
            self.failure = "The worker's agent ended by an error: see the log."
            self.stop()

    def _work(self, incarnation: int) -> int:
        from celeriac.worker.runner import main

        code = run_in_pool_process(
            lambda: main(self.app, self.options, self.table, 0, incarnation, predecessor=None)
        )
        asked = self.table.stopping or code in (EXIT_SHUTDOWN, EXIT_TERMINATE)
        return 1 if self.failure else 0 if asked else code

    def _registered(self) -> bool:
        while not self.table.stopping and self._thread.is_alive():
            self._line.wait(0.5)
            for word in self._line.hear():
                if isinstance(word, Failed):
                    self.failure = word.text
                    return False
                if isinstance(word, Registered):
                    return True
        return False

    def _take_orders(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # as in tests: whoever started it calls stop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._before[number] = signal.signal(number, self._obey)

    def _obey(self, number: int, frame: FrameType | None) -> None:
        """Only words of memory are written here; the bell that rings has the loops see them."""
        grace = self.options.grace
        if self.table.stopping or number == signal.SIGQUIT:
            self.table.stop(Stopping.COLD)
        else:
            deadline = time.monotonic() + grace if grace is not None else 0.0
            self.table.stop(Stopping.WARM, deadline)
        self._agent.stopped_by = signal.Signals(number).name


class _SoloAgent(Agent):
    """The agent as a thread, which also does what a supervisor does elsewhere: it says that the
    worker stops, and ends the process when the time is over."""

    stopped_by = ""
    _told = Stopping.NO

    def run(self) -> int:
        waker = Waker(self._table.bell, self._wake)
        waker.start()
        try:
            return super().run()
        finally:
            waker.stop()

    def _obey(self) -> None:
        super()._obey()
        stopping = self._table.stopping
        if stopping > self._told:
            self._tell(Stopping(stopping))
        deadline = self._table.stop_deadline
        if stopping == Stopping.COLD or (deadline and self._clock() >= deadline):
            logger.warning("What runs goes back to its queue")
            self._leave()
            logging.shutdown()
            logs.stream().flush()
            os._exit(0)

    def _tell(self, mode: Stopping) -> None:
        self._told = mode
        how = "Warm" if mode is Stopping.WARM else "Cold"
        logger.warning("%s shutdown (%s)", how, self.stopped_by)
        signals.worker_shutting_down.send(
            sender=self._options.hostname, sig=self.stopped_by, how=how, exitcode=0
        )

    def _pass_on(self, pulse: Any) -> None:
        for cancelled in pulse.cancelled:
            if cancelled.terminate:
                logger.warning("Cannot terminate %s in the pool solo: it goes on", cancelled.id)


def run_solo(app: Celeriac, options: WorkerOptions) -> int:
    """Run a worker in this process alone until it is told to stop: its exit code."""
    solo = Solo(app, options)
    with prepare(app, options, solo):
        code = solo.run()
        signals.worker_shutdown.send(sender=solo)
    if solo.failure:
        print(solo.failure, file=sys.__stderr__)
    return code
