"""One scheduler's view of the store: the entries and when each is to be looked at."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import structs

from celeriac.beat.entries import Definition, stored_scope
from celeriac.beat.firing import LATE, Progress, jitter_of, next_nominal, progress_of
from celeriac.contracts import ScheduleStore
from celeriac.message import ScheduleRecord

__all__ = ["Book", "Item"]

logger = logging.getLogger("celeriac.beat")

AHEAD: Final = 5.0  # seconds: clocks of machines differ
STANDING: Final = 10.0  # seconds for which nobody has changed a record that is ahead of the clock
POLL: Final = 5.0
_FAR: Final = 1e12


class Item:
    """One entry. ``base``: the instant after which its next nominal time lies, which is
    ``nominal``. ``rewound``: that instant on a clock that was set back. ``known``: a nominal time
    and the one after it."""

    __slots__ = (
        "base",
        "definition",
        "due",
        "known",
        "nominal",
        "progress",
        "record",
        "rewound",
        "seen",
    )

    def __init__(self, record: ScheduleRecord, definition: Definition, seen: float) -> None:
        self.record = record
        self.definition = definition
        self.progress: Progress = progress_of(record)
        self.seen = seen  # elapsed time when this version was first seen
        self.base = 0.0
        self.due = _FAR
        self.nominal: float | None = None
        self.rewound: float | None = None
        self.known: tuple[float, float | None] | None = None


class Book:
    """``local``: entries of this process's code, for those that the store cannot hold whole.
    Entries of applications with another name are passed over."""

    def __init__(
        self, store: ScheduleStore, scope: str, local: Mapping[str, Definition] | None = None
    ) -> None:
        self.store = store
        self.scope = scope
        self.items: dict[str, Item] = {}
        self._local = dict(local or {})
        self._token = ""
        self._refused: set[str] = set()  # records that somebody else seems to have changed
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self._stepped = 0.0  # elapsed time when the clock was last seen to be set back

    # --- reading

    def refresh(self, now: float, elapsed: float) -> None:
        """Take in what others have changed. Cheap if they have not. Raises OperationalError."""
        changes = self.store.load(self._token)
        if not (changes.whole or self._refused.issubset(one.name for one in changes.records)):
            # Nobody was quicker: the store has come back without its last writes.
            changes = self.store.load()
        self._refused.clear()
        if changes.whole:
            names = {record.name for record in changes.records}
            for name in [name for name in self.items if name not in names]:
                del self.items[name]
        for record in changes.records:
            known = self.items.get(record.name)
            if known is None or known.record.version != record.version:
                self._take(record, known, now, elapsed)
        self._token = changes.token

    def _take(self, record: ScheduleRecord, known: Item | None, now: float, elapsed: float) -> None:
        if known is not None and known.record.payload == record.payload:
            definition: Definition | None = known.definition
        else:
            definition = self._read(record)
        if definition is None:
            self.items.pop(record.name, None)
            return
        item = self.items[record.name] = Item(record, definition, elapsed)
        self.arrange(item, now, elapsed)

    def _read(self, record: ScheduleRecord) -> Definition | None:
        try:
            if stored_scope(record.payload) != self.scope:
                return None
            found = Definition.from_payload(record.name, record.payload)
        except Exception as wrong:
            logger.error("The stored entry %s cannot be used: %s", record.name, wrong)
            return None
        if found is None:
            found = self._local.get(record.name)
            if found is None:
                logger.warning(
                    "The entry %s can only be sent by a scheduler that has it in its code: "
                    "it is left to those.",
                    record.name,
                )
        return found

    # --- when

    def arrange(self, item: Item, now: float, elapsed: float) -> None:
        """Work out when the item is to be looked at next."""
        record = item.record
        item.due = _FAR
        if record.paused:
            return
        if item.definition.polled:
            self._push(item, self._polled_due(item, now))
            return
        base = record.last_nominal if record.last_nominal is not None else record.anchor
        if base - now > AHEAD:
            # The clock was set back, or that of another machine is ahead. Somebody whose clock is
            # ahead goes on changing the record; a time that will come again is nobody's.
            wait = min(base - now, item.seen + STANDING - elapsed)
            if item.seen > self._stepped and wait > 0:
                item.base, item.nominal = base, None
                self._push(item, now + max(wait, 1.0))
                return
            after = item.rewound if item.rewound is not None else now
            if next_nominal(item.definition, after, record.anchor) == base:
                after = base  # that one has been sent
            base = after
        item.base = base
        item.nominal = self._nominal_after(item, base)
        if item.nominal is not None:
            self._push(item, item.nominal + jitter_of(item.definition, item.nominal))

    def _nominal_after(self, item: Item, base: float) -> float | None:
        if item.known is not None and item.known[0] == base:
            return item.known[1]
        try:
            return next_nominal(item.definition, base, item.record.anchor)
        except Exception:
            logger.exception("The schedule of %s gives no time: it is left out", item.record.name)
            return None

    def _polled_due(self, item: Item, now: float) -> float:
        try:
            state = item.definition.schedule.is_due(self.last_run(item))
        except Exception:
            logger.exception("The schedule of %s cannot say when it is due", item.record.name)
            return now + POLL
        due, wait = state
        return now if due else now + min(max(float(wait), 0.01), POLL)

    @staticmethod
    def last_run(item: Item) -> datetime:
        """What a schedule that is asked again and again is told."""
        last = item.record.last_nominal
        return datetime.fromtimestamp(
            last if last is not None else item.record.anchor, item.definition.zone
        )

    def postpone(self, item: Item, until: float) -> None:
        """Look at it again then."""
        self._push(item, until)

    def clock_changed(self, now: float, elapsed: float, moved: float) -> None:
        """Arrange everything anew: the clock was set by so many seconds."""
        if moved < 0:
            self._stepped = elapsed
        self._heap.clear()
        for item in self.items.values():
            if moved < 0:
                item.rewound = max(item.base + moved, now - LATE)
            self.arrange(item, now, elapsed)

    def _push(self, item: Item, due: float) -> None:
        item.due = due
        heapq.heappush(self._heap, (due, next(self._numbers), item))

    def _is_current(self, due: float, item: Item) -> bool:
        return item.due == due and self.items.get(item.record.name) is item

    def next_due(self) -> float | None:
        heap = self._heap
        while heap and not self._is_current(heap[0][0], heap[0][2]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Item]:
        """The items to be looked at now; each is to be arranged or postponed again."""
        found = []
        while (due := self.next_due()) is not None and due <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found

    # --- writing

    def save(self, pairs: Sequence[tuple[Item, ScheduleRecord]], now: float, elapsed: float) -> int:
        """Store the records; how many were stored. Those that somebody else has changed meanwhile
        are taken from the store at the next ``refresh``."""
        versions = self.store.save([record for _, record in pairs])
        for (item, record), version in zip(pairs, versions, strict=True):
            if version:
                item.record = structs.replace(record, version=version)
                item.progress = progress_of(record)
                item.seen = elapsed
                self.arrange(item, now, elapsed)
            else:
                item.due = _FAR
                self._refused.add(record.name)
        return sum(map(bool, versions))
