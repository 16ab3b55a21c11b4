"""Back-off, retry policies, and attempts within a budget."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.exceptions import ImproperlyConfigured
from celeriac.retry import Attempt, RetryPolicy, attempts, backoff_delay


class Time:
    """A clock that only sleeping, and work said to take time, moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class TestBackoff:
    def test_doubles_up_to_the_maximum(self) -> None:
        delays = [backoff_delay(n, factor=2, maximum=20, jitter=False) for n in range(6)]
        assert delays == [2, 4, 8, 16, 20, 20]

    @pytest.mark.parametrize(("chance", "delay"), [(0.0, 4.0), (0.5, 6.0), (1.0, 8.0)])
    def test_jitter_is_between_half_and_whole(self, chance: float, delay: float) -> None:
        assert backoff_delay(3, factor=1, maximum=600, jitter=True, random=lambda: chance) == delay

    def test_jitter_spreads(self) -> None:
        delays = {backoff_delay(3, factor=1, maximum=600) for _ in range(50)}
        assert len(delays) > 10

    @pytest.mark.parametrize("retries", [1023, 1024, 10**6, 10**30])
    def test_never_overflows(self, retries: int) -> None:
        assert backoff_delay(retries, factor=1e300, maximum=600, jitter=False) == 600

    def test_nothing_from_nothing(self) -> None:
        assert backoff_delay(5, factor=0, maximum=600, jitter=True) == 0
        assert backoff_delay(5, factor=-1, maximum=600, jitter=True) == 0
        assert backoff_delay(5, factor=1, maximum=0, jitter=True) == 0
        assert backoff_delay(-1, factor=1, maximum=600, jitter=False) == 1

    @given(
        st.integers(min_value=0),
        st.floats(min_value=0, max_value=1e308),
        st.floats(min_value=0, max_value=1e308),
        st.floats(min_value=0, max_value=1, exclude_max=True),
    )
    def test_always_within_bounds(
        self, retries: int, factor: float, maximum: float, chance: float
    ) -> None:
        whole = backoff_delay(retries, factor=factor, maximum=maximum, jitter=False)
        delay = backoff_delay(
            retries, factor=factor, maximum=maximum, jitter=True, random=lambda: chance
        )
        assert 0 <= whole / 2 <= delay <= whole <= maximum


class TestPolicy:
    def test_celerys_default(self) -> None:
        policy = RetryPolicy.of(
            {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}
        )
        assert policy == RetryPolicy()
        assert list(policy.delays()) == pytest.approx([0, 0.2, 0.4])

    def test_grows_up_to_the_maximum(self) -> None:
        policy = RetryPolicy(max_retries=5, interval_start=1, interval_step=2, interval_max=4)
        assert list(policy.delays()) == [1, 3, 4, 4, 4]

    def test_starts_no_later_than_the_maximum(self) -> None:
        policy = RetryPolicy(max_retries=2, interval_start=9, interval_step=2, interval_max=4)
        assert list(policy.delays()) == [4, 4]

    def test_none_is_without_end(self) -> None:
        policy = RetryPolicy(max_retries=None, interval_start=1, interval_step=0)
        assert list(itertools.islice(policy.delays(), 100)) == [1] * 100
        assert list(RetryPolicy(max_retries=0).delays()) == []

    def test_what_a_call_does_not_say_comes_from_the_settings(self) -> None:
        base = RetryPolicy(max_retries=9, interval_max=7)
        assert RetryPolicy.of({"interval_max": 5}, base) == RetryPolicy(
            max_retries=9, interval_max=5
        )
        assert RetryPolicy.of(None, base) == base
        assert RetryPolicy.of({"max_retries": None}, base).max_retries is None

    def test_kombus_other_keys_are_let_pass(self) -> None:
        assert RetryPolicy.of({"errback": print, "retry_errors": None, "timeout": 3}) == (
            RetryPolicy()
        )

    @pytest.mark.parametrize(
        "policy",
        [
            {"max_retry": 3},
            {"max_retries": -1},
            {"interval_start": "soon"},
            {"interval_max": None},
            {"interval_step": True},
        ],
    )
    def test_mistakes_are_named(self, policy: dict[str, object]) -> None:
        with pytest.raises(ImproperlyConfigured, match=next(iter(policy))):
            RetryPolicy.of(policy)


class TestAttempts:
    def test_as_many_as_the_policy_says(self) -> None:
        time = Time()
        tries = list(attempts(RetryPolicy(), budget=60, clock=time.clock, sleep=time.sleep))
        assert [attempt.number for attempt in tries] == [0, 1, 2, 3]
        assert [attempt.last for attempt in tries] == [False, False, False, True]
        assert time.slept == pytest.approx([0.2, 0.4])

    def test_one_without_a_policy(self) -> None:
        time = Time()
        tries = list(attempts(None, budget=5, clock=time.clock, sleep=time.sleep))
        assert tries == [Attempt(0, 5, True)]
        assert time.slept == []

    def test_always_a_first_one(self) -> None:
        time = Time()
        tries = list(attempts(RetryPolicy(), budget=0, clock=time.clock, sleep=time.sleep))
        assert len(tries) == 1

    def test_within_the_budget_with_what_the_tries_take(self) -> None:
        time = Time()
        policy = RetryPolicy(max_retries=None, interval_start=1, interval_step=0)
        left = []
        for attempt in attempts(policy, budget=5, clock=time.clock, sleep=time.sleep):
            left.append(attempt.left)
            time.now += 1
        assert left == [5, 3, 1]
        assert time.now <= 100 + 5 + 1

    def test_no_pause_after_which_nothing_would_be_left(self) -> None:
        time = Time()
        policy = RetryPolicy(max_retries=3, interval_start=10, interval_max=10)
        tries = list(attempts(policy, budget=5, clock=time.clock, sleep=time.sleep))
        assert tries == [Attempt(0, 5, True)]
        assert time.slept == []

    def test_a_try_that_eats_the_budget_is_the_last(self) -> None:
        time = Time()
        numbers = []
        policy = RetryPolicy(max_retries=9)
        for attempt in attempts(policy, budget=5, clock=time.clock, sleep=time.sleep):
            numbers.append(attempt.number)
            time.now += 6
        assert numbers == [0]

    def test_leaving_the_loop_ends_it(self) -> None:
        time = Time()
        for attempt in attempts(RetryPolicy(), budget=5, clock=time.clock, sleep=time.sleep):
            if attempt.number == 1:
                break
        assert time.slept == []  # the first pause of the default policy is none
