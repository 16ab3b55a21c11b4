"""The back office's tasks: ``celeriac -A examples.backoffice.tasks worker -c 4 -l warning``."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path
from typing import Any

from PIL import Image

from celeriac import Celeriac
from examples.backoffice import recording, report
from examples.backoffice.data import Order, Recipient
from examples.backoffice.files import replacing
from examples.backoffice.mail import compose
from examples.backoffice.settings import Settings
from examples.backoffice.shop_client import ShopBusy, post_order

settings = Settings.from_environ()
app = Celeriac("backoffice")
app.conf.task_default_queue = settings.queue
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
    message = compose(Recipient(**recipient))
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
