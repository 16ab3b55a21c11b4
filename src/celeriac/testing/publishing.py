"""Publishing: durable, all or none, and never the same key twice."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.drivers import open_broker, safe_url
from celeriac.exceptions import OperationalError
from celeriac.message import Message
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import (
    arrival,
    content,
    defer,
    done,
    ids,
    join,
    message,
    messages,
)


class PublishTests(Suite):
    def test_publish_stores_what_can_be_claimed(self, store: StoreUnderTest) -> None:
        """publish: all durable in the store when it returns: another connection sees it."""
        assert store.broker.publish(messages("a", "b", "c")) == 3
        owner = store.worker()
        other = store.connect()
        assert ids(other.broker.claim(owner, ["celery"], 10)) == ["a", "b", "c"]

    def test_publish_nothing(self, store: StoreUnderTest) -> None:
        """publish: a batch may be empty."""
        assert store.broker.publish([]) == 0

    def test_published_survives_closing(self, store: StoreUnderTest) -> None:
        """Promise 1: what was published does not hang on the connection that published it."""
        other = store.connect()
        other.broker.publish(messages("a"))
        other.close()
        assert ids(store.claim(store.worker())) == ["a"]

    def test_all_or_none(self, store: StoreUnderTest) -> None:
        """publish: all in the store, or none."""
        broken: list[Any] = [*messages("a", "b"), None, message("c")]
        with pytest.raises(Exception, match=r".+"):
            store.broker.publish(broken)
        assert store.claim(store.worker()) == []
        assert store.broker.publish(messages("d")) == 1
        assert ids(store.claim(store.worker())) == ["d"]

    def test_all_or_none_with_joins(self, store: StoreUnderTest) -> None:
        """publish: the joins are part of the transaction."""
        broken: list[Any] = [join(size=1), None]
        with pytest.raises(Exception, match=r".+"):
            store.broker.publish(messages("a"), broken)
        assert store.claim(store.worker()) == []
        assert store.results.arrive([arrival(0)]) == [None]

    def test_every_field_comes_back(self, store: StoreUnderTest) -> None:
        """Message: what a driver stores and hands back without reading it."""
        sent = Message(
            id="ïd-é-☃-𝄞",
            run="run-☃",
            queue="celery",
            headers='{"lang":"py","☃":"𝄞"}'.encode(),
            body=bytes(range(256)),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            exchange="ëxchange",
            routing_key="shop.☃.#",
            priority=5,
            reply_to="reply-to-☃",
            delivery_mode=1,
            expires_at=store.now() + 1234.5,
            join="jöin",
        )
        store.publish(sent)
        [delivery] = store.claim(store.worker())
        assert delivery.message == sent

    def test_empty_headers_and_body(self, store: StoreUnderTest) -> None:
        """Message: headers are b"{}" for protocol 1; a body may be empty."""
        store.publish(message("a", headers=b"{}", body=b""))
        [delivery] = store.claim(store.worker())
        assert (delivery.message.headers, delivery.message.body) == (b"{}", b"")

    def test_large_payload(self, store: StoreUnderTest) -> None:
        """A body of 5 MB is stored and comes back."""
        body = bytes(range(256)) * (5 * 1024 * 4)
        store.publish(message("a", body=body))
        [delivery] = store.claim(store.worker())
        assert delivery.message.body == body

    def test_unicode_queue(self, store: StoreUnderTest) -> None:
        """A queue may have any name."""
        for queue in ("größe ☃", "a'b\"c;--", "with space", "%s{}*"):
            store.publish(message(queue=queue))
            [delivery] = store.claim(store.worker(), 10, queue)
            assert delivery.message.queue == queue

    def test_past_due_is_at_once(self, store: StoreUnderTest) -> None:
        """Message: due_at None or past: at once."""
        store.publish(message("a", due_at=store.now() - 5), message("b", due_at=None))
        assert ids(store.claim(store.worker())) == ["a", "b"]

    def test_delayed_waits_in_the_store(self, store: StoreUnderTest) -> None:
        """Promise 5: delayed messages wait in the broker until they are due, not before."""
        sent = message("a", due_at=store.now() + 5)
        store.publish(sent)
        owner = store.worker()
        store.advance(4)
        assert store.claim(owner) == []
        store.advance(1.5)
        [delivery] = store.claim(owner)
        assert content(delivery.message) == content(sent)

    def test_due_before_anybody_looked(self, store: StoreUnderTest) -> None:
        """Rule: by priority first, also what became due while no worker was there."""
        if not store.capabilities.priorities:
            pytest.skip("this broker has no priorities")
        best = store.capabilities.highest_priority
        store.publish(message("low", priority=abs(best - 3)))
        store.publish(message("high", priority=best, due_at=store.now() + 2))
        store.advance(2.5)
        owner = store.worker()
        assert ids(store.claim(owner, 1)) == ["high"]
        assert ids(store.claim(owner, 1)) == ["low"]

    # --- keys

    def test_key_seen_is_dropped(self, store: StoreUnderTest) -> None:
        """publish: a message whose key was seen within the window is dropped, and not counted."""
        self._needs_keys(store)
        assert store.broker.publish(messages("a", dedupe_key="k")) == 1
        assert store.broker.publish([message("b", dedupe_key="k"), message("c")]) == 1
        other = store.connect()
        assert other.broker.publish(messages("d", dedupe_key="k")) == 0
        assert ids(store.claim(store.worker())) == ["a", "c"]

    def test_key_twice_in_one_batch(self, store: StoreUnderTest) -> None:
        """publish: the first of a batch is the one that is seen."""
        self._needs_keys(store)
        assert store.broker.publish(messages("a", "b", dedupe_key="k")) == 1
        assert ids(store.claim(store.worker())) == ["a"]

    def test_key_outlives_its_message(self, store: StoreUnderTest) -> None:
        """Rule: keys live in a store of their own, longer than the message."""
        self._needs_keys(store)
        owner = store.worker()
        store.publish(message("a", dedupe_key="k"))
        store.broker.settle([done(d) for d in store.claim(owner)])
        assert store.broker.publish(messages("b", dedupe_key="k")) == 0

    def test_key_passes_after_the_window(self, store: StoreUnderTest) -> None:
        """publish: a key is seen for the window from its first publish, whether maintain ran or
        not, and what was dropped doesn't make it longer."""
        self._needs_keys(store)
        store.publish(message("a", dedupe_key="k"))
        store.advance(store.dedupe_window * 0.75)
        assert store.broker.publish(messages("b", dedupe_key="k")) == 0
        store.advance(store.dedupe_window * 0.5)
        assert store.broker.publish(messages("c", dedupe_key="k")) == 1
        assert ids(store.claim(store.worker())) == ["a", "c"]

    def test_task_id_is_no_key(self, store: StoreUnderTest) -> None:
        """Rule: a task id is never a dedupe key: the same id published twice stays two."""
        twice = message("a")
        store.publish(twice, twice)
        store.publish(twice)
        first, second, third = store.claim(store.worker())
        assert ids([first, second, third]) == ["a", "a", "a"]
        assert len({first.tag, second.tag, third.tag}) == 3

    def test_id_is_no_key_while_in_flight_or_delayed(self, store: StoreUnderTest) -> None:
        """Rule: a retry publishes the same id and run, and must pass."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.publish(message("a"))
        store.broker.settle([defer(delivery, store.now() + 5)])
        store.publish(message("a", due_at=store.now() + 5))
        store.advance(6)
        assert ids(store.claim(owner)) == ["a", "a", "a"]

    def test_key_equal_to_an_id(self, store: StoreUnderTest) -> None:
        """Rule: keys and ids are different things."""
        store.publish(message("a"))
        store.publish(message("b", dedupe_key="a"))
        store.publish(message("a"))
        assert len(store.claim(store.worker())) == 3

    def _needs_keys(self, store: StoreUnderTest) -> None:
        if not store.capabilities.dedupe:
            pytest.skip("this broker does not remember dedupe keys")

    # --- opening and closing

    def test_open_names_the_url(self, store: StoreUnderTest) -> None:
        """open: raises OperationalError naming the URL when the system cannot be reached."""
        url = store.unreachable_url
        if url is None:
            pytest.skip("this system can always be reached")
        with pytest.raises(OperationalError) as caught:
            open_broker(url, store.options).open()
        assert safe_url(url) in str(caught.value)

    def test_close_twice(self, store: StoreUnderTest) -> None:
        """close: may be called twice."""
        other = store.connect()
        other.broker.publish(messages("a"))
        other.broker.close()
        other.broker.close()
        assert ids(store.claim(store.worker())) == ["a"]

    def test_capabilities_say_how_durable(self, store: StoreUnderTest) -> None:
        """Capabilities: one sentence about durability, for ``celeriac report``."""
        assert store.capabilities.durability.strip()
        assert store.capabilities.highest_priority in (0, 9)
