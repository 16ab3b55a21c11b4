"""What is RabbitMQ's own: losses, delays, topology, refusals, guards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.drivers.rabbitmq_stage import Described, OnRabbit, shared_server
from tests.drivers.test_redis_servers import certificate
from tests.servers import RabbitServer, free_port

from celeriac.drivers import admin_of, open_broker, open_results
from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.broker import RabbitBroker
from celeriac.drivers.rabbitmq.errors import Mismatch
from celeriac.drivers.rabbitmq.tables import short
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.message import Delivery, MessageState, Owner, Settled, TaskRecord, Worker
from celeriac.routing.queues import Exchange, Queue
from celeriac.testing.harness import assert_waiting, in_background
from celeriac.testing.samples import bury, defer, done, ids, message, messages, release

OWNER = Owner("w1", 1, 1)


@pytest.fixture
def url() -> str:
    return shared_server().new_vhost()


@pytest.fixture
def connect(url: str) -> Iterator[Any]:
    made: list[RabbitBroker] = []

    def make(**options: Any) -> RabbitBroker:
        broker = open_broker(url, {"delayed_queue_type": "classic", **options})
        assert isinstance(broker, RabbitBroker)
        broker.open()
        broker.register(Worker(lease="w1", ttl=5.0))
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def cut(broker: RabbitBroker) -> None:
    """The connection breaks, as if the process had died."""
    line = broker._line
    assert line is not None
    line.connection._socket.shutdown(socket.SHUT_RDWR)


def claim(broker: RabbitBroker, limit: int = 10, wait: float = 5.0) -> list[Delivery]:
    return broker.claim(OWNER, ["celery"], limit, wait=wait)


# --- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}], ids=["classic", "quorum"])
def test_losses_are_counted(connect: Any, arguments: dict[str, Any]) -> None:
    """Promise 4: each process that dies while it holds a message is counted, whoever gets it."""
    queues = Described(arguments)
    connect(queues=queues).publish(messages("a"))
    for lost in range(3):
        broker = connect(queues=queues)
        [delivery] = claim(broker)
        assert (delivery.lost, delivery.redelivered) == (lost, lost > 0)
        cut(broker)
    broker = connect(queues=queues)
    started = time.monotonic()
    [delivery] = claim(broker)
    assert delivery.lost == 3
    assert time.monotonic() - started < 1.0
    broker.settle([done(delivery)])
    assert claim(broker, wait=0.2) == []


def test_lost_ones_are_claimed_alone(connect: Any) -> None:
    """Promise 4: what was lost once is claimed alone, and nothing else is held meanwhile."""
    first, second = connect(), connect()
    first.publish(messages("a", "b", "c"))
    assert ids(claim(first)) == ["a", "b", "c"]
    cut(first)
    batches = [claim(second) for _ in range(3)]
    assert sorted(id for batch in batches for id in ids(batch)) == ["a", "b", "c"]
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert {batch[0].lost for batch in batches} == {1}


def test_own_connection_loss_is_no_loss(connect: Any) -> None:
    """What comes again to the process that held it when its connection broke was not lost."""
    broker = connect()
    broker.publish(messages("a"))
    [delivery] = claim(broker)
    cut(broker)
    [again] = claim(broker)
    assert (again.message.id, again.lost, again.redelivered) == ("a", 0, True)
    assert [answer.value for answer in broker.settle([done(delivery)])] == ["lost"]
    assert [answer.value for answer in broker.settle([done(again)])] == ["settled"]


def test_released_is_not_counted(connect: Any) -> None:
    """RELEASE: counted as nothing, and the loss count is kept."""
    first, second = connect(), connect()
    first.publish(messages("a"))
    claim(first)
    cut(first)
    for _ in range(3):
        [delivery] = claim(second)
        assert delivery.lost == 1
        second.settle([release(delivery)])
    second.close()
    [delivery] = claim(connect())
    assert delivery.lost == 1


def test_closing_gives_back_uncounted(connect: Any) -> None:
    """close: what was on its way to this process is nobody's loss."""
    first, second = connect(), connect()
    assert claim(first, wait=0.1) == []  # leaves a subscription
    second.publish(messages("a"))
    time.sleep(0.1)
    first.close()
    [delivery] = claim(second)
    assert (delivery.lost, delivery.redelivered) == (0, False)


