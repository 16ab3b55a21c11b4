"""Everything that a result backend must do."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import pytest

from celeriac import states
from celeriac.contracts import TellsUnfinished
from celeriac.message import Completes, TaskRecord, Unfinished, Upkeep
from celeriac.testing.harness import StoreUnderTest, Suite, assert_waiting, in_background
from celeriac.testing.samples import arrival, done, join, messages, record

STATES = (
    states.PENDING,
    states.RECEIVED,
    states.STARTED,
    states.RETRY,
    "PROGRESS",
    states.SUCCESS,
    states.FAILURE,
    states.REVOKED,
)


def which_stands(old: TaskRecord, new: TaskRecord) -> TaskRecord:
    """Promise 9, word by word."""
    if old.state == states.SUCCESS:
        return old  # a stored SUCCESS is never replaced
    if old.state in (states.FAILURE, states.REVOKED):
        return new if new.run != old.run else old  # only by another run of the same id
    return new


def transitions() -> list[tuple[TaskRecord, TaskRecord]]:
    """Each state after each state, of the same and of another run."""
    pairs = []
    for first, second, run in product(STATES, STATES, ("same", "other")):
        id = f"{first}-{second}-{run}"
        old = record(id, first, run="same", payload=b"old")
        pairs.append((old, record(id, second, run=run, payload=b"new")))
    return pairs


class ResultBackendSuite(Suite):
    """The ResultBackend contract, and promise 9."""

    def test_put_and_get(self, store: StoreUnderTest) -> None:
        """get: the records of the ids, in their order; None for an unknown one."""
        records = [record(id) for id in ("a", "b", "c")]
        assert store.results.put(records) == records
        other = store.connect().results
        found = other.get(["c", "unknown", "a", "c", "b"])
        assert found == [records[2], None, records[0], records[2], records[1]]

    def test_nothing(self, store: StoreUnderTest) -> None:
        """A batch may be empty."""
        assert store.results.put([]) == []
        assert store.results.get([]) == []
        assert store.results.wait([], 0.05) == []
        assert store.results.arrive([]) == []
        assert store.results.delete([]) == 0
        store.results.open_joins([])

    def test_every_field_comes_back(self, store: StoreUnderTest) -> None:
        """TaskRecord: as it was put, whatever bytes and letters are in it."""
        whole = TaskRecord(
            id="ïd ☃ 𝄞' --",
            run="rün",
            state="MY STATE ☃",
            ready=False,
            payload=bytes(range(256)) + "☃".encode(),
            expires_at=store.now() + 1234.5,
        )
        ready = record("r", states.FAILURE, payload=b"")
        assert store.results.put([whole, ready]) == [whole, ready]
        assert store.connect().results.get([whole.id, "r"]) == [whole, ready]

    def test_large_payload(self, store: StoreUnderTest) -> None:
        """A result of 5 MB is stored and comes back."""
        large = record("a", payload=bytes(range(256)) * (5 * 1024 * 4))
        store.results.put([large])
        assert store.results.get(["a"]) == [large]

    def test_many_ids(self, store: StoreUnderTest) -> None:
        """get, wait and delete take thousands of ids at once."""
        names = [f"t{number}" for number in range(3000)]
        store.results.put([record(name) for name in names[::2]])
        found = store.results.get(names)
        assert [r is not None for r in found] == [True, False] * 1500
        assert len(store.results.wait(names, 5)) == 1500
        assert store.results.delete(names) == 1500

    def test_survives_closing(self, store: StoreUnderTest) -> None:
        """A record does not hang on the connection that put it; close may be called twice."""
        other = store.connect()
        other.results.put([record("a")])
        other.results.close()
        other.results.close()
        assert store.results.get(["a"]) == [record("a")]

    # --- promise 9

    def test_which_record_stands(self, store: StoreUnderTest) -> None:
        """Promise 9: SUCCESS is never replaced; FAILURE and REVOKED only by another run; an
        unfinished state never replaces a final one of the same run. put: for each, the record
        that now stands."""
        pairs = transitions()
        store.results.put([old for old, _ in pairs])
        expected = [which_stands(old, new) for old, new in pairs]
        assert store.results.put([new for _, new in pairs]) == expected
        assert store.results.get([old.id for old, _ in pairs]) == expected

    def test_which_record_stands_in_one_batch(self, store: StoreUnderTest) -> None:
        """put: in order: of two records of an id in one batch the second meets the first."""
        pairs = transitions()
        answers = store.results.put([record for pair in pairs for record in pair])
        expected = [which_stands(old, new) for old, new in pairs]
        assert answers[::2] == [old for old, _ in pairs]
        assert answers[1::2] == expected
        assert store.results.get([old.id for old, _ in pairs]) == expected

    def test_which_record_stands_after_settle(self, store: StoreUnderTest) -> None:
        """Promise 9 holds for the records of settlements too."""
        store.need_one_store()
        owner = store.worker()
        pairs = transitions()
        store.publish(*messages("first", "second"))
        for side, delivery in enumerate(store.claim(owner)):
            records = tuple(pair[side] for pair in pairs)
            store.broker.settle([done(delivery, records=records)])
        found = store.results.get([old.id for old, _ in pairs])
        assert found == [which_stands(old, new) for old, new in pairs]

    def test_repeated_put(self, store: StoreUnderTest) -> None:
        """put: repeating it after a cut connection changes nothing."""
        for state in STATES:
            one = record(f"id-{state}", state)
            assert store.results.put([one]) == store.results.put([one]) == [one]

    # --- expiry

    def test_expired_is_unknown(self, store: StoreUnderTest) -> None:
        """get: None for an expired one, whether purge ran or not."""
        store.results.put([record("a", expires_at=store.now() + 5), record("b")])
        store.advance(4)
        assert store.results.get(["a"]) != [None]
        store.advance(2)
        assert store.results.get(["a", "b"]) == [None, record("b")]
        assert store.results.wait(["a"], 0.05) == []

    def test_expired_is_replaced(self, store: StoreUnderTest) -> None:
        """Promise 9 is about what is stored: an expired SUCCESS is not."""
        store.results.put([record("a", expires_at=store.now() + 5)])
        store.advance(6)
        again = record("a", states.STARTED)
        assert store.results.put([again]) == [again]
        assert store.results.get(["a"]) == [again]

    def test_purge(self, store: StoreUnderTest) -> None:
        """purge: removes what has expired; how many records."""
        soon, later = store.now() + 5, store.now() + 50
        store.results.put([record("a", expires_at=soon), record("b", expires_at=soon)])
        store.results.put([record("c", expires_at=later), record("d")])
        assert store.results.purge() == 0
        store.advance(6)
        assert store.results.purge() == 2
        assert store.results.purge() == 0
        found = store.results.get(["a", "b", "c", "d"])
        assert [one is not None for one in found] == [False, False, True, True]

    def test_delete(self, store: StoreUnderTest) -> None:
        """delete: forgets the records; how many there were. Then anything may be stored."""
        store.results.put([record("a"), record("b"), record("c")])
        assert store.results.delete(["a", "unknown", "c", "a"]) == 2
        assert store.results.get(["a", "b", "c"]) == [None, record("b"), None]
        assert store.results.delete(["a"]) == 0
        started = record("a", states.STARTED)
        assert store.results.put([started]) == [started]

    # --- waiting

    def test_wait_for_what_is_ready(self, store: StoreUnderTest) -> None:
        """wait: all that are ready, at once if there are some."""
        store.results.put([record("a"), record("b", states.STARTED), record("c", states.FAILURE)])
        begun = time.monotonic()
        found = store.results.wait(["a", "b", "c", "unknown", "a"], 20)
        assert time.monotonic() - begun < store.wake_within
        assert sorted(one.id for one in found) == ["a", "c"]

    def test_wait_times_out(self, store: StoreUnderTest) -> None:
        """wait: empty after ``timeout``: an unfinished state is not what was waited for."""
        store.results.put([record("a", states.STARTED)])
        begun = time.monotonic()
        assert store.results.wait(["a", "b"], 0.3) == []
        assert 0.28 <= time.monotonic() - begun < 0.3 + store.wake_within

    def test_put_wakes(self, store: StoreUnderTest) -> None:
        """wait: a put on another connection ends it; one of another id or not ready doesn't."""
        other = store.connect().results
        wait = in_background(lambda: store.results.wait(["a", "b"], 20))
        assert_waiting(wait)
        other.put([record("x"), record("a", states.STARTED)])
        assert_waiting(wait)
        begun = time.monotonic()
        other.put([record("b", states.REVOKED)])
        assert wait.result(20) == [record("b", states.REVOKED)]
        assert time.monotonic() - begun < store.wake_within

    def test_settle_wakes(self, store: StoreUnderTest) -> None:
        """wait: so does a settlement with a record."""
        store.need_one_store()
        other = store.connect().broker
        store.publish(*messages("a"))
        [delivery] = store.claim(store.worker())
        wait = in_background(lambda: store.results.wait(["a"], 20))
        assert_waiting(wait)
        begun = time.monotonic()
        other.settle([done(delivery, records=(record("a"),))])
        assert wait.result(20) == [record("a")]
        assert time.monotonic() - begun < store.wake_within

    def test_many_waiters(self, store: StoreUnderTest) -> None:
        """wait: many threads, each for its own, on one object, while others use it."""
        waits = [in_background(store.results.wait, [f"t{number}"], 20) for number in range(16)]
        assert_waiting(waits[0])
        other = store.connect().results
        for number in reversed(range(16)):
            other.put([record(f"t{number}")])
        assert [w.result(20) for w in waits] == [[record(f"t{number}")] for number in range(16)]

    def test_waiters_for_the_same(self, store: StoreUnderTest) -> None:
        """wait: everybody who waits for a record gets it."""
        places = [store.results, store.results, store.connect().results]
        waits = [in_background(place.wait, ["a"], 20) for place in places]
        for wait in waits:
            assert_waiting(wait, 0.05)
        store.results.put([record("a")])
        assert [wait.result(20) for wait in waits] == [[record("a")]] * 3

    def test_close_wakes(self, store: StoreUnderTest) -> None:
        """close: waiting calls return."""
        results = store.connect().results
        wait = in_background(lambda: results.wait(["a"], 20))
        assert_waiting(wait)
        begun = time.monotonic()
        results.close()
        assert wait.result(20) == []
        assert time.monotonic() - begun < store.wake_within

    def test_wake(self, store: StoreUnderTest) -> None:
        """wake: the waits of this object end, and later calls are as ever."""
        results = store.results
        wait = in_background(results.wait, ["a"], 20)
        assert_waiting(wait)
        begun = time.monotonic()
        results.wake()
        assert wait.result(20) == []
        assert time.monotonic() - begun < store.wake_within
        again = in_background(results.wait, ["a"], 20)
        assert_waiting(again)
        results.put([record("a")])
        assert again.result(20) == [record("a")]

    # --- joins

    def test_arrive(self, store: StoreUnderTest) -> None:
        """arrive: counts the parts in; the one that would complete the join is told so, and
        nothing of it is done until it is repeated with the token."""
        self._joins(store)
        store.results.open_joins([join(size=3)])
        assert store.results.arrive([arrival(2), arrival(0)]) == [None, None]
        for _ in range(2):
            [told] = store.results.arrive([arrival(1)])
            assert isinstance(told, Completes)
            assert told.parts == (arrival(0), arrival(1), arrival(2))
        assert told is not None
        assert store.results.arrive([arrival(1)], {"join": told.token}) == [None]
        for index in range(3):
            assert store.results.arrive([arrival(index)]) == [None]

    def test_arrivals_of_one_batch(self, store: StoreUnderTest) -> None:
        """arrive: one answer for each, in order, so that the last of a batch may complete."""
        self._joins(store)
        store.results.open_joins([join("one", 2), join("two", 2)])
        parts = [arrival(0, "one"), arrival(0, "two"), arrival(1, "one"), arrival(0, "one")]
        first, second, told, again = store.results.arrive(parts)
        assert (first, second, again) == (None, None, None)
        assert told is not None
        assert (told.join, told.parts) == ("one", (parts[0], parts[2]))

    def test_repeated_arrival(self, store: StoreUnderTest) -> None:
        """arrive: repeating one changes nothing: it is not counted twice, and the first stands."""
        self._joins(store)
        store.results.open_joins([join(size=2)])
        again = arrival(0, value=b'"other"')
        assert store.results.arrive([arrival(0), again, again]) == [None] * 3
        [told] = store.connect().results.arrive([arrival(1)])
        assert told is not None
        assert told.parts == (arrival(0), arrival(1))

    def test_wrong_token(self, store: StoreUnderTest) -> None:
        """arrive: a wrong token is as none, nor does another join's do."""
        self._joins(store)
        store.results.open_joins([join("one", 1), join("two", 1)])
        [told] = store.results.arrive([arrival(0, "two")])
        assert told is not None
        for token in ("wrong", "", told.token):
            [again] = store.results.arrive([arrival(0, "one")], {"one": token, "two": "wrong"})
            assert isinstance(again, Completes)

    def test_open_joins_twice(self, store: StoreUnderTest) -> None:
        """open_joins: opening one again changes nothing."""
        self._joins(store)
        store.results.open_joins([join(size=2), join(size=1)])
        assert store.results.arrive([arrival(0)]) == [None]
        store.results.open_joins([join(size=1)])
        assert store.results.arrive([arrival(0)]) == [None]
        [told] = store.results.arrive([arrival(1)])
        assert told is not None

    def test_unknown_and_expired_joins(self, store: StoreUnderTest) -> None:
        """arrive: at a join that is unknown or expired there is nothing to complete."""
        self._joins(store)
        store.results.open_joins([join(size=1, expires_at=store.now() + 5)])
        assert store.results.arrive([arrival(0, "unknown")]) == [None]
        store.advance(6)
        assert store.results.arrive([arrival(0)]) == [None]
        store.results.purge()
        assert store.results.arrive([arrival(0)]) == [None]

    def test_purge_keeps_open_joins(self, store: StoreUnderTest) -> None:
        """purge: a join that has not expired keeps its parts."""
        self._joins(store)
        store.results.open_joins([join(size=2, expires_at=store.now() + 50), join("other", 2)])
        store.results.arrive([arrival(0), arrival(0, "other")])
        store.advance(40)
        store.results.purge()
        told = store.results.arrive([arrival(1), arrival(1, "other")])
        assert [one is not None for one in told] == [True, True]

    def test_unfinished(self, store: StoreUnderTest) -> None:
        """TellsUnfinished: joins with a plan that are open for long, each told to one who asks."""
        backend = self._tells(store)
        plan = bytes(range(256))
        store.results.open_joins([join("a", 3, plan=plan), join("none", 2)])
        store.results.open_joins([join("a", 3, plan=b"other")])
        store.results.arrive([arrival(1, "a")])
        assert backend.unfinished(10.0, 5) == []
        store.advance(10)
        store.results.open_joins([join("b", 1, plan=b"p", expires_at=store.now() + 15)])
        told = [Unfinished(join="a", plan=plan, missing=(0, 2))]
        assert backend.unfinished(10.0, 5) == told
        assert self._tells(store, store.connect().results).unfinished(5.0, 5) == []
        store.advance(10)
        found = backend.unfinished(10.0, 1) + backend.unfinished(10.0, 5)
        assert sorted(one.join for one in found) == ["a", "b"]
        store.advance(10)
        assert [one.join for one in backend.unfinished(10.0, 5)] == ["a"], "b has expired"

    def test_finished(self, store: StoreUnderTest) -> None:
        """TellsUnfinished: nothing is told of a join that has ended, though it is opened again."""
        backend = self._tells(store)
        store.results.open_joins([join(size=1, plan=b"p")])
        [told] = store.results.arrive([arrival(0)])
        assert told is not None
        store.advance(10)
        assert [one.missing for one in backend.unfinished(5.0, 5)] == [(0,)]
        store.results.arrive([arrival(0)], {"join": told.token})
        store.results.open_joins([join(size=1, plan=b"p")])
        store.advance(10)
        assert backend.unfinished(5.0, 5) == []

    def _tells(self, store: StoreUnderTest, backend: Any = None) -> TellsUnfinished:
        self._joins(store)
        backend = store.results if backend is None else backend
        if not isinstance(backend, TellsUnfinished):
            pytest.skip("this result backend does not tell of joins that stay open")
        return backend

    def _joins(self, store: StoreUnderTest) -> None:
        if not store.results.capabilities.joins:
            pytest.skip("this result backend does not count arrivals")

    # --- admission

    def test_admit(self, store: StoreUnderTest) -> None:
        """admit: the first publish id seen for a key is the one; another one is a repeat, the
        same one (a redelivery) is not."""
        other = store.connect().results
        assert store.results.admit("key", "first")
        assert not store.results.admit("key", "second")
        assert not other.admit("key", "third")
        assert other.admit("key", "first")
        assert store.results.admit("another key", "second")

    def test_admit_is_remembered_for_the_window(self, store: StoreUnderTest) -> None:
        """admit: as long as a broker would remember the key, whether purge ran or not."""
        assert store.results.admit("key", "first")
        store.advance(store.dedupe_window * 0.75)
        store.results.purge()
        if store.is_one_store:
            store.broker.maintain(store.worker(), Upkeep())
        assert not store.results.admit("key", "second")
        store.advance(store.dedupe_window * 0.5)
        assert store.results.admit("key", "second")
        assert not store.results.admit("key", "first")

    def test_admit_once_of_many(self, store: StoreUnderTest) -> None:
        """admit: of many that come at once exactly one is the first."""
        places = [store.connect().results for _ in range(3)] + [store.results] * 3
        for turn in range(10):
            calls = [
                in_background(place.admit, f"key-{turn}", f"id-{number}")
                for number, place in enumerate(places)
            ]
            assert sum(call.result(20) for call in calls) == 1
