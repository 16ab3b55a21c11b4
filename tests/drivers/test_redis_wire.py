"""``redis://`` as Celery's clients and workers see it, and what it leaves behind."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drivers.redis_stage import Wire, shared_server

import celeriac.drivers.redis
from celeriac.drivers import admin_of, one_store, open_broker, open_results
from celeriac.drivers.redis.broker import RedisBroker
from celeriac.drivers.redis.waiting import BLOCKED_FOR, LOOK_EVERY
from celeriac.message import (
    Kept,
    MessageState,
    Owner,
    Settled,
    TaskRecord,
    Upkeep,
    Worker,
)
from celeriac.protocol import task as wire
from celeriac.protocol.reading import decode
from celeriac.testing.harness import in_background
from celeriac.testing.samples import (
    arrival,
    bury,
    done,
    ids,
    join,
    message,
    messages,
    record,
    release,
)
from celeriac.utils import uuid

OWNER = Owner("w1", 1, 1)
SEP = "\x06\x16"


@pytest.fixture
def redis() -> Iterator[Wire]:
    redis = Wire(shared_server().url)
    redis("FLUSHALL")
    yield redis
    redis.close()


@pytest.fixture
def broker(redis: Wire) -> Iterator[RedisBroker]:
    broker = opened()
    yield broker
    broker.close()


def opened(db: int = 0, **options: Any) -> RedisBroker:
    broker = open_broker(url_of(db), options)
    assert isinstance(broker, RedisBroker)
    broker.open()
    broker.register(Worker(lease="w1", ttl=60.0))
    return broker


def url_of(db: int) -> str:
    return f"redis://127.0.0.1:{shared_server().port}/{db}"


def celerys(id: str = "", queue: str = "celery", **headers: Any) -> bytes:
    """A message as kombu writes it (captured: wire-format.md 2.2)."""
    id = id or uuid()
    body = base64.b64encode(
        json.dumps(
            [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        ).encode()
    ).decode()
    every = {
        "lang": "py",
        "task": "shop.send",
        "id": id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": id,
        "parent_id": None,
        "argsrepr": "(1, 2)",
        "kwargsrepr": "{}",
        "origin": "gen2463@a-host.example",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **headers,
    }
    envelope = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": every,
        "properties": {
            "correlation_id": id,
            "reply_to": "2a4d9c0e-7a5f-3f7e-8f1b-0d7a4a9a6f11",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "8f2e1b7c-1d0a-4a57-9a33-1f6c1fd3c5b1",
        },
    }
    return json.dumps(envelope).encode()


# --- what we write


def test_what_follows_is_kept_as_a_claim_would_hold_it(redis: Wire, broker: RedisBroker) -> None:
    """The next step of a chain need not go through the queue."""
    broker.publish([message("first"), message("second")])
    first, second = broker.claim(OWNER, ["celery"], 2)
    following = message("next", join="j", priority=6)
    wish = done(first, messages=(following,), keep=("celery",))
    [outcome] = broker.settle([wish])
    assert isinstance(outcome, Kept)
    field = f"{OWNER.slot}/{OWNER.incarnation}/{outcome.delivery.tag}"
    held = redis("HGET", "celeriac:held:w1", field)
    assert redis("EXISTS", "celery", f"celery{SEP}6") == 0
    broker.settle([done(second), release(outcome.delivery)])
    [claimed] = broker.claim(OWNER, ["celery"], 2)
    assert claimed.message == outcome.delivery.message
    field = f"{OWNER.slot}/{OWNER.incarnation}/{claimed.tag}"
    assert redis("HGET", "celeriac:held:w1", field) == held


def test_envelope_is_celerys(redis: Wire, broker: RedisBroker) -> None:
    id = uuid()
    sent = message(id, run=id, reply_to="thread", priority=5, body=b"[[1],{},{}]")
    broker.publish([sent])
    [raw] = redis("LRANGE", f"celery{SEP}3", 0, -1)
    envelope = json.loads(raw)
    assert base64.b64decode(envelope["body"]) == sent.body
    assert envelope["content-type"] == "application/json"
    assert envelope["content-encoding"] == "utf-8"
    assert envelope["headers"] == json.loads(sent.headers)
    assert envelope["properties"] == {
        "correlation_id": id,
        "reply_to": "thread",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 5,
        "body_encoding": "base64",
        "delivery_tag": id,
    }


def test_priorities_have_celerys_lists(redis: Wire, broker: RedisBroker) -> None:
    for priority in range(10):
        broker.publish([message(f"p{priority}", priority=priority)])
    lengths = [redis("LLEN", "celery" + (f"{SEP}{step}" if step else "")) for step in (0, 3, 6, 9)]
    assert lengths == [3, 3, 3, 1]
    assert ids(broker.claim(OWNER, ["celery"], 10)) == [f"p{n}" for n in range(10)]


def test_eta_is_pushed_for_celerys_workers_too(redis: Wire, broker: RedisBroker) -> None:
    """Whoever claims it parks it, in the same call; it is claimed when it is due."""
    due_at = time.time() + 0.4
    broker.publish([message("a", due_at=due_at)])
    assert redis("LLEN", "celery") == 1
    assert broker.claim(OWNER, ["celery"], 10) == []
    assert redis("LLEN", "celery") == 0
    assert redis("ZCARD", "celeriac:delayed:celery") == 1
    [delivery] = broker.claim(OWNER, ["celery"], 10, wait=10)
    assert 0 <= time.time() - due_at < 0.5
    assert delivery.message.id == "a"


def test_retries_wait_with_the_delayed(redis: Wire, broker: RedisBroker) -> None:
    broker.publish(messages("a"))
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    retry = message("a", due_at=time.time() + 100)
    assert broker.settle([done(delivery, messages=(retry,))]) == [Settled.SETTLED]
    assert redis("LLEN", "celery") == 0
    [found] = admin_of(broker).find(["a"])
    assert (found.state, found.message.run) == (MessageState.DELAYED, "run-of-a")


@pytest.mark.parametrize("expires", [None, 100.0])
def test_result_is_celerys(redis: Wire, broker: RedisBroker, expires: float | None) -> None:
    document = b'{"status":"SUCCESS","result":[1,"x"],"traceback":null,"task_id":"a"}'
    expires_at = None if expires is None else time.time() + expires
    one = TaskRecord(
        id="a", run="a", state="SUCCESS", ready=True, payload=document, expires_at=expires_at
    )
    broker.publish(messages("a"))
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    listener = Wire(url_of(0))
    listener("SUBSCRIBE", "celery-task-meta-a")
    broker.settle([done(delivery, records=(one,))])
    stored = redis("GET", "celery-task-meta-a")
    meta = json.loads(stored)
    meta.pop("celeriac", None)
    assert meta == json.loads(document)
    assert listener.next() == [b"message", b"celery-task-meta-a", stored]
    listener.close()
    left = redis("TTL", "celery-task-meta-a")
    assert left == -1 if expires is None else 98 <= left <= 100
    results = open_results(url_of(0))
    results.open()
    assert results.get(["a"]) == [one]
    results.close()


# --- what Celery writes


def test_celerys_message(redis: Wire, broker: RedisBroker) -> None:
    redis("LPUSH", "celery", celerys("a", argsrepr='("eta": "x", \\)'))
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    assert delivery.message.id == "a"
    assert delivery.message.run == "8f2e1b7c-1d0a-4a57-9a33-1f6c1fd3c5b1"
    task = decode(delivery.message, frozenset({"application/json"}))
    assert (task.headers["task"], task.args) == ("shop.send", [1, 2])
    broker.settle([release(delivery)])
    [again] = broker.claim(OWNER, ["celery"], 10)
    assert again.message == delivery.message


@pytest.mark.parametrize("shape", ["%Y-%m-%dT%H:%M:%S.%f+00:00", "%Y-%m-%dT%H:%M:%S.%fZ"])
def test_celerys_eta(redis: Wire, broker: RedisBroker, shape: str) -> None:
    from datetime import UTC, datetime

    due_at = time.time() + 0.5
    eta = datetime.fromtimestamp(due_at, UTC).strftime(shape)
    redis("LPUSH", "celery", celerys("later", eta=eta), celerys("now"))
    assert ids(broker.claim(OWNER, ["celery"], 10)) == ["now"]
    assert redis("ZCARD", "celeriac:delayed:celery") == 1
    [delivery] = broker.claim(OWNER, ["celery"], 10, wait=10)
    assert delivery.message.id == "later"
    assert delivery.message.due_at == pytest.approx(due_at, abs=0.01)
    assert 0 <= time.time() - due_at < 0.5


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2036-11-20T12:45:46.560270+00:00", 2110797946.56027),
        ("2036-11-20T12:45:46+05:30", 2110778146.0),
        ("2030-02-28T23:59:59.5-03:00", 1898564399.5),
        ("2032-02-29T00:00:00Z", 1961625600.0),
    ],
)
def test_times_are_read_as_python_reads_them(
    redis: Wire, broker: RedisBroker, text: str, epoch: float
) -> None:
    from datetime import datetime

    assert datetime.fromisoformat(text).timestamp() == epoch
    redis("LPUSH", "celery", celerys("a", eta=text))
    assert broker.claim(OWNER, ["celery"], 10) == []
    [_, score] = redis("ZRANGE", "celeriac:delayed:celery", 0, -1, "WITHSCORES")
    assert float(score) == epoch


def test_celerys_restore_of_our_message(redis: Wire, broker: RedisBroker) -> None:
    """A Celery worker that gives a message back writes it anew, with its own spaces."""
    broker.publish([message("a", join="place", expires_at=time.time() + 100)])
    raw = json.loads(redis("RPOP", "celery"))
    raw["headers"]["redelivered"] = True
    raw["properties"]["delivery_info"]["redelivered"] = True
    redis("RPUSH", "celery", json.dumps(raw))
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    assert delivery.redelivered
    assert (delivery.message.join, delivery.message.run) == ("place", "run-of-a")


@pytest.mark.parametrize("raw", [b"", b"hello", b"\xff\x00", b"{}", b"[1]", b'{"body":1}', b'""'])
def test_what_is_no_message(redis: Wire, broker: RedisBroker, raw: bytes) -> None:
    """It is handed out with its bytes, to be buried with them, through all that can happen."""
    redis("LPUSH", "celery", raw)
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    assert delivery.message.body == raw
    [recovered] = broker.recover(OWNER, Owner("w1", 1, 2), [delivery.tag])
    assert (recovered.message.body, recovered.lost) == (raw, 1)
    assert broker.settle([bury(recovered, "what is it?")]) == [Settled.SETTLED]
    [dead] = admin_of(broker).peek("celery", MessageState.DEAD)
    assert (dead.message.body, dead.reason, dead.lost) == (raw, "what is it?", 1)


def test_celerys_chord_keys(redis: Wire, broker: RedisBroker) -> None:
    """Parts that Celery's workers count in, and ours, complete one join."""
    key = "celery-taskset-meta-gid"
    redis("SET", f"{key}.s", 3, "EX", 100)
    redis("ZADD", f"{key}.j", 0, json.dumps([1, "t0", "SUCCESS", {"a": 1}]))
    redis("SADD", f"{key}.d", "t0:0")
    results = open_results(url_of(0))
    results.open()
    parts = [arrival(index, "gid", id=f"t{index}") for index in range(3)]
    assert results.arrive([parts[1]]) == [None]
    assert redis("SMEMBERS", f"{key}.d") == {b"t0:0", b"t1:1"} or sorted(
        redis("SMEMBERS", f"{key}.d")
    ) == [b"t0:0", b"t1:1"]
    assert 90 < redis("TTL", f"{key}.j") <= 100
    [told] = results.arrive([parts[2]])
    assert told is not None
    assert [part.id for part in told.parts] == ["t0", "t1", "t2"]
    assert json.loads(told.parts[0].value) == {"a": 1}
    assert results.arrive([parts[2]], {"gid": told.token}) == [None]
    assert redis("GET", f"{key}.c") == b"done"
    assert redis("KEYS", f"{key}*") == [f"{key}.c".encode()]
    results.close()