def test_begun(connect: Any) -> None:
    """Promise 2: what was begun comes back with the mark, to whoever settles it as lost."""
    first, second = connect(), connect()
    first.publish(messages("a", "b"))
    started = claim(first)
    assert first.begin(started[:1]) == []
    assert claim(second, wait=0.3) == []
    cut(first)
    found = {}
    for _ in range(2):
        [delivery] = claim(second, limit=1)
        found[delivery.message.id] = delivery.begun
        second.settle([done(delivery)])
    assert found == {"a": True, "b": False}


def test_begun_is_settled(connect: Any) -> None:
    broker = connect()
    broker.publish(messages("a"))
    deliveries = claim(broker)
    broker.begin(deliveries)
    assert [answer.value for answer in broker.settle([done(deliveries[0])])] == ["settled"]
    broker.close()
    assert claim(connect(), wait=0.5) == []


def test_how_a_process_was_ended(connect: Any) -> None:
    """TellsEnds: whoever gets the message next is told."""
    first, second = connect(), connect()
    first.publish(messages("a"))
    claim(first)
    cut(first)
    second.ended(["a"], "time_limit", 2.5)
    [delivery] = claim(second)
    assert delivery.note == "ended time_limit 2.5"


def test_held_for_longer_than_the_server_allows() -> None:
    """The consumer timeout does not hit what is tended: it is guarded before."""
    with RabbitServer("consumer_timeout = 2000") as server:
        assert isinstance(server, RabbitServer)
        server.control("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
        broker = open_broker(server.url(), {"guard_after": 0.5})
        assert isinstance(broker, RabbitBroker)
        broker.open()
        broker.publish(messages("a"))
        [delivery] = claim(broker)
        until = time.monotonic() + 6.0
        while time.monotonic() < until:
            time.sleep(0.25)
            broker.tend()
        assert [answer.value for answer in broker.settle([done(delivery)])] == ["settled"]
        assert claim(broker, wait=0.3) == []
        broker.close()


def test_a_wait_is_over_when_it_is_tended(connect: Any) -> None:
    """What would have come to a claim that ended in vain comes to others while tasks run."""
    first, second = connect(), connect()
    assert claim(first, wait=0.2) == []
    first.tend()
    first.publish(messages("a"))
    assert [delivery.message.id for delivery in claim(second)] == ["a"]


# --- delays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_delays_are_kept(connect: Any, kind: str) -> None:
    """Promise 5: nothing starts early, and nothing more than 0.5 s late."""
    broker = connect(delayed_queue_type=kind)
    broker.publish([message("first", due_at=time.time() + 0.1)])  # makes what delays
    broker.settle([done(d) for d in claim(broker)])
    now = time.time()
    delays = [0.05, 0.3, 0.61, 1.1, 1.7, 2.9]
    broker.publish([message(str(delay), due_at=now + delay) for delay in delays])
    late = []
    for delay in delays:
        [delivery] = claim(broker)
        late.append(time.time() - now - delay)
        assert delivery.message.id == str(delay)
        broker.settle([done(delivery)])
    assert min(late) >= -0.01
    assert max(late) < 0.5


def test_eta_of_a_celery_client_is_parked(connect: Any) -> None:
    """Pain 5: a message with an ``eta`` that is in the queue itself waits in the broker."""
    broker, other = connect(), connect()
    eta = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3))
    broker.publish([message("a", headers=b'{"task":"t","id":"a","eta":"%s"}' % eta.encode())])
    assert claim(broker, wait=0.3) == []
    broker.close()
    started = time.monotonic()
    [delivery] = claim(other)
    assert 0.5 < time.monotonic() - started < 4.0
    assert (delivery.lost, delivery.redelivered) == (0, False)


def test_names_of_queues_do_not_mix(connect: Any) -> None:
    """A delayed message gets into its own queue only, however the names are made."""
    broker = connect()
    names = ["mail", "fast.mail", "mail.#", "*", "größe ☃"]
    broker.publish([message(name, queue=name, due_at=time.time() + 0.2) for name in names])
    time.sleep(0.8)
    for name in names:
        assert ids(broker.claim(OWNER, [name], 10)) == [name]


# --- topology -----------------------------------------------------------------------------------


