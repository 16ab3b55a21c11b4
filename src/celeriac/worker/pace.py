"""How long tasks take here, so that claims fit."""

from __future__ import annotations

# A claim is about this much work (seconds), at most so many messages.
CLAIM_WORK = 0.020
CLAIM_MAX = 400
# A task is short when it was measured this often and all lately took less than SHORT seconds, but
# for one: it may have had to wait for the processor, and the keeper helps when it was long.
SHORT_SAMPLES = 3
SHORT = 0.005
LATELY = 10  # runs
# How much the latest run counts in the average; a second long run counts at once.
WEIGHT = 0.1
# A run counts in the average of all as at most so many times that: one outlier says little, and
# what has changed is soon there all the same.
OUTLIER = 10.0


class _Known:
    __slots__ = ("estimate", "long_at", "samples")

    def __init__(self, seconds: float) -> None:
        self.samples = 1
        self.estimate = seconds
        self.long_at = 1 if seconds > SHORT else -LATELY  # which sample was the last long one


class Pace:
    """Run times by task name, and of all tasks together."""

    __slots__ = ("_average", "_names", "_seen")

    def __init__(self) -> None:
        self._names: dict[str, _Known] = {}
        self._average = 0.0
        self._seen = 0

    def short(self, name: str) -> bool:
        """Is the task measured short? What is claimed behind it may wait for it."""
        known = self._names.get(name)
        return known is not None and known.samples >= SHORT_SAMPLES and known.estimate < SHORT

    def note(self, name: str, seconds: float) -> None:
        """A task took this long. The estimate falls slowly and rises at once."""
        known = self._names.get(name)
        if known is None:
            self._names[name] = _Known(seconds)
        else:
            known.samples += 1
            if seconds > SHORT:
                self._note_long(known, seconds)
            else:
                known.estimate += WEIGHT * (seconds - known.estimate)
        if self._seen < SHORT_SAMPLES:
            self._seen += 1
            self._average = max(self._average, seconds)
        else:
            average = self._average
            self._average += WEIGHT * (min(seconds, OUTLIER * average) - average)

    @staticmethod
    def _note_long(known: _Known, seconds: float) -> None:
        alone = known.samples - known.long_at > LATELY and known.samples > SHORT_SAMPLES
        known.long_at = known.samples
        if not alone:
            known.estimate = max(known.estimate, seconds)

    def claim(self) -> int:
        """How many messages to claim next."""
        if self._seen < SHORT_SAMPLES or self._average >= SHORT:
            return 1
        return max(1, min(CLAIM_MAX, int(CLAIM_WORK / max(self._average, 1e-6))))