# --- databases and prefixes


def test_results_in_another_database(redis: Wire) -> None:
    """Broker in one number, results in another: one store, changed in one call."""
    broker, results = opened(1), open_results(url_of(2))
    results.open()
    assert one_store(broker, results)
    broker.publish([message("a", join="j"), message("b")], [join("j", 1)])
    first, second = broker.claim(OWNER, ["celery"], 10)
    answers = broker.settle(
        [
            done(first, arrivals=(arrival(0, "j"),), records=(record("a"),)),
            done(second, records=(record("b"),), messages=(message("next"),)),
        ]
    )
    assert answers[1] is Settled.SETTLED
    settlement = done(
        first, arrivals=(arrival(0, "j"),), records=(record("a"),), tokens={"j": answers[0].token}
    )
    assert broker.settle([settlement]) == [Settled.SETTLED]
    assert results.get(["a", "b"]) == [record("a"), record("b")]
    assert ids(broker.claim(OWNER, ["celery"], 10)) == ["next"]
    assert broker.publish(messages("c")) == 1
    assert ids(broker.claim(OWNER, ["celery"], 10)) == ["c"]
    other = Wire(url_of(2))
    found = sorted(key.decode() for key in other("KEYS", "*"))
    assert found == ["celery-task-meta-a", "celery-task-meta-b", "celery-taskset-meta-j.c"]
    other.close()
    results.close()
    broker.close()


