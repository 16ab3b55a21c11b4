"""Programs that fork after they have used the queue: gunicorn's master, and one of our own."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from celeriac import Celeriac

client = Celeriac("bombed", broker=os.environ["BOMBED_URL"])

PATIENCE = 30.0


def ask(number: int) -> tuple[str, int]:
    """One task sent and waited for; its id and result."""
    result = client.send_task("bombed.weigh", ("x" * number,))
    return result.id, result.get(timeout=PATIENCE)


def application(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """What gunicorn serves: ``/<n>`` asks a worker for the length of a text of n letters."""
    number = int(environ["PATH_INFO"].strip("/"))
    task_id, answer = ask(number)
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "id": task_id, "answer": answer}).encode()]


def busy(stop: threading.Event, sent: list[str], wrong: list[str]) -> None:
    """What a thread does before, while and after its process forks."""
    number = 0
    while not stop.is_set():
        number = (number + 1) % 100
        task_id, answer = ask(number)
        sent.append(task_id)
        if answer != number:
            wrong.append(f"{answer} for {number}")


def child(count: int) -> int:
    """What each forked process does, in threads of its own; the exit code."""
    wrong: list[str] = []
    sent: list[str] = []
    stop = threading.Event()
    threads = [threading.Thread(target=busy, args=(stop, sent, wrong)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE
    while len(sent) < count and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    report(sent)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong or len(sent) < count else 0


def report(sent: list[str]) -> None:
    line = json.dumps({"pid": os.getpid(), "sent": sent})
    fd = os.open(os.environ["FORK_REPORT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


def main(children: int, count: int) -> int:
    stop = threading.Event()
    sent: list[str] = []
    wrong: list[str] = []
    threads = [threading.Thread(target=busy, args=(stop, sent, wrong)) for _ in range(3)]
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(children):
        before = len(sent)
        until = time.monotonic() + PATIENCE
        while len(sent) < before + 5 and time.monotonic() < until:
            time.sleep(0.001)
        pid = os.fork()
        if not pid:
            os._exit(child(count))
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    report(sent)
    print(codes, wrong, file=sys.stderr)
    return 1 if any(codes) or wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
else:
    ask(1)  # gunicorn's master, with --preload: before it forks
