"""``redis://`` and the states that a server can be in: full, a replica, flushed, away, encrypted"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drivers.redis_stage import Wire
from tests.servers import RedisServer, executable, free_port

from celeriac.contracts import Broker
from celeriac.drivers import one_store, open_broker, open_results
from celeriac.drivers.redis import inspecting
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.message import Owner, Settled, Upkeep, Worker
from celeriac.testing.harness import in_background
from celeriac.testing.samples import done, ids, message, messages, record, release

OWNER = Owner("w1", 1, 1)
LEASE = Worker(lease="w1", ttl=30.0)


def opened(url: str, **options: Any) -> Broker:
    broker = open_broker(url, options)
    broker.open()
    return broker


def refusal_of(url: str, **options: Any) -> str:
    """What opening says, which never names the password."""
    with pytest.raises(OperationalError) as caught:
        opened(url, **options)
    assert "secret" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    broker = opened(server.url)
    broker.register(LEASE)
    yield broker
    broker.close()


# --- refusals


def test_scripts_are_flushed(server: RedisServer, broker: Broker) -> None:
    broker.publish(messages("a"))
    server.call("SCRIPT", "FLUSH")
    [delivery] = broker.claim(OWNER, ["celery"], 10)
    server.call("SCRIPT", "FLUSH")
    assert broker.settle([done(delivery)]) == [Settled.SETTLED]


def test_full_server_drains(server: RedisServer, broker: Broker) -> None:
    """It refuses publishes, clearly, and lets workers go on."""
    batch = [message(f"t{n}", body=b"x" * 1000) for n in range(100)]
    broker.publish(batch)
    [first] = broker.claim(OWNER, ["celery"], 1)
    server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.call("CONFIG", "SET", "maxmemory", "1")
    for refused in ([message("more")], [message("x"), message("y", queue="other")]):
        with pytest.raises(OperationalError, match="is full"):
            broker.publish(refused)
    assert broker.heartbeat("w1").alive
    broker.register(LEASE)
    assert broker.settle([release(first)]) == [Settled.SETTLED]
    while deliveries := broker.claim(OWNER, ["celery"], 30):
        settlements = [done(d, records=(record(d.message.id),)) for d in deliveries[:15]]
        settlements += [
            done(d, records=(record(d.message.id),), messages=(message("next", queue="next"),))
            for d in deliveries[15:]
        ]
        assert set(broker.settle(settlements)) == {Settled.SETTLED}
        broker.maintain(OWNER, Upkeep())
    server.call("CONFIG", "SET", "maxmemory", "0")
    assert broker.publish([message("more")]) == 1
    broker.unregister("w1")


def test_wrong_password() -> None:
    with RedisServer("requirepass secret-one") as server:
        host = f"127.0.0.1:{server.port}"
        assert "user or password" in refusal_of(f"redis://:wrong-secret@{host}/0")
        assert "wants a password" in refusal_of(f"redis://{host}/0")
        broker = opened(f"redis://:secret-one@{host}/0")
        assert broker.publish(messages("a")) == 1
        assert "secret" not in broker.store
        assert "secret" not in broker.capabilities.durability
        broker.close()


def test_user_and_password() -> None:
    with RedisServer("user shop on >s%c/ret ~* &* +@all") as server:
        broker = opened(f"redis://shop:s%25c%2Fret@127.0.0.1:{server.port}/0")
        assert broker.publish(messages("a")) == 1
        broker.close()


def test_restricted_user() -> None:
    """The rights that docs/redis.md lists are enough; without them the error names what lacks."""
    rights = "+@connection +@read +@write +@pubsub +@scripting +time +select"
    with RedisServer(
        f"user shop on >pw ~* &* -@all {rights}", "user poor on >pw ~* &* +@connection"
    ) as server:
        url = f"redis://shop:pw@127.0.0.1:{server.port}"
        broker, results = opened(f"{url}/0"), open_results(f"{url}/1")
        assert one_store(broker, results)
        results.open()
        broker.register(LEASE)
        claim = in_background(lambda: broker.claim(OWNER, ["celery", "other"], 10, wait=20))
        time.sleep(0.1)
        broker.publish([message("a", queue="other")])
        [delivery] = claim.result(20)
        wait = in_background(lambda: results.wait(["a"], 20))
        broker.settle([done(delivery, records=(record("a"),))])
        assert ids(wait.result(20)) == ["a"]
        broker.maintain(OWNER, Upkeep())
        broker.close()
        results.close()
        poor = opened(f"redis://poor:pw@127.0.0.1:{server.port}/0")
        with pytest.raises(OperationalError, match=r"does not permit.*lpush|sadd"):
            poor.publish(messages("a"))
        poor.close()


def test_missing_database(server: RedisServer) -> None:
    assert "no such database" in refusal_of(f"redis://127.0.0.1:{server.port}/99")


def test_replica(server: RedisServer) -> None:
    with RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica:
        assert "read-only replica" in refusal_of(replica.url)


def test_master_becomes_a_replica(server: RedisServer, broker: Broker) -> None:
    broker.publish(messages("a"))
    server.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(OperationalError, match="read-only replica"):
        broker.publish(messages("b"))
    server.call("REPLICAOF", "NO", "ONE")
    assert broker.publish(messages("b")) == 1


def test_that_is_no_redis() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        begun = time.monotonic()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        assert "did not confirm" in refusal_of(url, socket_timeout=0.3)
        assert time.monotonic() - begun < 5


def test_eviction_is_said(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.call("CONFIG", "SET", "maxmemory", "100mb")
    server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    inspecting._warned.clear()
    with caplog.at_level(logging.WARNING, "celeriac.drivers.redis"):
        opened(server.url).close()
        opened(server.url).close()
    assert [r for r in caplog.messages if "allkeys-lru" in r and "noeviction" in r] == (
        caplog.messages
    )
    assert len(caplog.messages) == 1


# --- away and back


def test_server_is_away_for_a_while(tmp_path: Path) -> None:
    """Calls raise within a bounded time while it is away, and go on when it is back."""
    with RedisServer("appendonly yes", "appendfsync always") as server:
        broker = opened(server.url)
        results = open_results(server.url)
        results.open()
        broker.register(LEASE)
        broker.publish(messages("a", "b"))
        [first, _] = broker.claim(OWNER, ["celery"], 10)
        claim = in_background(lambda: broker.claim(OWNER, ["celery"], 10, wait=30))
        wait = in_background(lambda: results.wait(["a"], 30))
        time.sleep(0.1)
        server.kill()
        with pytest.raises(OperationalError):
            claim.result(20)
        begun = time.monotonic()
        for call in (
            lambda: broker.publish(messages("c")),
            lambda: broker.heartbeat("w1"),
            lambda: broker.settle([done(first)]),
        ):
            with pytest.raises(OperationalError, match=str(server.port)):
                call()
        assert time.monotonic() - begun < 5
        server.start()
        assert broker.heartbeat("w1").alive
        assert len(broker.recover(OWNER, OWNER, ())) == 2
        assert broker.settle([done(first, records=(record("a"),))]) == [Settled.SETTLED]
        assert ids(wait.result(20)) == ["a"]
        assert broker.publish(messages("c")) == 1
        broker.close()
        results.close()


def test_stalled_server(server: RedisServer) -> None:
    """One that answers no more is given up after the time-out."""
    broker = opened(server.url, socket_timeout=0.5, socket_connect_timeout=0.5)
    broker.register(LEASE)
    claim = in_background(lambda: broker.claim(OWNER, ["celery"], 10, wait=30))
    time.sleep(0.1)
    server.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(OperationalError, match=r"0\.5 s"):
            broker.publish(messages("a"))
        with pytest.raises(OperationalError):
            claim.result(20)
        assert time.monotonic() - begun < 10
    finally:
        server.signal(signal.SIGCONT)
    assert broker.publish(messages("b")) == 1
    assert "b" in ids(broker.claim(OWNER, ["celery"], 10))
    broker.close()


def test_idle_connection_was_cut(server: RedisServer, broker: Broker) -> None:
    """A connection that the server has closed meanwhile is noticed before it is used."""
    broker.publish(messages("a"))
    server.call("CLIENT", "KILL", "TYPE", "normal")
    time.sleep(1.1)
    assert broker.publish(messages("b")) == 1


# --- other ways to a server


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(f"unixsocket {path}"):
        for url in (f"redis+socket://{path}?virtual_host=3", f"unix://{path}?db=3"):
            broker = opened(url)
            assert broker.publish(messages("a")) == 1
            assert str(path) in broker.store
            broker.close()


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Of an authority of our own, for localhost: authority, certificate, key."""
    openssl = executable("openssl")
    ca, ca_key, key, csr, cert, names = (
        folder / name for name in ("ca.crt", "ca.key", "r.key", "r.csr", "r.crt", "names")
    )
    names.write_text("subjectAltName=DNS:localhost")

    def run(*args: Any) -> None:
        subprocess.run([openssl, *map(str, args)], check=True, capture_output=True, timeout=60)

    new = ("-newkey", "rsa:2048", "-nodes")
    run("req", "-x509", *new, "-keyout", ca_key, "-out", ca, "-days", 2, "-subj", "/CN=ours")
    run("req", *new, "-keyout", key, "-out", csr, "-subj", "/CN=localhost")
    signing = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2, "-extfile", names)
    run("x509", "-req", "-in", csr, "-out", cert, *signing)
    return ca, cert, key