def test_key_prefixes(redis: Wire) -> None:
    """As Celery's: literally for the broker, with an underscore for results."""
    broker = opened(0, global_keyprefix="pfx:")
    results = open_results(url_of(0), {"global_keyprefix": "rp"})
    results.open()
    assert one_store(broker, results)
    broker.publish(messages("a", "b"))
    assert redis("LLEN", "pfx:celery") == 2
    waiting = in_background(lambda: results.wait(["a"], 20))
    first, _ = broker.claim(OWNER, ["celery"], 10)
    broker.settle([done(first, records=(record("a"),))])
    assert ids(waiting.result(20)) == ["a"]
    keys = {key.decode() for key in redis("KEYS", "*")}
    assert "rp_celery-task-meta-a" in keys
    assert all(key.startswith(("pfx:", "rp_")) for key in keys)
    broker.close()
    results.close()


# --- options


# --- what it costs, and what stays


def test_nothing_stays(redis: Wire, broker: RedisBroker) -> None:
    """When queues are empty and results have expired, a handful of keys is left."""
    expires_at = time.time() + 0.5
    admin = admin_of(broker)
    for queue in ("one", "two"):
        broker.publish(
            [message(queue=queue, priority=n % 10, join="j") for n in range(50)], [join("j", 100)]
        )
        broker.publish([message(queue=queue, due_at=time.time() + 0.2), message(queue=queue)])
        broker.publish([message(queue=queue, dedupe_key="k")])
    broker.cancel(OWNER, ["x"], time.time() + 0.2, terminate=True)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(q.waiting or q.delayed for q in admin.queues()):
        for number, delivery in enumerate(broker.claim(OWNER, ["one", "two"], 30, wait=0.2)):
            records = (record(delivery.message.id, expires_at=expires_at),)
            verdict = bury if number == 3 else done
            broker.settle([verdict(delivery, records=records)])
    while time.time() < expires_at + 0.1:
        time.sleep(0.05)
    dead = ids(admin.peek(None, MessageState.DEAD, limit=1000))
    assert dead
    assert admin.delete(OWNER, dead).count == len(dead)
    redis("DEL", "celery-taskset-meta-j.s")  # a join that is never completed lasts for ever
    broker.maintain(OWNER, Upkeep())
    broker.unregister("w1")
    left = {key.decode() for key in redis("KEYS", "*")}
    assert left <= {"celeriac:seq", "celeriac:queues", "celeriac:keys"}


