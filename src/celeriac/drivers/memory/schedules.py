"""The schedule store of ``memory://``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from celeriac.exceptions import OperationalError
from celeriac.message import ScheduleChanges, ScheduleRecord

if TYPE_CHECKING:
    from celeriac.drivers.memory.store import Store


class Schedules:
    """The entries of one store. ``version`` counts changes, ``removals`` times when some went."""

    def __init__(self) -> None:
        self.entries: dict[str, ScheduleRecord] = {}
        self.version = 0
        self.removals = 0


class MemoryScheduleStore:
    """Celeriac's ScheduleStore contract in one process."""

    def __init__(self, store: Store) -> None:
        self.store = store.url
        self._lock = store.lock
        self._kept = store.schedules
        self._open = False

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False

    def load(self, since: str = "") -> ScheduleChanges:
        kept = self._use()
        with self._lock:
            removals, _, version = since.partition(":")
            whole = removals != str(kept.removals) or not version.isdigit()
            after = 0 if whole else int(version)
            return ScheduleChanges(
                token=f"{kept.removals}:{kept.version}",
                records=tuple(one for one in kept.entries.values() if one.version > after),
                whole=whole,
            )

    def save(self, records: Sequence[ScheduleRecord]) -> list[int]:
        kept = self._use()
        with self._lock:
            return [self._save(kept, record) for record in records]

    def _save(self, kept: Schedules, record: ScheduleRecord) -> int:
        there = kept.entries.get(record.name)
        if (there.version if there is not None else 0) != record.version:
            return 0
        kept.version += 1
        kept.entries[record.name] = structs.replace(record, version=kept.version)
        return kept.version

    def remove(self, names: Sequence[str]) -> int:
        kept = self._use()
        with self._lock:
            gone = [name for name in dict.fromkeys(names) if kept.entries.pop(name, None)]
            kept.removals += bool(gone)
            return len(gone)

    def _use(self) -> Schedules:
        if not self._open:
            raise OperationalError(f"{self.store} is not open here: call open() first.")
        return self._kept
