"""The back office's tasks: ``celeriac -A examples.backoffice.tasks worker -c 4 -l warning``."""

from __future__ import annotations

import asyncio
import smtplib
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from PIL import Image

from celeriac import Celeriac
from examples.backoffice import recording, report
from examples.backoffice.data import Order, Recipient
from examples.backoffice.files import replacing
from examples.backoffice.mail import compose, compose_digest
from examples.backoffice.settings import DIGEST_EVERY, Settings
from examples.backoffice.shop_client import ShopBusy, post_order

settings = Settings.from_environ()
app = Celeriac("backoffice")
app.conf.task_default_queue = settings.queue
# Sent by the worker itself (-B). The name is the run's own, as the queue's, so that a run on a
# broker that others have used before begins anew.
app.conf.beat_schedule = {
    settings.digest: {
        "task": "examples.backoffice.tasks.send_digest",
        "schedule": DIGEST_EVERY,
        "options": {"priority": 9},  # ahead of the mails that wait (on Redis 0 is the first)
        "catch_up": "all",
    },
}
recording.start(settings.attempts)

MAIL_TROUBLE = (
    ConnectionError,
    TimeoutError,
    smtplib.SMTPConnectError,
    smtplib.SMTPServerDisconnected,
)


@app.task(autoretry_for=MAIL_TROUBLE, retry_backoff=0.2, max_retries=10)
def send_invoice(recipient: dict[str, Any]) -> str:
    """Mail a customer that an invoice is due."""
    return deliver(compose(Recipient(**recipient)))


@app.task(bind=True, autoretry_for=MAIL_TROUBLE, retry_backoff=0.2, max_retries=10)
def send_digest(self: Any) -> str:
    """Mail the boss how many orders are booked. Each run knows the moment it is meant for."""
    booked = len(settings.orders.read_text().splitlines()) if settings.orders.exists() else 0
    return deliver(compose_digest(self.request.beat_nominal, booked))


def deliver(message: EmailMessage) -> str:
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=10) as server:
        server.send_message(message)
    return str(message["Message-ID"])


@app.task
def make_thumbnail(picture: str) -> str:
    """Write a small copy of the picture; a reader never sees half of it."""
    target = settings.thumbnails / Path(picture).name
    with Image.open(picture) as image, replacing(target) as draft:
        image.thumbnail((256, 256))
        image.save(draft)
    return target.name


@app.task
def sum_sales(file: str) -> dict[str, Any]:
    """The totals of one month."""
    return report.month_totals(Path(file))


@app.task
def write_report(months: list[dict[str, Any]]) -> str:
    """The year's report, from what sum_sales returned for its months."""
    return str(report.write_year(months, settings.report))


@app.task(
    autoretry_for=(ConnectionError, TimeoutError, ShopBusy), retry_backoff=0.2, max_retries=10
)
async def place_order(order: dict[str, Any]) -> str:
    """Order from the supplier, whose API is slow and often busy."""
    answer = await asyncio.to_thread(post_order, settings.shop_url, Order(**order))
    return str(answer["status"])
