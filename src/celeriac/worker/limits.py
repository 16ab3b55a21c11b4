"""Rate limits: how often a worker may start a task, shared by all its processes.

Each limited task has a bucket in the slot table, so nothing is asked of the broker. A bucket is
the generic cell rate algorithm with a burst of one: the time at which the next start is allowed,
moved on by one interval at each start (the virtual scheduling form of ITU-T I.371, annex A).
What may not start is deferred in the broker, so a bucket also remembers its ``tail``: the last
time that it gave to a waiting message. Each newly refused message is given the next free time
after it, and newcomers stay behind those that wait. A message that comes back at its time and
is refused (another was faster) waits for the next start and leaves the tail alone, so however
many wait, each is looked at about once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from celeriac.exceptions import ImproperlyConfigured
from celeriac.worker.slots import BUCKET_SIZE, SlotTable

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_BUCKET = struct.Struct("=ddd")  # seconds between starts, next allowed start, tail
_NAME_AT = 32
_NAME = struct.Struct(f"=H{BUCKET_SIZE - _NAME_AT - 2}s")
_MAX_NAME = BUCKET_SIZE - _NAME_AT - 2

LOCK_PATIENCE = 0.25
"""How long to wait for a bucket whose holder was stopped in the middle; then the message waits."""
NO_SHOW = 2.0
"""A start that was promised and is not taken for so long (or two intervals) was promised to
messages that are gone: cancelled or purged, or run by another worker. The tail is then reset."""


def parse_rate(rate: str | float | None) -> float:
    """Starts per second of Celery's ``"10/m"``, ``"100/h"``, ``"5/s"`` or ``5``; 0.0: no limit."""
    if rate is None or rate == "":
        return 0.0
    number, _, unit = str(rate).partition("/")
    try:
        starts = float(number)
        seconds = _UNITS[unit.strip().lower()] if unit else 1.0
    except (ValueError, KeyError):
        raise ImproperlyConfigured(
            f'rate_limit {rate!r} is not a rate: write starts per second (5), or "5/s", "10/m", '
            f'"100/h"; None for no limit'
        ) from None
    if not 0 <= starts < float("inf"):
        raise ImproperlyConfigured(f"rate_limit {rate!r} must be 0 (no limit) or more")
    return starts / seconds


class RateLimits:
    """The limits of one worker, as one of its processes uses them; safe in threads."""

    def __init__(
        self,
        table: SlotTable,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._clock = clock
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._buckets: dict[str, int] = {}
        self._generation = -1
        self._reload()

    def set_rates(self, rates: Mapping[str, str | float | None]) -> None:
        """Give tasks these limits, for every process of the worker at once. Raises
        ImproperlyConfigured for a bad rate, or when there are more limited tasks than buckets."""
        parsed = {name: parse_rate(rate) for name, rate in rates.items()}
        with self._locked(0, whole=True, patience=10.0) as held:
            if not held:
                raise TimeoutError("the rate limits of this worker stayed locked for 10 seconds")
            self._reload()
            for name, rate in parsed.items():
                if rate or name in self._buckets:
                    self._write(name, rate)
            self._table.bump_rates_generation()
            self._reload()

    def limited(self, name: str) -> bool:
        """Has the task a limit? Cheap enough to be asked before every start."""
        if self._generation != self._table.rates_generation:
            self._reload()
        return name in self._buckets

    def take(
        self, name: str, now: float | None = None, returning: bool = False, patience: float = 0.0
    ) -> float:
        """May this task start now? 0.0: yes. Otherwise the epoch time at which to bring it back,
        with ``returning=True``. If its turn is within ``patience`` seconds, sleep until then
        and say yes: for rates so high that a way through the broker would take longer."""
        if not self.limited(name):
            return 0.0
        index = self._buckets[name]
        now = self._clock() if now is None else now
        with self._locked(index) as held:
            if not held:
                return now + 1.0
            at, due = self._decide(index, now, returning, patience)
        if not due and at > now:
            self._sleep(at - now)
        return due

    def _decide(
        self, index: int, now: float, returning: bool, patience: float
    ) -> tuple[float, float]:
        """(when it may start, 0.0), or (0.0, when to come back); the bucket is locked."""
        offset = self._table.buckets_at + index * BUCKET_SIZE
        interval, at, tail = _BUCKET.unpack_from(self._table.buffer, offset)
        if not interval:
            return now, 0.0
        ahead = at - now - interval - max(patience, 1.0)
        if ahead > 0:  # the clock was set back: no start is ever allowed further ahead than that
            at, tail = at - ahead, tail - ahead
        if now > at + max(NO_SHOW, 2 * interval):
            tail = min(tail, now)
        waiting = tail > now and not returning
        if at <= now + patience and not waiting:
            start, due = max(at, now), 0.0
            at = start + interval
        else:
            start, due = 0.0, at
            if not returning:
                due = tail = max(tail + interval, at)
        _BUCKET.pack_into(self._table.buffer, offset, interval, at, tail)
        return start, due

    def _write(self, name: str, rate: float) -> None:
        index = self._buckets.get(name)
        if index is None:
            index = len(self._buckets)
            if index >= self._table.buckets:
                raise ImproperlyConfigured(
                    f"no room for a rate limit of {name!r}: this worker was started with room "
                    f"for {self._table.buckets}; restart it"
                )
            self._buckets[name] = index
        offset = self._table.buckets_at + index * BUCKET_SIZE
        title = name.encode()[:_MAX_NAME]
        _, at, tail = _BUCKET.unpack_from(self._table.buffer, offset)
        interval = 1.0 / rate if rate else 0.0
        _BUCKET.pack_into(self._table.buffer, offset, interval, min(at, self._clock()), tail)
        _NAME.pack_into(self._table.buffer, offset + _NAME_AT, len(title), title)

    def _reload(self) -> None:
        """Learn the buckets that other processes have made."""
        self._generation = self._table.rates_generation
        self._buckets = {}
        for index in range(self._table.buckets):
            offset = self._table.buckets_at + index * BUCKET_SIZE
            length, title = _NAME.unpack_from(self._table.buffer, offset + _NAME_AT)
            if not length:
                return
            self._buckets[title[:length].decode(errors="replace")] = index

    @contextmanager
    def _locked(
        self, index: int, *, whole: bool = False, patience: float = LOCK_PATIENCE
    ) -> Iterator[bool]:
        """Alone with a bucket (or the whole area): a record lock, which the kernel lets go of when
        its process dies. False if a stopped process held it for longer than ``patience``."""
        start = self._table.buckets_at + index * BUCKET_SIZE
        length = 0 if whole else BUCKET_SIZE
        until = time.monotonic() + patience
        if not self._mutex.acquire(timeout=patience):
            yield False
            return
        try:
            pause = 0.0001
            while not _try_lock(self._table.fd, length, start):
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(pause)
                pause = min(pause * 2, 0.01)
            try:
                yield True
            finally:
                fcntl.lockf(self._table.fd, fcntl.LOCK_UN, length, start, os.SEEK_SET)
        finally:
            self._mutex.release()


def _try_lock(fd: int, length: int, start: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start, os.SEEK_SET)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
