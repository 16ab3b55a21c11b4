"""The same no-op task for Celery, with rpc results and without."""

import os
import sys
import time

from celery import Celery

app = Celery("shop", broker=os.environ["BENCH_URL"], backend="rpc://")


@app.task(name="results")
def results() -> None:
    return None


@app.task(name="ignored", ignore_result=True)
def ignored() -> None:
    return None


if __name__ == "__main__":
    task = {"results": results, "ignored": ignored}[sys.argv[1]]
    count = int(sys.argv[2])
    start = time.perf_counter()
    for _ in range(count):
        task.delay()
    print(count / (time.perf_counter() - start))
