"""What is to be sent at an instant: policies, and the names that runs go by."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from celeriac.beat.entries import Definition
from celeriac.beat.firing import (
    LATE,
    Decision,
    decide,
    firing_key,
    jitter_of,
    next_nominal,
    progress_of,
    task_id_of,
)
from celeriac.message import ScheduleRecord
from celeriac.schedules import crontab

ANCHOR = 1_700_000_000.0


def entry(**fields: Any) -> Definition:
    values = {"task": "t", "schedule": 60, **fields}
    return Definition.from_dict("e", values, zone=UTC)


def at(now: float, *, base: float = 0.0, **more: Any) -> tuple[list[float], float | None, bool]:
    """The decision ``now`` seconds after the anchor, in such seconds."""
    given = {name: more.pop(name) for name in list(more) if name not in _ASKED}
    record = ScheduleRecord(name="e", payload=b"{}", source="code", anchor=ANCHOR)
    definition = entry(**given)
    first = next_nominal(definition, ANCHOR + base, ANCHOR)
    made = decide(definition, record, first=first, now=ANCHOR + now, **more)
    if made.following:
        assert made.decided is not None
        assert made.following == (next_nominal(definition, made.decided, ANCHOR),)
    decided = made.decided - ANCHOR if made.decided is not None else None
    return [nominal - ANCHOR for nominal in made.fire], decided, made.wait


_ASKED = ("deadline", "unfinished", "jumped")


def test_not_before_it_is_due() -> None:
    assert at(59.9) == ([], None, False)
    assert at(60.0) == ([60], 60, False)
    assert at(65.0) == ([60], 60, False)


def test_what_is_late_is_all_sent() -> None:
    assert at(LATE, schedule=2) == ([2, 4, 6, 8, 10], 10, False)
    assert at(LATE, schedule=2, catch_up="none") == ([2, 4, 6, 8, 10], 10, False)


@pytest.mark.parametrize(
    ("policy", "fire"),
    [("latest", [3600]), ("none", []), ("all", [60 * n for n in range(1, 61)])],
)
def test_after_downtime(policy: str, fire: list[float]) -> None:
    assert at(3630, catch_up=policy) == (fire, 3600, False)


def test_none_sends_what_is_due_now() -> None:
    assert at(3605, catch_up="none") == ([3600], 3600, False)


def test_all_has_a_window() -> None:
    assert at(3630, catch_up="all", catch_up_window=200) == ([3480, 3540, 3600], 3600, False)
    assert at(3630, catch_up="all", catch_up_window=10) == ([], 3600, False)


def test_all_is_sent_in_portions() -> None:
    fire, decided, _ = at(100_000, schedule=10, catch_up="all")
    assert fire == [10 * n for n in range(1, 501)] or len(fire) == 500
    assert decided == fire[-1]


def test_all_but_not_for_a_clock_that_was_set_forward() -> None:
    assert at(3630, catch_up="all", jumped=True) == ([3600], 3600, False)


def test_years_of_downtime_are_quickly_looked_through() -> None:
    fire, decided, _ = at(10 * 365 * 86400.0 + 1, schedule=1)
    assert fire == [decided] == [10 * 365 * 86400.0 + 1]
    fire, decided, _ = at(10 * 365 * 86400.0, schedule=crontab("*"))
    assert fire == [decided]
    assert decided is not None
    assert 10 * 365 * 86400.0 - decided < 60


def test_deadline() -> None:
    assert at(3630, deadline=40) == ([3600], 3600, False)
    assert at(3640, deadline=20) == ([], 3600, False)


def test_expires() -> None:
    assert at(3630, expires=40) == ([3600], 3600, False)
    assert at(3630, expires=20) == ([], 3600, False)


def test_overlap() -> None:
    assert at(61, unfinished=True) == ([60], 60, False)
    assert at(61, unfinished=True, overlap="skip") == ([], 60, False)
    assert at(61, unfinished=True, overlap="queue") == ([], None, True)
    # However many were due while it waited: one.
    assert at(9, schedule=2, overlap="queue") == ([8], 8, False)


def test_start_and_end() -> None:
    from datetime import datetime

    def when(seconds: float) -> datetime:
        return datetime.fromtimestamp(ANCHOR + seconds, UTC)

    assert at(179, start=when(180)) == ([], None, False)
    assert at(181, start=when(180)) == ([180], 180, False)
    assert at(181, start=when(150)) == ([180], 180, False)
    assert at(121, base=60, end=when(120)) == ([120], 120, False)
    assert at(500, base=120, end=when(170)) == ([], None, False)


def test_jitter_puts_off_and_is_the_same_for_everybody() -> None:
    definition = entry(jitter=30)
    delays = {jitter_of(definition, ANCHOR + 60 * n) for n in range(50)}
    assert len(delays) == 50
    assert all(0 <= delay < 30 for delay in delays)
    delay = jitter_of(definition, ANCHOR + 60)
    assert delay == jitter_of(entry(jitter=30), ANCHOR + 60)
    assert at(60 + delay - 0.01, jitter=30) == ([], None, False)
    assert at(60 + delay + 0.01, jitter=30) == ([60], 60, False)


def test_keys_and_ids() -> None:
    assert firing_key("e", ANCHOR) == "beat/e@2023-11-14T22:13:20Z"
    assert firing_key("e", ANCHOR + 0.125) == "beat/e@2023-11-14T22:13:20.125Z"
    assert firing_key("e", ANCHOR + 0.9999) == "beat/e@2023-11-14T22:13:21Z"
    key = firing_key("e", ANCHOR)
    assert task_id_of(key) == task_id_of(key) != task_id_of(firing_key("e", ANCHOR + 1))
    assert len(task_id_of(key)) == 36


def test_a_state_that_cannot_be_read_is_none() -> None:
    record = ScheduleRecord(name="e", payload=b"", source="code", anchor=0.0, state=b"\xff")
    assert progress_of(record).id == ""
    assert Decision() == Decision()
