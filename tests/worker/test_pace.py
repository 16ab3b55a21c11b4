"""How much is claimed, and what counts as short."""

from __future__ import annotations

import pytest

from celeriac.worker.pace import CLAIM_MAX, Pace

QUICK = 0.00005


@pytest.fixture
def pace() -> Pace:
    pace = Pace()
    for _ in range(20):
        pace.note("quick", QUICK)
    return pace


def test_what_was_never_measured_is_not_short() -> None:
    pace = Pace()
    assert not pace.short("quick")
    assert pace.claim() == 1
    pace.note("quick", QUICK)
    pace.note("quick", QUICK)
    assert not pace.short("quick")
    assert pace.claim() == 1
    pace.note("quick", QUICK)
    assert pace.short("quick")
    assert pace.claim() == CLAIM_MAX


def test_one_long_run_may_be_the_machines(pace: Pace) -> None:
    pace.note("quick", 0.02)
    assert pace.short("quick")
    for _ in range(20):
        pace.note("quick", QUICK)
    pace.note("quick", 0.02)
    assert pace.short("quick")
    assert pace.claim() > CLAIM_MAX / 4


def test_two_long_runs_are_the_tasks(pace: Pace) -> None:
    pace.note("quick", 1.0)
    pace.note("quick", QUICK)
    pace.note("quick", 1.0)
    assert not pace.short("quick")
    for _ in range(20):
        pace.note("quick", QUICK)
    assert not pace.short("quick")


def test_a_task_that_is_often_long_is_not_short(pace: Pace) -> None:
    for number in range(100):
        pace.note("quick", 0.02 if number % 5 == 0 else QUICK)
        if number > 5:
            assert not pace.short("quick")


def test_a_first_run_that_is_long_counts() -> None:
    pace = Pace()
    for seconds in (0.02, QUICK, QUICK, QUICK):
        pace.note("new", seconds)
    assert not pace.short("new")


def test_claims_follow_what_has_changed(pace: Pace) -> None:
    for _ in range(20):
        pace.note("quick", 0.004)
    assert pace.claim() <= 10
    for _ in range(20):
        pace.note("quick", 0.5)
    assert pace.claim() == 1
