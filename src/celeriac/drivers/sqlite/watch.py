"""Waiting for another process's commit without asking again and again.

Every commit writes to the ``-wal`` file, so the system's file watching (inotify, kqueue) wakes a
waiter. Begin to listen, then look, then wait: so no wake-up is lost. A write is seen a moment
before its commit can be read, so a waiter that was woken for nothing looks again soon (Pace).
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from celeriac.drivers.sqlite.watch_sources import Source, VersionSource, file_source

__all__ = ["Pace", "Versioned", "Watch"]


class Versioned(Protocol):
    def data_version(self) -> tuple[int, int]:
        """Changes with every commit."""


class Watch:
    """One listener per process and file, for any number of waiting threads: one of them listens
    for all."""

    def __init__(self, path: str, versions: Versioned) -> None:
        self._path = f"{path}-wal"
        self._versions = versions
        self._source: Source | None = None
        self._condition = threading.Condition()
        self._listening = False
        self._closed = False
        self._count = 0

    def start_anew(self) -> None:
        """In a forked child: what was inherited is the parent's."""
        self._drop()
        self._condition = threading.Condition()
        self._listening = False

    def arm(self) -> int:
        """From now on no commit is missed. Give the number to ``wait``."""
        with self._condition:
            self._closed = False
            if self._source is None:
                self._source = file_source() or VersionSource(self._versions)
            try:
                able = self._source.arm(self._path)
            except FileNotFoundError:
                return self._count - 1  # its next user makes it: look again at once
            if not able:
                # Not closed: another thread may be listening to it.
                self._source = VersionSource(self._versions)
            return self._count

    def wait(self, count: int, timeout: float) -> bool:
        """Until something was committed since ``arm`` gave that number, or ``timeout`` seconds;
        which of both."""
        deadline = time.monotonic() + timeout
        while True:
            with self._condition:
                source = self._source
                if not self._follow(count, deadline):
                    return self._count != count
                if source is None:
                    return False
                self._listening = True
            changed = False
            try:
                changed = source.wait(max(0.0, deadline - time.monotonic()))
            finally:
                self._stop_listening(changed)

    def _follow(self, count: int, deadline: float) -> bool:
        """Wait while another thread listens; True if this one has to."""
        while self._count == count:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if not self._listening:
                return True
            self._condition.wait(left)
        if not self._listening:
            self._condition.notify()
        return False

    def _stop_listening(self, changed: bool) -> None:
        with self._condition:
            self._listening = False
            if self._closed:
                self._drop()
            if changed:
                self._count += 1
                self._condition.notify_all()
            else:
                self._condition.notify()

    def version(self) -> tuple[int, int]:
        """Changes once a commit can be read."""
        return self._versions.data_version()

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()
            if self._source is not None and self._listening:
                self._source.interrupt()

    def close(self) -> None:
        """Wake all, and give the system's resources back; ``arm`` takes them again."""
        self.wake()
        with self._condition:
            self._closed = True
            if not self._listening:
                self._drop()

    def _drop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()


class Pace:
    """How long a waiter sleeps until it looks again.

    After a wake-up with nothing for it, soon, then more and more rarely, up to ``SLOWEST``; not
    so soon if what woke it can be read by now and was for somebody else.
    Under a stream of other people's commits it stops listening for some milliseconds after each,
    so that a busy neighbour does not keep it busy.
    """

    SLOWEST = 2.0
    SOONEST = 0.001
    SETTLED = 0.064
    GROWTH = 4.0
    DEAF_FIRST = 0.0001
    DEAF_GROWTH = 3.0
    DEAF_LONGEST = 0.010
    QUIET = 0.1

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._version: tuple[int, int] | None = watch.version()
        self._again = self.SLOWEST
        self._deaf = 0.0
        self._woken_at = 0.0

    def sleep(self, count: int, longest: float, cost: float = 0.0) -> None:
        """Until a commit, or ``longest`` seconds; ``cost``: seconds that one look takes."""
        if self._watch.wait(count, min(longest, self._again)):
            now = time.monotonic()
            if now - self._woken_at > self.QUIET:
                self._deaf = 0.0
            if self._deaf:
                time.sleep(max(0.0, min(max(self._deaf, 4 * cost), longest)))
                self._version = None  # not worth asking now
            self._again = self.SETTLED if not self._deaf and self._has_moved() else self.SOONEST
            self._deaf = min(max(self._deaf * self.DEAF_GROWTH, self.DEAF_FIRST), self.DEAF_LONGEST)
            self._woken_at = now
        else:
            self._again = min(self._again * self.GROWTH, self.SLOWEST)

    def _has_moved(self) -> bool:
        """Can more be read than at the wake-up before?"""
        before, self._version = self._version, self._watch.version()
        return before is not None and self._version != before