def test_declared_as_described(connect: Any, url: str) -> None:
    """Exchanges, bindings and arguments as Celery declares them; a topic reaches its queues."""
    topic = Exchange("events", "topic")
    queues = {
        "all": Queue("all", topic, "#"),
        "mail": Queue("mail", topic, "mail.*", max_priority=5, message_ttl=60.0),
    }
    broker = connect(queues=queues)
    assert broker.claim(OWNER, ["all", "mail"], 10) == []
    broker.publish([message("a", queue="mail", exchange="events", routing_key="mail.out")])
    for name in ("all", "mail"):
        [delivery] = broker.claim(OWNER, [name], 10, wait=2.0)
        assert (delivery.message.exchange, delivery.message.routing_key) == ("events", "mail.out")
        broker.settle([done(delivery)])
    due_at = time.time() + 1.2
    later = message("b", queue="mail", exchange="events", routing_key="mail.out", due_at=due_at)
    broker.publish([later])
    [delivery] = broker.claim(OWNER, ["mail"], 10, wait=5.0)
    assert time.time() >= due_at - 0.01


def test_mismatch(connect: Any) -> None:
    """A queue that exists otherwise is explained in words."""
    connect(queues=Described({"x-max-priority": 5})).publish(messages("a"))
    broker = connect(queues=Described({"x-max-priority": 9}))
    with pytest.raises(Mismatch, match=r"queue 'celery' exists .*x-max-priority.*another name"):
        broker.publish(messages("b"))
    with pytest.raises(ImproperlyConfigured):
        claim(broker)


def test_deleted_queue_is_declared_again(connect: Any) -> None:
    """A queue that was deleted under a producer and a waiting consumer comes back."""
    producer, consumer, other = connect(), connect(), connect()
    producer.publish(messages("a"))
    [delivery] = claim(consumer)
    consumer.settle([done(delivery)])
    assert claim(consumer, wait=0.2) == []
    with other.using() as line:
        arguments = b"\x00\x00" + short("celery") + b"\x00"
        line.connection.call(frames.QUEUE_DELETE, arguments, frames.QUEUE_DELETE_OK)
    producer.publish(messages("b"))
    assert ids(claim(consumer)) == ["b"]


def test_a_batch_into_a_deleted_queue(connect: Any) -> None:
    """The first and the last message speak for the others: all of them are there in the end."""
    producer, other = connect(), connect()
    names = [f"t{number}" for number in range(50)]
    producer.publish([message(name, queue="elsewhere") for name in names])
    producer.publish(messages("a"))
    with other.using() as line:
        arguments = b"\x00\x00" + short("celery") + b"\x00"
        line.connection.call(frames.QUEUE_DELETE, arguments, frames.QUEUE_DELETE_OK)
    mixed = [
        one
        for name in names
        for one in (message(name), message(f"{name} elsewhere", queue="elsewhere"))
    ]
    producer.publish(mixed)
    assert ids(claim(other, limit=100)) == names
    assert len(other.claim(OWNER, ["elsewhere"], 200)) == 100


def test_auto_delete_is_refused(connect: Any) -> None:
    """Between two claims nobody consumes: such a queue would be gone, with what waits in it."""
    broker = connect(queues={"celery": Queue("celery", auto_delete=True)})
    with pytest.raises(ImproperlyConfigured, match=r"auto_delete.*expires="):
        claim(broker)


def test_a_retry_stays_in_its_queue(connect: Any) -> None:
    """Although its exchange leads to others, too."""
    topic = Exchange("events", "topic")
    queues = {"celery": Queue("celery", topic, "#"), "mail": Queue("mail", topic, "mail.*")}
    broker = connect(queues=queues)
    for name in queues:
        assert broker.claim(OWNER, [name], 1) == []
    broker.publish([message("a", exchange="events", routing_key="mail.new")])
    [delivery], [other] = claim(broker), broker.claim(OWNER, ["mail"], 10)
    for due_at in (None, time.time() + 0.2):
        tried = msgspec.structs.replace(delivery.message, due_at=due_at)
        assert broker.settle([done(delivery, messages=(tried,))]) == [Settled.SETTLED]
        [delivery] = claim(broker)
        got = delivery.message
        assert (got.run, got.exchange, got.routing_key) == ("run-of-a", "events", "mail.new")
    broker.settle([done(delivery), done(other)])
    assert broker.claim(OWNER, ["mail"], 10, wait=0.2) == []


