"""Real processes, killed with SIGKILL in the middle; afterwards everything is counted."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.message import MessageState, Owner, Settled, Upkeep
from celeriac.testing.harness import (
    PATIENCE,
    StoreUnderTest,
    Suite,
    assert_waiting,
    in_background,
)
from celeriac.testing.needs import skip_unless_capable
from celeriac.testing.samples import QUEUE, done, ids, messages, record, release
from celeriac.testing.victim import BATCH, TTL

FOREVER = Upkeep(max_deliveries=1_000_000)


class Victim:
    """A process of ``celeriac.testing.victim`` and the lines it has told so far."""

    def __init__(self, role: str, url: str, argument: str) -> None:
        self.lines: list[str] = []
        self.told = threading.Condition()
        command = [sys.executable, "-m", "celeriac.testing.victim", role, url, argument]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                with self.told:
                    self.lines.append(line.strip())
                    self.told.notify_all()

    def wait_for_lines(self, count: int) -> None:
        with self.told:
            enough = self.told.wait_for(lambda: len(self.lines) >= count, PATIENCE)
        assert enough, f"the process told {self.lines!r} and no more"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> list[str]:
        """SIGKILL; everything that it had told."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return self.lines


class Starter:
    """Starts victims, and knows them, so that none outlives its test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.victims: list[Victim] = []

    def __call__(self, role: str, argument: str) -> Victim:
        victim = Victim(role, self.url, argument)
        self.victims.append(victim)
        return victim


class KillSuite(Suite):
    """For drivers that several processes can use. ``CELERIAC_KILLS`` says how many times each test
    kills."""

    kills = int(os.environ.get("CELERIAC_KILLS", "6"))

    @pytest.fixture
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StoreUnderTest]:
        store = type(self).make(tmp_path)
        store.use_real_time()
        try:
            skip_unless_capable(request, store.capabilities)
            if not store.capabilities.shared:
                pytest.skip("other processes cannot use this store")
            yield store
        finally:
            store.close()

    @pytest.fixture
    def start(self, store: StoreUnderTest) -> Iterator[Starter]:
        starter = Starter(store.url)
        yield starter
        for victim in starter.victims:
            victim.kill()

    def test_killed_while_publishing(self, store: StoreUnderTest, start: Starter) -> None:
        """Promise 1: what was published is durable when the call returns, all or none of a batch,
        whenever the process is killed."""
        dice = random.Random(1)
        told = {}
        for turn in range(self.kills):
            victim = start("publish", f"v{turn}")
            victim.wait_for_lines(1)
            time.sleep(dice.uniform(0, 0.08))
            told[f"v{turn}"] = len(victim.kill())
        found = self._everything(store, QUEUE)
        assert set(found.values()) == {1}
        batches: dict[str, Counter[int]] = defaultdict(Counter)
        for id in found:
            name, number, _ = id.split("-")
            batches[name][int(number)] += 1
        for name, count in told.items():
            assert set(batches[name].values()) == {BATCH}
            assert sorted(batches[name]) == list(range(len(batches[name])))
            assert count <= len(batches[name]) <= count + 1

    def test_killed_while_opening(self, store: StoreUnderTest, start: Starter) -> None:
        """open: makes the store ready, however often it was killed while doing so."""
        dice = random.Random(2)
        counts = []
        for turn in range(self.kills):
            victim = start("publish", f"v{turn}")
            time.sleep(dice.uniform(0.0, 0.4))
            counts.append(len(victim.kill()))
        found = self._everything(store, QUEUE)
        assert sum(counts) * BATCH <= len(found) <= (sum(counts) + self.kills) * BATCH
        store.publish(*messages("after"))
        assert ids(store.admin.find(["after"])) == ["after"]

    def test_killed_while_working(self, store: StoreUnderTest, start: Starter) -> None:
        """Promise 2: a message leaves its queue only in the step that stores its outcome: either
        it is there, or its record and what follows are: never neither, never both."""
        names: list[str] = []
        keeper = store.worker("keeper")
        dice = random.Random(3)
        settled: set[str] = set()
        for turn in range(self.kills):
            lease = f"w{turn}"
            names += self._publish(store, 400, turn)
            self._go(start("work", lease))
            time.sleep(dice.uniform(0, 0.08))
            lines = start.victims[-1].kill()
            settled |= {line.split()[1] for line in lines if line.startswith("settled")}
            held = store.broker.recover(Owner(lease, 1, 1), keeper, ())
            self._check(store, names, settled)
            answers = store.broker.settle([release(d) for d in held])
            assert answers == [Settled.SETTLED] * len(held)
        assert settled
        left = store.claim_all(keeper)
        assert {d.lost for d in left} <= {0}
        assert store.broker.settle([done(d) for d in left]) == [Settled.SETTLED] * len(left)
        assert self._everything(store, QUEUE) == Counter()

    def test_nothing_twice_without_a_count(self, store: StoreUnderTest, start: Starter) -> None:
        """Promise 2, and 4 with it: what a killed worker held comes back by itself when its lease
        has lapsed, and whoever claims it knows how often it was lost."""
        names: list[str] = []
        store.ttl = TTL
        judge = store.worker("judge")
        dice = random.Random(4)
        claims: dict[str, list[int]] = defaultdict(list)
        for turn in range(max(2, self.kills // 3)):
            names += self._publish(store, 800, turn)
            pair = [start("work", f"w{turn}-{number}") for number in range(2)]
            self._go(*pair)
            self._beat(store, dice.uniform(0, 0.3))
            for victim in pair:
                for line in victim.kill():
                    word, *more = line.split()
                    if word == "claimed":
                        claims[more[0]].append(int(more[1]))
            self._until_collected(store, judge)
        for id, losses in claims.items():
            assert sorted(set(losses)) == losses, f"{id} was claimed with {losses} losses known"
        self._check(store, names, set())
        assert claims
        for delivery in store.claim_all(judge):
            earlier = claims[delivery.message.id]
            assert delivery.lost > max(earlier, default=-1)

    def test_publish_in_another_process_wakes(self, store: StoreUnderTest, start: Starter) -> None:
        """claim: what another process publishes ends the wait."""
        owner = store.worker()
        victim = start("publish-once", "a")
        victim.wait_for_lines(1)
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        victim.go_on()
        assert ids(claim.result(PATIENCE)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    def test_put_in_another_process_wakes(self, store: StoreUnderTest, start: Starter) -> None:
        """wait: what another process stores ends it."""
        results = store.results
        victim = start("put-once", "a")
        victim.wait_for_lines(1)
        wait = in_background(lambda: results.wait(["a"], 20))
        assert_waiting(wait)
        begun = time.monotonic()
        victim.go_on()
        assert wait.result(PATIENCE) == [record("a")]
        assert time.monotonic() - begun < store.wake_within

    # --- helpers

    def _publish(self, store: StoreUnderTest, count: int, turn: int) -> list[str]:
        names = [f"t{turn}-{number}" for number in range(count)]
        store.publish(*messages(*names))
        return names

    def _go(self, *victims: Victim) -> None:
        """Let them begin when all are ready."""
        for victim in victims:
            victim.wait_for_lines(1)
        for victim in victims:
            victim.go_on()

    def _check(self, store: StoreUnderTest, names: list[str], settled: set[str]) -> None:
        """Each name is in the queue, or settled with all that settling does."""
        queued = self._everything(store, QUEUE)
        followed = self._everything(store, "next")
        found = dict(zip(names, store.results.get(names), strict=True))
        for name in names:
            places = (queued[name], followed[f"next-{name}"], int(found[name] is not None))
            assert places in ((1, 0, 0), (0, 1, 1)), f"{name}: queued, followed, stored: {places}"
        untrue = [name for name in settled if found[name] is None]
        assert untrue == []

    def _beat(self, store: StoreUnderTest, seconds: float) -> None:
        """Let real time pass while the judge's lease is renewed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert store.broker.heartbeat("judge").alive
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))

    def _until_collected(self, store: StoreUnderTest, judge: Owner) -> None:
        """Until nothing is in flight any more."""
        deadline = time.monotonic() + PATIENCE
        while store.admin.peek(None, MessageState.IN_FLIGHT, limit=1):
            assert time.monotonic() < deadline, "dead workers' messages do not come back"
            self._beat(store, 0.1)
            assert store.broker.maintain(judge, FOREVER) == []

    def _everything(self, store: StoreUnderTest, queue: str) -> Counter[str]:
        """How often each id is in the queue: waiting, delayed or in flight."""
        counts: Counter[str] = Counter()
        for state in (MessageState.WAITING, MessageState.DELAYED, MessageState.IN_FLIGHT):
            after = ""
            while page := store.admin.peek(queue, state, limit=1000, after=after):
                counts.update(ids(page))
                after = page[-1].cursor
        return counts
