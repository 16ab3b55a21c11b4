"""When to try again: pure arithmetic, with time and chance passed in."""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from celeriac.exceptions import ImproperlyConfigured

_LARGEST_POWER = 1023  # 2.0**1024 does not exist


def backoff_delay(
    retries: int,
    *,
    factor: float = 1.0,
    maximum: float = 600.0,
    jitter: bool = True,
    random: Callable[[], float] = _random.random,
) -> float:
    """Seconds until retry number ``retries`` (from 0): ``factor * 2**retries``, at most
    ``maximum``, never negative.

    With jitter it is chosen evenly between the half and the whole of that. Celery chooses
    between nothing and the whole, which has a retry that should wait for an hour sometimes come
    at once; the half keeps the load apart just as well. ``random`` gives numbers in [0, 1).
    """
    whole = max(0.0, min(maximum, factor * 2.0 ** min(max(retries, 0), _LARGEST_POWER)))
    return whole * (0.5 + 0.5 * random()) if jitter else whole


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How publishing is tried again: at once after ``interval_start`` seconds, then
    ``interval_step`` later each time, up to ``interval_max``. ``max_retries`` None: without end,
    within whatever time the caller allows."""

    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0

    @classmethod
    def of(cls, policy: Mapping[str, Any] | None, base: RetryPolicy | None = None) -> RetryPolicy:
        """From a dict such as the setting ``task_publish_retry_policy`` or the calling option
        ``retry_policy``; what it lacks is taken from ``base``.

        kombu's other keys (callbacks, lists of errors) are not asked for here; a key that
        nobody knows raises ImproperlyConfigured.
        """
        given = dict(policy or {})
        for key in ("errback", "retry_errors", "timeout"):
            given.pop(key, None)
        unknown = given.keys() - set(cls.__struct_fields__)
        if unknown:
            raise ImproperlyConfigured(
                f"A retry policy has no {', '.join(sorted(map(str, unknown)))}; it has "
                f"{', '.join(cls.__struct_fields__)}."
            )
        start = base or cls()
        merged = {name: given.get(name, getattr(start, name)) for name in cls.__struct_fields__}
        for name, value in merged.items():
            if value is None and name == "max_retries":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ImproperlyConfigured(
                    f"A retry policy's {name} cannot be {value!r}: expected a number from 0 on."
                )
        return cls(**merged)

    def delays(self) -> Iterator[float]:
        """The seconds before each retry, the first first; as many as there may be."""
        done = 0
        delay = min(self.interval_start, self.interval_max)
        while self.max_retries is None or done < self.max_retries:
            yield delay
            done += 1
            delay = min(delay + self.interval_step, self.interval_max)


class Attempt(Struct, frozen=True):
    """One of several tries. ``number`` counts from 0; ``left`` is how many seconds of the budget
    there are for it; ``last``: no other will follow."""

    number: int
    left: float
    last: bool


def attempts(
    policy: RetryPolicy | None,
    *,
    budget: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Attempt]:
    """Tries, as many as the policy allows (None: one) and as fit into ``budget`` seconds, the
    pauses included. There is always a first one.

    The caller leaves the loop when it succeeds, bounds each try by ``left``, and raises what the
    last one raised. A pause is cut short at the end of the budget's last useful moment rather
    than slept through: if nothing would be left after it, there is no further try. ``last`` is
    said before the try; it is certain when True, while a try that takes long may turn out to be
    the last one, too.
    """
    end = clock() + budget
    delays = policy.delays() if policy is not None else iter(())
    number = 0
    left = budget
    while True:
        delay = next(delays, None)
        yield Attempt(number, left, delay is None or delay >= left)
        if delay is None or end - clock() <= delay:
            return
        if delay > 0:
            sleep(delay)
        left = end - clock()
        if left <= 0:
            return
        number += 1