def test_unroutable_raises(connect: Any) -> None:
    """mandatory: a message that no queue takes is an error of its sender."""
    topic = Exchange("events", "topic")
    broker = connect(queues={"mail": Queue("mail", topic, "mail")})
    with pytest.raises(OperationalError, match="no queue for the message a"):
        broker.publish([message("a", queue="mail", exchange="events", routing_key="elsewhere")])


# --- refusals -----------------------------------------------------------------------------------


def test_wrong_password() -> None:
    url = shared_server().url().replace("guest:guest", "guest:secret!")
    with pytest.raises(OperationalError, match="refused the user 'guest'") as caught:
        open_broker(url).open()
    assert "secret!" not in str(caught.value)


def test_missing_vhost() -> None:
    url = shared_server().url("nowhere")
    with pytest.raises(OperationalError, match="no virtual host 'nowhere'"):
        open_broker(url).open()


def test_second_url(url: str) -> None:
    """The first server that takes us."""
    broker = open_broker(f"amqp://127.0.0.1:1//;{url}")
    broker.open()
    assert broker.publish(messages("a")) == 1
    broker.close()


def test_tls(tmp_path: Path) -> None:
    """amqps://: the server's certificate is checked."""
    authority, cert, key = certificate(tmp_path)
    port = free_port()
    settings = (
        f"listeners.ssl.default = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {authority}",
        f"ssl_options.certfile = {cert}",
        f"ssl_options.keyfile = {key}",
    )
    with RabbitServer(*settings):
        url = f"amqps://guest:guest@localhost:{port}/%2F"
        with pytest.raises(OperationalError, match="certificate verify failed"):
            open_broker(url).open()
        for options in (
            {"cafile": str(authority)},
            {"use_ssl": {"ca_certs": str(authority)}},
            {"verify": False},
        ):
            broker = open_broker(url, options)
            broker.open()
            sent = [message("a", body=b"x" * 300_000)]
            assert broker.publish(sent) == 1
            [delivery] = broker.claim(OWNER, ["celery"], 1, wait=5.0)
            assert delivery.message.id == sent[0].id
            broker.settle([done(delivery)])
            broker.close()


def test_unknown_option(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="Did you mean 'connect_timeout'"):
        open_broker(f"{url}?conect_timeout=3")


def test_memory_alarm(connect: Any) -> None:
    """A blocked connection: publishing ends in time, and says why."""
    server = shared_server()
    broker = connect(timeout=1.0)
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        broker.publish(messages("a"))  # the first one is what the server blocks us for
    except OperationalError:
        pass
    try:
        started = time.monotonic()
        with pytest.raises(OperationalError, match="takes no messages just now"):
            broker.publish(messages("a"))
        assert time.monotonic() - started < 5.0
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            broker.publish(messages("b"))
            break
        except OperationalError:
            continue
    assert "b" in ids(claim(broker))


def test_workers_are_listed(connect: Any) -> None:
    """Whoever asks sees who has told of itself, until it leaves."""
    first, second, other = connect(), connect(), connect()
    for broker, name in ((first, "one"), (second, "two")):
        broker.register(Worker(lease=name, ttl=5.0, name=f"{name}@host", hostname="host", pid=7))
        assert broker.heartbeat(name).alive
    found = {one.lease: one for one in admin_of(other).workers()}
    assert set(found) == {"w1", "one", "two"}
    assert (found["one"].name, found["one"].pid, found["one"].alive) == ("one@host", 7, True)
    assert found["one"].since <= found["one"].expires_at - 5.0 <= time.time()
    first.unregister("one")
    until = time.monotonic() + 5.0
    while "one" in {one.lease for one in admin_of(other).workers()}:
        assert time.monotonic() < until
    assert not first.heartbeat("one").alive


# --- administration -----------------------------------------------------------------------------


