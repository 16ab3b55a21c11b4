"""Celeriac's ``Scheduler``: the base of schedulers that other packages bring, under Celery's names.

It keeps its entries in memory and sends what is due; a subclass keeps them somewhere better, by
``setup_schedule``, ``schedule``, ``reserve`` and ``sync``. The scheduler that is used unless
another is asked for is ``celeriac.beat.SharedScheduler``.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from celeriac.beat.entry import ScheduleEntry
from celeriac.beat.outgoing import evaluated, send_now
from celeriac.exceptions import CeleriacError
from celeriac.schedules import crontab

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["CLEANUP", "DEFAULT_MAX_INTERVAL", "Scheduler", "SchedulingError", "event_t"]

logger = logging.getLogger("celeriac.beat")

DEFAULT_MAX_INTERVAL = 300.0
CLEANUP = "celery.backend_cleanup"
_SYNC_EVERY = 180.0
_TICKS = 5.0  # seconds; entries may have been changed by others
# An entry is looked at this much before it is due, so that the time until then is not lost.
_DRIFT = 0.010


class SchedulingError(CeleriacError):
    """An entry's task could not be sent."""


class event_t(NamedTuple):
    """One place in the heap."""

    time: float
    priority: int
    entry: ScheduleEntry


class Scheduler:
    """``schedule`` is a dict of name to entry. ``tick`` sends what is due and returns in how many
    seconds it is to be called again."""

    Entry: ClassVar[Any] = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL
    sync_every: float = _SYNC_EVERY
    sync_every_tasks: int | None = None
    logger = logger

    def __init__(
        self,
        app: Celeriac,
        schedule: dict[str, Any] | None = None,
        max_interval: float | None = None,
        Producer: Any = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data: dict[str, Any] = {} if schedule is None else schedule
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.Producer = Producer
        self._heap: list[event_t] | None = None
        self.old_schedulers: dict[str, Any] | None = None
        self._last_sync: float | None = None
        self._tasks_since_sync = 0
        wanted = sync_every_tasks if sync_every_tasks is not None else app.conf.beat_sync_every
        self.sync_every_tasks = wanted or None
        if not lazy:
            self.setup_schedule()

    # --- entries

    def setup_schedule(self) -> None:
        """Read the entries; called once, before the first tick. This one has those of the
        application's code."""
        self.install_default_entries(self.data)
        self.merge_inplace(dict(self.app.conf.beat_schedule))

    def install_default_entries(self, data: Mapping[str, Any]) -> None:
        """Add what every application has, unless ``data`` has it."""
        entries = default_entries(self.app)
        self.update_from_dict({name: e for name, e in entries.items() if name not in data})

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add the entries, which may be dicts as in ``beat_schedule``."""
        self.schedule.update(
            {name: self._maybe_entry(name, entry) for name, entry in dict_.items()}
        )

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Make the schedule that of ``b``; what stays keeps its history."""
        schedule = self.schedule
        for name in [name for name in schedule if name not in b and name != CLEANUP]:
            schedule.pop(name, None)
        for name, value in b.items():
            entry = self._maybe_entry(name, value)
            if schedule.get(name):
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def add(self, **kwargs: Any) -> Any:
        """Add an entry of these fields."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**{"name": name, **entry}, app=self.app)

    def get_schedule(self) -> dict[str, Any]:
        return self.data

    def set_schedule(self, schedule: dict[str, Any]) -> None:
        self.data = schedule

    @property
    def schedule(self) -> Any:
        return self.get_schedule()

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        self.set_schedule(schedule)

    # --- the loop

    def tick(
        self,
        event_t: Any = event_t,
        min: Callable[..., float] = min,
        heappop: Callable[..., Any] = heapq.heappop,
        heappush: Callable[..., Any] = heapq.heappush,
    ) -> float:
        """Send what is due, one entry at a call; the seconds until the next call. An entry that is
        not due when it said it would be is put behind the others until it says it will be."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = dict(self.schedule)
            self.populate_heap()
        heap = self._heap
        if not heap:
            return float(min(self.max_interval, _TICKS))
        event = heap[0]
        due, wait = self._state(event.entry, self.is_due)
        if due:
            heappop(heap)
            following = self.reserve(event.entry)
            self.apply_entry(event.entry, producer=self.producer)
            heappush(heap, event_t(self._when(following, wait), event.priority, following))
            return 0.0
        when = self._when(event.entry, max(wait, _DRIFT))
        heapq.heapreplace(heap, event_t(when, event.priority, event.entry))
        return float(min(max(heap[0].time - time.time(), 0.0), self.max_interval))

    def _state(self, entry: Any, asked: Callable[[Any], tuple[bool, float]]) -> tuple[bool, float]:
        """Is it due? One entry that cannot say must not stop the others."""
        try:
            return asked(entry)
        except Exception:
            logger.exception(
                "%s cannot say when it is due, asked again in %g s", entry.name, self.max_interval
            )
            return False, self.max_interval

    def populate_heap(self, event_t: Any = event_t, heapify: Any = heapq.heapify) -> None:
        """Arrange the entries by the time at which each is to be looked at."""
        self._heap = []
        for entry in self.schedule.values():
            due, wait = self._state(entry, lambda entry: entry.is_due())
            self._heap.append(event_t(self._when(entry, 0 if due else wait), 5, entry))
        heapify(self._heap)

    def _when(
        self, entry: Any, next_time_to_run: float, mktime: Callable[..., float] | None = None
    ) -> float:
        return time.time() + self.adjust(next_time_to_run) if next_time_to_run else 0.0

    def adjust(self, n: float | timedelta | None, drift: float = -_DRIFT) -> float:
        seconds = n.total_seconds() if isinstance(n, timedelta) else float(n or 0.0)
        return max(seconds + drift, 0.0) if 0 < seconds < math.inf else min(seconds, 1e9)

    def is_due(self, entry: Any) -> tuple[bool, float]:
        return entry.is_due()  # type: ignore[no-any-return]

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Are the two the same, so that the heap need not be built again?"""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if set(old_schedules) != set(new_schedules):
            return False
        return all(
            old_schedules[name].schedule == new_schedules[name].schedule for name in old_schedules
        )

    def reserve(self, entry: Any) -> Any:
        """The entry after this run, put in its place."""
        following = self.schedule[entry.name] = next(entry)
        return following

    # --- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send it; an error is logged and stops nothing."""
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception:
            logger.exception("The periodic task %s could not be sent", entry.name)

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send the entry's task. Raises SchedulingError."""
        if advance:
            entry = self.reserve(entry)
        try:
            args, call = evaluated(entry.args, entry.kwargs)
            return self.send_task(entry.task, args, call, **entry.options)
        except Exception as exc:
            raise SchedulingError(
                f"The periodic task {entry.name} ({entry.task}) could not be sent: {exc}"
            ) from exc
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, name: str, args: Any, kwargs: Any, **options: Any) -> Any:
        return send_now(self.app, name, tuple(args or ()), dict(kwargs or {}), options)

    # --- keeping

    def should_sync(self) -> bool:
        """Is it time to write the state down?"""
        now = time.monotonic()
        if self._last_sync is None or now - self._last_sync > self.sync_every:
            return True
        return bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)

    def _do_sync(self) -> None:
        try:
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Write the state down. This one keeps none."""

    def close(self) -> None:
        self.sync()

    @property
    def connection(self) -> Any:
        return self.app.producer.broker

    @property
    def producer(self) -> Any:
        return self.app.producer

    @property
    def info(self) -> str:
        """What the banner says about this scheduler."""
        return ""


def default_entries(app: Celeriac) -> dict[str, dict[str, Any]]:
    """What every application has: the daily clean-up of results that do not expire by
    themselves."""
    if not app.conf.result_expires:
        return {}
    results = app.make_results()
    if results is None or results.capabilities.expires_results:
        return {}
    return {
        CLEANUP: {
            "task": CLEANUP,
            "schedule": crontab("0", "4", "*"),
            "options": {"expires": 12 * 3600},
        }
    }
