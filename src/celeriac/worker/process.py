"""How a process of the worker is made and what it does before its own work begins.

Forked, where that is safe: the supervisor has one thread, and what it imported is shared. Spawned
otherwise: a new interpreter that is given the same ``ChildSpec`` as JSON. Either way
``child_main`` follows, which never lets the process outlive the supervisor.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from celeriac.message import Tag
from celeriac.worker import pools
from celeriac.worker.options import WorkerOptions
from celeriac.worker.slots import SlotTable

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.worker")

# Exit codes by which a runner says that its end is no loss. It must hold nothing then.
EXIT_OK: Final = 0
EXIT_RECYCLED: Final = 81  # max_tasks_per_child
EXIT_MEMORY: Final = 82  # max_memory_per_child
EXIT_SHUTDOWN: Final = 83  # a task raised WorkerShutdown: the worker is to stop, warm
EXIT_TERMINATE: Final = 84  # a task raised WorkerTerminate: the worker is to stop at once
EXIT_ORPHAN: Final = 85  # the supervisor was gone before the process had begun

RUNNER: Final = "celeriac.worker.runner:main"
AGENT: Final = "celeriac.worker.agent:main"
AGENT_SLOT: Final = -1
"""The slot number of the agent as an owner of deliveries."""

_ORDERS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1}
_PR_SET_PDEATHSIG = 1


class Lost(Struct, frozen=True, kw_only=True):
    """A message that a process was running when it ended."""

    tag: Tag
    task_id: str
    name: str


class Predecessor(Struct, frozen=True, kw_only=True):
    """The process that was in the slot before, whose deliveries its successor recovers.

    ``why``: ``lost`` (``detail`` says by which signal or exit code), ``time_limit`` (``limit``
    seconds), ``terminated`` (``signal`` is a name), ``recycled``, ``memory``. ``running`` is what
    it ran: one message, or several where the pool runs several tasks in a process.
    ``earlier``: its own predecessors, if it died before it had settled what they held.
    """

    incarnation: int
    why: str
    detail: str = ""
    limit: float = 0.0
    signal: str = ""
    running: tuple[Lost, ...] = ()
    earlier: tuple[Predecessor, ...] = ()

    @property
    def tag(self) -> Tag | None:
        return self.running[0].tag if self.running else None

    @property
    def task_id(self) -> str:
        return self.running[0].task_id if self.running else ""

    def chain(self) -> list[Predecessor]:
        """All of them, the oldest first: recover in this order."""
        return [*(one for before in self.earlier for one in before.chain()), self]


class ChildSpec(Struct, kw_only=True):
    """Everything that a process must know. ``entry`` is ``module:function``."""

    entry: str
    role: str  # "runner" or "agent"
    options: WorkerOptions
    table_fd: int
    bell_fd: int
    lifeline_fd: int  # closed by the kernel when the supervisor dies
    supervisor_pid: int
    slot: int = 0
    incarnation: int = 0
    predecessor: Predecessor | None = None
    control_fd: int = -1
    path: list[str] = []

    @property
    def fds(self) -> tuple[int, ...]:
        """What it inherits; -1 for none."""
        return self.table_fd, self.bell_fd, self.lifeline_fd, self.control_fd

    @property
    def name(self) -> str:
        """As in log records."""
        return "Agent" if self.role == "agent" else f"Runner-{self.slot + 1}"


def start_child(
    spec: ChildSpec,
    app: Celeriac,
    table: SlotTable,
    *,
    method: str = "fork",
    close: Iterable[int] = (),
) -> int:
    """Start the process; its pid. ``close``: what a forked one must not keep open."""
    if method == "fork":
        return _fork(spec, app, table, close)
    return _spawn(spec)


def preload(pool: str) -> None:
    """Import once, in the supervisor, what every forked process needs."""
    _libc()
    for entry in (AGENT, RUNNER):
        importlib.import_module(entry.partition(":")[0])
    pools.runner_class(pool)


def ended_children(pids: Iterable[int]) -> list[tuple[int, int]]:
    """The children among ``pids`` that have ended, with their wait status. As process 1, the
    orphans of the whole container are buried, too."""
    ended: list[tuple[int, int]] = []
    try:
        while os.getpid() == 1:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return ended
            ended.append((pid, status))
    except ChildProcessError:
        return ended
    for known in pids:
        if known:
            pid, status = os.waitpid(known, os.WNOHANG)
            if pid:
                ended.append((pid, status))
    return ended


def unsafe_to_fork() -> str:
    """Why a fork of this process could hang, or an empty text."""
    others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    return f"threads are running ({', '.join(sorted(others))})" if others else ""


def _fork(spec: ChildSpec, app: Celeriac, table: SlotTable, close: Iterable[int]) -> int:
    # Until the child has its own handlers, a signal would run those of the supervisor.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid:
            return pid
    finally:
        if os.getpid() == spec.supervisor_pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        take_no_orders()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in close:
            os.close(fd)
        table.bell.disown()
        code = child_main(spec, app, table)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        logger.critical("%s ended by an error", spec.name, exc_info=True)
    finally:
        _flush()
        os._exit(code)


def _spawn(spec: ChildSpec) -> int:
    spec.path = sys.path
    inherited = [fd for fd in spec.fds if fd >= 0]
    for fd in inherited:
        os.set_inheritable(fd, True)
    try:
        text = msgspec.json.encode(spec).decode()
        argv = [sys.executable, "-m", "celeriac.worker.process", text]
        # Until it has handlers of its own, a signal would end it.
        return os.posix_spawn(sys.executable, argv, os.environ, setsigmask=_ORDERS)
    finally:
        for fd in inherited:
            os.set_inheritable(fd, False)


def end_spawned(text: str) -> None:
    """All that a spawned process does. Like a forked one it ends without waiting for threads."""
    code = 1
    try:
        code = spawned_main(text)
    except BaseException:
        logger.critical("A process of the worker ended by an error", exc_info=True)
    finally:
        _flush()
        os._exit(code)


def spawned_main(text: str) -> int:
    """What a spawned process runs; its exit code."""
    spec = msgspec.json.decode(text, type=ChildSpec)
    take_no_orders()
    sys.path[:] = spec.path
    from celeriac.app import find_app

    app = find_app(spec.options.app)
    app.import_modules()
    app.finalize()
    return child_main(spec, app, SlotTable.attach(spec.table_fd, spec.bell_fd))


def child_main(spec: ChildSpec, app: Celeriac, table: SlotTable) -> int:
    """Set the process up, run its role, and return its exit code."""
    _die_with_parent(spec)
    for fd in spec.fds:
        if fd >= 0:
            os.set_inheritable(fd, False)  # not for what a task starts
    _no_stdin()
    from celeriac.worker import logs

    index = spec.slot + 1 if spec.role == "runner" else 0
    stream = logs.setup_child(app, spec.options, spec.name, index)
    faulthandler.register(signal.SIGUSR1, file=stream, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)
    set_title(f"{spec.options.hostname}: {spec.name}")
    main = _entry(spec.entry)
    if spec.role == "agent":
        return int(main(app, spec.options, table, spec.control_fd))
    return run_in_pool_process(
        lambda: main(
            app, spec.options, table, spec.slot, spec.incarnation, predecessor=spec.predecessor
        )
    )


def run_in_pool_process(main: Callable[[], int]) -> int:
    """Run a runner between the signals that applications set up their connections with."""
    from celeriac import signals

    signals.worker_process_init.send(sender=None)
    code = 1
    try:
        code = int(main())
    finally:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=code)
    return code


def take_no_orders() -> None:
    """Leave the signals that stop a worker to the supervisor, though a terminal or a service
    manager sends them to every process. Not SIG_IGN, which programs that tasks start would
    inherit; processes that tasks fork get the default back when the first such signal comes."""
    mine = os.getpid()

    def shrug(number: int, frame: FrameType | None) -> None:
        if os.getpid() != mine:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in _ORDERS - {signal.SIGUSR1}:
        signal.signal(number, shrug)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def watch_parent(fd: int) -> threading.Thread:
    """Kill this process when the supervisor, which holds the other end of the pipe, is gone. For
    systems without a parent-death signal, and for the agent, whose lease must lapse."""

    def watch() -> None:
        while os.read(fd, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    thread = threading.Thread(target=watch, name="celeriac-lifeline", daemon=True)
    thread.start()
    return thread


def set_title(title: str) -> None:
    """Name the process in ``ps``, if the optional package setproctitle is there."""
    try:
        setproctitle = importlib.import_module("setproctitle")
    except ImportError:
        return
    setproctitle.setproctitle(f"celeriac {title}")


def _die_with_parent(spec: ChildSpec) -> None:
    libc = _libc()
    told = libc is not None and libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if spec.role == "agent" or not told:
        watch_parent(spec.lifeline_fd)
    if os.getppid() != spec.supervisor_pid:  # it died before we could ask to be told
        os._exit(EXIT_ORPHAN)


@functools.cache
def _libc() -> Any:
    """The C library where it has a parent-death signal (Linux), else None."""
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _no_stdin() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _entry(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or a reader that is gone: there is nobody left to tell


if __name__ == "__main__":
    from celeriac.worker.process import end_spawned  # not this copy of the module, __main__

    end_spawned(sys.argv[1])