class TestDeadLetters:
    def test_revive(self, tmp_path: Path) -> None:
        """revive: a new run, counted as never lost, at the end of its queue."""
        store = OnRabbit(tmp_path)
        owner = store.worker()
        store.publish(message("a", priority=3), message("b", priority=3))
        store.broker.settle([bury(d, "why") for d in store.claim(owner)])
        [first, second] = store.admin.peek("celery", MessageState.DEAD)
        assert {first.reason, second.reason} == {"why"}
        assert store.admin.revive(["a", "unknown"]) == 1
        assert store.admin.revive(["a"]) == 0
        [again] = store.claim(owner)
        assert (again.message.id, again.lost, again.message.priority) == ("a", 0, 3)
        assert again.message.run != "run-of-a"
        assert store.admin.delete(owner, ["b"]).count == 1
        assert store.admin.peek(None, MessageState.DEAD) == []
        store.close()

    def test_by_the_server(self, connect: Any) -> None:
        """A dead letter that the server has made is shown with its reason and revived."""
        arguments = {
            "x-message-ttl": 100,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "celery.dead",
        }
        broker = connect(queues={"celery": Queue("celery", queue_arguments=arguments)})
        with broker.using() as line:
            line.topology.dead("celery")
        broker.publish(messages("a"))
        admin = admin_of(broker)
        deadline = time.monotonic() + 5.0
        while not (found := admin.peek("celery", MessageState.DEAD)):
            assert time.monotonic() < deadline
        assert found[0].reason == "expired by the server, from celery"
        assert found[0].at == pytest.approx(time.time(), abs=5)

    def test_purge(self, connect: Any) -> None:
        """purge: what waits is gone; parts of joins are handed over to be settled."""
        broker = connect()
        broker.publish([*messages("a", "b"), message("part", join="j"), message("c")])
        removed = admin_of(broker).purge(OWNER, "celery")
        assert (removed.count, ids(removed.parts)) == (3, ["part"])
        assert len(broker.settle([done(removed.parts[0])])) == 1
        assert claim(broker, wait=0.2) == []


# --- results ------------------------------------------------------------------------------------


def test_rpc(url: str) -> None:
    """rpc://: what is put with a reply_to is read by whoever it belongs to, and only there."""
    worker, client = open_results(f"rpc+{url}"), open_results(f"rpc+{url}")
    worker.open()
    client.open()
    place = client.reply_to  # type: ignore[attr-defined]
    records = [
        TaskRecord(
            id=f"t{n}",
            run="r",
            state="SUCCESS",
            ready=True,
            payload=b'{"status":"SUCCESS","result":1,"task_id":"t"}',
            reply_to=place,
        )
        for n in range(3)
    ]
    assert worker.put(records) == records
    assert {one.id for one in client.wait(["t2"], 5.0)} == {"t2"}
    assert [one is not None for one in client.get(["t0", "t1", "t2", "t3"])] == [True] * 3 + [False]
    assert worker.get(["t0"]) == [None]
    assert client.delete(["t0"]) == 1
    worker.close()
    client.close()


def rpc_pair(url: str) -> tuple[Any, Any, str]:
    worker, client = open_results(f"rpc+{url}"), open_results(f"rpc+{url}")
    worker.open()
    client.open()
    return worker, client, client.reply_to  # type: ignore[attr-defined]


def replies(count: int, place: str, size: int = 100) -> list[TaskRecord]:
    payload = b'{"status":"SUCCESS","result":"%s"}' % (b"x" * size)
    return [
        TaskRecord(
            id=f"t{n}", run="r", state="SUCCESS", ready=True, payload=payload, reply_to=place
        )
        for n in range(count)
    ]


def test_rpc_reads_what_came_while_it_was_cut_off(url: str) -> None:
    """Replies are acknowledged when they are read: they outlive a client's connection, and its
    not reading."""
    worker, client, place = rpc_pair(url)
    records = replies(3000, place, 10_000)
    worker.put(records[:2500])
    client._connection._socket.shutdown(socket.SHUT_RDWR)
    worker.put(records[2500:])
    deadline = time.monotonic() + 10
    while None in client.get([record.id for record in records]):
        assert time.monotonic() < deadline
    worker.close()
    client.close()


def test_rpc_waits_on_while_the_connection_is_made_again(url: str) -> None:
    worker, client, place = rpc_pair(url)
    waiting = in_background(client.wait, ["t0"], 20.0)
    assert_waiting(waiting)
    client._connection._socket.shutdown(socket.SHUT_RDWR)
    worker.put(replies(1, place))
    assert [record.id for record in waiting.result(15)] == ["t0"]
    worker.close()
    client.close()


def test_deferred_keeps_its_note(connect: Any) -> None:
    broker = connect()
    broker.publish(messages("a"))
    [delivery] = claim(broker)
    broker.settle([defer(delivery, time.time() + 0.2, note="unknown 1 2")])
    [delivery] = claim(broker)
    assert (delivery.note, delivery.lost) == ("unknown 1 2", 0)