def test_waiting_messages_cost_no_more_than_celerys(redis: Wire, broker: RedisBroker) -> None:
    count = 20_000
    ours = 0
    body = wire.encode_body((1, 2), {})[0]
    for _ in range(count // 1000):
        batch = []
        for _ in range(1000):
            id = uuid()
            headers = wire.encode_headers(
                wire.make_headers(task="shop.send", id=id, args=(1, 2), kwargs={})
            )
            reply_to = "2a4d9c0e-7a5f-3f7e-8f1b-0d7a4a9a6f11"
            batch.append(message(id, run=id, headers=headers, body=body, reply_to=reply_to))
        broker.publish(batch)
    ours = redis("MEMORY", "USAGE", "celery", "SAMPLES", 0)
    for _ in range(count // 1000):
        redis("LPUSH", "theirs", *(celerys() for _ in range(1000)))
    theirs = redis("MEMORY", "USAGE", "theirs", "SAMPLES", 0)
    assert ours <= theirs * 1.05
    assert {key.decode() for key in redis("KEYS", "*")} <= {
        "celery",
        "theirs",
        "celeriac:queues",
        "celeriac:leases",
        "celeriac:workers",
    }


def test_idle_worker_asks_little(redis: Wire, broker: RedisBroker) -> None:
    """Two runners and their agent have the server run no more than five commands a second, those
    within scripts included."""
    admin = admin_of(broker)
    waiting = {"beat": 0.0, "upkeep": 0.0, "look": 0.0, "watch": 0.0}
    calls: dict[str, Callable[[], object]] = {
        "beat": lambda: broker.heartbeat("w1"),
        "upkeep": lambda: broker.maintain(OWNER, Upkeep()),
        "look": lambda: broker.claim(OWNER, ["celery"], 100),
        "watch": admin.queues,
    }
    for _ in range(2):  # the first time, the server learns the scripts and the queue's name
        for name, call in calls.items():
            before = commands(redis)
            call()
            waiting[name] = commands(redis) - before - 1  # INFO itself
    every = {"beat": 5.0, "upkeep": 3.75, "watch": 15.0, "look": LOOK_EVERY / 2}
    blocked = 2 / BLOCKED_FOR
    assert blocked + sum(waiting[name] / every[name] for name in every) <= 5.0, waiting


def test_idle_runners_stay_blocked(redis: Wire, broker: RedisBroker) -> None:
    """A runner that waits in half seconds goes on with the wait that it has begun."""
    others = [opened() for _ in range(2)]
    for number, one in enumerate(others):
        one.claim(Owner("w1", number, 1), ["celery"], 100, wait=0.2)
    before = commands(redis)
    seconds = 3.0

    def idle(number: int) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            claimed = others[number].claim(Owner("w1", number, 1), ["celery"], 100, wait=0.5)
            assert claimed == []

    for call in [in_background(idle, number) for number in range(2)]:
        call.result(20)
    assert commands(redis) - before <= 3
    for one in others:
        one.close()


def commands(redis: Wire) -> int:
    """How many commands the server has run."""
    found = re.search(rb"total_commands_processed:(\d+)", redis("INFO", "stats"))
    assert found is not None
    return int(found[1])


# --- waking


def test_woken_for_the_dead(redis: Wire, broker: RedisBroker) -> None:
    """What a dead process was woken for wakes another one, when somebody looks after things."""
    assert broker.claim(OWNER, ["celery"], 10) == []
    broker.publish(messages("a", "b"))
    redis("LMOVE", "celery", "celeriac:front:celery", "RIGHT", "LEFT")
    broker.maintain(OWNER, Upkeep())
    assert redis("LLEN", "celeriac:front:celery") == 0
    assert ids(broker.claim(OWNER, ["celery"], 10)) == ["a", "b"]


def test_waking_takes_nothing(redis: Wire, broker: RedisBroker) -> None:
    """A message that was moved for somebody who waits no more is the next claimer's."""
    assert broker.claim(OWNER, ["celery"], 10, wait=0.1) == []
    other = opened()
    other.publish(messages("a"))
    assert ids(other.claim(Owner("w1", 2, 1), ["celery"], 10)) == ["a"]
    other.publish(messages("b"))
    broker.close()
    assert ids(other.claim(Owner("w1", 2, 1), ["celery"], 10)) == ["b"]
    other.close()


@pytest.mark.parametrize("priority", [3, 9])
@pytest.mark.parametrize("queue", ["first", "second"])
def test_every_list_wakes(redis: Wire, broker: RedisBroker, queue: str, priority: int) -> None:
    claim = in_background(lambda: broker.claim(OWNER, ["first", "second"], 10, wait=20))
    time.sleep(0.1)
    other = opened()
    begun = time.monotonic()
    other.publish([message("a", queue=queue, priority=priority)])
    assert ids(claim.result(20)) == ["a"]
    assert time.monotonic() - begun < 0.5
    # Who was woken by another list does not keep a hold on the first.
    other.publish([message("b", queue="first")])
    assert ids(other.claim(Owner("w1", 2, 1), ["first"], 10)) == ["b"]
    other.close()


@pytest.mark.parametrize("priority", [0, 6])
def test_after_waking_there_may_be_more(redis: Wire, broker: RedisBroker, priority: int) -> None:
    claim = in_background(lambda: broker.claim(OWNER, ["celery"], 1, wait=20))
    time.sleep(0.1)
    begun = time.monotonic()
    other = opened()
    other.publish([message(f"t{n}", priority=priority) for n in range(3)])
    other.close()
    assert ids(claim.result(20)) == ["t0"]
    for number in (1, 2):
        assert ids(broker.claim(OWNER, ["celery"], 1, wait=20)) == [f"t{number}"]
    assert time.monotonic() - begun < 1.0


def test_one_message_wakes_one(redis: Wire, broker: RedisBroker) -> None:
    waiting = [opened() for _ in range(4)]
    claims = [
        in_background(one.claim, Owner("w1", number, 1), ["celery"], 1, 10**6, 20)
        for number, one in enumerate(waiting)
    ]
    time.sleep(0.2)
    redis("CONFIG", "RESETSTAT")
    broker.publish(messages("a"))
    deadline = time.monotonic() + 10
    while not any(claim.done() for claim in claims):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    text = redis("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=1," in text
    for one in waiting:
        one.close()


# --- processes


def test_a_forked_child_has_connections_of_its_own(redis: Wire, broker: RedisBroker) -> None:
    results = open_results(url_of(0))
    results.open()
    broker.publish(messages("a"))
    broker.claim(OWNER, ["elsewhere"], 10, wait=0.1)
    with broker.client.lock:
        child = os.fork()
        if child == 0:  # the lock that is held here is the parent's
            try:
                broker.publish(messages("b"))
                results.put([record("c")])
                found = results.wait(["c"], 5)
                os._exit(0 if ids(found) == ["c"] else 1)
            except BaseException:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ids(broker.claim(OWNER, ["celery"], 10)) == ["a", "b"]
    assert ids(results.wait(["c"], 5)) == ["c"]
    results.close()


def test_connections_are_bounded(redis: Wire) -> None:
    broker = opened(max_connections=4, client_name="bounded")
    owners = [Owner("w1", number, 1) for number in range(12)]
    claims = [in_background(broker.claim, owner, ["celery"], 1, 10**6, 20) for owner in owners]
    time.sleep(0.3)
    clients = redis("CLIENT", "LIST").decode()
    assert clients.count("name=bounded") <= 4
    broker.publish([message() for _ in owners])
    assert sum(len(claim.result(20)) for claim in claims) == len(owners)
    broker.close()


def test_results_share_one_listener(redis: Wire) -> None:
    results = open_results(url_of(0), {"client_name": "listeners"})
    results.open()
    waits = [in_background(results.wait, [f"t{n}"], 20) for n in range(20)]
    time.sleep(0.2)
    assert redis("CLIENT", "LIST").decode().count("name=listeners") == 2
    results.put([record(f"t{n}") for n in range(20)])
    assert [ids(wait.result(20)) for wait in waits] == [[f"t{n}"] for n in range(20)]
    results.close()


def test_folder_has_no_strangers() -> None:
    """Every Lua file is a script with a header, or included by one."""
    folder = Path(celeriac.drivers.redis.__file__).parent
    texts = {path.stem: path.read_text() for path in folder.glob("*.lua")}
    included = {
        line.removeprefix("-- include: ")
        for text in texts.values()
        for line in text.splitlines()
        if line.startswith("-- include: ")
    }
    used = "".join(path.read_text() for path in folder.glob("*.py"))
    for name, text in texts.items():
        assert text.startswith("-- ")
        if name not in included:
            assert f'script("{name}")' in used
            assert "-- KEYS: 1 base" in text
            assert "-- Returns:" in text


@pytest.mark.parametrize("queue", ["celery", 'a "quoted" one', "x" * 101, "caf\u00e9 \\", "q"])
@pytest.mark.parametrize("priority", [0, 2, 5])
def test_what_is_in_flight_knows_its_place(
    redis: Wire, broker: RedisBroker, queue: str, priority: int
) -> None:
    """Messages that stand as they are, and those that were moved to another list by hand."""
    admin = admin_of(broker)
    broker.publish([message("a", queue=queue, priority=priority), message("b", queue="elsewhere")])
    redis("LMOVE", "elsewhere", queue, "RIGHT", "LEFT")
    redis("LPUSH", queue, celerys("c", queue="somewhere"))
    for _ in range(2):
        deliveries = broker.claim(OWNER, [queue], 10)
        assert sorted(ids(deliveries)) == ["a", "b", "c"]
        assert {d.message.queue for d in deliveries} == {queue}
        assert admin.queues()[0].in_flight == 3
        assert broker.begin(deliveries[:1]) == []
        assert broker.settle([release(d) for d in deliveries]) == [Settled.SETTLED] * 3
        [info] = [info for info in admin.queues() if info.name == queue]
        assert (info.waiting, info.in_flight) == (3, 0)
    deliveries = broker.claim(OWNER, [queue], 10)
    broker.settle([bury(d) for d in deliveries])
    assert sorted(ids(admin.peek(queue, MessageState.DEAD))) == ["a", "b", "c"]
