"""How long tasks take here, so that claims fit."""

from __future__ import annotations

# A claim is about this much work (seconds), at most so many messages.
CLAIM_WORK = 0.020
CLAIM_MAX = 400
# A task is short when it was measured this often and all lately took less than SHORT seconds.
SHORT_SAMPLES = 3
SHORT = 0.005
# How much the latest run counts in the average; a longer run counts at once, unless the task is
# known well: then one slow run among many (the machine was busy) is what the keeper is for.
WEIGHT = 0.1
WELL_KNOWN = 100


class Pace:
    """Run times by task name, and of all tasks together."""

    __slots__ = ("_average", "_names", "_seen")

    def __init__(self) -> None:
        self._names: dict[str, list[float]] = {}  # name: [samples, estimate]
        self._average = 0.0
        self._seen = 0

    def short(self, name: str) -> bool:
        """Is the task measured short? What is claimed behind it may wait for it."""
        known = self._names.get(name)
        return known is not None and known[0] >= SHORT_SAMPLES and known[1] < SHORT

    def note(self, name: str, seconds: float) -> None:
        """A task took this long. The estimate falls slowly and rises at once, until the task is
        known well."""
        known = self._names.get(name)
        if known is None:
            self._names[name] = [1.0, seconds]
        else:
            known[0] += 1.0
            if seconds > SHORT and known[0] < WELL_KNOWN:
                known[1] = seconds
            else:
                known[1] += WEIGHT * (seconds - known[1])
        if self._seen < SHORT_SAMPLES:
            self._seen += 1
            self._average = max(self._average, seconds)
        else:
            self._average += WEIGHT * (seconds - self._average)

    def claim(self) -> int:
        """How many messages to claim next."""
        if self._seen < SHORT_SAMPLES or self._average >= SHORT:
            return 1
        return max(1, min(CLAIM_MAX, int(CLAIM_WORK / max(self._average, 1e-6))))
