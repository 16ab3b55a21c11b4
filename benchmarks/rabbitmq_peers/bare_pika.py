"""A bare pika process that does a worker's part: consume, answer, acknowledge; or publishes."""

import json
import os
import sys
import time

import pika

BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def connect() -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_URL"]))


def consume(with_replies: bool) -> None:
    channel = connect().channel()
    channel.basic_qos(prefetch_count=200)
    done = 0

    def work(ch: object, method: object, properties: object, body: bytes) -> None:
        nonlocal done
        json.loads(body)
        if with_replies:
            answer = json.dumps({"status": "SUCCESS", "result": None, "task_id": "x"})
            channel.basic_publish("", "answers", answer.encode())
        done += 1
        if done % 50 == 0:
            channel.basic_ack(method.delivery_tag, multiple=True)  # type: ignore[attr-defined]

    channel.basic_consume("celery", work)
    channel.start_consuming()


def publish(count: int) -> None:
    """Confirmed one by one; tells the rate."""
    channel = connect().channel()
    channel.queue_declare("celery", durable=True)
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
    start = time.perf_counter()
    for _ in range(count):
        channel.basic_publish("", "celery", BODY, properties, mandatory=True)
    print(count / (time.perf_counter() - start))


if __name__ == "__main__":
    if sys.argv[1].startswith("consume "):
        consume(sys.argv[1] == "consume results")
    else:
        publish(int(sys.argv[2]))
