"""The application that is measured on RabbitMQ."""

from __future__ import annotations

import os

from celeriac import Celeriac

app = Celeriac("shop", broker=os.environ.get("BENCH_URL"), backend="rpc://")


@app.task
def results() -> None:
    return None


@app.task(ignore_result=True)
def ignored() -> None:
    return None
