"""The same no-op task for Celery, with rpc results and without."""

import os
import sys

from celery import Celery

app = Celery("shop", broker=os.environ["BENCH_URL"], backend="rpc://")


@app.task(name="noop")
def noop() -> None:
    return None


@app.task(name="ignored", ignore_result=True)
def ignored() -> None:
    return None


if __name__ == "__main__":
    task = {"noop": noop, "ignored": ignored}[sys.argv[1]]
    for _ in range(int(sys.argv[2])):
        task.delay()