def test_tls(tmp_path: Path) -> None:
    ca, cert, key = certificate(tmp_path)
    port = free_port()
    with RedisServer(
        f"tls-port {port}",
        f"tls-cert-file {cert}",
        f"tls-key-file {key}",
        f"tls-ca-cert-file {ca}",
        "tls-auth-clients no",
    ) as server:
        url = f"rediss://localhost:{port}/0"
        broker = opened(f"{url}?ssl_ca_certs={ca}")
        broker.register(LEASE)
        large = message("large", body=bytes(range(256)) * 5000)
        broker.publish([large])
        claim = broker.claim(OWNER, ["celery"], 10, wait=5)
        assert [d.message.body for d in claim] == [large.body]
        waiting = in_background(lambda: broker.claim(OWNER, ["celery"], 10, wait=20))
        time.sleep(0.1)
        broker.publish(messages("a"))
        assert ids(waiting.result(20)) == ["a"]
        broker.close()
        assert "not trusted" in refusal_of(url)
        assert "not trusted" in refusal_of(f"rediss://127.0.0.1:{port}/0", ssl_ca_certs=str(ca))
        opened(url, ssl_cert_reqs="none").close()
        opened(url, ssl={"ssl_cert_reqs": "CERT_REQUIRED", "ca_certs": str(ca)}).close()
        plain = f"rediss://localhost:{server.port}/0"
        assert "TLS" in refusal_of(plain, socket_connect_timeout=1, ssl_cert_reqs="none")
    with pytest.raises(ImproperlyConfigured, match="TLS files"), RedisServer() as server:
        opened(f"rediss://localhost:{server.port}/0", ssl_ca_certs="/not/there")


