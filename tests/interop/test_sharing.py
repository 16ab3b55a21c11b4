"""Workers of both sides on one queue, and what becomes of messages when one of them dies."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.interop.parties import SIDES, Scene, until

# --- queues


@pytest.mark.parametrize("side", SIDES)
def test_priorities(scene: Callable[..., Scene], side: str) -> None:
    """0 is the highest; each side runs what both have sent in this order."""
    town = scene()
    for priority in (9, 3, 0, 6, 5, 1):
        for sender in SIDES:
            name = f"{priority} {sender}"
            town.client(sender).send("count", name, queue="line", priority=priority)
    town.client("celery").send("count", "0 none", queue="line")
    lists = ["line", *(f"line\x06\x16{step}" for step in (3, 6, 9))]
    assert [town.wire("LLEN", key) for key in lists] == [5, 4, 2, 2]
    town.wait_ready(town.start(side, "-P", "solo", "-Q", "line"))
    town.until_noted(13, "count")
    ran = [note[1] for note in town.notes("count")]
    assert [int(name[0]) // 3 * 3 for name in ran] == [0] * 5 + [3] * 4 + [6] * 2 + [9] * 2
    assert ran[:5] == ["0 celery", "0 celeriac", "1 celery", "1 celeriac", "0 none"]


def test_routes_and_several_queues(scene: Callable[..., Scene]) -> None:
    town = scene(
        task_routes={
            "shop.add": {"queue": "sums"},
            "shop.echo": {"queue": "letters", "priority": 3},
            "shop.co*": "counts",
        },
        task_default_queue="rest",
    )
    started = [
        town.start("celery", "-P", "solo", "-Q", "sums,rest"),
        town.start("celeriac", "-P", "solo", "-Q", "letters,counts"),
    ]
    town.client("celery"), town.client("celeriac")
    town.wait_ready(*started)
    for sender in ("celery", "celeriac"):
        client = town.client(sender)
        assert client.get(client.send("add", 1, 2)) == 3
        assert client.get(client.send("echo", 1))["args"] == [1]
        assert client.get(client.send("count", sender)) == sender
        told = client.get(client.send("tell"))
        assert told["delivery_info"]["routing_key"] == "rest"
        whole = client("chord([add.s(1, 1), add.s(2, 2), count.s(6)], total.s()).delay().id")
        assert client.get(whole) == 12
    assert len(town.notes("celeriac", "count")) == 4


# --- together


VISIBLE_AGAIN = 3.0
"""Seconds after which Celery hands a message out again: more than a slow machine needs for one."""


def _fast(town: Scene, side: str, name: str, **conf: Any) -> Any:
    return town.start(side, "-c", "2", "-Q", "mixed", "-n", f"{name}@%h", **conf)


def test_four_workers_on_one_queue(scene: Callable[..., Scene]) -> None:
    """A thousand tasks, sent by both: each runs once, both clients read every result. Celery's
    workers restore what is unacknowledged for some seconds all the while."""
    restoring = {
        "visibility_timeout": VISIBLE_AGAIN,
        "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    }
    town = scene(broker_transport_options=restoring, worker_prefetch_multiplier=4)
    workers = [
        _fast(town, side, f"{side}{number}") for side in ("celery", "celeriac") for number in (1, 2)
    ]
    clients = [town.client("celery"), town.client("celeriac")]
    town.wait_ready(*workers)
    held, marker = f"held {town.url}", town.file()
    ours = clients[0].send("hold", held, str(marker), queue="mixed-ours")
    slow = town.start("celeriac", "-P", "solo", "-Q", "mixed-ours", "-n", "slow@%h")
    send = "[count.apply_async((n,), queue='mixed', priority=n % 2 * 3).id for n in numbers]"
    ids = []
    for start in range(0, 1000, 100):
        client = clients[start // 100 % 2]
        ids += client(send, numbers=list(range(start, start + 100)))
    town.wait_ready(slow)
    town.until_noted(1, "start", held)
    get = "[one.get(timeout=60) for one in map(result_of, ids)]"
    for client in clients:
        assert client(get, ids=ids) == list(range(1000))
    until(lambda: _calm(town), "the queue to be calm")
    begun = town.notes_file.stat().st_mtime  # the held task was started before
    until(lambda: time.time() > begun + VISIBLE_AGAIN + 0.5, "rounds of Celery's restoring")
    marker.touch()
    assert clients[0].get(ours) == held
    runs = Counter(note[1] for note in town.notes("count"))
    assert runs == Counter(range(1000))
    assert len(town.notes("start", held)) == 1
    shares = [len(town.notes(side, "count")) for side in ("celery", "celeriac")]
    assert min(shares) > 0, shares


def _calm(town: Scene) -> bool:
    return town.wire("EXISTS", "mixed", "mixed\x06\x163", "unacked", "unacked_index") == 0


def test_our_worker_dies_with_a_celery_clients_messages(scene: Callable[..., Scene]) -> None:
    """They run again, on whichever side takes them, and are told so."""
    town = scene(worker_lease=2.0)
    client = town.client("celery")
    marker = town.file()
    dying = town.start("celeriac", "-c", "2", "-Q", "mixed", "-n", "dying@%h")
    judge = town.start("celeriac", "-P", "solo", "-Q", "elsewhere", "-n", "judge@%h")
    town.wait_ready(dying, judge)
    keys = ["first", "second"]
    ids = [client.send("hold_late", key, str(marker), queue="mixed") for key in keys]
    for key in keys:
        town.until_noted(1, "start", key)
    town.kill(dying)
    until(lambda: town.wire("LLEN", "mixed") == 2, "both to be back in Celery's list")
    marker.touch()
    town.wait_ready(town.start("celery", "-P", "solo", "-Q", "mixed"))
    assert [client.get(id) for id in ids] == [["first", True], ["second", True]]
    for key in keys:
        assert [note[3] for note in town.notes("celeriac", "start", key)] == [False]
        assert [note[3] for note in town.notes("celery", "start", key)] == [True]
    for id in ids:
        assert town.client("celeriac").get(id)[1] is True


def test_a_runner_dies_with_a_celery_clients_message(town: Scene) -> None:
    """Another process has it at once, and the request says that it has come again."""
    client, marker, key = town.client("celery"), town.file(), "taken over"
    id = client.send("hold_late", key, str(marker), queue="new")
    town.until_noted(1, "start", key)
    [[_, _, redelivered, pid]] = town.notes("start", key)
    assert redelivered is False
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    town.until_noted(2, "start", key)
    assert time.monotonic() - killed < 1.5
    marker.touch()
    assert client.get(id) == [key, True]


def test_celerys_worker_dies_and_ours_goes_on(scene: Callable[..., Scene]) -> None:
    """What Celery restores into its list, marked, is taken by us, and the mark is told."""
    restoring = {
        "visibility_timeout": 1,
        "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    }
    town = scene(broker_transport_options=restoring)
    dying = town.start("celery", "-c", "1", "-Q", "mixed", "-n", "dying@%h")
    town.client("celeriac")
    town.wait_ready(dying)
    marker = town.file()
    id = town.client("celeriac").send("hold_late", "restored", str(marker), queue="mixed")
    town.until_noted(1, "start", "restored")
    town.kill(dying)
    marker.touch()
    ours = town.start("celeriac", "-P", "solo", "-Q", "mixed", "-n", "ours@%h")
    restorer = town.start("celery", "-P", "solo", "-Q", "elsewhere", "-n", "restorer@%h")
    town.wait_ready(ours, restorer)
    assert town.client("celery").get(id) == ["restored", True]
    assert [note[3] for note in town.notes("celeriac", "start", "restored")] == [True]
    assert _calm(town)
