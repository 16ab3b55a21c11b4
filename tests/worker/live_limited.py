"""The same application with tasks that have limits of their own."""

from __future__ import annotations

import os
import time

from live_tasks import app


@app.task(**{os.environ["LIVE_LIMIT"]: 0.3})
def limited_by_itself() -> None:
    time.sleep(60)


__all__ = ["app"]
