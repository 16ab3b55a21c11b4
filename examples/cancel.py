"""Cancelling: what waits never runs, what runs is stopped, and both are remembered.

Run it with ``python -m examples.cancel``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

import time
from pathlib import Path

from celeriac import Celeriac
from celeriac.exceptions import TaskRevokedError
from examples.worker_process import own_worker, wait_until

app = Celeriac("examples.cancel")


@app.task
def remind(text: str) -> str:
    return text


@app.task
def long_calculation(started: str) -> None:
    Path(started).touch()
    time.sleep(600)


def main() -> None:
    with own_worker("examples.cancel") as folder:
        # It is due in an hour and waits in the database until then, unless it is cancelled.
        reminder = remind.apply_async(("call back",), countdown=3600)
        reminder.revoke()
        try:
            reminder.get(timeout=30)
        except TaskRevokedError as error:
            print(f"waiting task: {reminder.state} ({error})")

        # A running task is stopped only if one says so: its process is ended in the middle.
        started = folder / "started"
        running = long_calculation.delay(str(started))
        wait_until(started.exists)
        running.revoke(terminate=True)
        try:
            running.get(timeout=30)
        except TaskRevokedError as error:
            print(f"running task: {running.state} ({error})")

        # The worker is none the worse for it.
        print(f"next task: {remind.delay('still here').get(timeout=30)}")


if __name__ == "__main__":
    main()
