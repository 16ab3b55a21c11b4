"""The record of attempts: a file to which every runner appends, so that it outlives them all."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from examples.backoffice.files import append


@dataclass(frozen=True, kw_only=True)
class Event:
    """An attempt at a task began or ended. ``retries`` and ``redelivered`` are what the task
    could see in its request; ``state`` is set at the end."""

    what: str
    task: str
    id: str
    retries: int
    pid: int
    at: float
    redelivered: bool = False
    state: str = ""


def write(path: Path, event: Event) -> None:
    append(path, json.dumps(asdict(event)))


class Attempts:
    """What the file says so far; ``update`` reads what was added since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.running: dict[int, Event] = {}
        self._offset = 0

    def update(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            event = Event(**json.loads(line))
            self.events.append(event)
            if event.what == "begin":
                self.running[event.pid] = event
            else:
                self.running.pop(event.pid, None)

    def begun(self, tasks: Collection[str]) -> list[Event]:
        """Every attempt at one of these tasks."""
        return [event for event in self.events if event.what == "begin" and event.task in tasks]

    def succeeded(self, tasks: Collection[str]) -> int:
        """How many tasks ended well, each counted once."""
        ends = (event for event in self.events if event.what == "end" and event.task in tasks)
        return len({event.id for event in ends if event.state == "SUCCESS"})

    def retried(self, tasks: Collection[str]) -> int:
        """How many attempts were made because an earlier one had raised."""
        return len({(event.id, event.retries) for event in self.begun(tasks) if event.retries})

    def repeated(self, tasks: Collection[str]) -> list[Event]:
        """The attempts that were made again because their process had died, by their own count:
        the same try of the same task had begun before."""
        seen: set[tuple[str, int]] = set()
        repeats = []
        for event in self.begun(tasks):
            if (event.id, event.retries) in seen:
                repeats.append(event)
            seen.add((event.id, event.retries))
        return repeats

    def last(self, tasks: Collection[str]) -> float | None:
        """When one of these tasks last began or ended, in epoch seconds."""
        return max((event.at for event in self.events if event.task in tasks), default=None)
