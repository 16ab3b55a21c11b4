"""The run itself: start everything, hand out the work, watch, stop everything, count."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celeriac.beat.operating import Desk
from examples.backoffice import count, data
from examples.backoffice.attempts import Attempts
from examples.backoffice.kills import Killer
from examples.backoffice.mail import digest_id, message_id
from examples.backoffice.mail_server import MailServer
from examples.backoffice.pictures import write_pictures
from examples.backoffice.progress import Progress
from examples.backoffice.settings import DIGEST_EVERY, Settings
from examples.backoffice.shop_api import ShopApi
from examples.worker_process import WorkerProcess

if TYPE_CHECKING:
    from celeriac.result import AsyncResult

PORTIONS = 10
TICK = 0.05


class Input:
    """What there is to do, at the chosen scale."""

    def __init__(self, settings: Settings, scale: float) -> None:
        self.recipients = data.read_recipients()[: round(500 * scale) or 1]
        self.pictures = write_pictures(settings.pictures, round(40 * scale) or 1)
        self.months = data.write_sales(settings.sales, rows_a_month=round(4000 * scale) or 1)
        self.orders = data.make_orders(round(100 * scale) or 1)

    def keys(self) -> dict[str, list[str]]:
        """By kind, the names under which everything must arrive."""
        return {
            "mail": [message_id(recipient) for recipient in self.recipients],
            "thumbnails": [path.name for path in self.pictures],
            "sales": [*(path.stem for path in self.months), count.REPORT],
            "orders": [order.id for order in self.orders],
        }


class Work:
    """What was handed to the queue and is not finished yet."""

    def __init__(self, todo: Input) -> None:
        # The worker's settings are in the environment by now; the tasks read them at import.
        from examples.backoffice import tasks

        self._write_report = tasks.write_report
        self._report: AsyncResult[str] | None = None
        self._months: list[AsyncResult[dict[str, Any]]] = []
        self._open: list[AsyncResult[Any]] = []
        for part in range(PORTIONS):  # so that there is some of everything all the time
            months, pictures = todo.months[part::PORTIONS], todo.pictures[part::PORTIONS]
            orders, recipients = todo.orders[part::PORTIONS], todo.recipients[part::PORTIONS]
            self._months += tasks.sum_sales.delay_many((str(path),) for path in months)
            self._open += tasks.make_thumbnail.delay_many((str(path),) for path in pictures)
            self._open += tasks.place_order.delay_many((row._asdict(),) for row in orders)
            self._open += tasks.send_invoice.delay_many((row._asdict(),) for row in recipients)
        self._open += self._months
        self.failed: list[AsyncResult[Any]] = []

    def finished(self) -> bool:
        """Take off the end what is ready; send the report when its parts are in."""
        while self._open and self._open[-1].ready():
            result = self._open.pop()
            if not result.successful():
                self.failed.append(result)
        if self._report is None and all(month.ready() for month in self._months):
            totals = [month.get(timeout=10) for month in self._months if month.successful()]
            self._report = self._write_report.delay(totals)
            self._open.append(self._report)
        return not self._open


class Digests:
    """The mails that the schedule has asked for up to now; no list of them was handed out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.keys: list[str] = []

    def arrived(self) -> bool:
        """Are all there that were due when this was asked for the first time?"""
        self.keys = self.keys or self._due()
        there = count.digests(self._settings)
        return bool(self.keys) and all(there[key] for key in self.keys)

    def _due(self) -> list[str]:
        from examples.backoffice import tasks

        with Desk(tasks.app) as desk:
            found = [entry for entry in desk.entries() if entry.name == self._settings.digest]
        if not found or found[0].last_nominal is None:
            return []  # the worker has only just begun
        last, every = found[0].last_nominal, timedelta(seconds=DIGEST_EVERY)
        return [digest_id((last - back * every).isoformat()) for back in range(found[0].count)]


