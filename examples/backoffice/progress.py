"""Shows how far it is: a line for each kind that moves on a terminal, else a line now and then."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from examples.backoffice.attempts import Attempts
from examples.backoffice.count import TASKS

WIDTH = 32
PLAIN_EVERY = 2.0  # seconds between the lines where there is no terminal
MOVING_EVERY = 0.1


class Progress:
    """Draws from the record of attempts. What really arrived is counted at the end (count.py)."""

    def __init__(self, attempts: Attempts, sent: dict[str, int], stream: TextIO) -> None:
        self.attempts = attempts
        self.sent = sent
        self.stream = stream
        self.moving = stream.isatty()
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._next = 0.0
        self._drawn = 0

    def note(self, text: str) -> None:
        """Say something above the lines; may be called from any thread."""
        with self._lock:
            self._notes.append(text)

    def show(self, *, now: bool = False) -> None:
        """Draw, if it is time to. Called by one thread."""
        clock = time.monotonic()
        with self._lock:
            notes, self._notes = self._notes, []
        if clock < self._next and not now and not notes:
            return
        self._next = clock + (MOVING_EVERY if self.moving else PLAIN_EVERY)
        self.attempts.update()
        if self.moving:
            self._redraw([f"  {note}" for note in notes])
        else:
            for note in notes:
                print(f"{clock - self._began:5.1f} s  {note}", file=self.stream, flush=True)
            print(f"{clock - self._began:5.1f} s  {self._line()}", file=self.stream, flush=True)

    def _redraw(self, notes: list[str]) -> None:
        """Go up over the old lines and write the new ones over them, notes first, which stay."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        bars = [self._bar(kind, total) for kind, total in self.sent.items()]
        text = "".join(f"{line}\x1b[K\n" for line in [*notes, *bars])
        self.stream.write(up + text)
        self.stream.flush()
        self._drawn = len(bars)

    def _bar(self, kind: str, total: int) -> str:
        tasks = TASKS[kind]
        done = self.attempts.succeeded(tasks)
        filled = WIDTH * done // max(total, 1)
        more = f"{self.attempts.retried(tasks)} retried"
        if repeats := len(self.attempts.repeated(tasks)):
            more += f", {repeats} redelivered"
        return f"  {kind:<12}{'█' * filled}{'░' * (WIDTH - filled)} {done:>4}/{total:<4} {more}"

    def _line(self) -> str:
        parts = []
        for kind, total in self.sent.items():
            parts.append(f"{kind} {self.attempts.succeeded(TASKS[kind])}/{total}")
        every = [task for tasks in TASKS.values() for task in tasks]
        parts.append(f"{self.attempts.retried(every)} retried")
        return ", ".join(parts)
