"""The application whose schedulers are killed. Each run writes itself down, and each scheduler
writes when it stands between sending and recording."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence

from celeriac import Celeriac
from celeriac.beat import SharedScheduler
from celeriac.message import Message
from celeriac.schedules import crontab

app = Celeriac("beaten")
app.conf.update(
    broker_url=os.environ["BEATEN_URL"],
    result_backend=os.environ["BEATEN_BACKEND"],
    beat_schedule={
        "one": {"task": "beaten.note", "schedule": 1.0, "args": ("one",)},
        "two": {"task": "beaten.note", "schedule": 2.0, "args": ("two",)},
        "cron": {"task": "beaten.note", "schedule": crontab("*/1"), "args": ("cron",)},
    },
)


def write(file: str, *words: object) -> None:
    """One line, in one write."""
    path = os.path.join(os.environ["BEATEN_NOTES"], file)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(fd)


@app.task(bind=True, name="beaten.note")
def note(self, entry: str) -> None:
    write("runs", entry, self.request.beat_nominal, time.time(), self.request.id)


class Hesitant(SharedScheduler):
    """Waits a while when its messages are sent and nothing is recorded yet."""

    def publish(self, messages: Sequence[Message]) -> None:
        super().publish(messages)
        write("schedulers", "sent", os.getpid())
        time.sleep(random.choice((0.0, 0.02, 0.1, 0.3)))

    def tick(self, *args: object, **kwargs: object) -> float:
        wait = super().tick()
        write("schedulers", "recorded", os.getpid())
        return wait
