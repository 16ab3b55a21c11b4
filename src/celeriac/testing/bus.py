"""What an event bus must do. It may lose events, so each test sends until one is heard."""

from __future__ import annotations

import time
from collections.abc import Callable

from celeriac.contracts import EventBus
from celeriac.testing.harness import (
    PATIENCE,
    StoreUnderTest,
    Suite,
    assert_waiting,
    in_background,
)


def until_heard(
    bus: EventBus, topics: list[str], emit: Callable[[], None]
) -> list[tuple[str, bytes]]:
    """Emit again and again until this listener hears something."""
    deadline = time.monotonic() + PATIENCE
    heard: list[tuple[str, bytes]] = []
    while not heard and time.monotonic() < deadline:
        emit()
        heard = bus.listen(topics, 0.5)
    return heard


class EventBusSuite(Suite):
    """The EventBus contract."""

    def test_emit_and_listen(self, store: StoreUnderTest) -> None:
        """emit: tells whoever listens now, on another connection too, whatever the bytes."""
        other, payload = store.connect().bus, bytes(range(256))
        assert other.listen(["töpic"], 0.0) == []
        heard = until_heard(other, ["töpic"], lambda: store.bus.emit("töpic", payload))
        assert set(heard) == {("töpic", payload)}

    def test_everybody_who_listens(self, store: StoreUnderTest) -> None:
        """emit: every listener hears it, the one that emits among them."""
        buses = [store.bus, store.connect().bus, store.connect().bus]
        for bus in buses:
            bus.listen(["t"], 0.0)
        for bus in buses:
            assert until_heard(bus, ["t"], lambda: store.bus.emit("t", b"x"))

    def test_since_the_last_call(self, store: StoreUnderTest) -> None:
        """listen: what was emitted since the last call, in order, each once."""
        other = store.connect().bus
        other.listen(["t"], 0.0)
        until_heard(other, ["t"], lambda: store.bus.emit("t", b"first"))
        while other.listen(["t"], 0.1):
            pass
        for number in range(5):
            store.bus.emit("t", b"%d" % number)
        heard: list[tuple[str, bytes]] = []
        deadline = time.monotonic() + PATIENCE
        while len(heard) < 5 and time.monotonic() < deadline:
            heard += other.listen(["t"], 0.5)
        assert heard == [("t", b"%d" % number) for number in range(5)]
        assert other.listen(["t"], 0.05) == []

    def test_not_what_was_before(self, store: StoreUnderTest) -> None:
        """listen: the first call: since then."""
        store.bus.emit("t", b"before")
        other = store.connect().bus
        assert other.listen(["t"], 0.1) == []

    def test_only_the_topics(self, store: StoreUnderTest) -> None:
        """listen: only the topics that were asked for; several may be."""
        other = store.connect().bus
        other.listen(["a", "b"], 0.0)

        def emit() -> None:
            for topic in ("x", "a", "aa", "b"):
                store.bus.emit(topic, topic.encode())

        heard = until_heard(other, ["a", "b"], emit)
        assert {topic for topic, _ in heard} <= {"a", "b"}

    def test_emit_ends_the_wait(self, store: StoreUnderTest) -> None:
        """listen: waits up to ``timeout`` seconds for something, no longer than it has to."""
        other = store.connect().bus
        other.listen(["t"], 0.0)
        listen = in_background(lambda: other.listen(["t"], 20))
        assert_waiting(listen)
        begun = time.monotonic()
        store.bus.emit("t")
        assert listen.result(20) == [("t", b"")]
        assert time.monotonic() - begun < store.wake_within

    def test_wake(self, store: StoreUnderTest) -> None:
        """wake: a wait of this object ends with nothing, others go on, and later ones are as
        ever."""
        woken, other = store.connect().bus, store.connect().bus
        for bus in (woken, other):
            bus.listen(["t"], 0.0)
        one, two = (in_background(lambda bus=bus: bus.listen(["t"], 20)) for bus in (woken, other))
        assert_waiting(one)
        assert_waiting(two)
        begun = time.monotonic()
        woken.wake()
        assert one.result(20) == []
        assert time.monotonic() - begun < store.wake_within
        assert_waiting(two)
        store.bus.emit("t", b"x")
        assert two.result(20) == [("t", b"x")]
        assert until_heard(woken, ["t"], lambda: store.bus.emit("t", b"y"))

    def test_timeout(self, store: StoreUnderTest) -> None:
        """listen: no longer than ``timeout``, with others' events about as well."""
        store.bus.listen(["t"], 0.0)
        store.bus.emit("other")
        begun = time.monotonic()
        assert store.bus.listen(["t"], 0.3) == []
        assert 0.28 <= time.monotonic() - begun < 0.3 + store.wake_within

    def test_bounded(self, store: StoreUnderTest) -> None:
        """EventBus: bounded: who doesn't listen loses events and holds nobody up; it hears
        again when it listens again."""
        slow = store.connect().bus
        slow.listen(["t"], 0.0)
        begun = time.monotonic()
        for _ in range(20_000):
            store.bus.emit("t", b"x" * 10)
        assert time.monotonic() - begun < PATIENCE
        heard = slow.listen(["t"], 0.1)
        assert len(heard) < 20_000
        assert until_heard(slow, ["t"], lambda: store.bus.emit("t", b"later"))
