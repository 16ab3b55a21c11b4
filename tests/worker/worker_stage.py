"""Stand-ins for the runner and the agent, so that the process tree is tested for itself.

Run as a program it is a supervisor over these stand-ins. They do what files in a directory tell
them (``do-<slot>``, ``do-agent``), and write what happens to ``events`` there, a JSON line each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from celeriac import Celeriac
from celeriac.worker import logs
from celeriac.worker.control import Failed, Leave, Line, Registered, Terminate
from celeriac.worker.options import WorkerOptions
from celeriac.worker.process import EXIT_OK, Predecessor
from celeriac.worker.slots import SlotState, SlotTable, Stopping

STAGE = Path(os.environ.get("STAGE", "."))

app = Celeriac("stage", broker="memory://")


def note(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **more})
    fd = os.open(STAGE / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


def order(who: str) -> list[str]:
    """The next thing to do, taken away once read."""
    path = STAGE / f"do-{who}"
    try:
        words = path.read_text().split()
        path.unlink()
    except FileNotFoundError:
        return []
    return words


def runner(
    app: Celeriac,
    options: WorkerOptions,
    table: SlotTable,
    index: int,
    incarnation: int,
    *,
    predecessor: Predecessor | None = None,
) -> int:
    slot = table.slot(index)
    was = msgspec.to_builtins(predecessor) if predecessor is not None else None
    note("runner", slot=index, incarnation=incarnation, predecessor=was, ppid=os.getppid())
    if (STAGE / "broken").exists():
        return 1
    slot.set_state(SlotState.IDLE)
    while not table.stopping:
        words = order(str(index))
        if not words:
            time.sleep(0.01)
            continue
        if words[0] == "exit":
            return int(words[1])
        if words[0] == "run":
            run(slot, *words[1:])
        elif words[0] == "vanish":
            slot.start(words[1], words[1], "stage.task", time.monotonic())
            os._exit(0)
        elif words[0] == "orphan":
            orphan()
    note("stopped", slot=index)
    return EXIT_OK


def run(slot: Any, task_id: str, seconds: str, hard: str = "0") -> None:
    slot.set_state(SlotState.RUNNING)
    slot.start(task_id + "-tag", task_id, "stage.task", time.monotonic(), 0.0, float(hard))
    note("started", task=task_id)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        time.sleep(0.01)
    slot.finish()
    note("finished", task=task_id)
    slot.set_state(SlotState.IDLE)


def orphan() -> None:
    """Leave a process without a parent, which ends a little later."""
    pid = os.fork()
    if not pid:
        if not os.fork():
            time.sleep(0.2)
        os._exit(0)
    os.waitpid(pid, 0)
    note("orphaned")


def agent(app: Celeriac, options: WorkerOptions, table: SlotTable, control_fd: int) -> int:
    line = Line.of(control_fd)
    note("agent", incarnation=table.agent_incarnation, ppid=os.getppid())
    if (STAGE / "no-broker").exists():
        line.say(Failed("The broker is down: start it."))
        return 1
    if not table.lease_epoch:
        table.bump_lease_epoch()
        line.say(Registered())
    stuck = False
    while True:
        if not stuck:
            table.beat(time.monotonic())
        words = order("agent")
        if words and words[0] == "exit":
            return int(words[1])
        if words and words[0] == "terminate":
            line.say(Terminate(words[1], words[2]))
        if words and words[0] == "hang":
            stuck = True
        line.wait(0.02)
        for word in line.hear():
            if isinstance(word, Leave) and not stuck:
                note("left", stopping=Stopping(table.stopping).name)
                return 0
        if line.closed:
            return 1


def main() -> int:
    from celeriac.worker import supervisor

    options = msgspec.json.decode(sys.argv[1], type=WorkerOptions)
    if os.environ.get("STAGE_SILENCE"):
        supervisor.AGENT_SILENCE = float(os.environ["STAGE_SILENCE"])  # type: ignore[misc]
    logs.setup(app, options)
    one = supervisor.Supervisor(
        app, options, runner="worker_stage:runner", agent="worker_stage:agent"
    )
    code = one.run()
    note("ended", code=code, failure=one.failure, restart=one.restart)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
