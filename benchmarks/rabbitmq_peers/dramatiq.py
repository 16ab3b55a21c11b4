"""The same for dramatiq, which has no results unless told so."""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BENCH_URL"], confirm_delivery=False))


@dramatiq.actor(queue_name="celery")
def ignored() -> None:
    return None


if __name__ == "__main__":
    count = int(sys.argv[2])
    start = time.perf_counter()
    for _ in range(count):
        ignored.send()
    print(count / (time.perf_counter() - start))
