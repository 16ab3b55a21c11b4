"""Periodic tasks: two workers carry the schedule, and every run is sent once.

Run it with ``python -m examples.schedule``; it starts its own workers on a temporary database.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from celeriac import Celeriac
from celeriac.beat.operating import Desk
from celeriac.schedules import crontab
from examples.worker_process import WorkerProcess, own_worker

SCHEDULE = {
    "often": {"task": "examples.schedule.note", "schedule": 0.5, "args": ("tick",)},
    "mornings": {
        "task": "examples.schedule.note",
        "schedule": crontab(minute=30, hour=7, day_of_week="mon-fri"),
        "args": ("good morning",),
    },
}
app = Celeriac("examples.schedule", beat_schedule=SCHEDULE)
NOTES = "notes"


@app.task(bind=True)
def note(self: Any, what: str) -> None:
    """Write down which run this is: the time that the schedule meant, not that of sending."""
    with Path(app.broker_url.removeprefix("sqlite:///")).with_name(NOTES).open("a") as file:
        file.write(f"{what} {self.request.beat_nominal}\n")


def runs(folder: Path) -> list[datetime]:
    """The nominal times of the ticks so far."""
    path = folder / NOTES
    lines = path.read_text().splitlines() if path.exists() else []
    return [datetime.fromisoformat(line.split()[1]) for line in lines if line.startswith("tick")]


def wait_for(folder: Path, count: int) -> list[datetime]:
    until = time.monotonic() + 30.0
    while len(runs(folder)) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"there are only {len(runs(folder))} of {count} runs")
        time.sleep(0.02)
    return runs(folder)


def main() -> None:
    # -B: the worker sends periodic tasks, too. However many do, each run is sent once.
    with own_worker("examples.schedule", options=["-B"]) as folder:
        second = ["-B", "-n", "second@%h", "-l", "info"]
        log = folder / "second.log"
        with WorkerProcess("examples.schedule", concurrency=2, log=log, options=second):
            times = sorted(wait_for(folder, 8))
        gaps = {(b - a).total_seconds() for a, b in pairwise(times)}
        print(f"runs: {len(set(times))} of {len(times)} different, {sorted(gaps)} s apart")

        # What the commands celeriac schedules list, pause and run do.
        with Desk(app) as desk:
            desk.pause("often")
            entries = {entry.name: entry for entry in desk.entries()}
            print(f"paused: {entries['often'].paused}, {entries['mornings'].when!r} is not")

    schedule = SCHEDULE["mornings"]["schedule"]
    assert isinstance(schedule, crontab)
    friday = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    print("coming:", *(f"{moment:%a %H:%M}" for moment in schedule.next(3, after=friday)))


if __name__ == "__main__":
    main()
