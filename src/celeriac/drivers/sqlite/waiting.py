"""Many threads that wait for results: one of them looks for all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence

from celeriac.drivers.sqlite.watch import Pace, Watch
from celeriac.message import TaskRecord

__all__ = ["ResultWaits"]


class _Waiter:
    """``bell`` is a lock that is taken while there is nothing to tell."""

    __slots__ = ("bell", "found", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.found: list[TaskRecord] = []
        self.bell = threading.Lock()
        self.bell.acquire()


class ResultWaits:
    """``look`` finds the finished ones among ids (a JSON array), in the order of the ids."""

    def __init__(self, watch: Watch, look: Callable[[str], list[TaskRecord]]) -> None:
        self._watch = watch
        self._look = look
        self.start_anew()

    def start_anew(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[int, _Waiter] = {}
        self._leader: int | None = None
        self._closed = False
        self._wakes = 0

    def open(self) -> None:
        self._closed = False

    def close(self) -> None:
        """Every ``wait`` returns what it has: nothing."""
        self._closed = True
        self.wake()

    def wake(self) -> None:
        """Every ``wait`` that is under way returns what it has."""
        self._wakes += 1
        with self._lock:
            for waiter in self._waiters.values():
                self._ring(waiter)
        self._watch.wake()

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        deadline = time.monotonic() + timeout
        waiter = _Waiter(ids)
        wakes = self._wakes
        key = id(waiter)
        with self._lock:
            self._waiters[key] = waiter
            leads = self._leader is None
            if leads:
                self._leader = key
        try:
            while not waiter.found and not self._closed and self._wakes == wakes:
                if leads:
                    self._lead(waiter, deadline, wakes)
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                waiter.bell.acquire(timeout=min(left, threading.TIMEOUT_MAX))
                leads = self._leader == key
        finally:
            self._leave(key)
        return waiter.found

    def _lead(self, own: _Waiter, deadline: float, wakes: int) -> None:
        """Look for all, until the own ones are there."""
        pace = Pace(self._watch)
        while not self._closed:
            count = self._watch.arm()
            started = time.monotonic()
            self._tell(self._look(self._all_ids()))
            now = time.monotonic()
            if own.found or now >= deadline or self._wakes != wakes:
                return
            pace.sleep(count, deadline - now, cost=now - started)

    def _all_ids(self) -> str:
        with self._lock:
            waiters = list(self._waiters.values())
        if len(waiters) == 1:
            return json.dumps(list(waiters[0].ids))
        return json.dumps(list(dict.fromkeys(id for waiter in waiters for id in waiter.ids)))

    def _tell(self, records: Sequence[TaskRecord]) -> None:
        if not records:
            return
        by_id = {record.id: record for record in records}
        with self._lock:
            for waiter in self._waiters.values():
                if waiter.found:
                    continue
                waiter.found = [by_id[id] for id in waiter.ids if id in by_id]
                if waiter.found:
                    self._ring(waiter)

    def _leave(self, key: int) -> None:
        """The leader leaves its place to somebody who still waits."""
        with self._lock:
            self._waiters.pop(key, None)
            if self._leader != key:
                return
            self._leader = None
            for other, waiter in self._waiters.items():
                if not waiter.found:
                    self._leader = other
                    self._ring(waiter)
                    return

    @staticmethod
    def _ring(waiter: _Waiter) -> None:
        if waiter.bell.locked():
            waiter.bell.release()
