"""Broadcasts: one call, and every worker runs the task.

It needs a RabbitMQ server, whose URL is in ``CELERIAC_BROKER_URL``. Run it with
``python -m examples.broadcast``; it starts two workers of its own.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from celeriac import Celeriac, Task
from celeriac.routing import Broadcast
from examples.worker_process import WorkerProcess, wait_until

app = Celeriac("examples.broadcast")
app.conf.task_queues = [Broadcast("examples.news")]
app.conf.task_routes = {"examples.broadcast.forget_prices": {"queue": "examples.news"}}


@app.task(bind=True, ignore_result=True)
def forget_prices(self: Task[..., Any], folder: str) -> None:
    """What each worker remembers would be forgotten here; this one only says who was told."""
    (Path(folder) / str(self.request.hostname)).touch()


def main() -> None:
    if (app.conf.broker_url or "").partition("://")[0] not in ("amqp", "amqps", "pyamqp"):
        raise SystemExit(
            "Broadcasts need RabbitMQ: set CELERIAC_BROKER_URL, for example to "
            "amqp://guest:guest@localhost//."
        )
    with tempfile.TemporaryDirectory(prefix="celeriac-example-") as name:
        folder, log = Path(name), Path(name) / "worker.log"
        with contextlib.ExitStack() as stack:
            for host in ("east", "west"):
                stack.enter_context(
                    WorkerProcess(
                        "examples.broadcast",
                        concurrency=2,
                        log=log,
                        options=["-n", f"{host}@example", "-l", "info"],
                    )
                )
            # A broadcast is for the workers that are there.
            wait_until(lambda: log.read_text().count(" ready") == 2)
            forget_prices.delay(name)
            wait_until(lambda: len(list(folder.glob("*@example"))) == 2)
            for told in sorted(folder.glob("*@example")):
                print(f"told: {told.name}")


if __name__ == "__main__":
    main()
