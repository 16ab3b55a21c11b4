"""The same for dramatiq, which has no results unless told so."""

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BENCH_URL"]))


@dramatiq.actor(queue_name="celery")
def ignored() -> None:
    return None


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        ignored.send()
