"""What a schedule store must do."""

from __future__ import annotations

import threading
from collections import Counter

from msgspec import structs

from celeriac.message import ScheduleRecord
from celeriac.testing.harness import PATIENCE, StoreUnderTest, Suite

ANCHOR = 1_700_000_000.125


def entry(name: str, **fields: object) -> ScheduleRecord:
    """A record that is not stored yet."""
    values: dict[str, object] = {"payload": b'{"task":"t"}', "source": "user", "anchor": ANCHOR}
    return ScheduleRecord(name=name, **{**values, **fields})  # type: ignore[arg-type]


def saved(store: StoreUnderTest, *records: ScheduleRecord) -> list[ScheduleRecord]:
    """Save them all; as they are then."""
    versions = store.schedules.save(records)
    assert all(versions)
    return [
        structs.replace(record, version=version)
        for record, version in zip(records, versions, strict=True)
    ]


class ScheduleStoreSuite(Suite):
    """The ScheduleStore contract."""

    def test_empty(self, store: StoreUnderTest) -> None:
        """load: nothing, and all of it, from a new store."""
        found = store.schedules.load()
        assert found.records == ()
        assert found.whole

    def test_every_field(self, store: StoreUnderTest) -> None:
        """save and load: every field comes back as it was, on another connection too."""
        full = entry(
            "nightly/täglich 'x'",
            payload=bytes(range(256)),
            source="code",
            paused=True,
            last_nominal=ANCHOR + 0.1,
            last_run_at=ANCHOR + 1e-6,
            count=2**40,
            state=b"\x00{}",
        )
        records = saved(store, full, entry("bare"))
        for connection in (store, store.connect()):
            found = connection.schedules.load()
            assert found.whole
            assert sorted(found.records, key=lambda one: one.version) == records

    def test_only_the_expected_version_is_replaced(self, store: StoreUnderTest) -> None:
        """save: compare and set. Whoever carries an older version changes nothing, and is told."""
        (first,) = saved(store, entry("e"))
        (second,) = saved(store, structs.replace(first, count=1))
        assert second.version > first.version
        assert store.schedules.save([structs.replace(first, count=7)]) == [0]
        assert store.schedules.load().records == (second,)

    def test_version_0_only_makes(self, store: StoreUnderTest) -> None:
        """save: a record that was never stored does not replace one of its name."""
        (stored,) = saved(store, entry("e", count=3))
        assert store.schedules.save([entry("e")]) == [0]
        assert store.schedules.load().records == (stored,)

    def test_each_for_itself(self, store: StoreUnderTest) -> None:
        """save: one that is refused does not hold up the others; the answers are in order."""
        (stored,) = saved(store, entry("b"))
        answers = store.schedules.save([entry("a"), entry("b"), entry("c")])
        assert [bool(version) for version in answers] == [True, False, True]
        names = {one.name: one for one in store.schedules.load().records}
        assert set(names) == {"a", "b", "c"}
        assert names["b"] == stored
        assert store.schedules.save([]) == []

    def test_the_same_twice_in_one_call(self, store: StoreUnderTest) -> None:
        """save: of two for one version in a call, the first is stored."""
        answers = store.schedules.save([entry("e", count=1), entry("e", count=2)])
        assert [bool(version) for version in answers] == [True, False]
        assert [one.count for one in store.schedules.load().records] == [1]

    def test_versions_are_never_used_again(self, store: StoreUnderTest) -> None:
        """save: after a removal too, so who remembers the old entry cannot hit the new one."""
        (old,) = saved(store, entry("e"))
        assert store.schedules.remove(["e"]) == 1
        (new,) = saved(store, entry("e"))
        assert new.version != old.version
        assert store.schedules.save([structs.replace(old, count=9)]) == [0]

    def test_a_removed_one_is_not_replaced(self, store: StoreUnderTest) -> None:
        """save: a scheduler that still knows a removed entry does not bring it back."""
        (old,) = saved(store, entry("e"))
        store.schedules.remove(["e"])
        assert store.schedules.save([structs.replace(old, count=1)]) == [0]
        assert store.schedules.load().records == ()

    def test_changes_since(self, store: StoreUnderTest) -> None:
        """load: with a token, what has changed since then, and nothing twice."""
        first, _ = saved(store, entry("a"), entry("b"))
        other = store.connect().schedules
        before = other.load()
        assert other.load(before.token).records == ()
        assert not other.load(before.token).whole
        (changed,) = saved(store, structs.replace(first, count=1))
        (added,) = saved(store, entry("c"))
        since = other.load(before.token)
        assert not since.whole
        assert sorted(since.records, key=lambda one: one.version) == [changed, added]
        assert other.load(since.token).records == ()

    def test_the_token_stays_while_nothing_changes(self, store: StoreUnderTest) -> None:
        """load: a refused save is no change."""
        saved(store, entry("a"))
        token = store.schedules.load().token
        store.schedules.save([entry("a")])
        assert store.schedules.load(token).token == token

    def test_removal_is_noticed(self, store: StoreUnderTest) -> None:
        """remove: those who know the entry get everything anew, and it is not there."""
        _, kept = saved(store, entry("a"), entry("b"))
        other = store.connect().schedules
        token = other.load().token
        assert store.schedules.remove(["a", "a", "never there"]) == 1
        since = other.load(token)
        assert since.whole
        assert since.records == (kept,)
        assert store.schedules.remove(["a"]) == 0
        assert other.load(since.token).whole is False

    def test_an_unknown_token(self, store: StoreUnderTest) -> None:
        """load: a token of another store, or of no store, means everything."""
        (stored,) = saved(store, entry("a"))
        for token in ("nonsense", "x:9", ":", "0:-1"):
            found = store.schedules.load(token)
            assert found.whole
            assert found.records == (stored,)

    def test_open_and_close(self, store: StoreUnderTest) -> None:
        """close: may be called twice; what was saved is there after opening again."""
        (stored,) = saved(store, entry("a"))
        schedules = store.connect().schedules
        schedules.close()
        schedules.close()
        schedules.open()
        assert schedules.load().records == (stored,)
        assert schedules.store == store.schedules.store

    def test_one_of_many_wins(self, store: StoreUnderTest) -> None:
        """save: of several who change one version at the same time, one does."""
        (stored,) = saved(store, entry("e"))
        connections = [store.connect().schedules for _ in range(4)]
        start = threading.Barrier(len(connections))
        wins: Counter[int] = Counter()

        def change(number: int) -> None:
            record = stored
            for _ in range(25):
                start.wait(PATIENCE)
                wins[number] += bool(
                    connections[number].save([structs.replace(record, count=record.count + 1)])[0]
                )
                start.wait(PATIENCE)
                (record,) = connections[number].load().records

        threads = [threading.Thread(target=change, args=(n,)) for n in range(len(connections))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sum(wins.values()) == 25
        assert store.schedules.load().records[0].count == 25