def run(options: argparse.Namespace) -> int:
    """The whole demo; returns its exit status."""
    settings = Settings(out=options.out.resolve(), queue=f"backoffice-{secrets.token_hex(3)}")
    clear(settings)
    print("drawing pictures and writing a year of sales ...", flush=True)
    todo = Input(settings, options.scale)
    with outside_world(settings) as settings:
        use_broker(settings, options.broker, options.result_backend)
        worker = WorkerProcess(
            "examples.backoffice.tasks",
            concurrency=options.concurrency,
            log=settings.out / "worker.log",
            options=["-Q", settings.queue, "-l", "warning", "-B"],
        )
        print(f"starting: {' '.join(worker.command)}", flush=True)
        with worker:
            failed = watch(settings, todo, worker, options)
    rows = count.count(settings)
    print(f"\n{count.render(rows)}\n")
    for result in failed:
        print(f"task {result.id} ended as {result.state}: {result.result!r}")
    print(f"mails, thumbnails, report and logs are in {shown(settings.out)}")
    return count.status(rows)


def clear(settings: Settings) -> None:
    """Remove an earlier run's files, and nothing else that may be in the folder."""
    settings.out.mkdir(parents=True, exist_ok=True)
    folders = (settings.inbox, settings.pictures, settings.thumbnails, settings.sales)
    for folder in (*folders, settings.report):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    logs = (settings.orders, settings.attempts, settings.sent, settings.out / "worker.log")
    for file in (*logs, *settings.out.glob("celeriac.db*")):
        file.unlink(missing_ok=True)


@contextmanager
def outside_world(settings: Settings) -> Iterator[Settings]:
    """The mail server and the shop; the settings with their addresses."""
    with MailServer(settings.inbox) as mail_server, ShopApi(settings.orders) as shop:
        yield replace(settings, smtp_port=mail_server.port, shop_url=shop.url)


def use_broker(settings: Settings, broker: str | None, result_backend: str | None) -> None:
    """Tell this process and the worker where the queue and everything else is."""
    own = f"sqlite:///{settings.out / 'celeriac.db'}"
    broker = broker or own
    # RabbitMQ keeps messages, not results.
    result_backend = result_backend or (own if broker.startswith(("amqp", "pyamqp")) else broker)
    os.environ.update(settings.environ())
    os.environ.update(CELERIAC_BROKER_URL=broker, CELERIAC_RESULT_BACKEND=result_backend)


def watch(
    settings: Settings, todo: Input, worker: WorkerProcess, options: argparse.Namespace
) -> list[AsyncResult[Any]]:
    """Send the work and wait until it is done or the time is up; returns the tasks that failed."""
    keys = todo.keys()
    total = sum(map(len, keys.values()))
    progress = Progress(
        Attempts(settings.attempts), {kind: len(names) for kind, names in keys.items()}, sys.stdout
    )
    killer = Killer(
        Attempts(settings.attempts),
        worker=worker.pid,
        after=[total * n // (options.kills + 1) for n in range(1, options.kills + 1)],
        notify=progress.note,
    )
    killer.start()
    try:
        begun = time.time()
        count.write_sent(settings.sent, keys, begun)
        work = Work(todo)
        until = time.monotonic() + options.timeout
        while not work.finished() and time.monotonic() < until:
            worker.check()
            progress.show()
            time.sleep(TICK)
        digests = Digests(settings)
        while not digests.arrived() and time.monotonic() < until:
            worker.check()
            progress.show()
            time.sleep(TICK)
        count.write_sent(settings.sent, {**keys, "digest": digests.keys}, begun)
        progress.show(now=True)
        if not work.finished():
            print(f"the {options.timeout:g} s are over: what is not done by now counts as lost")
    finally:
        killer.stop()
    if len(killer.killed) < options.kills:
        print(f"only {len(killer.killed)} of {options.kills} kills found a busy runner")
    return work.failed


def shown(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
