"""The worker's first process: it starts the others, watches them, and ends them.

It holds no connection to the broker and starts no thread, so it can fork safely and never hangs.
"""

from __future__ import annotations

import enum
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from celeriac import signals
from celeriac.worker import process
from celeriac.worker.agent_process import AgentProcess
from celeriac.worker.control import Failed, Registered, Stalled, Terminate, Word
from celeriac.worker.crew import Crew, describe
from celeriac.worker.options import WorkerOptions
from celeriac.worker.orders import Orders
from celeriac.worker.process import (
    AGENT,
    EXIT_SHUTDOWN,
    EXIT_TERMINATE,
    RUNNER,
    ChildSpec,
    Predecessor,
)
from celeriac.worker.slots import Slot, SlotTable, Stopping
from celeriac.worker.startup import announce, bucket_count, load, prepare, set_rate_limits
from celeriac.worker.warden import Warden

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.worker")

TICK: Final = 0.1  # while something is about to happen
ECHO: Final = 0.5  # some programs send SIGTERM to a process and then to its group: one order
IDLE_TICK: Final = 1.0
AGENT_SILENCE: Final = 30.0  # an agent that was not in its loop for so long is stuck
LEAVE_PATIENCE: Final = 10.0  # how long giving the lease back may take


class Phase(enum.Enum):
    STARTING = "starting"  # the agent takes the lease
    RUNNING = "running"
    WARM = "warm"  # what runs is finished
    KILLING = "killing"
    LEAVING = "leaving"  # the agent gives the lease back
    ENDED = "ended"


