"""The clock of a rate: from the first result that is seen to the last one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY = 0.005  # seconds between two looks: 200 cheap commands a second, for every system the same


@dataclass(frozen=True)
class Span:
    """What two looks saw: ``first`` results at ``began``, ``last`` at ``ended`` (seconds)."""

    first: int
    began: float
    last: int
    ended: float

    @property
    def rate(self) -> float:
        """Results a second between the two looks; what was there at the first is not counted."""
        if self.ended <= self.began:
            raise ValueError("all results were there at the first look: measure more tasks")
        return (self.last - self.first) / (self.ended - self.began)


def watch(
    look: Callable[[], int],
    goal: int,
    *,
    timeout: float = 180.0,
    check: Callable[[], None] = lambda: None,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Span:
    """Look until there are ``goal``. ``check`` is called once a second and may raise; TimeoutError
    if nothing has come for ``timeout`` seconds."""
    changed = checked = now()
    first = began = 0.0
    seen = 0
    while True:
        found, at = look(), now()
        if found > seen:
            if not seen:
                first, began = found, at
            seen, changed = found, at
        if seen >= goal:
            return Span(int(first), began, seen, at)
        if at - changed > timeout:
            raise TimeoutError(f"{seen} of {goal} results, and no other for {timeout:.0f} s")
        if at - checked > 1.0:
            check()
            checked = at
        sleep(EVERY)
