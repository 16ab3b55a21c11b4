"""The application that is measured. It imports nothing but celeriac."""

from __future__ import annotations

import os
import time

from celeriac import Celeriac

app = Celeriac("shop", broker=os.environ.get("BENCH_URL"))


@app.task
def noop() -> None:
    return None


@app.task
def late(due: float) -> float:
    """How late it starts, in seconds."""
    return time.time() - due