class Supervisor:
    """One worker. ``app``, ``hostname``, ``concurrency`` and ``options`` are what receivers of
    the worker signals look at."""

    def __init__(
        self,
        app: Celeriac,
        options: WorkerOptions,
        *,
        runner: str = RUNNER,
        agent: str = AGENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.options = options
        self.hostname = options.hostname
        self.concurrency = options.concurrency
        self.restart = False
        self.exit_code = 0
        self.failure = ""
        self._entries = {"runner": runner, "agent": agent}
        self._clock = clock
        self.phase = Phase.STARTING
        self.table = SlotTable.create(options.concurrency, bucket_count(app))
        self._lifeline = os.pipe()
        self._orders = Orders()
        self._crew = Crew(self.table, self._start_runner, processes=options.powers.processes)
        self._warden = Warden(self._crew, options.powers, clock=clock)
        self._agent = AgentProcess(
            self.table, self._start_agent, max(AGENT_SILENCE, 3 * options.heartbeat_interval)
        )
        self._leave_by = 0.0
        self._asked_at = 0.0
        self._said_spawn = ""

    def run(self) -> int:
        """Work until told to stop; the exit code of the worker."""
        set_rate_limits(self.app, self.options, self.table)
        process.preload(self.options.pool)
        gc.collect()
        gc.freeze()
        self._orders.take()
        try:
            while self.phase is not Phase.ENDED:
                self._step()
        finally:
            self._kill_all()
            self._orders.leave()
        return self.exit_code

    # --- one turn -----------------------------------------------------------------------------

    def _step(self) -> None:
        now = self._clock()
        self._agent.tick(now)
        nearest = self._warden.tick(now)
        if self.phase in (Phase.RUNNING, Phase.WARM):
            self._crew.tick(now)
        self._advance(now)
        if self.phase is Phase.ENDED:
            return
        self._wait(now, nearest)
        for number in self._orders.given():
            self._obey(number)
        for word in self._agent.hear():
            self._listen(word)
        self._reap()

    def _wait(self, now: float, nearest: float | None) -> None:
        hurry = self.phase is not Phase.RUNNING or bool(self._crew.vacancies) or not self._agent.pid
        timeout = TICK if hurry else IDLE_TICK
        if nearest is not None and nearest - now < IDLE_TICK:  # others may be as short
            timeout = max(min(nearest - now, TICK), 0.001)
        self._orders.wait(timeout, self._agent.line)

    def _advance(self, now: float) -> None:
        """From one phase to the next."""
        if self.phase is Phase.WARM:
            left = len(self._crew.members)
            if not left and not self._crew.vacancies:
                self._leave(now)
            elif self.table.stop_deadline and now >= self.table.stop_deadline:
                logger.warning(
                    "The grace period of %g s is over: killing %d process(es); "
                    "what they were running goes back to its queue",
                    self.options.grace,
                    left,
                )
                self._kill_runners()
        if self.phase is Phase.KILLING and not self._crew.members:
            self._leave(now)
        if self.phase is Phase.LEAVING and now >= self._leave_by:
            logger.warning(
                "The broker did not take the lease back within %g s: "
                "what is left of this worker is redelivered after %g s",
                LEAVE_PATIENCE,
                self.options.lease,
            )
            self.phase = Phase.ENDED

    def _leave(self, now: float) -> None:
        self.phase = Phase.LEAVING
        self._crew.close()
        self._leave_by = now + LEAVE_PATIENCE
        self._agent.dismiss()

    # --- orders -------------------------------------------------------------------------------

    def _obey(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._orders.show_stacks([*self._crew.members, self._agent.pid])
        elif number == signal.SIGHUP and not self._orders.on_terminal:
            self.restart = True
            self.stop(number)
        elif number == signal.SIGQUIT or (
            number in (signal.SIGTERM, signal.SIGINT) and self.table.stopping
        ):
            echo = self._clock() - self._asked_at < ECHO
            if echo and number == signal.SIGTERM and self.phase is Phase.WARM:
                return
            self.stop(number, Stopping.COLD)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.stop(number)

    def stop(self, number: int, mode: Stopping = Stopping.WARM) -> None:
        """Begin to end; ``number`` is the signal that asked for it."""
        if self.phase is Phase.LEAVING and mode is Stopping.COLD:
            logger.warning("Ending without waiting for the broker")
            self._leave_by = min(self._leave_by, self._clock() + 1.0)
        if self.table.stopping >= mode or self.phase is Phase.LEAVING:
            return
        self._asked_at = self._clock()
        if self.phase is Phase.STARTING:
            self.table.stop(mode)
            self._leave(self._clock())
            return
        grace = self.options.grace
        warm = mode is Stopping.WARM
        deadline = self._clock() + grace if warm and grace is not None else 0.0
        self.table.stop(mode, deadline)
        name = signal.Signals(number).name
        signals.worker_shutting_down.send(
            sender=self.hostname, sig=name, how="Warm" if warm else "Cold", exitcode=0
        )
        if warm:
            within = "until all is done" if grace is None else f"for at most {grace:g} s"
            again = "" if self.restart else "; the same signal again ends it at once"
            logger.warning("Warm shutdown (%s): finishing what runs, %s%s", name, within, again)
            self.phase = Phase.WARM
            self._crew.wind_down()
        else:
            logger.warning("Cold shutdown (%s): what runs goes back to its queue", name)
            self._kill_runners()

    def _kill_runners(self) -> None:
        self.table.stop(Stopping.COLD)
        self.phase = Phase.KILLING
        self._crew.kill()

    # --- words of the agent -------------------------------------------------------------------

    def _agent_ended(self, status: int, now: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        for word in self._agent.ended():
            self._listen(word)
        if self.phase is Phase.STARTING:
            self.exit_code = 1
            self.failure = self.failure or f"The worker's agent {describe(code)}: see the log."
            self.phase = Phase.ENDED
        elif self.phase is Phase.LEAVING and code == 0:
            self.phase = Phase.ENDED
        else:
            logger.error("The agent %s: replacing it", describe(code))
            self._agent.replace(now)

    def _listen(self, word: Word) -> None:
        if isinstance(word, Registered):
            if self.phase is Phase.STARTING:
                self.phase = Phase.RUNNING
                self._crew.tick(self._clock())
                announce(self)
        elif isinstance(word, Failed):
            self.failure = word.text
        elif isinstance(word, Terminate):
            self._warden.request(word.task_id, word.signal, self._clock())
        elif isinstance(word, Stalled) and self.phase is Phase.RUNNING:
            self._warden.restart_idle(word.text)

    # --- processes ----------------------------------------------------------------------------

    def _start_runner(self, slot: Slot, incarnation: int, predecessor: Predecessor | None) -> int:
        spec = self._spec("runner")
        spec.slot = slot.index
        spec.incarnation = incarnation
        spec.predecessor = predecessor
        return self._start_process(spec, [])

    def _start_agent(self, control_fd: int, close: list[int]) -> int:
        spec = self._spec("agent")
        spec.incarnation = self.table.next_agent_incarnation()
        spec.control_fd = control_fd
        return self._start_process(spec, close)

    def _spec(self, role: str) -> ChildSpec:
        return ChildSpec(
            entry=self._entries[role],
            role=role,
            options=self.options,
            table_fd=self.table.fd,
            bell_fd=self.table.bell.fd,
            lifeline_fd=self._lifeline[0],
            supervisor_pid=os.getpid(),
        )

    def _start_process(self, spec: ChildSpec, close: list[int]) -> int:
        method = self.options.start_method
        reason = process.unsafe_to_fork() if method == "fork" else ""
        if reason and reason != self._said_spawn:
            self._said_spawn = reason
            logger.warning(
                "Processes are spawned, not forked, because %s: they take longer to start and "
                "more memory. Start threads in worker_process_init, not when imported.",
                reason,
            )
        if reason or method != "fork":
            method = "spawn"
        signals.worker_before_create_process.send(sender=self)
        close = [*close, self._lifeline[1], *self._orders.filenos()]
        if self._agent.line is not None:
            close.append(self._agent.line.fileno())
        return process.start_child(spec, self.app, self.table, method=method, close=close)

    def _reap(self) -> None:
        """Take notice of the children that ended, at once."""
        now = self._clock()
        for pid, status in process.ended_children([*self._crew.members, self._agent.pid]):
            if pid == self._agent.pid:
                self._agent_ended(status, now)
                continue
            code = self._crew.ended(pid, status, now, replace=self.phase is Phase.RUNNING)
            if code == EXIT_SHUTDOWN:
                self.stop(signal.SIGTERM)
            elif code == EXIT_TERMINATE:
                self.stop(signal.SIGTERM, Stopping.COLD)
        if self.phase in (Phase.RUNNING, Phase.WARM):
            self._crew.tick(now)

    def _kill_all(self) -> None:
        """After an error of our own: nothing may be left behind."""
        for pid in [*self._crew.members, self._agent.pid]:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def run_worker(app: Celeriac, options: WorkerOptions, *, directory: str | None = None) -> int:
    """Run a worker in this process until it is told to stop: its exit code. What keeps it from
    starting is said on the standard error stream. Does not return after SIGHUP: the program is
    started anew, in ``directory`` if the working directory has been changed since it began."""
    from celeriac.worker.solo import run_solo

    load(app)
    if options.pool == "solo":
        return run_solo(app, options)
    supervisor = Supervisor(app, options)
    with prepare(app, options, supervisor):
        code = supervisor.run()
        signals.worker_shutdown.send(sender=supervisor)
    if supervisor.failure:
        print(supervisor.failure, file=sys.__stderr__)
    if supervisor.restart and code == 0:
        logger.warning("Restarting")
        logging.shutdown()
        if directory is not None:
            os.chdir(directory)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return code
