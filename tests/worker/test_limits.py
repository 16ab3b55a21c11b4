"""Rate limits: the syntax, the algorithm by a clock of its own, and many processes at once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from celeriac.exceptions import ImproperlyConfigured
from celeriac.worker.limits import RateLimits, parse_rate
from celeriac.worker.slots import SlotTable


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create(1, buckets=4)
    yield table
    table.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits_of(table: SlotTable, clock: Clock, **rates: str) -> RateLimits:
    limits = RateLimits(table, clock=clock, sleep=clock.sleep)
    limits.set_rates(rates)
    return limits


@pytest.mark.parametrize(
    ("rate", "per_second"),
    [
        (None, 0.0),
        ("", 0.0),
        (0, 0.0),
        ("0", 0.0),
        (5, 5.0),
        (0.5, 0.5),
        ("5", 5.0),
        ("5/s", 5.0),
        ("30/m", 0.5),
        ("1.5/m", 0.025),
        ("36/h", 0.01),
        ("36/H", 0.01),
    ],
)
def test_parse_rate(rate: str | float | None, per_second: float) -> None:
    assert parse_rate(rate) == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["fast", "5/d", "-1", "/s", "inf/s", "nan"])
def test_bad_rates_are_refused_with_the_syntax(rate: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="rate_limit"):
        parse_rate(rate)


def test_an_unlimited_task_always_starts(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, other="1/m")
    assert not limits.limited("task")
    assert [limits.take("task") for _ in range(5)] == [0.0] * 5


def test_one_start_per_interval_and_no_burst_after_a_pause(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="2/s")
    clock.now += 100
    assert limits.take("task") == 0.0
    assert limits.take("task", returning=True) == clock.now + 0.5
    clock.now += 0.4
    assert limits.take("task", returning=True) == pytest.approx(clock.now + 0.1)
    clock.now += 0.1001
    assert limits.take("task", returning=True) == 0.0


def test_refused_messages_are_spread(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="1/s")
    begin = clock.now
    assert [limits.take("task") for _ in range(5)] == [
        0.0,
        begin + 1,
        begin + 2,
        begin + 3,
        begin + 4,
    ]


def test_a_newcomer_does_not_overtake_those_that_wait(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="1/s")
    begin = clock.now
    assert limits.take("task") == 0.0
    assert limits.take("task") == begin + 1
    assert limits.take("task") == begin + 2
    clock.now = begin + 1.1
    assert limits.take("task") == begin + 3
    assert limits.take("task", returning=True) == 0.0


def test_ten_thousand_waiting_messages_do_not_churn(table: SlotTable, clock: Clock) -> None:
    """Each is looked at about once more, though they come back a little late and bunched."""
    limits = limits_of(table, clock, task="10/s")
    begin = clock.now
    waiting = [limits.take("task") for _ in range(10_000)]
    started = [begin] * waiting.count(0.0)
    due = sorted(time for time in waiting if time)
    looks = 0
    while due:
        clock.now = max(clock.now, due[0]) + 0.09
        ready = [time for time in due if time <= clock.now]
        due = due[len(ready) :]
        for _ in ready:
            looks += 1
            back = limits.take("task", returning=True)
            if back:
                due.append(back)
            else:
                started.append(clock.now)
        due.sort()
    assert len(started) == 10_000
    assert looks < 25_000
    assert clock.now - begin < 1.1 * 10_000 / 10
    assert all(b - a > 0.099 for a, b in itertools.pairwise(started))


def test_when_the_waiting_are_purged_newcomers_go_on(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="1/s")
    for _ in range(10_000):
        limits.take("task")
    clock.now += 4.0
    assert limits.take("task") == 0.0
    assert limits.take("task") == clock.now + 1.0


def test_a_clock_set_back_does_not_stop_the_task(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="1/s")
    assert limits.take("task") == 0.0
    clock.now -= 500
    assert 0.0 < limits.take("task", returning=True) <= clock.now + 2.0
    clock.now += 2.1
    assert limits.take("task", returning=True) == 0.0


def test_patience_waits_in_place(table: SlotTable, clock: Clock) -> None:
    limits = limits_of(table, clock, task="100/s")
    begin = clock.now
    assert [limits.take("task", patience=0.05) for _ in range(10)] == [0.0] * 10
    assert clock.now == pytest.approx(begin + 0.09)


def test_a_new_rate_counts_at_once_in_every_process(table: SlotTable, clock: Clock) -> None:
    one = limits_of(table, clock, task="1/h")
    two = RateLimits(table, clock=clock)
    assert one.take("task") == 0.0
    assert two.take("task", returning=True) == clock.now + 3600
    two.set_rates({"task": None, "new": "1/s"})
    assert one.take("task", returning=True) == 0.0
    assert one.take("task") == 0.0
    assert one.limited("new")


def test_more_limits_than_room_is_refused(table: SlotTable, clock: Clock) -> None:
    with pytest.raises(ImproperlyConfigured, match="restart"):
        limits_of(table, clock, a="1/s", b="1/s", c="1/s", d="1/s", e="1/s")


def test_many_processes_together_never_exceed_the_rate(table: SlotTable) -> None:
    """Six processes take as fast as they can; the starts of all keep their distance."""
    RateLimits(table).set_rates({"task": "50/s"})
    read, write = os.pipe()
    begin = time.time() + 0.1
    pids = []
    for _ in range(6):
        pid = os.fork()
        if not pid:
            _take_all(table, write, begin, begin + 1.5)
        pids.append(pid)
    os.close(write)
    with os.fdopen(read) as lines:
        starts = sorted(json.loads(line) for line in lines)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    elapsed = starts[-1] - starts[0]
    assert len(starts) <= elapsed * 50 + 2
    assert len(starts) >= 45
    for window in (0.1, 0.5, 1.0):
        for first in starts:
            inside = sum(first <= start <= first + window for start in starts)
            assert inside <= window * 50 + 1.5


def _take_all(table: SlotTable, write: int, begin: float, end: float) -> None:
    code = 1
    try:
        limits = RateLimits(table)
        while (now := time.time()) < end:
            if now >= begin and limits.take("task", now, returning=True) == 0.0:
                os.write(write, b"%.6f\n" % now)
            time.sleep(0.001)
        code = 0
    finally:
        os._exit(code)


def test_a_killed_process_leaves_no_lock(table: SlotTable) -> None:
    limits = RateLimits(table)
    limits.set_rates({"task": "1000/s"})
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with limits._locked(0):
            os.write(write, b"x")
            signal.pause()
    assert os.read(read, 1) == b"x"
    before = time.time()
    assert limits.take("task") >= before + 1.0  # waits elsewhere instead of hanging
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert limits.take("task") == 0.0
    os.close(read)
    os.close(write)
