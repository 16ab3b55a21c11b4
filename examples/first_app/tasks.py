"""The first application: two tasks, and nothing to install or configure for them.

In one terminal, in the project's folder:

    celeriac -A examples.first_app.tasks worker -c 4 -l info

In another one, in the same folder, a Python shell:

    >>> from examples.first_app.tasks import fetch, send
    >>> send.delay("a@b.example", "hi").get(timeout=10)
    'sent 2 characters to a@b.example'

The queue and the results are in celeriac.db in that folder. The same, by itself and in a temporary
folder: ``python -m examples.first_app``.
"""

from __future__ import annotations

import asyncio
import urllib.request

from celeriac import Celeriac

app = Celeriac("shop")


@app.task(autoretry_for=(ConnectionError,), retry_backoff=True)
def send(to: str, text: str) -> str:
    """A mail would be sent here; a lost connection is tried again after 1, 2 and 4 seconds."""
    return f"sent {len(text)} characters to {to}"


@app.task
async def fetch(url: str) -> int:
    """The size of a page in bytes. Coroutines are tasks like others, in every worker."""

    def read() -> int:
        with urllib.request.urlopen(url, timeout=10) as page:
            return len(page.read())

    return await asyncio.to_thread(read)