def test_sentinel_and_fail_over(server: RedisServer) -> None:
    with (
        RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica,
        RedisServer(
            f"sentinel monitor shop 127.0.0.1 {server.port} 1",
            "sentinel down-after-milliseconds shop 300",
            "sentinel failover-timeout shop 2000",
            mode="--sentinel",
        ) as sentinel,
    ):
        url = f"sentinel://127.0.0.1:1;sentinel://127.0.0.1:{sentinel.port}/2"
        with pytest.raises(ImproperlyConfigured, match="master_name"):
            open_broker(url)
        assert "knows no master" in refusal_of(url, master_name="nobody")
        broker = opened(url, master_name="shop")
        results = open_results(url, {"master_name": "shop"})
        assert one_store(broker, results)
        broker.register(LEASE)
        broker.publish(messages("a"))
        until(lambda: b"flags" in sentinel.call("SENTINEL", "replicas", "shop"))
        until(lambda: b"state=online" in server.call("INFO", "replication"))
        wire = Wire(server.url)
        until(lambda: wire("WAIT", 1, 1000) == 1)
        wire.close()
        server.kill()
        until(lambda: is_published(broker, "b"))
        assert b"role:master" in replica.call("INFO", "replication")
        found = ids(broker.claim(OWNER, ["celery"], 10))
        assert set(found) == {"a", "b"}
        broker.close()
        assert "is a sentinel" in refusal_of(f"redis://127.0.0.1:{sentinel.port}/0")


def is_published(broker: Broker, id: str) -> bool:
    try:
        return broker.publish(messages(id)) == 1
    except OperationalError:
        return False


def until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_cluster() -> None:
    with RedisServer("cluster-enabled yes", f"cluster-port {free_port()}") as node:
        assert "hash tag" in refusal_of(node.url)
        assert "hash tag" in refusal_of(node.url, global_keyprefix="shop:")
        assert "No node of the cluster" in refusal_of(node.url, global_keyprefix="{shop}:")
        node.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: b"cluster_state:ok" in node.call("CLUSTER", "INFO"))
        options = {"global_keyprefix": "{shop}:"}
        broker, results = opened(node.url, **options), open_results(node.url, options)
        assert one_store(broker, results)
        assert not one_store(broker, open_results(node.url, {"global_keyprefix": "{x}:"}))
        results.open()
        broker.register(LEASE)
        broker.publish([message("a"), message("b", queue="other")])
        deliveries = broker.claim(OWNER, ["celery", "other"], 10, wait=1)
        settlements = [done(d, records=(record(d.message.id),)) for d in deliveries]
        assert broker.settle(settlements) == [Settled.SETTLED] * 2
        assert ids(results.wait(["a", "b"], 5)) == ["a", "b"]
        assert ids([r for r in results.get(["a"]) if r]) == ["a"]
        broker.close()
        results.close()
